"""What the application does: writes of every kind, repeats after unknown outcomes, reads of its own writes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from polystore.consistency import DataConsistencyManager
from polystore.consistency.facts import Facts
from polystore.embedding import pack
from polystore.errors import PolystoreError, Unavailable
from polystore.model import Key, Line, OpId, PointRow, Series, Write, key_hash
from polystore.results import Ack, Token, WriteResult
from polystore.testing.simulation.history import HOME, Append, Attempt, Read
from polystore.testing.simulation.process import Node
from polystore.testing.simulation.servers import DIMENSION, POISON, TYPES

Kind = Literal["create", "put", "update", "delete", "skip", "insert"]
TENANTS = ("a", "b")
NOTES = ("n1", "n2", "n3")
PEOPLE = ("p1",)
TEXTS = ("winter", "a walk by the sea", "이별 노래", "the third of May", POISON)
KINDS: tuple[Kind, ...] = ("put", "put", "put", "create", "update", "delete", "delete", "skip", "insert")
TRIES = 4
CLIENTS = 2
READ_PAUSE_S = 0.2
"""Mean pause between two reads of a process through its cache."""


@dataclass
class Plan:
    """What is still to be done by whoever lives, and what was done: users carry tokens from process to process."""

    left: int
    poison: bool
    pause_s: float
    number: int = 0
    recent: list[tuple[Key, int, Token]] = field(default_factory=list[tuple[Key, int, Token]])


class Client:
    """One caller in one process."""

    def __init__(self, node: Node, manager: DataConsistencyManager, plan: Plan) -> None:
        self.node = node
        self.manager = manager
        self.plan = plan
        self.random = node.env.random
        self.history = node.network.history

    async def run(self) -> None:
        while self.plan.left > 0:
            self.plan.left -= 1
            self.plan.number += 1
            if self.plan.recent and self.random.random() < 0.2:
                await self._read_own_write()
            elif self.node.facts is not None and self.random.random() < 0.15:
                await self._append(self.node.facts, self.plan.number)
            else:
                await self._write(self.plan.number)
            await asyncio.sleep(self.random.expovariate(1 / self.plan.pause_s))

    # -- writes -----------------------------------------------------------------------------------------------

    async def _write(self, n: int) -> None:
        r = self.random
        count = r.choice((1, 1, 1, 2, 4))
        tenant = r.choice(TENANTS)
        writes = [await self._one(n, tenant) for _ in range(count)]
        ack: Ack = r.choice(("committed", "committed", "applied", ["search"], ["vectors"]))
        op = OpId(tenant, f"op-{n}", str(n).encode()) if r.random() < 0.5 else None
        attempt = Attempt(n, self.node.name, [write.key for write in writes], op.id if op else "")
        self.history.attempts.append(attempt)
        self.history.note(f"{self.node.name} #{n}: {', '.join(map(_told, writes))}")
        for _ in range(TRIES if op else 1):
            if await self._try(attempt, writes, op, ack):
                return
            await asyncio.sleep(r.uniform(0, 1))

    async def _try(self, attempt: Attempt, writes: Sequence[Write], op: OpId | None, ack: Ack) -> bool:
        """True when the outcome is known."""
        patience_s = self.random.expovariate(1 / 0.02) if self.random.random() < 0.1 else None
        try:
            async with asyncio.timeout(patience_s):
                results = await self.manager.write(writes[0].key.etype, writes, op=op, ack=ack, ack_timeout_s=3.0)
        except TimeoutError:
            attempt.error, attempt.state, attempt.doubt = "given up", "unknown", True
            self.history.covered["given up"] += 1
            self.history.note(f"{self.node.name} #{attempt.n} given up")
            return False
        except PolystoreError as e:
            attempt.error = f"{type(e).__name__}: {e}"
            attempt.doubt = attempt.doubt or e.outcome_unknown
            attempt.state = "unknown" if e.outcome_unknown else "failed"
            self.history.note(f"{self.node.name} #{attempt.n} {attempt.error}")
            return not e.outcome_unknown
        servers = self.node.servers
        held = [{name: servers[name].version(w.key) for name in x.stores} for w, x in zip(writes, results, strict=True)]
        attempt.results, attempt.held, attempt.state = results, held, "ok"
        self.history.note(f"{self.node.name} #{attempt.n} ok {[(x.version, dict(x.stores)) for x in results]}")
        self._remember(writes, results)
        return True

    def _remember(self, writes: Sequence[Write], results: Sequence[WriteResult]) -> None:
        for write, result in zip(writes, results, strict=True):
            if result.version is not None:
                self.plan.recent.append((write.key, result.version, result.token))

    async def _one(self, n: int, tenant: str) -> Write:
        r = self.random
        etype, id = ("person", r.choice(PEOPLE)) if r.random() < 0.2 else ("note", r.choice(NOTES))
        key = Key(tenant, etype, id)
        h = key_hash(tenant, etype, id)
        kind = r.choice(KINDS)
        ttl_us = r.choice((300_000, 1_000_000, 4_000_000)) if kind != "delete" and r.random() < 0.15 else None
        expected = await self._standing(key) if kind in ("put", "update", "delete") and r.random() < 0.3 else None
        if kind == "delete":
            return Write("delete", key, h, None, expect_version=expected)
        text = r.choice(TEXTS if self.plan.poison else TEXTS[:-1])
        if kind == "update":
            body: dict[str, object] = {"n": n, "text": text} if r.random() < 0.5 else {"n": n}
            vectors = self.manager.inline_vectors(etype, body)
            return Write("update", key, h, body, expect_version=expected, vectors=vectors, ttl_us=ttl_us)
        body = {"id": id, "n": n, "text": text}
        if etype == "note":
            body["about"] = r.sample(PEOPLE, r.randint(0, len(PEOPLE)))
        keep: frozenset[str] = frozenset()
        vectors = self.manager.inline_vectors(etype, body)
        if etype == "note" and r.random() < 0.15:
            vectors, keep = {"text": pack([float(n)] * DIMENSION)}, frozenset({"text"})
        hash = TYPES[etype].content_hash(body)
        return Write(kind, key, h, body, hash, expected, vectors, keep, ttl_us)

    async def _standing(self, key: Key) -> int | None:
        try:
            (record,) = await self.manager.stores[HOME].get([key])
        except PolystoreError:
            return None
        return None if record is None or record.deleted else record.version

    # -- facts ------------------------------------------------------------------------------------------------

    async def _append(self, facts: Facts, n: int) -> None:
        """Points, or lines, of one tenant: each with a number of its own."""
        r = self.random
        tenant = r.choice(TENANTS)
        numbers = range(n * 10, n * 10 + r.randint(1, 3))
        append = Append(numbers)
        self.history.appends.append(append)
        try:
            async with asyncio.timeout(r.expovariate(1 / 0.02) if r.random() < 0.1 else None):
                if r.random() < 0.5:
                    series = Series(tenant, "note", "mood", r.choice(NOTES), "int")
                    await facts.append_points("note", tenant, [PointRow(series, one, one) for one in numbers])
                else:
                    at = datetime(2026, 1, 1, tzinfo=UTC)
                    lines = [Line(f"l{one}", {"id": f"l{one}", "at": at, "n": one}) for one in numbers]
                    await facts.append_lines("line", tenant, lines)
            append.state = "ok"
        except (TimeoutError, PolystoreError) as e:
            append.state = "failed"
            self.history.note(f"{self.node.name} could not append {n}: {type(e).__name__}")

    # -- reads ------------------------------------------------------------------------------------------------

    async def _read_own_write(self) -> None:
        r = self.random
        key, version, token = r.choice(self.plan.recent[-5:])
        placement = self.manager.placements[key.etype]
        name = r.choice(sorted(placement.copies().keys() - {placement.cache}))
        try:
            self.manager.readable(key.etype, name)
            await self.manager.caught_up(key.etype, name, token, timeout_s=1.0)
            store = self.manager.stores.get(name)
            if store is None:
                raise Unavailable("it was added, and this process does not know it", store=name)
            (record,) = await store.get([key])
        except PolystoreError as e:
            self.history.note(f"{self.node.name} reads {key.id} at {name}: {type(e).__name__}")
            return
        found = 0 if record is None else record.version
        newest = max((one for one in self.history.commits if one.key == key), key=lambda one: one.after)
        if newest.deleted and (record is None or record.body is None):
            # Deleted here and there: a copy that was out of service when it was written and deleted again is told
            # nothing of it, and shows nothing older.
            found = newest.after
        self.history.reads.append(Read(self.node.name, name, key, version, found))


async def read_by_key(node: Node, plan: Plan) -> None:
    """Reads through the cache, as long as there are writes: some keys are read more often than they are written."""
    r, reader = node.env.random, node.reader
    keys: list[Key] = []
    async with asyncio.TaskGroup() as reads:
        while plan.left > 0 and reader is not None:
            if not keys or r.random() < 0.3:
                etype, ids = r.choice((("note", NOTES), ("person", PEOPLE)))
                some = r.sample(ids, r.choice((1, 1, 1, len(ids))))
                tenant = r.choice(TENANTS)
                keys = [Key(tenant, etype, id) for id in some]
            reads.create_task(reader.read(keys, past=r.random() < 0.4))
            await asyncio.sleep(r.expovariate(1 / READ_PAUSE_S))


def _told(write: Write) -> str:
    expected = f" expects {write.expect_version}" if write.expect_version is not None else ""
    text = f" {write.body['text']!r}" if write.body and "text" in write.body else ""
    return (
        f"{write.kind} {write.key.tenant}/{write.key.etype}/{write.key.id}{text}{expected}{' keep' * bool(write.keep)}"
    )
