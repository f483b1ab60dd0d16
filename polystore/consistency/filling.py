"""New copies, and those that come back, are filled from their home while writes go on."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Iterable

from msgspec.structs import replace

from polystore.consistency.delivery import Context
from polystore.consistency.leases import held_on
from polystore.consistency.leftovers import owe_leftovers
from polystore.consistency.retries import Retries
from polystore.consistency.targets import STAGES, Targets
from polystore.errors import PolystoreError
from polystore.model import Backlog, TargetRow
from polystore.protocols import Repository, SupportsCache, SupportsJournal
from polystore.store import Store

_END = "up to "
"""Cursor of a copy that was owed all its records, before a version that none of them had: what was written since is
owed to it by its commits. It stands in the journal, for whoever goes on, and ends with the filling it is of."""


class Filling:
    """Of the copies of one home, by one process. What is owed is in the journal: any process goes on with it.

    It looks at every poll, and whenever records were brought to a copy: what is owed to one never runs out before all
    is. It is never much either: what live changes come to owe waits behind it.
    """

    def __init__(self, context: Context, home: Store, targets: Targets, retries: Retries) -> None:
        self.context = context
        self.home = home
        self.targets = targets
        self.retries = retries
        self.rates: dict[tuple[str, str], float] = {}
        """(entity type, copy) -> the most records a second that all processes together fill in, where there is one."""
        self.owed: dict[tuple[str, str], int] = {}
        """(entity type, copy) -> how many records this process has owed it in the filling under way."""
        self._since: dict[tuple[str, str], float] = {}
        """(entity type, copy) -> from when on what its rate allows was not owed yet, by the monotonic clock."""
        self._workers = 1
        self._filling: set[str] = set()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    def poll(self, workers: int) -> None:
        """Look at the copies, as they were just read; so many processes fill."""
        self._workers = workers
        if self._filling or any(row.status == "backfilling" for row in self.targets.rows()):
            self._wake.set()

    def brought(self, name: str) -> None:
        """Some of what a copy is owed has arrived."""
        if name in self._filling:
            self._wake.set()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._step()
            except Exception as e:  # noqa: BLE001 -- tried again; without this task nothing would be filled
                self.context.report(f"filling from {self.home.name} could not go on: {type(e).__name__}: {e}")

    async def _step(self) -> None:
        """One look at the journal. What is owed is counted after the copies were read: see `_go_on`."""
        rows = await self.home.call(SupportsJournal.targets)
        filling = [row for row in rows if row.status == "backfilling" and row.etype in self.context.types]
        self._look(filling)
        if filling:
            backlog = await self.home.call(SupportsJournal.backlog)
            for row in filling:
                try:
                    await self._go_on(row, backlog)
                except PolystoreError as e:  # the others need not wait
                    self.context.report(f"filling {row.name} with {row.etype} could not go on: {e}")

    def _look(self, copies: Iterable[TargetRow]) -> None:
        """Others may have ended a filling."""
        filling = {(row.etype, row.name) for row in copies}
        self.owed = {place: count for place, count in self.owed.items() if place in filling}
        self._since = {place: at for place, at in self._since.items() if place in filling}
        self._filling = {name for _, name in filling}

    async def _go_on(self, row: TargetRow, backlog: Backlog) -> None:
        """Owe a new copy the next records of its type; reads ask it once it is owed none of them any more, since
        there may never be a moment without writes. One that was here before may hold what was deleted meanwhile: that
        is looked for at the end. `backlog` was read after the copy."""
        if row.name == self.context.caches.get(row.etype):
            await self.empty(row)
            return
        place = row.etype, row.name
        if row.cursor is not None and row.cursor.startswith(_END):
            end = int(row.cursor.removeprefix(_END))
            if backlog.oldest.get(place, end + 1) > end and not await self._leftovers(row, end):
                await self.home.call(SupportsJournal.set_target, replace(row, status="active"), row)
                await self.targets.refresh()
            return
        owed, most = backlog.owed.get(place, 0), self.context.settings.batch_max
        while owed <= most and _has_more(row) and (part := self._part(place)):
            row = await self.home.call(SupportsJournal.backfill, row, part)
            self.context.env.crashpoint("backfill.step")
            owed += part
            self.owed[place] = self.owed.get(place, 0) + part
            self.retries.wake(row.name)
        if row.cursor == "":
            end = await self.home.call(Repository.newest, row.etype)
            await self.home.call(SupportsJournal.set_target, replace(row, cursor=f"{_END}{end}"), row)
            self._wake.set()  # perhaps nothing is owed any more

    def _part(self, place: tuple[str, str]) -> int:
        """How many records to owe next, so that all workers together keep to the rate: a chunk, or what has come
        together for a while."""
        settings, now = self.context.settings, self.context.env.monotonic()
        rate = self.rates.get(place, 0.0) / max(1, self._workers)
        if not rate:
            return settings.backfill_chunk
        since = max(self._since.setdefault(place, now - 1.0), now - max(5.0, 1 / rate))
        records = min(settings.backfill_chunk, int((now - since) * rate + 1e-6))
        if records < settings.backfill_chunk and now - since < settings.poll_s / 2:
            return 0
        self._since[place] = since + records / rate
        return records

    async def empty(self, row: TargetRow) -> None:
        """What a cache holds that is new, or comes back, has not been invalidated for a while: it goes, and then the
        cache is complete. One that does not answer is emptied at a later look."""
        cache = self.context.stores.get(row.name)
        if cache is None:
            return  # who has the store empties it
        try:
            await cache.call(SupportsCache.forget, row.etype)
        except PolystoreError as e:
            self.context.report(f"{row.name} could not be emptied: {e}")
            return
        await self.home.call(SupportsJournal.set_target, replace(row, status="active"), row)
        await self.targets.refresh()

    async def _leftovers(self, row: TargetRow, end: int) -> bool:
        """True when the copy may hold what was deleted at `end` or before: later deletes owe it that themselves."""
        if row.name.startswith(STAGES):
            return False
        copy = self.context.stores.get(row.name)
        if copy is None:
            return True  # as far as can be told here: who has the store looks
        settings, now_us = self.context.settings, self.context.env.now_us()
        turn = functools.partial(self._hold, row, settings.worker_dead_s)
        try:
            if not await turn():
                return True
            async with held_on(turn, settings.worker_dead_s):  # a slow copy takes longer for a page
                found = await owe_leftovers(
                    self.home, copy, row, end, now_us=now_us, page_max=settings.batch_max, turn=turn
                )
        except PolystoreError as e:  # later then: one copy that does not answer holds up no other
            self.context.report(f"{row.name} could not be compared with {self.home.name}: {e}")
            await self._hold(row, 0.0)  # perhaps it answers another process
            return True
        if found:
            self.retries.wake(row.name)
        return found

    async def _hold(self, row: TargetRow, ttl_s: float) -> bool:
        """One process reads all of a copy, that is enough."""
        lease = f"leftovers:{row.etype}:{row.name}"
        return await self.home.call(SupportsJournal.hold_lease, lease, self.context.worker, ttl_s)


def _has_more(row: TargetRow) -> bool:
    """Whether there may be records that the copy was not owed yet."""
    return row.status == "backfilling" and (row.cursor is None or not (row.cursor == "" or row.cursor.startswith(_END)))
