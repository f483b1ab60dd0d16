"""The contract between polystore and its adapters.

An adapter is a module with `async def connect(url, options, env) -> Repository`, registered as an entry point of the
group `polystore.adapters` under its URL scheme. What it returns implements `Repository` and as many of the `Supports*`
protocols as are true; it lists these in `capabilities`, and the conformance kit checks claim and signature both ways.

All calls are plural: one call carries one entity type and one tenant (commits: any). Adapters never retry; they
translate driver errors by code, never by message; `CancelledError` passes untouched. An outage raises `Unavailable`
(nothing was done) or `OutcomeUnknown`, never returns None. Values given in are never kept or changed; values returned
belong to the caller.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import msgspec

from polystore.entity import EntityType
from polystore.env import Env
from polystore.errors import DimensionMismatch
from polystore.facets import Metric
from polystore.filters import Checked, Sort
from polystore.model import (
    Backlog,
    Change,
    Commit,
    Committed,
    Direction,
    HashSpan,
    Instance,
    Key,
    Limits,
    Match,
    OutboxRow,
    Outcome,
    Page,
    Reached,
    Record,
    RetryRow,
    Settlement,
    StoredVector,
    TargetRow,
    Vectors,
)
from polystore.text import Phrase


class Repository(Protocol):
    """What every adapter has."""

    capabilities: frozenset[type]
    limits: Limits

    async def get(self, keys: Sequence[Key]) -> list[Record | None]:
        """The records in the order asked. A deleted record comes back as its tombstone (`Record.body` None) while the
        tombstone is kept; None where nothing is known of the key. Raises Unavailable, DecodeError."""
        ...

    async def apply(self, changes: Sequence[Change]) -> list[Outcome]:
        """Bring copies to the given versions, each only if newer than what stands: repeats, reordering and late calls
        change nothing. A delete leaves a tombstone that holds against older changes. At most `limits.batch_max`
        changes, several per key allowed; of more, all are taken, or ValueTooLarge is raised and none is. One bad change
        is `rejected` by itself; an outage raises."""
        ...

    async def scan(self, etype: str, tenant: str, span: HashSpan, cursor: str | None, limit: int) -> Page:
        """Stamps of the live records whose hash is in the span, sorted by (h, id), recomputed from what is stored.
        `cursor` is the last page's."""
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
    with facets serves them in the same commit."""

    entity: EntityType[Any]
    home: bool
    facets: frozenset[Literal["full_text", "vector", "graph"]]
    vectors: Mapping[str, VectorSpec] = {}

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
class SupportsJournal(Protocol):
    """Outbox, retry rows, dead letters, workers and placements of a home. All in terms of durable rows: any number of
    processes may work on one journal, and every method may be repeated."""

    async def beat(self, worker: str) -> frozenset[str]:
        """Say that `worker` lives (the first call registers it) and return the live workers: those heard of less than
        5 s ago, or whatever the home knows better (SQLite: who holds the lock of its file)."""
        ...

    async def retire(self, worker: str) -> None:
        """Leave: the worker's outbox rows become ownerless, its registration ends."""
        ...

    async def claim(self, worker: str, live: frozenset[str], etypes: Sequence[str], limit: int) -> list[OutboxRow]:
        """Take outbox rows of the given types that nobody alive owns, oldest first. Rows claimed more than 60 s ago
        count as unowned. Taking a row from a dead worker (an owner not in `live`) adds one to its claims, which the
        returned row shows. The worker's own rows are not taken again, see `claimed`."""
        ...

    async def claimed(self, worker: str, older_than_us: int, limit: int) -> list[OutboxRow]:
        """The worker's own rows claimed (or committed as their owner) before the given time, oldest first: what its
        memory may have lost. Changes nothing."""
        ...

    async def settle(self, settlement: Settlement) -> None:
        """Record the result of deliveries, see `Settlement`."""
        ...

    async def due(self, target: str, etypes: Sequence[str], now_us: int, limit: int) -> list[RetryRow]:
        """Retry and backfill rows of a copy whose time has come, the smallest `next_us` first, as they stand; then
        their `next_us` becomes now_us + 5 s, so that two workers rarely take the same row. Parked rows are not due."""
        ...

    async def awaken(self, target: str, keys: Sequence[Key] | None, within_us: int) -> int:
        """Make rows of a copy due (all when keys is None): at once, or spread at random over `within_us`, which moves
        those that were due already too. Parked rows stay. Returns how many."""
        ...

    async def pending(self, etype: str, target: str, pairs: Sequence[tuple[int, int]]) -> bool:
        """True while the copy is owed any of the (key hash, version) pairs, by outbox or retry row, parked ones too;
        and while it is not active, since it may then lack what it is not owed yet. One snapshot."""
        ...

    async def parked(self, target: str | None, cursor: str | None, limit: int) -> tuple[list[RetryRow], str | None]:
        """Dead letters sorted by target and key, and where to go on."""
        ...

    async def redrive(self, target: str | None, keys: Sequence[Key] | None) -> int:
        """Make dead letters retry rows again, due now, with attempts and hard_fails 0 and first_us now; returns how
        many."""
        ...

    async def drop(self, target: str | None, keys: Sequence[Key] | None) -> int:
        """Forget dead letters; returns how many. The copies stay as they are until the records change."""
        ...

    async def backlog(self) -> Backlog:
        """Counts of what is owed."""
        ...

    async def placements(self) -> dict[str, str]:
        """Entity name -> remembered placement (JSON). Asked before `prepare`: empty where nothing was ever prepared."""
        ...

    async def remember(self, etype: str, placement: str) -> None: ...

    async def targets(self) -> list[TargetRow]: ...

    async def set_target(self, row: TargetRow, was: TargetRow | None = None) -> None:
        """Insert or change a copy; with `was` only while that is what stands, so that what somebody decided on an older
        state changes nothing. Commits that begin afterwards use it in their masks, unless it is off. Raises
        IntegrityViolation when the bit belongs to another copy of the type, or the copy has another bit: two workers
        that add copies at once see which of them was first."""
        ...

    async def backfill(self, row: TargetRow, limit: int) -> TargetRow:
        """Owe the copy the next `limit` records of its type after `row.cursor` (rows of state b, due now), advance and
        store the cursor in the same transaction; cursor "" means that the end was reached (then nothing happens),
        None that nothing was owed yet. Returns the copy as it stands: a status set meanwhile stays."""
        ...

    async def mark(self, name: str) -> str | None:
        """The stored value of a commit's mark."""
        ...

    async def vectors(self, keys: Sequence[Key]) -> list[StoredVector]:
        """What embedders made of these records."""
        ...

    async def put_vectors(self, vectors: Sequence[StoredVector]) -> None:
        """Keep an embedder's results beside the home, replacing older ones; into the home's own vector facet too,
        where it serves that embedder's vectors and the caller brought none. A vector whose `text_hash` is not that of
        the live record's text (`polystore.model.text_hash`) is dropped: the text changed or went meanwhile."""
        ...

    async def purge(self, now_us: int, tombstone_ttl_us: int) -> int:
        """Remove tombstones older than the given age whose key has no outbox, retry or parked row, and operation ids
        older than 24 h; returns how many of both."""
        ...


@runtime_checkable
class SupportsInlineGet(Protocol):
    """An in-process store that reads single rows faster than a task switch."""

    def get_now(self, key: Key) -> Record | None:
        """Like `get` of one key, without leaving the caller's thread. Raises Unavailable when it would have to wait:
        the caller then uses `get`."""
        ...


@runtime_checkable
class SupportsFilter(Protocol):
    async def find(
        self, etype: str, tenant: str, where: Checked | None, order: Sequence[Sort], limit: int
    ) -> list[Record]:
        """Live records that satisfy the condition, sorted; missing values last. `order` ends with the key."""
        ...

    async def count(self, etype: str, tenant: str, where: Checked | None) -> int: ...


@runtime_checkable
class SupportsTextSearch(Protocol):
    async def search(
        self,
        etype: str,
        tenant: str,
        phrases: Sequence[Phrase],
        where: Checked | None,
        limit: int,
        after: tuple[float, str] | None,
    ) -> list[Match]:
        """Records in which all phrases occur (`polystore.text`), over all full-text fields together, best first by
        BM25, ties by id. `after` is the (score, id) of the last match of the page before."""
        ...


@runtime_checkable
class SupportsVectorSearch(Protocol):
    metrics: ClassVar[frozenset[str]]

    async def similar(
        self, etype: str, tenant: str, field: str, vector: bytes, where: Checked | None, limit: int
    ) -> list[Match]:
        """The nearest records by the field's metric, best first, ties by id. score: cosine similarity, inner product,
        or the negative Euclidean distance; the cosine with a vector of length 0 is 0. The condition is applied before
        the limit. Records without a vector of the field are not found. Raises DimensionMismatch."""
        ...


@runtime_checkable
class SupportsTraversal(Protocol):
    async def traverse(
        self, etype: str, tenant: str, id: str, types: Sequence[str], direction: Direction, depth: int, limit: int
    ) -> list[Reached]:
        """Nodes within `depth` steps over edges of the given types, each once at its shortest depth, nearest first,
        then by entity and id; never the start itself. Cycles end. An end of an edge is a node also where no record is
        known of it, and no edge leaves the tenant. A path's edge reads from the record that has it, also where it was
        walked against its direction. The start may be of a type that only others point to: this store need not be
        prepared for it."""
        ...


class Connect(Protocol):
    """An adapter's entry point."""

    async def __call__(self, url: str, options: Mapping[str, Any], env: Env) -> Repository: ...
