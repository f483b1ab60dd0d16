"""The journal of a home: what is owed to its copies, and who delivers it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from polystore.model import Backlog, Key, OutboxRow, RetryRow, Settlement, StoredVector, TargetRow


@runtime_checkable
class SupportsJournal(Protocol):
    """Outbox, retry rows, dead letters, workers and placements of a home. All in terms of durable rows: any number of
    processes may work on one journal, and every method may be repeated."""

    async def beat(self, worker: str) -> frozenset[str]:
        """Say that `worker` lives (the first call registers it) and return the live workers: those heard of less than
        5 s ago, or whatever the home knows better (SQLite: who holds the lock of its file)."""
        ...

    async def retire(self, worker: str) -> None:
        """Leave: the worker's outbox rows become ownerless, its registration ends. Its leases stay."""
        ...

    async def hold_lease(self, name: str, worker: str, ttl_s: float) -> bool:
        """Take a lease, or go on holding it: nobody else gets it for `ttl_s` from now, by the journal's clock; 0 gives
        it up. False: another worker has it, and nothing changed. Who has one may have lost it when `ttl_s` have passed
        since it asked, by its own monotonic clock; what it has sent until then may still be carried out later."""
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
        many. Rows that overwrite: one of them may be a repair that was parked."""
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

    async def remember(self, etype: str, placement: str, was: str | None = None) -> bool:
        """Remember a placement; with `was` only while that, or the same placement, is what stands. False: it is not."""
        ...

    async def targets(self) -> list[TargetRow]: ...

    async def set_target(self, row: TargetRow, was: TargetRow | None = None) -> None:
        """Insert or change a copy; with `was` only while that is what stands (`TargetRow.stands`), so that what was
        decided on an older state changes nothing. Commits that begin afterwards use it in their masks, unless it is
        off. Raises IntegrityViolation when the bit belongs to another copy of the type, or the copy has another bit:
        two workers that add copies at once see which of them was first."""
        ...

    async def backfill(self, row: TargetRow, limit: int) -> TargetRow:
        """Owe the copy the next `limit` records of its type after `row.cursor` (rows of state b, due now), advance and
        store the cursor in the same transaction; cursor "" means that the end was reached (then nothing happens),
        None that nothing was owed yet. Returns the copy as it stands: a status set meanwhile stays, and where another
        cursor stands than `row.cursor`, nothing happens."""
        ...

    async def written_since(self, etype: str, version: int, limit: int) -> list[OutboxRow]:
        """The records and tombstones of a type that stand at this version or a later one, in the order of versions, at
        most `limit`; `targets` is 0."""
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
        the live record's text (`polystore.model.text_hash`) is dropped: the text changed or went meanwhile. Raises
        SchemaMismatch when another process has prepared the home for another embedder of the field since."""
        ...

    async def expired(self, etypes: Sequence[str], limit: int) -> list[Key]:
        """Keys of records of these types whose time is over, by the home's clock, and which still stand: they are
        deleted by commits of `Write("expire", ...)`."""
        ...

    async def forget_vectors(self, etype: str, but_of: Sequence[str], limit: int) -> int:
        """Remove at most `limit` of the kept vectors of this type that other embedders than these made; returns how
        many. What callers gave stays, and so does what the home's own vector facet serves."""
        ...

    async def purge(self, now_us: int, tombstone_ttl_us: int) -> int:
        """Remove tombstones older than the given age whose key has no outbox, retry or parked row, and operation ids
        older than 24 h; returns how many of both."""
        ...
