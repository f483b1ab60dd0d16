"""polystore: one application, several databases, nothing lost between them.

Everything public is here. What declares entities and names values is imported at once; what opens stores is imported
from its module at its first use, so that `import polystore` loads no database and costs little.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from polystore.embedding import Embedder, HashedEmbedder, InlineEmbedder
from polystore.entity import entity
from polystore.env import new_id
from polystore.errors import (
    AlreadyExists,
    Backpressure,
    CircuitOpen,
    ConfigurationError,
    Conflict,
    DecodeError,
    DimensionMismatch,
    EntityError,
    IntegrityViolation,
    InvalidData,
    InvalidFilter,
    NotFound,
    OutcomeUnknown,
    PermissionDenied,
    PolystoreError,
    RateLimited,
    SchemaMismatch,
    StalenessTimeout,
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreTimeout,
    Unavailable,
    UnsupportedOperation,
    ValueTooLarge,
    VersionConflict,
    WorkLimitExceeded,
)
from polystore.facets import Edge, Embedding, FullText, Index, Measure, Needs, Relation, Unique
from polystore.filters import Condition, Expr, F, Field, Order
from polystore.model import Direction, FileRef
from polystore.rates import Allowance
from polystore.results import (
    Ack,
    Explored,
    Found,
    Hit,
    ImportReport,
    Point,
    Related,
    Stored,
    StoreStatus,
    Token,
    WriteResult,
)

if TYPE_CHECKING:
    from polystore.architecture import HybridDataArchitecture, Opening
    from polystore.collection import Channel, Collection, KeyValue, Limiter, Log, State, Subscription, Transaction
    from polystore.collection.files import Files
    from polystore.collection.sweeping import SweepReport
    from polystore.collection.untyped import Parts, Query, ReadResult
    from polystore.consistency.mending import RepairReport

    __version__: str

_LATER = {
    "Channel": "polystore.collection",
    "Collection": "polystore.collection",
    "Files": "polystore.collection.files",
    "HybridDataArchitecture": "polystore.architecture",
    "KeyValue": "polystore.collection",
    "Limiter": "polystore.collection",
    "Log": "polystore.collection",
    "Opening": "polystore.architecture",
    "Parts": "polystore.collection.untyped",
    "Query": "polystore.collection.untyped",
    "ReadResult": "polystore.collection.untyped",
    "RepairReport": "polystore.consistency.mending",
    "State": "polystore.collection",
    "Subscription": "polystore.collection",
    "SweepReport": "polystore.collection.sweeping",
    "Transaction": "polystore.collection",
}

__all__ = [
    "Ack",
    "Allowance",
    "AlreadyExists",
    "Backpressure",
    "Channel",
    "CircuitOpen",
    "Collection",
    "Condition",
    "ConfigurationError",
    "Conflict",
    "DecodeError",
    "DimensionMismatch",
    "Direction",
    "Edge",
    "Embedder",
    "Embedding",
    "EntityError",
    "Explored",
    "Expr",
    "F",
    "Field",
    "FileRef",
    "Files",
    "Found",
    "FullText",
    "HashedEmbedder",
    "Hit",
    "HybridDataArchitecture",
    "ImportReport",
    "Index",
    "InlineEmbedder",
    "IntegrityViolation",
    "InvalidData",
    "InvalidFilter",
    "KeyValue",
    "Limiter",
    "Log",
    "Measure",
    "Needs",
    "NotFound",
    "Opening",
    "Order",
    "OutcomeUnknown",
    "Parts",
    "PermissionDenied",
    "Point",
    "PolystoreError",
    "Query",
    "RateLimited",
    "ReadResult",
    "Related",
    "Relation",
    "RepairReport",
    "SchemaMismatch",
    "StalenessTimeout",
    "State",
    "StoreCorrupt",
    "StoreError",
    "StoreFull",
    "StoreStatus",
    "StoreTimeout",
    "Stored",
    "Subscription",
    "SweepReport",
    "Token",
    "Transaction",
    "Unavailable",
    "Unique",
    "UnsupportedOperation",
    "ValueTooLarge",
    "VersionConflict",
    "WorkLimitExceeded",
    "WriteResult",
    "entity",
    "new_id",
]

if not TYPE_CHECKING:  # a checker knows every name; with this function it would take any other one too

    def __getattr__(name):
        import importlib

        if name == "__version__":
            from importlib.metadata import version

            return version("polystore-hybrid")
        module = _LATER.get(name)
        if module is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(module), name)
        globals()[name] = value
        return value

    def __dir__():
        return sorted({*globals(), *_LATER})
