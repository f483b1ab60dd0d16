"""What copies may have lost of what they acknowledged.

A server that was restarted, or a replica that took over, has another run id: what it acknowledged last may be gone. It
is owed again all that it may have been brought in the last `Settings.kept_s` before it was last seen as it was. Data
that began anew have another identity, and are filled like a new copy.

No clocks are compared: at each look the line notes the version from which on everything is delivered later, and keeps
that together with the run id as a mark in the journal, so that also who opens the stores next knows. One mark for each
type: who knows other types than this process sees to these.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

import msgspec

from polystore.consistency.targets import STAGES
from polystore.errors import PolystoreError
from polystore.model import Backlog, Commit, Instance, RetryRow, Settlement
from polystore.protocols import Repository, SupportsJournal
from polystore.store import Store

if TYPE_CHECKING:
    from polystore.consistency.line import Line

Floors = Mapping[str, int]
"""Entity type -> a version; all that was delivered after it was noted is at this version or a later one."""


class Seen(msgspec.Struct, frozen=True):
    """A copy of a type as it was last seen: `floor` is of `kept_s` before that."""

    run_id: str
    floor: int


class Runs:
    """The runs of the copies of one line."""

    def __init__(self, line: Line) -> None:
        self.anew: Callable[[str, str], Awaitable[None]] = _nothing
        """Makes a copy whose data began anew ready for an entity type, and has it filled."""
        self.sure: set[str] = set()
        """Copies that the last look found as they were, with all that they had acknowledged before it, or all of it
        owed again."""
        self.returned: Callable[[str], Awaitable[None]] = _nobody
        """Told of a copy that was started again: it may be what it was long before."""
        self._line = line
        self._seen: dict[tuple[str, str], Seen] = {}
        """(entity type, copy) -> what is remembered of it."""
        self._noted: dict[str, deque[tuple[float, Floors]]] = {}
        self._next = 0.0

    async def look(self) -> None:
        """Ask the copies who they are, if it is time. One that does not answer is asked at the next look."""
        context, line = self._line.context, self._line
        if context.env.monotonic() < self._next:
            return
        self._next = context.env.monotonic() + context.settings.look_s
        cached = set(context.caches.values())
        newest, backlog = await self._standing()
        for name in line.targets.all_names():
            store = context.stores.get(name)
            if store is None or name in cached or name.startswith(STAGES):
                continue
            self.sure.discard(name)
            if store.breaker.open:
                continue
            floors = {
                etype: min(newest[etype], backlog.oldest.get((etype, name), newest[etype]))
                for etype in self._etypes(name)
                if etype in newest
            }
            try:
                await self._compare(store, await store.call(Repository.ping), floors)
            except PolystoreError as e:
                context.report(f"what {name} may have lost is looked for later: {e}")
                continue
            self.sure.add(name)

    def _etypes(self, name: str) -> list[str]:
        """The types that a copy has, but for those that only other processes know: these see to them."""
        return [etype for etype in self._line.targets.etypes(name) if etype in self._line.context.types]

    async def _standing(self) -> tuple[Floors, Backlog]:
        """For each type a version below which nothing is in the outbox or to be written, and what retry rows owe. Taken
        before the copies are asked: what is delivered meanwhile is later."""
        line = self._line
        etypes = dict.fromkeys(etype for name in line.targets.all_names() for etype in self._etypes(name))
        newest = {etype: await line.home.call(Repository.newest, etype) for etype in etypes}
        backlog = await line.home.call(SupportsJournal.backlog)
        return {etype: min(version, backlog.unsent.get(etype, version)) for etype, version in newest.items()}, backlog

    async def _compare(self, store: Store, instance: Instance, floors: Floors) -> None:
        name, journal = store.name, self._line.home
        for row in [row for row in self._line.targets.rows() if row.name == name and row.etype in floors]:
            if row.data_id != instance.data_id:
                self._line.context.report(f"the data of {name} began anew; {row.etype} is filled again")
                await self.anew(name, row.etype)
        first, lost = {**floors}, dict[str, int]()
        for etype in floors:
            seen = self._seen.get((etype, name))
            if seen is None or seen.run_id != instance.run_id:  # another process may have seen to it already
                mark = await journal.call(SupportsJournal.mark, _mark(etype, name))
                seen = None if mark is None else msgspec.json.decode(mark, type=Seen)
            if seen is not None:
                self._seen[etype, name] = seen
                first[etype] = seen.floor
                if seen.run_id != instance.run_id:
                    lost[etype] = seen.floor
        noted = self._noted.setdefault(name, deque())
        if lost:
            await self._owe_again(store, lost)
            await self.returned(name)
            noted.clear()
        since = self._since(noted, first, floors)
        now = {(etype, name): Seen(instance.run_id, floor) for etype, floor in since.items()}
        if new := {place: one for place, one in now.items() if one != self._seen.get(place)}:
            marks = {_mark(*place): msgspec.json.encode(one).decode() for place, one in new.items()}
            await journal.commit(Commit([], marks=marks))
        self._seen |= now

    def _since(self, noted: deque[tuple[float, Floors]], first: Floors, floors: Floors) -> Floors:
        """What was noted `kept_s` ago; `first` until so much time has passed here."""
        settings, now = self._line.context.settings, self._line.context.env.monotonic()
        if not noted:
            noted.append((now, first))
        noted.append((now, floors))
        while noted[1][0] <= now - settings.kept_s:
            noted.popleft()
        return {**floors, **noted[0][1]}

    async def _owe_again(self, store: Store, floors: Floors) -> None:
        context, journal, name = self._line.context, self._line.home, store.name
        number, size = 0, context.settings.backfill_chunk
        for etype, floor in floors.items():
            after: int | None = floor
            while after is not None:
                rows = await journal.call(SupportsJournal.written_since, etype, after, size)
                now_us = context.env.now_us()
                owed = [
                    RetryRow(name, one.key, one.h, one.version, one.version, "b", first_us=now_us, next_us=now_us)
                    for one in rows
                ]
                if owed:
                    await journal.call(SupportsJournal.settle, Settlement(owed=owed))
                number += len(owed)
                after = rows[-1].version + 1 if len(rows) == size else None
        context.report(f"{name} was restarted or taken over: {number} records are brought to it once more")
        self._line.retries.wake(name)


def _mark(etype: str, name: str) -> str:
    return f"run of {name}: {etype}"


async def _nobody(name: str) -> None:
    """Nobody wants to know."""


async def _nothing(name: str, etype: str) -> None:
    """Nobody makes anything ready."""
