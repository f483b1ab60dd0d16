"""Planted bugs: mistakes that systems of this kind were really shipped with, and some that were made here. Each is a
patch of production code for the length of a `with planted(name)`; a simulation that does not find it is worth nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import math
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any
from unittest import mock

from msgspec.structs import replace
from polystore_adapters.memory import MemoryServer, cache
from polystore_adapters.memory.lease import Control, Held

from polystore import journaled
from polystore.cache import CacheStore
from polystore.consistency import facts, retries
from polystore.consistency.delivery import Delivery
from polystore.consistency.embedding import Embedders
from polystore.consistency.facts import Facts
from polystore.consistency.filling import Filling
from polystore.consistency.leases import Leases
from polystore.consistency.line import Line
from polystore.consistency.mending import Job, Mender
from polystore.consistency.moving import Mover
from polystore.consistency.tasks import SyncTask
from polystore.consistency.verify import Side, Verifier
from polystore.errors import PolystoreError
from polystore.model import (
    APPLIED,
    Change,
    Commit,
    Committed,
    Done,
    HashSpan,
    Key,
    Outcome,
    Placement,
    PointRow,
    Settlement,
    StoredVector,
    TargetRow,
    Write,
    Written,
    text_hash,
)
from polystore.model import Held as HeldBody
from polystore.protocols import Fill
from polystore.store import Store
from polystore.testing.simulation.network import SimRepository

Patch = tuple[object, str, Callable[..., Any]]
"""Owner, attribute, what makes the wrong one of the right one."""


def _no_guard(right: Callable[..., Outcome]) -> Callable[..., Outcome]:
    def apply(self: MemoryServer, change: Change) -> Outcome:
        self.remove(change.key)  # so that nothing newer can stand in the way
        return right(self, change)

    return apply


def _hard_delete(right: Callable[..., Outcome]) -> Callable[..., Outcome]:
    def apply(self: MemoryServer, change: Change) -> Outcome:
        outcome = right(self, change)
        if change.deleted and outcome.status == "applied":
            self.remove(change.key)
        return outcome

    return apply


def _ack_loaded(right: Callable[..., bool]) -> Callable[..., bool]:
    def take(self: Line, task: SyncTask) -> bool:
        return right(self, replace(task, version=task.change.version))

    return take


def _ack_first(right: Callable[..., Any]) -> Callable[..., Any]:
    async def deliver(self: Delivery, batch: Sequence[SyncTask]) -> None:
        await self.settle(Settlement([task.version for task in batch]))
        await right(self, batch)

    return deliver


def _version_before_lock(_right: Callable[..., Any]) -> Callable[..., Any]:
    async def commit(self: SimRepository, commits: Sequence[Commit]) -> list[Committed | Exception]:
        counter = vars(self.server)
        drawn = counter["_version"]  # when the request is sent, not when it is carried out
        counter["_version"] = drawn + sum(len(one.writes) for one in commits)

        def commit_with_drawn() -> list[Committed | Exception]:
            standing, counter["_version"] = counter["_version"], drawn
            try:
                return self.server.commit(commits)
            finally:
                counter["_version"] = standing

        commit_with_drawn.__name__ = "commit"
        return await self._call(commit_with_drawn)  # pyright: ignore[reportPrivateUsage]

    return commit


def _retry_ack_any(right: Callable[..., Done]) -> Callable[..., Done]:
    def done(target: str, key: Key, _version: int) -> Done:
        return right(target, key, 1 << 62)

    return done


def _oldest_of_a_batch(right: Callable[..., Any]) -> Callable[..., Any]:
    def newest(self: Delivery, batch: Sequence[SyncTask]) -> Any:
        first: dict[Key, SyncTask] = {}
        for task in batch:
            first.setdefault(task.change.key, task)
        return right(self, list(first.values()))

    return newest


def _any_vector(right: Callable[..., Any]) -> Callable[..., Any]:
    def complete(
        self: Embedders, change: Change, stored: Mapping[tuple[str, str], StoredVector], store: str, **options: bool
    ) -> Any:
        fresh = text_hash(change.body["text"]) if change.body else b""
        held = {place: replace(one, text_hash=fresh) for place, one in stored.items()}
        return right(self, change, held, store, **options)

    return complete


def _outbox_only(_right: Callable[..., bool]) -> Callable[..., bool]:
    def pending(self: MemoryServer, _etype: str, _target: str, pairs: Sequence[tuple[int, int]]) -> bool:
        return any(version in self.outbox for _, version in pairs)

    return pending


def _dead_seem_alive(right: Callable[..., frozenset[str]]) -> Callable[..., frozenset[str]]:
    ever: dict[MemoryServer, frozenset[str]] = {}

    def beat(self: MemoryServer, worker: str) -> frozenset[str]:
        ever[self] = ever.get(self, frozenset()) | right(self, worker)
        return ever[self]

    return beat


def _forgotten(_right: Callable[..., Any]) -> Callable[..., Any]:
    def forgotten(*_args: object) -> None: ...

    return forgotten


def _left_out(_right: Callable[..., Any]) -> Callable[..., Any]:
    async def left_out(*_args: object) -> None: ...

    return left_out


def _not_recorded(_right: Callable[..., Any]) -> Callable[..., list[object]]:
    def spill(*_args: object) -> list[object]:
        return []

    return spill


def _taken_without_lease(right: Callable[..., Any]) -> Callable[..., Any]:
    def filled(held: Held | None, control: Control, fill: Fill, now_us: int) -> Any:
        leased = replace(control, token=fill.token, leased_until_us=now_us + 1, floor=0)
        after, _, taken = right(None if held is None else replace(held, version=0), leased, fill, now_us)
        return after, control, taken

    return filled


def _dropped_when_down(right: Callable[..., Any]) -> Callable[..., Any]:
    async def deliver(self: CacheStore, changes: Sequence[Change]) -> list[Outcome]:
        try:
            outcomes: list[Outcome] = await right(self, changes)
        except PolystoreError:
            return [APPLIED] * len(changes)
        return outcomes

    return deliver


def _joins(right: Callable[..., Any]) -> Callable[..., Any]:
    flights: dict[tuple[Store, tuple[Key, ...]], asyncio.Task[Any]] = {}

    async def get(self: Store, keys: Sequence[Key]) -> Any:
        """One flight for all who ask for the same, whenever it began."""
        asked = (self, tuple(keys))

        def landed(_: object) -> None:
            flights.pop(asked, None)

        flight = flights.get(asked)
        if flight is None:
            flight = flights[asked] = asyncio.ensure_future(right(self, keys))
            flight.add_done_callback(landed)
        return copy.deepcopy(await asyncio.shield(flight))

    return get


def _never_over(_right: Callable[..., bool]) -> Callable[..., bool]:
    def expired(_self: MemoryServer, _row: object) -> bool:
        return False

    return expired


def _swept_whatever_stands(right: Callable[..., Written]) -> Callable[..., Written]:
    def write(self: MemoryServer, drafts: Any, write: Write) -> Written:
        written_again = write.kind == "expire" and drafts.live(write.key) is not None
        return right(self, drafts, replace(write, kind="delete") if written_again else write)

    return write


def _kept_in_memory(_right: Callable[..., Any]) -> Callable[..., Any]:
    async def keep(_self: Facts, _journal: Store, _spill: object) -> str:
        return "pending"

    return keep


def _sent_anew(right: Callable[..., Any]) -> Callable[..., Any]:
    def points_spill(store: str, etype: str, points: Sequence[PointRow]) -> Any:
        return right(store, etype, [replace(point, at_us=point.at_us + 1_000_000) for point in points])

    return points_spill


def _gone_at_any_version(right: Callable[..., None]) -> Callable[..., None]:
    def settle_held(self: MemoryServer, held: Sequence[HeldBody]) -> None:
        standing = self.get([one.key for one in held])
        right(self, [replace(h, version=r.version) for h, r in zip(held, standing, strict=True) if r is not None])

    return settle_held


def _gone_though_owed(right: Callable[..., Any]) -> Callable[..., Any]:
    def held(self: Delivery, name: str, changes: Any, _failed: object) -> Any:
        return right(self, name, changes, ())

    return held


def _home_at_any_version(right: Callable[..., bool]) -> Callable[..., bool]:
    def complete(records: list[Any], i: int, found: Any) -> bool:
        there = found if found is None or records[i] is None else replace(found, version=records[i].version)
        return right(records, i, there)

    return complete


def _for_everybody(_right: Callable[..., Any]) -> Callable[..., Any]:
    async def held(self: Leases, store: Store) -> bool:
        vars(self)["_until"][store.name] = math.inf
        return True

    return held


def _pending_ignored(_right: Callable[..., Any]) -> Callable[..., Any]:
    async def settled(_self: Mender, _side: Side, versions: Mapping[Key, int]) -> set[Key]:
        return set(versions)

    return settled


def _deleted_at_first_sight(right: Callable[..., Any]) -> Callable[..., Any]:
    async def mend(self: Mender, verifier: Verifier, side: Side, span: HashSpan, found: Any, job: Job) -> None:
        extras = [one for one in found if one.problem == "extra"]
        gone = [Change(one.key, one.copy_version, 0, None, b"", 0, overwrites=True) for one in extras]
        if gone:
            await side.copy.deliver(gone)
        await right(self, verifier, side, span, found, job)

    return mend


def _equals_stay(right: Callable[..., Outcome]) -> Callable[..., Outcome]:
    def apply(self: MemoryServer, change: Change) -> Outcome:
        return right(self, replace(change, overwrites=False))

    return apply


def _first_part_only(right: Callable[..., TargetRow]) -> Callable[..., TargetRow]:
    def backfill(self: MemoryServer, row: TargetRow, limit: int) -> TargetRow:
        walked = replace(right(self, row, limit), cursor="")
        self.set_target(walked)
        return walked

    return backfill


def _nothing_wrong(_right: Callable[..., Any]) -> Callable[..., Any]:
    async def wrong(_self: Mover, _placement: Placement) -> str:
        return ""

    return wrong


def _complete_ones_only(_right: Callable[..., int]) -> Callable[..., int]:
    def mask(self: MemoryServer, etype: str) -> int:
        return sum(1 << row.bit for row in self.targets() if row.etype == etype and row.status == "active")

    return mask


def _at_once(right: Callable[..., Any]) -> Callable[..., Any]:
    async def end(self: Mover, line: Line, placement: Placement) -> None:
        vars(self)["_since"][placement.etype, "leaving"] = -math.inf
        await right(self, line, placement)

    return end


BUGS: dict[str, tuple[Patch, int]] = {
    "no_guard": ((MemoryServer, "_apply", _no_guard), 10),
    "hard_delete": ((MemoryServer, "_apply", _hard_delete), 10),
    "ack_loaded": ((Line, "take", _ack_loaded), 50),
    "ack_before_apply": ((Delivery, "deliver", _ack_first), 50),
    "version_before_lock": ((SimRepository, "commit", _version_before_lock), 50),
    "retry_ack_any_version": ((retries, "Done", _retry_ack_any), 100),
    "failure_not_recorded": ((Delivery, "_spill", _not_recorded), 50),
    "no_sweep": ((Line, "_sweep", _left_out), 100),
    "oldest_of_a_batch": ((Delivery, "_newest", _oldest_of_a_batch), 50),
    "vector_of_another_text": ((Embedders, "complete", _any_vector), 50),
    "op_forgotten": ((MemoryServer, "_done_before", _forgotten), 50),
    "pending_ignores_retries": ((MemoryServer, "pending", _outbox_only), 50),
    "leftovers_stay": ((Filling, "_leftovers", _left_out), 600),
    "lease_ignored_at_fill": ((cache, "filled", _taken_without_lease), 50),
    "invalidation_dropped_when_down": ((CacheStore, "deliver", _dropped_when_down), 50),
    "leased_read_joins": ((Store, "get", _joins), 100),
    "expired_is_seen": ((MemoryServer, "expired", _never_over), 20),
    "sweeps_what_was_written_again": ((MemoryServer, "_write", _swept_whatever_stands), 300),
    "facts_kept_in_memory": ((Facts, "_keep", _kept_in_memory), 50),
    "facts_sent_anew": ((facts, "points_spill", _sent_anew), 300),
    "body_gone_at_another_version": ((MemoryServer, "settle_held", _gone_at_any_version), 50),
    "body_gone_though_owed": ((Delivery, "held", _gone_though_owed), 50),
    "home_believed_at_any_version": ((journaled, "_complete", _home_at_any_version), 100),
    "lease_of_a_copy_ignored": ((Leases, "held", _for_everybody), 100),
    "repair_ignores_pending": ((Mender, "_settled", _pending_ignored), 200),
    "repair_deletes_at_first_sight": ((Mender, "_mend", _deleted_at_first_sight), 200),
    "repair_leaves_equals": ((MemoryServer, "_apply", _equals_stay), 100),
    "filled_in_part": ((MemoryServer, "backfill", _first_part_only), 300),
    "move_not_compared": ((Mover, "_wrong", _nothing_wrong), 300),
    "move_not_owed": ((MemoryServer, "mask", _complete_ones_only), 300),
    "move_ends_at_once": ((Mover, "_end", _at_once), 300),
    "dead_seem_alive": ((MemoryServer, "beat", _dead_seem_alive), 50),
}
"""Name -> the patch, and the number of seeds within which it must be found; those of repairs are looked for in seeds
whose copies are corrupted, those of moves in seeds that grow."""


@contextlib.contextmanager
def planted(name: str) -> Generator[None]:
    """Put the bug into the production code for the length of the block."""
    (owner, attribute, make), _ = BUGS[name]
    with mock.patch.object(owner, attribute, make(getattr(owner, attribute))):
        yield
