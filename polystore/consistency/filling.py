"""New copies, and those that come back, are filled from their home while writes go on."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from polystore.consistency.delivery import Context
from polystore.consistency.leftovers import owe_leftovers
from polystore.consistency.retries import Retries
from polystore.consistency.targets import STAGES, Targets
from polystore.errors import PolystoreError
from polystore.model import Backlog, TargetRow
from polystore.protocols import Repository, SupportsCache, SupportsJournal
from polystore.store import Store


class Filling:
    """Of the copies of one home, by one process. What is owed is in the journal: any process goes on with it."""

    def __init__(self, context: Context, home: Store, targets: Targets, retries: Retries) -> None:
        self.context = context
        self.home = home
        self.targets = targets
        self.retries = retries
        self.rates: dict[tuple[str, str], float] = {}
        """(entity type, copy) -> the most records a second that all processes together fill in, where there is one."""
        self.owed: dict[tuple[str, str], int] = {}
        """(entity type, copy) -> how many records this process has owed it in the filling under way."""
        self._ends: dict[tuple[str, str], int] = {}
        """(entity type, copy) -> a version that no record had which its backfill owed it."""
        self._last: dict[tuple[str, str], float] = {}

    def look(self, copies: Iterable[TargetRow]) -> None:
        """The copies as they stand: others may have ended a filling."""
        filling = {(row.etype, row.name): row.cursor for row in copies if row.status == "backfilling"}
        self._ends = {place: end for place, end in self._ends.items() if filling.get(place) == ""}
        self.owed = {place: count for place, count in self.owed.items() if place in filling}
        self._last = {place: at for place, at in self._last.items() if place in filling}

    async def go_on(self, row: TargetRow, backlog: Backlog, workers: int) -> None:
        """Owe a new copy the next records of its type; reads ask it once it is owed none of them any more, since
        there may never be a moment without writes. One that was here before may hold what was deleted meanwhile: that
        is looked for at the end. `backlog` was read after the copy."""
        if row.name == self.context.caches.get(row.etype):
            await self.empty(row)
            return
        place = row.etype, row.name
        owed = backlog.retry.get(row.name, 0)
        if row.cursor == "":
            end = self._ends.get(place)
            if end is None:
                end = await self.home.call(Repository.newest, row.etype)
                self._ends[place] = end
            if backlog.oldest.get(row.name, end + 1) > end and not await self._leftovers(row):
                await self.home.call(SupportsJournal.set_target, replace(row, status="active"), row)
                await self.targets.refresh()
            return
        chunk, left = self.context.settings.backfill_chunk, self._allowed(place, workers)
        while owed < 5 * chunk and row.cursor != "" and left > 0:
            part = min(chunk, left)
            row = await self.home.call(SupportsJournal.backfill, row, part)
            self.context.env.crashpoint("backfill.step")
            owed, left = owed + part, left - part
            self.owed[place] = self.owed.get(place, 0) + part
            self.retries.wake(row.name)

    def _allowed(self, place: tuple[str, str], workers: int) -> int:
        """How many records may be owed now, so that all workers keep to the rate; what a worker has left over for less
        than one record it keeps."""
        rate = self.rates.get(place, 0.0)
        if not rate:
            return 1 << 62
        now = self.context.env.monotonic()
        since = self._last.setdefault(place, now - 1.0)
        records = int(min(now - since, 5.0) * rate / max(1, workers))
        if records:
            self._last[place] = now
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

    async def _leftovers(self, row: TargetRow) -> bool:
        """True when the copy may hold what was deleted."""
        if row.name.startswith(STAGES):
            return False
        copy = self.context.stores.get(row.name)
        if copy is None:
            return True  # as far as can be told here: who has the store looks
        try:
            found = await owe_leftovers(
                self.home, copy, row, self.context.env.now_us(), self.context.settings.batch_max
            )
        except PolystoreError as e:  # later then: one copy that does not answer holds up no other
            self.context.report(f"{row.name} could not be compared with {self.home.name}: {e}")
            return True
        if found:
            self.retries.wake(row.name)
        return found
