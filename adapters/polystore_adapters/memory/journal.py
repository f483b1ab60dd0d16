"""The journal of a memory server: the duty to deliver, in rows that outlive the worker that wrote them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import msgspec

from polystore.env import Env
from polystore.errors import IntegrityViolation
from polystore.model import (
    CALLER,
    Backlog,
    Key,
    OutboxRow,
    RetryRow,
    Settlement,
    StoredVector,
    TargetRow,
    text_hash,
)

from .bodies import KeptBodies
from .tables import Row, Tombstone, with_vectors

ALIVE_US = 5_000_000
"""A worker that was heard of less than this ago lives (consistency.md 3.3)."""
TAKEOVER_US = 60_000_000
"""Outbox rows claimed longer ago than this are anybody's."""
DUE_AGAIN_US = 5_000_000
"""How long a retry row handed out by `due` stays away from other workers."""
OP_TTL_US = 24 * 3600 * 1_000_000


class Owed(msgspec.Struct):
    """An outbox row and who delivers it."""

    row: OutboxRow
    owner: str | None
    claimed_us: int
    created_us: int


class Operation(msgspec.Struct, frozen=True):
    """What a commit with an op_id did: the answer to everybody who sends it again."""

    request_hash: bytes
    answers: Sequence[tuple[int, bool]]
    created_us: int


class Journal(KeptBodies):
    """Outbox, retry rows, workers, targets and marks. Every method is one transaction."""

    def __init__(self, env: Env) -> None:
        super().__init__(env)
        self.outbox: dict[int, Owed] = {}
        self.operations: dict[tuple[str, str], Operation] = {}
        self.marks: dict[str, str] = {}
        self.stored: dict[Key, dict[tuple[str, str], StoredVector]] = {}
        self._retry: dict[str, dict[Key, RetryRow]] = {}
        self._beats: dict[str, int] = {}
        self._leases: dict[str, tuple[str, int]] = {}
        self._targets: dict[tuple[str, str], TargetRow] = {}
        self._placements: dict[str, str] = {}

    # -- workers ----------------------------------------------------------------------------------------------

    def beat(self, worker: str) -> frozenset[str]:
        now = self.env.now_us()
        self._beats[worker] = now
        self._beats = {name: at for name, at in self._beats.items() if now - at < ALIVE_US}
        return frozenset(self._beats)

    def retire(self, worker: str) -> None:
        self._beats.pop(worker, None)
        for owed in self.outbox.values():
            if owed.owner == worker:
                owed.owner = None

    def hold_lease(self, name: str, worker: str, ttl_s: float) -> bool:
        now = self.env.now_us()
        owner, until_us = self._leases.get(name, (worker, 0))
        if owner != worker and now < until_us:
            return False
        self._leases[name] = (worker, now + int(ttl_s * 1e6))
        return True

    # -- outbox -----------------------------------------------------------------------------------------------

    def claim(self, worker: str, live: frozenset[str], etypes: Sequence[str], limit: int) -> list[OutboxRow]:
        now = self.env.now_us()
        taken: list[OutboxRow] = []
        for owed in self.outbox.values():  # in the order of their versions
            if len(taken) >= limit:
                break
            dead = owed.owner is not None and owed.owner not in live
            free = owed.owner is None or dead or owed.claimed_us < now - TAKEOVER_US
            if free and owed.owner != worker and owed.row.key.etype in etypes:
                owed.row = msgspec.structs.replace(owed.row, claims=owed.row.claims + dead)
                owed.owner, owed.claimed_us = worker, now
                taken.append(owed.row)
        return taken

    def claimed(self, worker: str, older_than_us: int, limit: int) -> list[OutboxRow]:
        own = [o.row for o in self.outbox.values() if o.owner == worker and o.claimed_us < older_than_us]
        return own[:limit]

    def settle(self, settlement: Settlement) -> None:
        for row in settlement.owed:
            self._owe(row)
        for done in settlement.done:
            rows = self._retry.get(done.target, {})
            if done.key in rows and rows[done.key].version <= done.version:
                del rows[done.key]
        for version in settlement.delivered:
            self.outbox.pop(version, None)
        self.settle_held(settlement.held)

    def _owe(self, new: RetryRow) -> None:
        """Merge a row into what the copy is owed already, see `Settlement`."""
        rows = self._retry.setdefault(new.target, {})
        old = rows.get(new.key)
        if old is None:
            rows[new.key] = new
            return
        keeps_parked = old.state == "p" and new.version == old.version
        newer = old if new.version < old.version or keeps_parked else new
        rows[new.key] = msgspec.structs.replace(
            newer,
            min_version=min(old.min_version, new.min_version),
            attempts=max(old.attempts, new.attempts),
            hard_fails=max(old.hard_fails, new.hard_fails),
            first_us=old.first_us or new.first_us,
        )

    # -- retry rows and dead letters --------------------------------------------------------------------------

    def due(self, target: str, etypes: Sequence[str], now_us: int, limit: int) -> list[RetryRow]:
        waiting = [
            row
            for row in self._retry.get(target, {}).values()
            if row.state != "p" and row.next_us <= now_us and row.key.etype in etypes
        ]
        taken = sorted(waiting, key=lambda row: (row.next_us, row.version))[:limit]
        for row in taken:
            self._put(msgspec.structs.replace(row, next_us=now_us + DUE_AGAIN_US))
        return taken

    def awaken(self, target: str, keys: Sequence[Key] | None, within_us: int) -> int:
        now = self.env.now_us()
        waiting = list(self._owed_rows(target, keys, parked=False))
        for row in waiting:
            next_us = now + self.env.random.randint(0, within_us)
            self._put(msgspec.structs.replace(row, next_us=next_us))
        return len(waiting)

    def pending(self, etype: str, target: str, pairs: Sequence[tuple[int, int]]) -> bool:
        copy = self._targets.get((etype, target))
        if copy is None or copy.status != "active":
            return True
        for h, version in pairs:
            owed = self.outbox.get(version)
            if owed is not None and owed.row.key.etype == etype and owed.row.targets >> copy.bit & 1:
                return True
            for row in self._retry.get(target, {}).values():
                if row.h == h and row.key.etype == etype and row.min_version <= version:
                    return True
        return False

    def parked(self, target: str | None, cursor: str | None, limit: int) -> tuple[list[RetryRow], str | None]:
        after = None if cursor is None else tuple(json.loads(cursor))
        rows = sorted(self._owed_rows(target, None, parked=True), key=_place)
        rest = [row for row in rows if after is None or _place(row) > after]
        return rest[:limit], json.dumps(_place(rest[limit - 1])) if len(rest) > limit else None

    def redrive(self, target: str | None, keys: Sequence[Key] | None) -> int:
        now = self.env.now_us()
        rows = list(self._owed_rows(target, keys, parked=True))
        for row in rows:
            self._put(msgspec.structs.replace(row, state="o", attempts=0, hard_fails=0, first_us=now, next_us=now))
        return len(rows)

    def drop(self, target: str | None, keys: Sequence[Key] | None) -> int:
        rows = list(self._owed_rows(target, keys, parked=True))
        for row in rows:
            del self._retry[row.target][row.key]
        return len(rows)

    def _owed_rows(self, target: str | None, keys: Sequence[Key] | None, *, parked: bool) -> Iterator[RetryRow]:
        for name, rows in self._retry.items():
            if target is None or name == target:
                chosen = rows.values() if keys is None else (rows[key] for key in keys if key in rows)
                yield from (row for row in chosen if (row.state == "p") == parked)

    def _put(self, row: RetryRow) -> None:
        self._retry[row.target][row.key] = row

    def backlog(self) -> Backlog:
        unsent: dict[str, list[Owed]] = {}
        for owed in self.outbox.values():
            unsent.setdefault(owed.row.key.etype, []).append(owed)
        retry: dict[tuple[str, str, bool], list[int]] = {}
        for name, rows in self._retry.items():
            for row in rows.values():
                retry.setdefault((name, row.key.etype, row.state == "p"), []).append(row.min_version)
        return Backlog.counted(
            [
                (etype, len(some), min(one.created_us for one in some), min(one.row.version for one in some))
                for etype, some in unsent.items()
            ],
            [(*place, len(versions), min(versions)) for place, versions in retry.items()],
        )

    # -- placements, targets, marks ---------------------------------------------------------------------------

    def placements(self) -> dict[str, str]:
        return dict(self._placements)

    def remember(self, etype: str, placement: str, was: str | None = None) -> bool:
        if was is not None and self._placements.get(etype) not in (was, placement):
            return False
        self._placements[etype] = placement
        return True

    def targets(self) -> list[TargetRow]:
        return list(self._targets.values())

    def set_target(self, row: TargetRow, was: TargetRow | None = None) -> None:
        if was is not None and not was.stands(self.targets()):
            return
        for known in self._targets.values():
            if known.etype == row.etype and (known.name == row.name) != (known.bit == row.bit):
                raise IntegrityViolation(
                    f"{row.etype}: bit {known.bit} belongs to {known.name!r} for good; give {row.name!r} a free one"
                )
        self._targets[row.etype, row.name] = row

    def mask(self, etype: str) -> int:
        """The bits of the copies that are owed a write of this type now."""
        return sum(1 << row.bit for row in self._targets.values() if row.etype == etype and row.status != "off")

    def backfill(self, row: TargetRow, limit: int) -> TargetRow:
        standing = self._targets.get((row.etype, row.name), row)  # its status may have changed meanwhile
        if row.cursor == "" or standing.cursor != row.cursor:
            return standing
        after = ("", "") if row.cursor is None else tuple(json.loads(row.cursor))
        every = ((tenant, id) for tenant, part in self.parts(row.etype) for id in part.rows)
        chunk = sorted(place for place in every if place > after)[: limit + 1]
        now = self.env.now_us()
        for tenant, id in chunk[:limit]:
            live = self.part(row.etype, tenant).rows[id]
            key = Key(tenant, row.etype, id)
            self._owe(RetryRow(row.name, key, live.h, live.version, live.version, "b", first_us=now, next_us=now))
        cursor = json.dumps(chunk[limit - 1]) if len(chunk) > limit else ""
        self._targets[row.etype, row.name] = msgspec.structs.replace(standing, cursor=cursor)
        return self._targets[row.etype, row.name]

    def written_since(self, etype: str, version: int, limit: int) -> list[OutboxRow]:
        rows: list[OutboxRow] = []
        for tenant, part in self.parts(etype):
            standing: dict[str, Row | Tombstone] = {**part.tombstones, **part.rows}
            rows += [OutboxRow(one.version, Key(tenant, etype, id), one.h, 0) for id, one in standing.items()]
        return sorted((row for row in rows if row.version >= version), key=lambda row: row.version)[:limit]

    def mark(self, name: str) -> str | None:
        return self.marks.get(name)

    # -- vectors beside the home ------------------------------------------------------------------------------

    def vectors(self, keys: Sequence[Key]) -> list[StoredVector]:
        return [vector for key in keys for vector in self.stored.get(key, {}).values()]

    def put_vectors(self, vectors: Sequence[StoredVector]) -> None:
        for vector in vectors:
            key, field = vector.key, vector.field
            row = self.part(key.etype, key.tenant).rows.get(key.id)
            text = None if row is None else row.body.get(field)
            if row is None or not isinstance(text, str) or text_hash(text) != vector.text_hash:
                continue  # made of a text that is gone
            self.stored.setdefault(key, {})[field, vector.embedder] = vector
            if self._serves(vector):
                self.install(key, with_vectors(self.layout(key.etype), row, {field: vector.vector}))

    def _serves(self, vector: StoredVector) -> bool:
        """Whether the home's own vector facet compares this embedder's vectors, and the caller brought none."""
        spec = self.layout(vector.key.etype).vectors.get(vector.field)
        brought = (vector.field, CALLER) in self.stored[vector.key]
        return spec is not None and spec.embedder == vector.embedder and not brought

    def forget_vectors(self, etype: str, but_of: Sequence[str], limit: int) -> int:
        found = [
            (key, at)
            for key, stored in self.stored.items()
            for at in stored
            if key.etype == etype and at[1] not in (CALLER, *but_of)
        ]
        for key, at in found[:limit]:
            del self.stored[key][at]
        return len(found[:limit])

    # -- tidying ----------------------------------------------------------------------------------------------

    def purge(self, now_us: int, tombstone_ttl_us: int) -> int:
        waiting = {owed.row.key for owed in self.outbox.values()}
        waiting.update(key for rows in self._retry.values() for key in rows)
        purged = 0
        for etype in self.layouts:
            for tenant, part in self.parts(etype):
                for id, tombstone in list(part.tombstones.items()):
                    if tombstone.updated_us < now_us - tombstone_ttl_us and Key(tenant, etype, id) not in waiting:
                        del part.tombstones[id]
                        purged += 1
        for op, operation in list(self.operations.items()):
            if operation.created_us < now_us - OP_TTL_US:
                del self.operations[op]
                purged += 1
        return purged


def _place(row: RetryRow) -> tuple[str, str, str, str]:
    return row.target, row.key.tenant, row.key.etype, row.key.id
