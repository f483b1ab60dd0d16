"""A facet moves from one store to another while everything goes on.

The store that serves goes on, and is delivered to, until the other one is filled and compared; then every process goes
over to that one. What serves and what will is in the remembered placement, which all processes look at with each step
of their relay, so a move is nobody's in particular: any process that has both stores brings it on, and who dies leaves
nothing behind. Two leases of the journal order it: `move:STORE`, so that one process at a time compares; and
`without:STORE`, which a process holds that runs with a configuration in which the new store is missing: until it has
ended nobody goes over, since it could not.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Protocol

from msgspec.structs import replace

from polystore.consistency.aliases import take_aliases
from polystore.consistency.copies import register
from polystore.consistency.detach import Detach
from polystore.consistency.embedding import Embedders, Makings
from polystore.consistency.line import Line
from polystore.consistency.mending import Mender, Steady
from polystore.consistency.settings import Settings
from polystore.consistency.targets import EMBED
from polystore.consistency.verify import AT_HOME
from polystore.env import Env
from polystore.errors import PolystoreError
from polystore.model import Placement
from polystore.protocols import Repository, SupportsJournal
from polystore.selection.moves import configs_in, origin, read_moves, write_moves
from polystore.store import Store

AGAIN_S = 60.0
"""After a comparison that found what cannot be mended."""


class _Manager(Protocol):
    """What is used of the consistency manager."""

    env: Env
    worker: str
    settings: Settings
    stores: Mapping[str, Store]
    placements: dict[str, Placement]
    embedders: Embedders
    detach: Detach

    def line(self, etype: str) -> Line: ...
    def place(self, placement: Placement) -> None: ...
    def expect(self, placement: Placement) -> None: ...
    def report(self, problem: str) -> None: ...


class _Upcoming:
    """The architecture as if what is to serve served already, and nothing else."""

    def __init__(self, manager: _Manager, placement: Placement) -> None:
        self.env = manager.env
        self.placements = {placement.etype: placement}
        self.stores = manager.stores
        self.settings = manager.settings
        self.embedders = manager.embedders
        self.line = manager.line


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
        self.wrong: dict[str, str] = {}
        """Entity -> why its move cannot end by itself, as this process found when it compared."""
        self._next: dict[str, float] = {}
        self._seen: dict[str, float] = {}
        """Home -> when the last look began by which those serve who serve here."""
        self._looked: dict[str, float] = {}
        """Home -> when the last look began: one that began earlier, and ends later, says what was before."""
        self._behind: dict[str, set[str]] = {}
        """Home -> entities that others serve than are known here."""
        self._turns: dict[str, asyncio.Lock] = {}
        """Home -> held by who goes over: on what was read before, nobody goes back."""

    async def stop(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- all processes --------------------------------------------------------------------------------------------

    async def follow(self, line: Line, texts: Mapping[str, str], since: float) -> bool:
        """Go over to what the remembered placements say, which were asked for at `since`; False when that is nothing
        new."""
        new = self._new(line, texts)
        known, home = self._manager.placements, line.home.name
        if since >= self._looked.get(home, -math.inf):
            self._looked[home] = since
            self._behind[home] = {one.etype for one in new if one.facets != known[one.etype].facets}
            if not self._behind[home]:
                self._seen[home] = since
        if not new:
            return False
        followed = False
        async with self._turn(line):
            texts = await line.home.call(SupportsJournal.placements)
            new = self._new(line, texts)
            for now in new:
                try:
                    await self._go_over(line, now, texts[now.etype])
                    followed = True
                except PolystoreError as e:  # at the next look then: nothing else has to wait for it
                    self._manager.report(f"{now.etype} could not be placed as the journal says: {e}")
        return followed or not new

    def _new(self, line: Line, texts: Mapping[str, str]) -> list[Placement]:
        """What is remembered of the types of this home otherwise than it holds here."""
        known = self._manager.placements
        mine = {etype: known[etype] for etype in texts if etype in known and known[etype].authority == line.home.name}
        said = [read_moves(texts[etype], placement) for etype, placement in mine.items()]
        return [now for now in said if now != mine[now.etype]]

    def _turn(self, line: Line) -> asyncio.Lock:
        return self._turns.setdefault(line.home.name, asyncio.Lock())

    async def _go_over(self, line: Line, now: Placement, text: str, *, alone: bool = False) -> None:
        """From now on this placement holds in this process, as the `text` of it says. Stores that hold other facets
        than before, or vectors that are made otherwise, are told. `alone`: nothing else is under way."""
        manager, embedders, etype = self._manager, self._manager.embedders, now.etype
        before = manager.placements[etype]
        for name in sorted(now.targets().keys() - manager.stores.keys()):
            await self.reach(name)
        embedders.learn(now, configs_in(text))
        was, then = embedders.makings(etype), embedders.remembered(now)
        told = {
            name
            for name in {now.authority, now.home, *now.targets()} & manager.stores.keys() - {now.cache}
            if now.held(name) != before.held(name) or ("vector" in now.held(name) and then.at(name) != was.at(name))
        }
        for name in sorted(told):  # `prepare` takes its time: it is not begun where nobody answers, while writes wait
            await manager.stores[name].call(Repository.ping)
        standing = told & {before.authority, before.home, *before.targets()}
        async with line.alone() if standing and not alone else contextlib.nullcontext():
            # Each place is brought from now on what it is made with; who is asked changes with the placement.
            held = then if _in_place(before, now) else Makings(was.serving, {**was.places, **then.places})
            embedders.hold(etype, held)
            manager.expect(now)  # perhaps what follows fails for a store that does not answer: it is delivered to
            try:
                if told:
                    await self.prepare(now, sorted(told))
            except BaseException:
                embedders.hold(etype, was)
                raise
        await line.targets.refresh()
        self._leave_to_others(line, etype)
        await register(line, etype, now, manager.stores, manager.embedders, manager.detach)
        await line.targets.refresh()
        for what in ("known", "leaving"):
            self._since.pop((etype, what), None)
        manager.place(now)
        self._behind.get(line.home.name, set()).discard(etype)
        self.pace(line)
        for name in now.targets():
            line.retries.wake(name)
        line.wake()
        await take_aliases(manager.stores, [now], manager.report, create=True)

    def late(self, etype: str) -> bool:
        """Whether this process still has to go over with a type, and for so long that what it knows to serve may have
        been turned off since: what leaves is not waited for any longer, see `_end`."""
        home, env = self._manager.placements[etype].authority, self._manager.env
        if etype not in self._behind.get(home, ()):
            return False
        return env.monotonic() - self._seen.get(home, -math.inf) > self._manager.settings.worker_dead_s

    async def remember(self, line: Line, before: Placement, now: Placement) -> bool:
        """Remember what follows from the placement `before`, and go over to it; False when that does not hold here any
        more, or another process has remembered something else, which is to be followed first. A copy whose vectors are
        made otherwise, where it is, is filled again."""
        embedders, alone = self._manager.embedders, _made_anew(before, now)
        async with self._turn(line), line.alone() if alone else contextlib.nullcontext():
            text = (await line.home.call(SupportsJournal.placements))[now.etype]
            if self._manager.placements[now.etype] != before or read_moves(text, before) != before:
                return False
            written = write_moves(text, now, embedders.known())
            now = read_moves(written, now)
            if alone:
                await self._fill_again(line, now)
            self._manager.env.crashpoint("move.remember")
            if not await line.home.call(SupportsJournal.remember, now.etype, written, text):
                return False
            self._manager.env.crashpoint("move.remembered")
            await self._go_over(line, now, written, alone=alone)
            self._manager.env.crashpoint("move.gone_over")
        return True

    async def _fill_again(self, line: Line, now: Placement) -> None:
        """The copy that serves vectors: it begins anew."""
        for row in await line.home.call(SupportsJournal.targets):
            if row.etype == now.etype and row.name == now.facets["vector"]:
                await line.home.call(SupportsJournal.set_target, replace(row, status="backfilling", cursor=None))

    def _leave_to_others(self, line: Line, etype: str) -> None:
        """Who has begun or rebuilt something has said which embedders work on, and may ask those that this process
        cannot."""
        asked = {row.name for row in line.targets.rows(etype) if row.name.startswith(EMBED) and row.status != "off"}
        embedders = self._manager.embedders
        embedders.elsewhere[etype] = {name.removeprefix(EMBED) for name in asked if embedders.stage(name) is None}

    def pace(self, line: Line) -> None:
        """Let the filling keep to the rates that are remembered."""
        line.filling.rates = {
            (etype, name): one.rates[facet]
            for etype, one in self._manager.placements.items()
            for facet, name in one.upcoming.items()
            if one.authority == line.home.name and facet in one.rates
        }

    def again(self, etype: str) -> None:
        """Let what could not be mended be compared now, not later: perhaps somebody has seen to it."""
        self.wrong.pop(etype, None)
        self._next.pop(etype, None)

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
            for name in sorted(unknown):
                await self._lease(line, f"without:{name}")
            return
        # Edges between types are walked in one store: types that move to the same one go over together.
        group = f"move:{'+'.join(sorted(names))}"
        if etype in self._tasks:
            await self._lease(line, group)
            return
        waiting = {(one.etype, name) for one in self._together(placement) for name in one.upcoming.values()}
        waiting -= {(row.etype, row.name) for row in line.targets.rows() if row.status == "active"}
        if waiting or manager.env.monotonic() < self._next.get(etype, 0.0):
            return
        if await self._known_to_all(line, etype, names) and await self._lease(line, group):
            task = self._tasks[etype] = asyncio.create_task(self._finish(line, placement, group))
            task.add_done_callback(lambda _: self._tasks.pop(etype, None))

    def _together(self, placement: Placement) -> list[Placement]:
        """What moves to the same stores, from the same home."""
        names = {*placement.upcoming.values()}
        placements = self._manager.placements.values()
        return [
            one
            for one in placements
            if one.authority == placement.authority and not names.isdisjoint(one.upcoming.values())
        ]

    async def _known_to_all(self, line: Line, etype: str, names: Collection[str]) -> bool:
        """Whether nobody runs without these stores. Who just began to has had its looks to say so."""
        for name in sorted(names):
            if not await self._lease(line, f"without:{name}", 0):
                self._since.pop((etype, "known"), None)
                return False
        now = self._manager.env.monotonic()
        since = self._since.setdefault((etype, "known"), now)
        return line.live <= {self._manager.worker} or now - since >= 3 * self._manager.settings.poll_s

    async def _finish(self, line: Line, placement: Placement, group: str) -> None:
        """Compare what is to serve, and mend it; then change over, unless something cannot be mended."""
        manager, etype = self._manager, placement.etype
        try:
            manager.env.crashpoint("move.filled")
            self.wrong.pop(etype, None)
            if wrong := await self._wrong(placement):
                self._next[etype] = manager.env.monotonic() + AGAIN_S
                manager.report(wrong)
                return
            manager.env.crashpoint("move.compared")
            rows = {row.name: row.status for row in await line.home.call(SupportsJournal.targets) if row.etype == etype}
            if all(rows[name] == "active" for name in placement.upcoming.values()):
                left = {facet: placement.facets[facet] for facet in placement.upcoming}
                facets = {**placement.facets, **placement.upcoming}
                leaving = {**placement.leaving, **left}
                now = replace(placement, facets=facets, upcoming={}, leaving=leaving, rates={})
                await self.remember(line, placement, now)
        except PolystoreError as e:
            manager.report(f"the move of {etype} is brought on later: {e}")
        except Exception as e:  # noqa: BLE001 -- nobody waits for this task, who could be told
            self._next[etype] = manager.env.monotonic() + AGAIN_S
            manager.report(f"the move of {etype} could not be brought on: {type(e).__name__}: {e}")
        finally:
            if len(self._tasks) <= 1:
                with contextlib.suppress(PolystoreError):
                    await self._lease(line, group, 0)
            line.wake()

    async def _wrong(self, placement: Placement) -> str:
        """What is to serve, against its home: why it cannot; "" when both are equal, or were made so."""
        alone = Placement(placement.etype, placement.authority, placement.upcoming)
        job = Steady(self._manager.env)
        await Mender(_Upcoming(self._manager, alone)).mend(placement.etype, job, {*placement.upcoming.values()})
        report = job.report
        left = report.left - report.damaged
        if not report.owed and not left and not report.skipped:
            return ""
        names = ", ".join(sorted({*placement.upcoming.values()}))
        shown = [one for one in report.shown if one.detail != AT_HOME]
        first = "".join(f"; the first is {one.key.id!r}: {one.problem} {one.detail}" for one in shown[:1])
        wrong = (
            f"{names} is to serve {placement.etype}, and differs from {placement.authority} in {report.owed + left} "
            f"records that could not be mended{first}. It is compared again later"
        )
        if left:
            self.wrong[placement.etype] = wrong
        return wrong

    async def _end(self, line: Line, placement: Placement) -> None:
        """What served before is turned off, and a store that goes on holding the records drops the facet: when every
        process has had the time to go over, and searches that began before have ended; of edges, when all types whose
        edges move with these have gone over. The place that a rebuild came from is kept for a way back."""
        now = self._manager.env.monotonic()
        graph = placement.facets.get("graph")
        others = [one for one in self._manager.placements.values() if one.authority == placement.authority]
        if "graph" in placement.leaving and any(one.upcoming.get("graph") == graph for one in others):
            return
        if now - self._since.setdefault((placement.etype, "leaving"), now) < self._manager.settings.worker_dead_s:
            return
        kept = {f: name for f, name in placement.leaving.items() if origin(name) == origin(placement.facets[f])}
        await self.remember(line, placement, replace(placement, leaving={}, previous={**placement.previous, **kept}))

    async def _lease(self, line: Line, name: str, ttl_s: float | None = None) -> bool:
        """As long as a worker may be silent, unless it says otherwise; 0 gives it up."""
        seconds = self._manager.settings.worker_dead_s if ttl_s is None else ttl_s
        return await line.home.call(SupportsJournal.hold_lease, name, self._manager.worker, seconds)


def _in_place(before: Placement, now: Placement) -> bool:
    """Whether the store that searches compare vectors in stays."""
    return before.facets.get("vector") == now.facets.get("vector")


def _made_anew(before: Placement, now: Placement) -> bool:
    """Whether the vectors in that store are made otherwise from now on."""
    place = now.facets.get("vector", "")
    return _in_place(before, now) and before.made.get(place) != now.made.get(place)


async def _nothing(placement: Placement, stores: Collection[str]) -> None:
    """The stores are prepared by who opened them."""


async def _nowhere(name: str) -> None:
    """No store is opened later."""
