"""`DataConsistencyManager`: what a commit promised reaches every copy."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec

from polystore.consistency.acks import Wait, await_all, catch_up, settled
from polystore.consistency.answers import Answers, change_of, changes_of
from polystore.consistency.copies import check_readable, register, vector_copies
from polystore.consistency.delivery import Context
from polystore.consistency.detach import Detach
from polystore.consistency.embedding import Embedders
from polystore.consistency.following import Following
from polystore.consistency.line import Line
from polystore.consistency.mending import Mender
from polystore.consistency.moving import Mover
from polystore.consistency.queueing import Queue
from polystore.consistency.rebuild import Rebuilder
from polystore.consistency.reconcile import Reconciler
from polystore.consistency.renewing import Renewer
from polystore.consistency.settings import Settings
from polystore.consistency.spillway import Erasures
from polystore.consistency.strict import StrictCache, StrictWrites, merged
from polystore.consistency.tasks import SyncTask
from polystore.embedding import Embedder
from polystore.entity import EntityType
from polystore.env import Env
from polystore.errors import Backpressure, PolystoreError
from polystore.model import (
    Change,
    Commit,
    Committed,
    OpId,
    Placement,
    Spill,
    Write,
    Written,
)
from polystore.protocols import SupportsJournal
from polystore.results import Ack, StoreStatus, Token, WriteResult
from polystore.store import Store

log = logging.getLogger("polystore.consistency")

PROBLEMS_MAX = 1_000


class DataConsistencyManager:
    """Commits writes with the duty to deliver them, delivers, retries, recovers.

    One manager per open architecture; any number of processes may have one on the same home.
    """

    def __init__(
        self,
        env: Env,
        types: Mapping[str, EntityType[Any]],
        stores: Mapping[str, Store],
        placements: dict[str, Placement],
        embedders: Mapping[str, Embedder],
        settings: Settings | None = None,
        *,
        others: Sequence[Embedder] = (),
        committed: Mapping[str, Callable[[Change], None]] = {},
        strict: Mapping[str, StrictCache] = {},
    ) -> None:
        self.env = env
        self.types = types
        self.stores = stores
        self.placements = placements
        """Where each type lives now: all that share the mapping see when a facet has moved."""
        self.settings = settings or Settings()
        self.worker = str(env.uuid7())
        # Of a table that the application writes, too, a home cannot make vectors in the commit.
        later = [e for e, one in placements.items() if types[e].mapped and one.facets.get("vector") == one.authority]
        self.embedders = Embedders(types, embedders, placements, others, env, later)
        self._queue = Queue(self.settings.queue_max)
        self.problems: dict[str, int] = {}
        self.before_commit: Callable[[Sequence[Write]], Awaitable[None]] | None = None
        """Asked about all writes; what it raises is raised to the writer, and nothing is written."""
        self._answers = Answers(stores, placements, self.embedders)
        self._vector_copies = vector_copies(placements)
        self.erasures = Erasures(types, placements)
        self.detach = Detach(env, types, stores, placements, self.write, self.readable)
        self._context = Context(
            env=env,
            types=types,
            stores=stores,
            vector_copies=self._vector_copies,
            embedders=self.embedders,
            detach=self.detach,
            erasures=self.erasures,
            settings=self.settings,
            worker=self.worker,
            report=self.report,
            caches={etype: placement.cache for etype, placement in placements.items() if placement.cache},
            lent={etype: placement.home for etype, placement in placements.items() if placement.lent},
        )
        homes = dict.fromkeys(placement.authority for placement in placements.values())
        self.lines = {name: Line(self._context, stores[name], self._queue.put) for name in homes}
        self.rebuilder = Rebuilder(self)
        self.mover = Mover(self)
        self.renewer = Renewer(self)
        self.mender = Mender(self)
        self.reconciler = Reconciler(self)
        self.following = Following(self)
        for line in self.lines.values():
            line.runs.anew = self._anew
            line.delivery.follow = functools.partial(self.following.look, line)
            line.runs.returned = self.reconciler.ask
            line.advance = functools.partial(self.mover.advance, line)
        self._closing = False
        self._journaled = {etype: placement.home for etype, placement in placements.items() if placement.journal}
        self._committed = committed
        self._strict = StrictWrites(env, strict, bypass=self.settings.strict_bypass)

    def report(self, problem: str) -> None:
        """Count and log a problem that no caller can be told. Of different ones the last `PROBLEMS_MAX` are kept."""
        self.problems[problem] = self.problems.pop(problem, 0) + 1
        if len(self.problems) > PROBLEMS_MAX:
            del self.problems[next(iter(self.problems))]
        log.warning("%s", problem)

    # -- placements -------------------------------------------------------------------------------------------

    def place(self, placement: Placement) -> None:
        """From now on this holds in this process."""
        self.placements[placement.etype] = placement
        self.following.placed += 1
        self._answers.forget(placement.etype)
        self._vector_copies.clear()
        self._vector_copies.update(vector_copies(self.placements))
        self.embedders.hold(placement.etype, self.embedders.remembered(placement))

    def expect(self, placement: Placement) -> None:
        """Before this holds, changes are brought to its copies with vectors: the journal may know these already."""
        for name, etypes in vector_copies({placement.etype: placement}).items():
            self._vector_copies[name] = self._vector_copies.get(name, frozenset()) | etypes

    async def _anew(self, name: str, etype: str) -> None:
        """The data of a copy began anew while this process runs."""
        line = self.line(etype)
        await self.mover.prepare(self.placements[etype], [name])
        await register(line, etype, self.placements[etype], self.stores, self.embedders, self.detach)
        await line.targets.refresh()
        line.retries.wake(name)

    # -- start and stop ---------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Register the worker and the copies, and begin to deliver. Stores must be prepared. Raises what homes raise.

        A copy that is new to a type with records starts as backfilling; one that is no longer placed is off.
        """
        for name, line in self.lines.items():
            await line.targets.refresh()
            for etype, placement in self.placements.items():
                if placement.authority == name:
                    self.mover.pace(line)
                    await register(line, etype, placement, self.stores, self.embedders, self.detach)
            await line.start()
        self.reconciler.start()
        self._queue.start(self.lines)

    async def drain(self, timeout_s: float | None = None) -> None:
        """Take nothing new, deliver what is in hand for at most `timeout_s`, and leave the rest to others."""
        self._closing = True
        self.env.crashpoint("drain")
        deadline = self.env.monotonic() + (self.settings.drain_s if timeout_s is None else timeout_s)
        while any(line.in_hand for line in self.lines.values()) and self.env.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.005)

    async def stop(self) -> None:
        """End all tasks and leave the journals. Idempotent."""
        self._closing = True
        await self._queue.stop()
        await self.reconciler.stop()
        await self.embedders.aclose()
        await self.mover.stop()
        for line in self.lines.values():
            await line.stop()
            try:
                await line.delivery.leases.give_up()
                await line.home.call(SupportsJournal.retire, self.worker)
            except PolystoreError as e:  # its rows are taken over when this worker is seen to be dead
                self.report(f"leaving {line.home.name}: {e}")

    # -- write ------------------------------------------------------------------------------------------------

    def line(self, etype: str) -> Line:
        return self.lines[self.placements[etype].authority]

    async def write(
        self,
        etype: str,
        writes: Sequence[Write],
        *,
        op: OpId | None = None,
        marks: Mapping[str, str] | None = None,
        ack: Ack = "committed",
        ack_timeout_s: float = 10.0,
    ) -> list[WriteResult]:
        """Commit the writes together at their home, hand them to the lanes, wait as `ack` says.

        All types must have the same home as `etype`. Raises what the commit raises (then nothing was written, but for
        OutcomeUnknown), Backpressure, ConfigurationError for an `ack` that names an unknown store. Nothing raises after
        the commit: a wait that ends early is reported as pending in the results.
        """
        wanted = None
        if ack != "committed":
            wanted = self._answers.wanted(ack, ack_timeout_s, {write.key.etype for write in writes})
        line = self.line(etype)
        committed, waits, told = await self._written(etype, writes, op, marks or {}, wanted)
        statuses = await await_all(line, waits, ack_timeout_s) if waits else {}
        return self._answers.results(line.home.name, writes, committed, merged(statuses, told) if told else statuses)

    async def write_quietly(self, etype: str, writes: Sequence[Write], marks: Mapping[str, str]) -> Sequence[Written]:
        """As `write`, for who asks of each write no more than what became of it: that costs less."""
        committed, waits, _ = await self._written(etype, writes, None, marks, None)
        line = self.line(etype)
        for wait in waits:
            line.waiters.forget(wait.store, wait.key, wait.told)
        return committed.written

    async def _written(
        self,
        etype: str,
        writes: Sequence[Write],
        op: OpId | None,
        marks: Mapping[str, str],
        wanted: frozenset[str] | None,
    ) -> tuple[Committed, list[Wait], Mapping[int, Mapping[str, StoreStatus]]]:
        if self.before_commit is not None:
            await self.before_commit(writes)
        line = self.line(etype)
        if line.backlog.outbox > self.settings.backlog_soft:
            await self._slow_down(line)
        owner = self.worker if line.has_room(len(writes)) and not self._closing else None
        spills = self.erasures.of(writes)
        writer = self._strict.writer(writes)
        committed = await self.following.where_it_is(
            (etype,), lambda: self._commit(line, writes, owner, op, marks, spills, writer)
        )
        self.env.crashpoint("write.committed")
        self.erasures.committed(spills)
        waits = self._accept(line, writes, committed, owner, wanted)
        told = await self._strict.tell(writes, committed, changes_of(writes, committed), writer) if writer else {}
        return committed, waits, told

    async def _commit(
        self,
        line: Line,
        writes: Sequence[Write],
        owner: str | None,
        op: OpId | None,
        marks: Mapping[str, str],
        spills: Sequence[Spill],
        writer: int,
    ) -> Committed:
        while line.delivery.gate.closed:
            await line.delivery.gate.changed()
        if not self.embedders.switched.isdisjoint(write.key.etype for write in writes):
            writes = [self._of_today(write) for write in writes]
        line.reserved += len(writes)
        try:
            if writer:
                await self._strict.intend(writes, writer)
            return await line.home.commit(Commit(writes, owner, op, marks, spills))
        except BaseException as e:
            if getattr(e, "outcome_unknown", False) or isinstance(e, asyncio.CancelledError):
                line.lost_track()
            elif writer:
                await self._strict.withdraw(writes, writer)
            raise
        finally:
            line.release(len(writes))

    def _of_today(self, write: Write) -> Write:
        """The write with the vectors of the model that serves now; it may be older than that."""
        given = {field: vector for field, vector in write.vectors.items() if field in write.keep}
        rest = {field: value for field, value in (write.body or {}).items() if field not in given}
        return msgspec.structs.replace(write, vectors={**self.embedders.inline(write.key.etype, rest), **given})

    async def _slow_down(self, line: Line) -> None:
        """Much is owed: wait a little; too much: refuse."""
        owed = line.backlog.outbox
        if owed > self.settings.backlog_hard:
            raise Backpressure(
                f"{line.home.name} owes {owed} deliveries, the limit is {self.settings.backlog_hard}; nothing was "
                "written. Look at `polystore status` for the store that does not keep up, and try again later"
            )
        await asyncio.sleep(self.env.random.uniform(0, 0.05))

    def _accept(
        self,
        line: Line,
        writes: Sequence[Write],
        committed: Committed,
        owner: str | None,
        wanted: frozenset[str] | None,
    ) -> list[Wait]:
        """Queue what was committed, and register who waits for what before anything can be applied. Who wants to know
        of commits (`committed`, by entity type) is told before the caller, and must not raise."""
        waits: list[Wait] = []
        left_over = False
        for i, (write, written) in enumerate(zip(writes, committed.written, strict=True)):
            if wanted and written.version:
                etype = write.key.etype
                for name in (*self.placements[etype].copies(), *self._answers.later(etype)):
                    if name in wanted:
                        future = line.waiters.watch(name, write.key, written.version)
                        waits.append(Wait(i, name, write.key, write.h, written.version, future))
            if not written.changed or committed.repeated:
                continue
            if tell := self._committed.get(write.key.etype):
                tell(change_of(write, written))
            if not written.targets:
                continue
            if owner is None:
                left_over = True
                continue
            task = SyncTask("propagate", line.home.name, written.version, change_of(write, written), written.targets)
            if line.take(task) and (home := self._journaled.get(write.key.etype)):
                # It has the write when the caller goes on, unless it does not answer: then it is owed it like any copy.
                first = line.waiters.watch(home, write.key, written.version, once=True)
                waits.append(Wait(i, home, write.key, write.h, written.version, first, once=True))
        if left_over:
            line.wake()
        return waits

    # -- reads that wait --------------------------------------------------------------------------------------

    async def caught_up(self, etype: str, store: str, token: Token, timeout_s: float = 2.0) -> None:
        """Return once `store` holds everything the token names. Raises StalenessTimeout, InvalidData for no token.

        At the home, and for facets that the home serves, every committed write is there already.
        """
        placement = self.placements[etype]
        if store == placement.authority:
            token.pairs()
            return
        line = self.lines[placement.authority]
        await catch_up(line, etype, store, token.pairs().get(placement.authority, []), timeout_s)

    def readable(self, etype: str, store: str, *, whole: bool = True) -> None:
        """Raises Unavailable when another process has taken a copy out of service; if it is to be `whole`, also while
        it is being filled, and when others may have gone over to another one."""
        if store != self.placements[etype].authority:
            late = whole and self.mover.late(etype)
            check_readable(self.line(etype).targets.rows(etype), etype, store, whole=whole, late=late)

    def inline_vectors(self, etype: str, body: Mapping[str, Any]) -> dict[str, bytes]:
        """Vectors that are made within the write: of in-process embedders, and of vector fields."""
        return self.embedders.inline(etype, body)

    async def query_vector(self, etype: str, field: str, text: str) -> bytes:
        """The packed vector of a query text. Raises Unavailable when the embedder does not answer."""
        return await self.embedders.query(etype, field, text, timeout_s=self.settings.embed_timeout_s)

    # -- state of the whole -----------------------------------------------------------------------------------

    async def room(self, etype: str) -> int | None:
        """See `Pacing.room`."""
        return await self.line(etype).pacing.room()

    async def settle(self, timeout_s: float = 60.0) -> None:
        """Return once every change committed so far is applied everywhere or parked, and no copy is being filled.

        Raises StalenessTimeout naming what is still owed."""
        deadline = self.env.monotonic() + timeout_s
        lines = list(self.lines.values())
        # Twice where there are several: to detach what one of them has deleted, another one is written to.
        for line in lines if len(lines) == 1 else [*lines, *lines]:
            await settled(line, deadline, timeout_s)
