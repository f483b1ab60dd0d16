"""Records: what every adapter has, what a home has beside it, and how a store is made ready."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import msgspec

from polystore.entity import EntityType
from polystore.env import Env
from polystore.errors import DimensionMismatch
from polystore.facets import Metric
from polystore.model import (
    Change,
    Commit,
    Committed,
    HashSpan,
    Instance,
    Key,
    Limits,
    Outcome,
    Page,
    Record,
    Vectors,
)


class Repository(Protocol):
    """What every adapter has."""

    capabilities: frozenset[type]
    limits: Limits

    async def get(self, keys: Sequence[Key]) -> list[Record | None]:
        """The records in the order asked. A deleted record comes back as its tombstone (`Record.body` None) while the
        tombstone is kept, and so does a record whose time is over; None where nothing is known of the key. Raises
        Unavailable, DecodeError."""
        ...

    async def apply(self, changes: Sequence[Change]) -> list[Outcome]:
        """Bring copies to the given versions, each only if newer than what stands: repeats, reordering and late calls
        change nothing. One that `overwrites` takes the place of what stands at its own version, too, with its facets
        and vectors; what is newer stays. A delete leaves a tombstone that holds against older changes. At most
        `limits.batch_max` changes, several per key allowed; of more, all are taken, or ValueTooLarge is raised and none
        is. One bad change is `rejected` by itself; an outage raises."""
        ...

    async def scan(self, etype: str, tenant: str, span: HashSpan, cursor: str | None, limit: int) -> Page:
        """Stamps of the live records whose hash is in the span, sorted by (h, id), recomputed from what is stored.
        `cursor` is the last page's. One that cannot be read any more has the hash b"" and the fault UNREADABLE, where
        the store knows its key and version all the same."""
        ...

    async def tenants(self, etype: str) -> list[str]:
        """The tenants that have live records of this type here, sorted: verify walks both sides tenant by tenant."""
        ...

    async def newest(self, etype: str) -> int:
        """The highest version of this type that a home has drawn, or a copy has held, ever; 0: none. A copy that is
        ahead of its home shows that the home was restored to the past."""
        ...

    async def ping(self) -> Instance:
        """Ask the server who it is. Raises Unavailable."""
        ...

    async def aclose(self) -> None:
        """Release everything. Idempotent; calls under way end with an error or their result. Clients that the user
        passed in stay open."""
        ...


class VectorSpec(msgspec.Struct, frozen=True):
    """One vector field of an entity: fixed at `prepare`."""

    dimension: int
    metric: Metric
    embedder: str


class Layout(msgspec.Struct, frozen=True):
    """What one store holds of one entity type. home: it is the source of truth. facets: what it is asked for; a home
    with facets serves them in the same commit. kind: facts and state have a home and nothing else."""

    entity: EntityType[Any]
    home: bool
    facets: frozenset[Literal["full_text", "vector", "graph"]]
    vectors: Mapping[str, VectorSpec] = {}
    kind: Literal["record", "fact", "state"] = "record"

    def served(self, vectors: Vectors) -> dict[str, bytes]:
        """Those of the vectors whose fields this store serves. Raises DimensionMismatch."""
        if not vectors or "vector" not in self.facets:
            return {}
        served = {field: vectors[field] for field in self.vectors if field in vectors}
        for field, packed in served.items():
            dimension = self.vectors[field].dimension
            if len(packed) != 4 * dimension:
                raise DimensionMismatch(
                    f"{self.entity.name}.{field}: the vector has {len(packed)} bytes, {dimension} components need "
                    f"{4 * dimension}"
                )
        return served


@runtime_checkable
class SupportsSchema(Protocol):
    async def prepare(self, layouts: Sequence[Layout], *, create: bool) -> None:
        """Make the store ready for these entity types; called once, before any other call about them.

        `create`: make what is missing and carry out the changes that lose nothing (`polystore.evolution`); else only
        compare. Raises SchemaMismatch (naming what differs and what to do), StoreCorrupt, PermissionDenied.
        """
        ...


@runtime_checkable
class SupportsRebuild(Protocol):
    """A copy with a second place on its server, where all that it keeps can be built anew beside the first: `connect`
    takes the option `place`, 1 or 2. What is in one is not seen from the other."""

    async def clear(self, etype: str) -> None:
        """Remove everything that is held of this type in this place, and what is known of it: tombstones, schema, the
        newest version. `prepare` makes it anew. Nothing happens where nothing is."""
        ...


@runtime_checkable
class SupportsAlias(Protocol):
    """Claimed by a store that others ask, too, past polystore: by a name of each entity type that stays the same,
    whichever of the store's places serves."""

    async def take_alias(self, etypes: Sequence[str], create: bool) -> None:
        """From now on the names of these types stand for this place and for nothing else; they change over in one step,
        so that no question finds none or two. Nothing happens where it is so. Without `create` only compare.

        Raises SchemaMismatch (naming what differs and what to do) for a name that does not stand for this place, where
        that is not to be changed or cannot be, and for a type that is not prepared; PermissionDenied.
        """
        ...


@runtime_checkable
class SupportsCommit(Protocol):
    """A home: records and the duty to deliver them, in one commit."""

    async def commit(self, commits: Sequence[Commit]) -> list[Committed | Exception]:
        """Carry out each commit atomically, apart from the others; they may share a transaction.

        The answer holds per commit its result or the error that prevented it (VersionConflict, AlreadyExists,
        NotFound, IntegrityViolation, InvalidData for a reused op_id): then nothing of that commit was written. The
        writes of a commit happen in order and see one another; a unique value is free once its holder gave it up.
        `expect_version` is judged first (NotFound, VersionConflict), then the kind of the write. After a
        result, versions, records, tombstones, outbox rows and marks are durable. An outage raises for all:
        Unavailable and StoreFull (nothing written) or OutcomeUnknown. Versions grow per key, whatever runs at the same
        time, and are drawn under the key's lock.
        """
        ...


@runtime_checkable
class SupportsInlineGet(Protocol):
    """An in-process store that reads single rows faster than a task switch."""

    def get_now(self, key: Key) -> Record | None:
        """Like `get` of one key, without leaving the caller's thread. Raises Unavailable when it would have to wait:
        the caller then uses `get`."""
        ...


class Connect(Protocol):
    """An adapter's entry point."""

    async def __call__(self, url: str, options: Mapping[str, Any], env: Env) -> Repository: ...
