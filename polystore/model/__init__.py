"""Frozen values that travel between the facade, the consistency manager and the adapters.

A *body* is the plain form of a record: a mapping of field name to `str`, `int`, `float`, `bool`, `bytes`, aware UTC
`datetime`, `date`, `Decimal`, `UUID`, `None`, or JSON-like lists and dicts for nested fields. `EntityType` makes and
reads bodies; adapters store and return them unchanged.
"""

from polystore.model.files import FileRef
from polystore.model.journal import Backlog, Done, OutboxRow, RetryRow, Settlement, StoredVector, TargetRow
from polystore.model.placement import Considered, Placement
from polystore.model.queries import Direction, Match, Reached
from polystore.model.records import (
    APPLIED,
    CALLER,
    EVERYTHING,
    FIRST_VERSION,
    HASH_SPACE,
    KEY_BYTES_MAX,
    STALE,
    TENANT_BYTES_MAX,
    VALUE_BYTES_MAX,
    Body,
    Change,
    HashSpan,
    Instance,
    Key,
    Limits,
    Outcome,
    Page,
    Record,
    Stamp,
    Value,
    Vectors,
    key_hash,
    text_hash,
    vector_digest,
)
from polystore.model.writes import Commit, Committed, OpId, Write, Written

__all__ = [
    "APPLIED",
    "CALLER",
    "EVERYTHING",
    "FIRST_VERSION",
    "HASH_SPACE",
    "KEY_BYTES_MAX",
    "STALE",
    "TENANT_BYTES_MAX",
    "VALUE_BYTES_MAX",
    "Backlog",
    "Body",
    "Change",
    "Commit",
    "Committed",
    "Considered",
    "Direction",
    "Done",
    "FileRef",
    "HashSpan",
    "Instance",
    "Key",
    "Limits",
    "Match",
    "OpId",
    "OutboxRow",
    "Outcome",
    "Page",
    "Placement",
    "Reached",
    "Record",
    "RetryRow",
    "Settlement",
    "Stamp",
    "StoredVector",
    "TargetRow",
    "Value",
    "Vectors",
    "Write",
    "Written",
    "key_hash",
    "text_hash",
    "vector_digest",
]
