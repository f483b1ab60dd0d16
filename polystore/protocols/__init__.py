"""The contract between polystore and its adapters.

An adapter is a module with `async def connect(url, options, env) -> Repository`, registered as an entry point of the
group `polystore.adapters` under its URL scheme. What it returns implements `Repository` and as many of the `Supports*`
protocols as are true; it lists these in `capabilities`, and the conformance kit checks claim and signature both ways.

All calls are plural: one call carries one entity type and one tenant (commits: any). Adapters never retry; they
translate driver errors by code, never by message; `CancelledError` passes untouched. An outage raises `Unavailable`
(nothing was done) or `OutcomeUnknown`, never returns None. Values given in are never kept or changed; values returned
belong to the caller.
"""

from polystore.protocols.application import CapturesTables, SupportsApplicationTables
from polystore.protocols.bodies import SupportsKeptBodies
from polystore.protocols.cache import Fill, Invalidation, Leased, SupportsCache, SupportsInlineCache
from polystore.protocols.epoch import SupportsEpoch
from polystore.protocols.facts import FACTS_MAX, SupportsLog, SupportsSpill, SupportsTimeRange, first_run, spill_refused
from polystore.protocols.journal import SupportsJournal
from polystore.protocols.objects import SupportsFileClaims, SupportsObjects
from polystore.protocols.queries import (
    SupportsCounts,
    SupportsFilter,
    SupportsRefresh,
    SupportsTextSearch,
    SupportsTraversal,
    SupportsVectorSearch,
)
from polystore.protocols.records import (
    Connect,
    Layout,
    Repository,
    SupportsAlias,
    SupportsCommit,
    SupportsInlineGet,
    SupportsRebuild,
    SupportsSchema,
    VectorSpec,
)
from polystore.protocols.state import Changed, Fields, Leave, Number, StateRow, SupportsState

__all__ = [
    "FACTS_MAX",
    "CapturesTables",
    "Changed",
    "Connect",
    "Fields",
    "Fill",
    "Invalidation",
    "Layout",
    "Leased",
    "Leave",
    "Number",
    "Repository",
    "StateRow",
    "SupportsAlias",
    "SupportsApplicationTables",
    "SupportsCache",
    "SupportsCommit",
    "SupportsCounts",
    "SupportsEpoch",
    "SupportsFileClaims",
    "SupportsFilter",
    "SupportsInlineCache",
    "SupportsInlineGet",
    "SupportsJournal",
    "SupportsKeptBodies",
    "SupportsLog",
    "SupportsObjects",
    "SupportsRebuild",
    "SupportsRefresh",
    "SupportsSchema",
    "SupportsSpill",
    "SupportsState",
    "SupportsTextSearch",
    "SupportsTimeRange",
    "SupportsTraversal",
    "SupportsVectorSearch",
    "VectorSpec",
    "first_run",
    "spill_refused",
]
