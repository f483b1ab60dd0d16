"""A facet moves from one store to another while everything goes on.

The store that serves goes on, and is delivered to, until the other one is filled and compared; then every process goes
over to that one. What serves and what will is in the remembered placement, which all processes look at with each step
of their relay, so a move is nobody's in particular: any process that has both stores brings it on, and who dies leaves
nothing behind. Two leases of the journal order it: `move:ENTITY`, so that one process at a time compares; and
`without:STORE`, which a process holds that runs with a configuration in which the new store is missing: until it has
ended nobody goes over, since it could not.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Protocol

from msgspec.structs import replace

from polystore.consistency.comparing import differences
from polystore.consistency.copies import register
from polystore.consistency.detach import Detach
from polystore.consistency.embedding import Embedders
from polystore.consistency.line import Line
from polystore.consistency.settings import Settings
from polystore.env import Env
from polystore.errors import PolystoreError
from polystore.model import Placement
from polystore.protocols import SupportsJournal
from polystore.selection.moves import origin, read_moves, write_moves
from polystore.store import Store

AGAIN_S = 60.0
"""After a comparison that found differences."""


class _Manager(Protocol):
    """What is used of the consistency manager."""

    env: Env
    worker: str
    settings: Settings
    stores: Mapping[str, Store]
    placements: dict[str, Placement]
    embedders: Embedders
    detach: Detach

    def place(self, placement: Placement) -> None: ...
    def report(self, problem: str) -> None: ...


class Mover:
    """Brings the moves of one architecture on, and follows those of other processes."""

    def __init__(self, manager: _Manager) -> None:
        self.prepare: Callable[[Placement, Collection[str]], Awaitable[None]] = _nothing
        """Tells stores what they hold of a type."""
        self.reach: Callable[[str], Awaitable[None]] = _nowhere
        """Opens a store that a placement names, where this process can."""
        self._manager = manager
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._since: dict[tuple[str, str], float] = {}
        """(entity, what) -> since when it is so, by the monotonic clock."""
        self._next: dict[str, float] = {}

    async def stop(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- all processes --------------------------------------------------------------------------------------------

    async def follow(self, line: Line, texts: Mapping[str, str]) -> bool:
        """Go over to what the remembered placements say; False when that is nothing new."""
        followed = False
        for etype, text in texts.items():
            placement = self._manager.placements.get(etype)
            if placement is None or placement.authority != line.home.name:
                continue
            now = read_moves(text, placement)
            if now != placement:
                try:
                    await self._go_over(line, now)
                    followed = True
                except PolystoreError as e:  # at the next look then: nothing else has to wait for it
                    self._manager.report(f"{etype} could not be placed as the journal says: {e}")
        return followed

    async def _go_over(self, line: Line, now: Placement) -> None:
        """From now on this placement holds in this process. Stores that hold other facets than before are told."""
        manager, etype = self._manager, now.etype
        before = manager.placements[etype]
        for name in now.targets().keys() - manager.stores.keys():
            await self.reach(name)
        told = {
            name
            for name in {now.authority, now.home, *now.targets()} & manager.stores.keys() - {now.cache}
            if now.held(name) != before.held(name)
        }
        standing = told & {before.authority, before.home, *before.targets()}
        async with line.alone() if standing else contextlib.nullcontext():
            if told:
                await self.prepare(now, told)
        await line.targets.refresh()
        await register(line, etype, now, manager.stores, manager.embedders, manager.detach)
        await line.targets.refresh()
        for what in ("known", "leaving"):
            self._since.pop((etype, what), None)
        manager.place(now)
        for name in now.targets():
            line.retries.wake(name)
        line.wake()

    async def remember(self, line: Line, now: Placement) -> bool:
        """Remember this placement, and go over to it; False when another process has remembered something else than
        what holds here, which is to be followed first."""
        before = self._manager.placements[now.etype]
        text = (await line.home.call(SupportsJournal.placements))[now.etype]
        if read_moves(text, before) != before:
            return False
        self._manager.env.crashpoint("move.remember")
        await line.home.call(SupportsJournal.remember, now.etype, write_moves(text, now))
        self._manager.env.crashpoint("move.remembered")
        await self._go_over(line, now)
        self._manager.env.crashpoint("move.gone_over")
        return True

    # -- who brings it on -----------------------------------------------------------------------------------------

    async def advance(self, line: Line) -> None:
        """One look of the relay: begin what is due. Takes a few calls, never long."""
        for placement in list(self._manager.placements.values()):
            if placement.authority == line.home.name:
                if placement.upcoming:
                    await self._bring_on(line, placement)
                elif placement.leaving:
                    await self._end(line, placement)

    async def _bring_on(self, line: Line, placement: Placement) -> None:
        manager, etype = self._manager, placement.etype
        names = set(placement.upcoming.values())
        if unknown := names - manager.stores.keys():
            for name in unknown:
                await self._lease(line, f"without:{name}")
            return
        if etype in self._tasks:
            await self._lease(line, f"move:{etype}")
            return
        complete = {row.name for row in line.targets.rows(etype) if row.status == "active"}
        if not names <= complete or manager.env.monotonic() < self._next.get(etype, 0.0):
            return
        if await self._known_to_all(line, etype, names) and await self._lease(line, f"move:{etype}"):
            task = self._tasks[etype] = asyncio.create_task(self._finish(line, placement))
            task.add_done_callback(lambda _: self._tasks.pop(etype, None))

    async def _known_to_all(self, line: Line, etype: str, names: Collection[str]) -> bool:
        """Whether nobody runs without these stores. Who just began to has had its looks to say so."""
        for name in sorted(names):
            if not await self._lease(line, f"without:{name}", 0):
                self._since.pop((etype, "known"), None)
                return False
        return self._long_ago(line, etype, "known", 3 * self._manager.settings.poll_s)

    def _long_ago(self, line: Line, etype: str, what: str, seconds: float) -> bool:
        """Whether it has been so for that long; at once where no other process lives."""
        now = self._manager.env.monotonic()
        since = self._since.setdefault((etype, what), now)
        return line.live <= {self._manager.worker} or now - since >= seconds

    async def _finish(self, line: Line, placement: Placement) -> None:
        """Compare what is to serve; then change over, or have it filled again."""
        manager, etype = self._manager, placement.etype
        try:
            manager.env.crashpoint("move.filled")
            for name in sorted(set(placement.upcoming.values())):
                found = await differences(
                    line, etype, placement.held(name), manager.stores[name], manager.stores, manager.embedders
                )
                if found:
                    await self._fill_again(line, etype, name, len(found), found[0].problem)
                    return
            rows = {row.name: row.status for row in await line.home.call(SupportsJournal.targets) if row.etype == etype}
            if all(rows[name] == "active" for name in placement.upcoming.values()):
                left = {facet: placement.facets[facet] for facet in placement.upcoming}
                facets = {**placement.facets, **placement.upcoming}
                leaving = {**placement.leaving, **left}
                await self.remember(line, replace(placement, facets=facets, upcoming={}, leaving=leaving))
        except PolystoreError as e:
            manager.report(f"the move of {etype} is brought on later: {e}")
        finally:
            with contextlib.suppress(PolystoreError):
                await self._lease(line, f"move:{etype}", 0)
            line.wake()

    async def _fill_again(self, line: Line, etype: str, name: str, count: int, problem: str) -> None:
        manager = self._manager
        manager.report(
            f"{name} was to serve {etype}, and was compared with {line.home.name}: {count} differences, the first is "
            f"{problem!r}. It is filled again; `polystore verify` shows them"
        )
        self._next[etype] = manager.env.monotonic() + AGAIN_S
        row = next(row for row in line.targets.rows(etype) if row.name == name)
        await line.home.call(SupportsJournal.set_target, replace(row, status="backfilling", cursor=None), row)
        await line.targets.refresh()

    async def _end(self, line: Line, placement: Placement) -> None:
        """What served before is turned off, and a store that goes on holding the records drops the facet: when every
        process has had the time to go over. The place that a rebuild came from is kept for a way back."""
        if not self._long_ago(line, placement.etype, "leaving", self._manager.settings.worker_dead_s):
            return
        kept = {f: name for f, name in placement.leaving.items() if origin(name) == origin(placement.facets[f])}
        await self.remember(line, replace(placement, leaving={}, previous={**placement.previous, **kept}))

    async def _lease(self, line: Line, name: str, ttl_s: float | None = None) -> bool:
        """As long as a worker may be silent, unless it says otherwise; 0 gives it up."""
        seconds = self._manager.settings.worker_dead_s if ttl_s is None else ttl_s
        return await line.home.call(SupportsJournal.hold_lease, name, self._manager.worker, seconds)


async def _nothing(placement: Placement, stores: Collection[str]) -> None:
    """The stores are prepared by who opened them."""


async def _nowhere(name: str) -> None:
    """No store is opened later."""
