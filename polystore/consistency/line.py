"""One home and everything that brings its changes to its copies: lanes, relay, retries, embedding stage, backfill."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

from msgspec.structs import replace

from polystore.consistency.delivery import Context, Delivery
from polystore.consistency.filling import Filling
from polystore.consistency.lanes import Lanes
from polystore.consistency.loading import load_each
from polystore.consistency.pacing import Pacing
from polystore.consistency.retries import Retries
from polystore.consistency.runs import Runs
from polystore.consistency.targets import Targets
from polystore.consistency.tasks import SyncTask
from polystore.consistency.waiting import Waiters
from polystore.errors import DecodeError, PolystoreError, StoreError
from polystore.model import Backlog, Change, Commit, Key, OutboxRow, RetryRow, Settlement, Write, key_hash
from polystore.protocols import (
    SupportsApplicationTables,
    SupportsJournal,
    SupportsKeptBodies,
)
from polystore.store import Store


async def nowhere() -> None:
    """Nothing moves."""


class Line:
    """The fast path hands over what this process committed; the relay finds everything that any process left behind:
    rows of dead workers, rows nobody queued, own rows that memory lost. Both end in the same lanes, so that a record is
    never in two places of one process."""

    def __init__(self, context: Context, home: Store, put: Callable[[SyncTask], bool]) -> None:
        self.context = context
        self.home = home
        self.waiters = Waiters()
        self.targets = Targets(home)
        self.delivery = Delivery(context, home, self.targets, self.waiters)
        self.retries = Retries(context, home, self.targets, self.delivery)
        self.delivery.wake_retries = self.retries.wake
        self.filling = Filling(context, home, self.targets, self.retries)
        self.retries.brought = self.filling.brought
        self.runs = Runs(self)
        self.lanes = Lanes(self._deliver, self._settled, context.settings)
        self.pacing = Pacing(self)
        self.in_hand: dict[int, SyncTask] = {}
        self.reserved = 0
        self.backlog = Backlog(0, None, {}, {})
        self.live: frozenset[str] = frozenset()
        self.unreadable: set[str] = set()
        self.wanted: dict[str, frozenset[str]] = {}
        """Entity type -> the copies that this process is configured with."""
        self.advance: Callable[[], Awaitable[None]] = nowhere
        """Brings on what moves from one store to another."""
        self._put = put
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self.delivery.caught_up = self._room.set
        self._task: asyncio.Task[None] | None = None
        self._next_sweep = 0.0
        self._next_purge = 0.0
        self._parked_cursor: str | None = None

    # -- start and stop ---------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Register this worker and begin. Raises what the home raises."""
        await self.targets.refresh()
        self.live = await self.home.call(SupportsJournal.beat, self.context.worker)
        self.lanes.start()
        self.retries.start()
        self.filling.start()
        self._task = asyncio.create_task(self._relay())

    async def stop(self) -> None:
        """End without draining: what is in hand stays in the outbox for others."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        await self.filling.stop()
        await self.lanes.stop()
        await self.retries.stop()
        await self.delivery.stop()

    # -- fast path --------------------------------------------------------------------------------------------

    def free(self) -> int:
        """How many more tasks the queue takes."""
        return self.context.settings.queue_max - len(self.in_hand) - self.reserved

    def has_room(self, n: int) -> bool:
        return n <= self.free()

    def release(self, n: int) -> None:
        """A commit of `n` writes has come back, with or without a result."""
        self.reserved -= n
        self._room.set()

    def take(self, task: SyncTask) -> bool:
        """Queue a task unless its row is in hand already. False when there is no room: the row waits for the relay."""
        if task.version in self.in_hand:
            return True
        self.in_hand[task.version] = task
        if self._put(task):
            return True
        del self.in_hand[task.version]
        return False

    async def _deliver(self, batch: Sequence[SyncTask]) -> None:
        self.context.env.crashpoint("lane.taken")
        try:
            await self.delivery.deliver(batch)
        except Exception as e:  # noqa: BLE001 -- the rows are still in the outbox: the sweep takes them up again
            self.context.report(f"delivery from {self.home.name} failed: {type(e).__name__}: {e}")
        self.context.env.crashpoint("lane.settled")

    def _settled(self, task: SyncTask) -> None:
        self.in_hand.pop(task.version, None)
        self._room.set()

    async def room(self) -> None:
        """Wait until something was settled, or a commit or a copy that was left behind has come back."""
        self._room.clear()
        await self._room.wait()

    @contextlib.asynccontextmanager
    async def alone(self) -> AsyncGenerator[None]:
        """No commit, no delivery and no search of this process is under way inside."""
        async with self.delivery.gate.alone():
            while self.reserved:
                await self.room()
            yield

    def wake(self) -> None:
        """Let the relay look now instead of at its next poll."""
        self._wake.set()

    def lost_track(self) -> None:
        """A write was cut off after it was sent: its row may be ours without being in hand."""
        self._next_sweep = 0.0

    # -- relay ------------------------------------------------------------------------------------------------

    async def _relay(self) -> None:
        settings, env = self.context.settings, self.context.env
        while True:
            try:
                await self.step()
            except Exception as e:  # noqa: BLE001 -- without a relay nobody would take over, nor say that we live
                self.context.report(f"the relay of {self.home.name} could not work: {type(e).__name__}: {e}")
            try:
                async with asyncio.timeout(settings.poll_s * env.random.uniform(0.8, 1.2)):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()

    async def step(self) -> None:
        """One look at the journal: say that we live, take over what nobody works on."""
        journal, settings, env = self.home, self.context.settings, self.context.env
        self.live = await journal.call(SupportsJournal.beat, self.context.worker)
        await self.targets.refresh()
        await self.delivery.follow()
        self.filling.poll(len(self.live))
        self.backlog = await journal.call(SupportsJournal.backlog)
        self.retries.look(self.backlog)
        await self._touched()  # first: a row that was written when its time was over is not to be buried
        await self._bury_expired()
        await self._take_over()
        await self._sweep()
        await self.runs.look()
        await self._release()
        for row in self.targets.rows():
            if row.status == "off" and row.name in self.wanted.get(row.etype, ()):
                # By a process that was opened later with another configuration, or by a request that came late.
                self.context.report(f"{row.name} was taken out as a copy of {row.etype}; it is put back and filled")
                back = replace(row, status="backfilling", cursor=None)
                await journal.call(SupportsJournal.set_target, back, row)
                if row.name not in self.wanted.get(row.etype, ()):  # this process went over at this moment
                    await journal.call(SupportsJournal.set_target, row, back)
        await self.advance()
        if env.monotonic() >= self._next_purge:
            self._next_purge = env.monotonic() + settings.purge_s
            await journal.call(SupportsJournal.purge, env.now_us(), int(settings.tombstone_ttl_s * 1e6))

    async def _bury_expired(self) -> None:
        """Delete what has expired, by commits like any other. Nobody owns their rows, so that `_take_over` finds them;
        two workers that do this at once do not harm each other: the second finds nothing."""
        journal, size = self.home, self.context.settings.batch_max
        etypes = [name for name in self.wanted if name not in self.unreadable]  # those of this home
        while True:
            keys = await journal.call(SupportsJournal.expired, etypes, size)
            for part in range(0, len(keys), journal.limits.batch_max):
                writes = [
                    Write("expire", key, key_hash(key.tenant, key.etype, key.id), None)
                    for key in keys[part : part + journal.limits.batch_max]
                ]
                await journal.commit(Commit(writes, spills=self.context.erasures.of(writes)))
                self.context.env.crashpoint("expiry.committed")
            if len(keys) < size:
                return

    async def _release(self) -> None:
        """Bodies of homes that may have lost what they acknowledged, had they ended within that time."""
        settings, stores = self.context.settings, self.context.stores
        for etype, home in self.context.lent.items():
            if etype not in self.wanted or home not in stores or stores[home].limits.ack_durable:
                continue
            if home not in self.runs.sure:
                continue  # it may have lost what only the journal has yet
            age_us, size = int(settings.kept_s * 1e6), settings.batch_max
            while await self.home.call(SupportsKeptBodies.release, etype, age_us, size) == size:
                pass

    async def _touched(self) -> None:
        """Take over what others wrote to the application's tables, as far as triggers noted it."""
        etypes = [etype for etype in self.wanted if self.context.types[etype].mapped is not None]
        size = self.context.settings.batch_max
        while etypes and await self.home.call(SupportsApplicationTables.touched, etypes, size) == size:
            pass

    async def _take_over(self) -> None:
        """Claim what nobody alive works on, at any time one row more than were delivered so far.

        A claim counts against a row when its worker dies. So whatever ends this process over and over, rows that it was
        far from delivering are not suspected; and a record that ends it is soon the only one claimed when it happens.
        """
        journal, settings = self.home, self.context.settings
        delivered = 0
        under_way: list[int] = []
        while (limit := min(max(1, 1 + delivered - len(under_way)), settings.batch_max, self.free())) > 0:
            etypes = [name for name in self.context.types if name not in self.unreadable]
            rows = await journal.call(SupportsJournal.claim, self.context.worker, self.live, etypes, limit)
            self.context.env.crashpoint("relay.claimed")
            await self._recover(rows)
            if len(rows) < limit:
                return
            claimed = [*under_way, *(row.version for row in rows)]
            under_way = await self._half_settled(claimed)
            delivered += len(claimed) - len(under_way)
            self.live = await journal.call(SupportsJournal.beat, self.context.worker)

    async def _half_settled(self, versions: Sequence[int]) -> list[int]:
        """Which of the rows are still in hand when half of them are not, or when it is time to say that we live."""
        left = [version for version in versions if version in self.in_hand]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.context.settings.poll_s):
                while len(left) > len(versions) // 2:
                    await self.room()
                    left = [version for version in left if version in self.in_hand]
        return left

    async def _sweep(self) -> None:
        """Own rows that are not in hand: what a lost queue item or a cancelled write left behind."""
        settings, env = self.context.settings, self.context.env
        if env.monotonic() < self._next_sweep:
            return
        asked = self._next_sweep == 0.0
        self._next_sweep = env.monotonic() + settings.sweep_s
        older_us = env.now_us() - (0 if asked else int(settings.sweep_s * 1e6))
        rows = await self.home.call(SupportsJournal.claimed, self.context.worker, older_us, settings.batch_max)
        if len(rows) == settings.batch_max:
            self._next_sweep = env.monotonic()  # there may be more: at the next poll
        await self._recover([row for row in rows if row.version not in self.in_hand])
        if self.backlog.parked:
            await self._revive()

    async def _revive(self) -> None:
        """Try dead letters again of which the home holds something newer. Its own delivery does that as a rule, but
        the attempt that parked the row may have ended after it, or a settling may have landed late."""
        rows, self._parked_cursor = await self.home.call(
            SupportsJournal.parked, None, self._parked_cursor, self.context.settings.batch_max
        )
        known = [row for row in rows if row.key.etype in self.context.types and row.key.etype not in self.unreadable]
        try:
            changes, _ = await load_each(self.home, {row.key: row.version for row in known})
        except (StoreError, DecodeError) as e:
            self.context.report(f"dead letters are looked at later: {e}")
            return
        newer = [
            (row, changes[row.key].version)
            for row in known
            if row.key in changes and changes[row.key].version > row.version
        ]
        now_us = self.context.env.now_us()
        revived = [replace(row, state="r", version=version, next_us=now_us) for row, version in newer]
        if revived:
            await self.delivery.settle(Settlement(owed=revived))
            for name in dict.fromkeys(row.target for row in revived):
                self.retries.wake(name)

    async def _recover(self, rows: Sequence[OutboxRow]) -> None:
        """Reload the records of claimed rows and put them into the lanes, at their newest state."""
        by_type: dict[tuple[str, str], list[OutboxRow]] = {}
        for row in rows:
            by_type.setdefault((row.key.etype, row.key.tenant), []).append(row)
        for (etype, _), group in by_type.items():
            versions: dict[Key, int] = {}
            for row in group:
                versions[row.key] = max(row.version, versions.get(row.key, 0))
            try:
                changes, damaged = await load_each(self.home, versions)
            except DecodeError as e:  # this process is too old or too new for the type: never the record's fault
                self.unreadable.add(etype)
                self.context.report(f"{etype} is left to other workers: {e}")
                continue
            except StoreError as e:
                if etype not in self.context.lent:
                    raise
                self.context.report(f"{etype} is delivered later: {e}")  # by the sweep; the others need not wait
                continue
            self.context.env.crashpoint("relay.loaded")
            for row in group:
                if row.key in damaged:
                    await self._leave_to_retries(row, damaged[row.key])
                    continue
                if row.key not in changes:
                    self.context.report(f"{etype} {row.key.id!r} was lost at its home before it was delivered")
                    continue
                solo = row.claims >= self.context.settings.solo_claims
                task = SyncTask("reconcile", self.home.name, row.version, changes[row.key], row.targets, solo)
                await self._reconcile(row, task)

    async def _reconcile(self, row: OutboxRow, task: SyncTask) -> None:
        if row.claims < self.context.settings.claims_max:
            self.take(task)
            return
        # Every worker that took this row alone died: it may be killing the process. Park it, visibly.
        error = PolystoreError(f"{row.claims} workers died while they delivered this record")
        parked = [replace(one, state="p") for one in self._owed(row, task.change, error)]
        await self.delivery.settle(Settlement([row.version], parked))

    async def _leave_to_retries(self, row: OutboxRow, error: DecodeError) -> None:
        """Nobody can read the record now: tried again, and parked like what a copy refuses."""
        owed = self._owed(row, Change(row.key, row.version, row.h, None, b"", 0), error)
        await self.delivery.settle(Settlement([row.version], owed))
        for one in owed:
            self.targets.pace(one.target).owes = True
            self.retries.wake(one.target)

    def _owed(self, row: OutboxRow, change: Change, error: PolystoreError) -> list[RetryRow]:
        names = self.targets.names(row.key.etype, row.targets)
        return [self.delivery.owe(name, change, row.version, error) for name in names]
