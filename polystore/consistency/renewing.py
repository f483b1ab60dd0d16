"""Rebuild: a copy is built anew in its other place on the same server, beside the one that serves, and moves there.

The move is that of `moving.py`: filled by the guarded path, compared, gone over to by every process. The place that
served before is kept, delivered nothing, for a way back: a move like any other, so that it is brought up to date before
it serves. The next rebuild, or `discard`, empties it. So vectors are changed over to those of another model, too: the
other place is filled with them. There is no way back from that then, but the same way with the model of before.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from typing import Literal, Protocol

import msgspec
from msgspec.structs import replace

from polystore.consistency.line import Line
from polystore.consistency.moving import Mover
from polystore.embedders import Made, read_made, write_made
from polystore.env import Env
from polystore.errors import ConfigurationError, StoreError, Unavailable
from polystore.model import Placement
from polystore.protocols import Repository, SupportsFilter, SupportsJournal, SupportsRebuild
from polystore.selection.moves import origin, other_place, read_moves
from polystore.store import Store

POLL_S = 0.05
TURN_S = 30.0
"""More than it takes to empty a place; who is killed meanwhile holds others up for so long."""
FOLLOW_TRIES = 3
"""As often something else may be remembered while this process follows what was before."""


class RenewProgress(msgspec.Struct, frozen=True):
    """How far the rebuild of one entity's copy is: `done` of about `total` records are in the place that is filled, as
    far as this process brings them there; then both sides are compared."""

    entity: str
    step: Literal["filling", "comparing", "done"]
    done: int
    total: int


class _Manager(Protocol):
    """What is used of the consistency manager."""

    env: Env
    worker: str
    stores: Mapping[str, Store]
    placements: dict[str, Placement]
    mover: Mover

    def line(self, etype: str) -> Line: ...


class Renewer:
    """Rebuilds the copies of one architecture."""

    def __init__(self, manager: _Manager) -> None:
        self._manager = manager

    def copied(self, store: str) -> dict[str, frozenset[str]]:
        """Entity -> the facets of which this configured store serves a copy, in either of its places."""
        found: dict[str, frozenset[str]] = {}
        for etype, one in sorted(self._manager.placements.items()):
            facets = {f for f, name in one.facets.items() if origin(name) == store != one.authority}
            if facets and store != one.home:
                found[etype] = frozenset(facets)
        return found

    async def rebuild(
        self, store: str, progress: Callable[[RenewProgress], None], *, rate_per_s: float = 0.0, back: bool = False
    ) -> dict[str, str]:
        """Build the copies in a store anew, or move `back` to what served before the last rebuild. Returns which place
        serves each entity now. May be cancelled or killed at any moment and called again: it goes on, and so does every
        process that has the store. `rate_per_s`: records that are filled in; 0: as fast as it goes.

        Raises ConfigurationError, before anything is begun, for a store that has no copies, whose adapter has no second
        place, or that has nothing to go `back` to; for an entity that the store would serve from both its places then,
        as going back does while it is given one more facet; Unavailable when it does not answer; StoreError when what
        was built holds what cannot be mended, so that it never serves; and what stores raise.
        """
        copied = self._checked(store)
        if back and not any(self._kept(etype, facets) or self._going(etype) for etype, facets in copied.items()):
            raise ConfigurationError(
                f"{store!r} has nothing to go back to: it was not rebuilt, or what served before was discarded, or has "
                "vectors of another model"
            )
        for etype, facets in copied.items():
            async with self._turn(etype):
                await self._begin(etype, facets, rate_per_s, back=back)
        for etype in copied:
            self._manager.mover.again(etype)
            await self._watch(etype, progress)
        placements = self._manager.placements
        return {etype: placements[etype].facets[min(facets)] for etype, facets in copied.items()}

    async def discard(self, store: str) -> list[str]:
        """Remove what a rebuild has left behind; returns the places that were emptied. Raises as `rebuild`."""
        emptied: list[str] = []
        for etype, facets in self._checked(store).items():
            async with self._turn(etype):
                previous = self._manager.placements[etype].previous
                for name in sorted({previous[facet] for facet in facets & previous.keys()}):
                    await self._empty(etype, name)
                    emptied.append(name)
        return emptied

    # -- vectors that are made otherwise --------------------------------------------------------------------------

    def beside(self, etype: str) -> bool:
        """Whether the vectors of a type can be made anew beside those that serve: in a copy with a second place.
        Raises Unavailable when the copy does not answer."""
        placement = self._manager.placements[etype]
        place = placement.facets["vector"]
        if "vector" not in self.copied(origin(place)).get(etype, ()):
            return False
        store = self._manager.stores.get(place)
        if store is None:
            raise Unavailable("it has not answered since this architecture was opened", store=place)
        return store.supports(SupportsRebuild)

    async def remake(self, etype: str, fields: Mapping[str, Made], progress: Callable[[RenewProgress], None]) -> None:
        """Let vectors serve that are made in this way, of which all that no process makes within its writes are beside
        the home. Raises as `rebuild`."""
        facets = self._checked(origin(self._manager.placements[etype].facets["vector"]))[etype]
        if self._is_given_more(etype):
            await self._watch(etype, progress)
        async with self._turn(etype):
            placement = self._manager.placements[etype]
            going = self._going(etype).get("vector")
            if going is not None and not _made_so(placement, going, fields):
                await self._take_back(etype, facets)
                going = None
            if going is None and not _made_so(placement, placement.facets["vector"], fields):
                await self._begin(etype, facets, 0.0, back=False, made=write_made(fields))
        if self._going(etype):
            self._manager.mover.again(etype)
            await self._watch(etype, progress)

    async def discard_others(self, etype: str) -> None:
        """Remove what has served with vectors that are made otherwise: nobody goes back to that."""
        placement = self._manager.placements[etype]
        names = {name for name in placement.previous.values() if _otherwise(placement, name)}
        if not names:
            return
        async with self._turn(etype):
            for name in sorted(names & {*self._manager.placements[etype].previous.values()}):
                await self._delivered(etype, name)
                await self._empty(etype, name)

    async def _delivered(self, etype: str, name: str) -> None:
        """Return when nothing is owed to a place that is delivered nothing any more, or not for some time."""
        line, env = self._manager.line(etype), self._manager.env
        deadline = env.monotonic() + line.context.settings.worker_dead_s
        await line.home.call(SupportsJournal.awaken, name, None, 0)
        while env.monotonic() < deadline and (await line.home.call(SupportsJournal.backlog)).retry.get(name):
            line.retries.wake(name)
            await asyncio.sleep(POLL_S)

    # -- one entity -----------------------------------------------------------------------------------------------

    def _checked(self, store: str) -> dict[str, frozenset[str]]:
        copied, one = self.copied(store), self._manager.stores.get(store)
        if not copied:
            raise ConfigurationError(
                f"{store!r} serves no copy: what is at home there is the source of truth, and is never rebuilt"
            )
        if one is None:
            raise Unavailable("it has not answered since this architecture was opened", store=store)
        if not one.supports(SupportsRebuild):
            raise ConfigurationError(f"{store!r} cannot be rebuilt: its adapter has no second place on the server")
        return copied

    def _kept(self, etype: str, facets: frozenset[str]) -> dict[str, str]:
        placement = self._manager.placements[etype]
        previous = {facet: name for facet, name in placement.previous.items() if facet in facets}
        return {} if any(_otherwise(placement, name) for name in previous.values()) else previous

    def _going(self, etype: str) -> dict[str, str]:
        """The facets that a rebuild moves at this moment."""
        one = self._manager.placements[etype]
        return {f: name for f, name in one.upcoming.items() if origin(name) == origin(one.facets[f])}

    def _is_given_more(self, etype: str) -> bool:
        """Whether the copy of the vectors is given one more facet at this moment: that takes its other place."""
        one = self._manager.placements[etype]
        store = origin(one.facets["vector"])
        joining = [f for f, name in one.upcoming.items() if origin(name) == store != origin(one.facets[f])]
        places = {name for name in one.facets.values() if origin(name) == store}
        return bool(joining) or (bool(self._going(etype)) and len(places) > 1)

    @contextlib.asynccontextmanager
    async def _turn(self, etype: str) -> AsyncGenerator[None]:
        """One process at a time, and by what is remembered when its turn comes: what one has begun to fill, no other
        one empties."""
        line, worker = self._manager.line(etype), self._manager.worker
        lease = f"rebuild:{etype}"
        try:
            while True:
                while not await line.home.call(SupportsJournal.hold_lease, lease, worker, TURN_S):  # noqa: ASYNC110
                    await asyncio.sleep(POLL_S)
                await self.follow(line, etype)
                if not self._manager.placements[etype].leaving:
                    break
                # Of a move that was followed just now, too: what it leaves may still be asked, so nobody empties it.
                await self._until_over(etype, lambda p: not p.leaving)
            yield
        finally:
            await line.home.call(SupportsJournal.hold_lease, lease, worker, 0.0)

    async def follow(self, line: Line, etype: str) -> None:
        """Go over to what is remembered. Raises Unavailable where that cannot be done here: what another process fills
        would be emptied."""
        for _ in range(FOLLOW_TRIES):
            await line.delivery.follow()
            placement = self._manager.placements[etype]
            texts = await line.home.call(SupportsJournal.placements)
            if read_moves(texts[etype], placement) == placement:
                return
        raise Unavailable(
            f"this process could not follow another one that has moved {etype}, and reports why; mend that, and say "
            "it again"
        )

    async def _take_back(self, etype: str, facets: frozenset[str]) -> None:
        """End what was begun. It has not served: nobody moves."""
        placement = self._manager.placements[etype]
        left = {f: name for f, name in placement.upcoming.items() if f not in facets}
        _in_one_place(etype, facets, {**placement.facets, **left})
        await self._remember(placement, replace(placement, upcoming=left, rates={}))

    async def _begin(
        self, etype: str, facets: frozenset[str], rate_per_s: float, *, back: bool, made: str = ""
    ) -> None:
        """Let the other place be upcoming, emptied first; unless it is: then somebody has begun before. `made`: how its
        vectors are to be made, where not as those that serve."""
        placement, going = self._manager.placements[etype], self._going(etype)
        if back and going.keys() & facets and not self._kept(etype, facets):
            await self._take_back(etype, facets)
            return
        if going.keys() & facets or (back and not self._kept(etype, facets)):
            return
        other = {facet: other_place(placement.facets[facet]) for facet in facets}
        _in_one_place(etype, facets, {**placement.facets, **placement.upcoming, **other})
        if not back:
            for name in sorted(set(other.values())):
                await self._empty(etype, name)
            self._manager.env.crashpoint("rebuild.emptied")
        placement = self._manager.placements[etype]
        previous = {f: name for f, name in placement.previous.items() if f not in facets}
        rates = dict.fromkeys(facets, rate_per_s) if rate_per_s else {}
        now = replace(placement, upcoming={**placement.upcoming, **other}, previous=previous, rates=rates)
        if made:
            now = replace(now, made={**placement.made, other["vector"]: made})
        await self._remember(placement, now)

    async def _empty(self, etype: str, name: str) -> None:
        """Nobody goes back to this place any more; then what it holds goes. Raises ConfigurationError for a place that
        is asked or filled."""
        manager = self._manager
        placement = manager.placements[etype]
        if name in placement.targets():
            raise ConfigurationError(
                f"{etype}: {name!r} serves, or is filled to serve, and is not emptied; say it again when no copy of "
                f"{etype} is filled any more"
            )
        if name in placement.previous.values():
            kept = {facet: one for facet, one in placement.previous.items() if one != name}
            await self._remember(placement, replace(placement, previous=kept))
        await manager.mover.reach(name)
        store = manager.stores.get(name)
        if store is None:
            raise Unavailable("it does not answer", store=name, operation="clear")
        await store.call(SupportsRebuild.clear, etype)

    async def _remember(self, before: Placement, now: Placement) -> None:
        """Raises ConfigurationError when another process moves the same facets at this moment."""
        line = self._manager.line(now.etype)
        if not await self._manager.mover.remember(line, before, now):
            await line.delivery.follow()
            raise ConfigurationError(f"another process has moved {now.etype} at this moment; look, and say it again")

    async def _until_over(self, etype: str, over: Callable[[Placement], bool]) -> None:
        while not over(self._manager.placements[etype]):  # noqa: ASYNC110
            await asyncio.sleep(POLL_S)

    async def _watch(self, etype: str, progress: Callable[[RenewProgress], None]) -> None:
        """Return when every process has gone over. Raises StoreError when what was built cannot serve as it is."""
        line = self._manager.line(etype)
        going = sorted(set(self._going(etype).values()))
        total = await self._count(line, etype) if going else 0
        while self._manager.placements[etype].upcoming or self._manager.placements[etype].leaving:
            rows = {row.name: row for row in line.targets.rows(etype)}
            filling = [name for name in going if name in rows and rows[name].status == "backfilling"]
            owed = sum(line.backlog.retry.get(name, 0) for name in going)
            brought = min((line.filling.owed.get((etype, name), 0) for name in filling), default=total + owed) - owed
            step: Literal["filling", "comparing"] = "filling" if filling else "comparing"
            progress(RenewProgress(etype, step, min(total, max(0, brought)), total))
            if wrong := self._manager.mover.wrong.get(etype):
                raise StoreError(wrong, operation="rebuild")
            await asyncio.sleep(POLL_S)
        progress(RenewProgress(etype, "done", total, total))

    async def _count(self, line: Line, etype: str) -> int:
        tenants = await line.home.call(Repository.tenants, etype)
        return sum([await line.home.call(SupportsFilter.count, etype, tenant, None) for tenant in tenants])


def _made_so(placement: Placement, place: str, fields: Mapping[str, Made]) -> bool:
    """Whether the vectors in a place of a copy are made in this way."""
    serving = placement.made.get(placement.facets["vector"], "")
    made = read_made(placement.made.get(place, serving))
    return all(made.get(field, one) == one for field, one in fields.items())


def _otherwise(placement: Placement, place: str) -> bool:
    """Whether the vectors in a place are made otherwise than those that serve."""
    return place in placement.made and place != placement.facets.get("vector")


def _in_one_place(etype: str, facets: Collection[str], then: Mapping[str, str]) -> None:
    """Raises ConfigurationError where the facets would serve from both places of their store `then`: neither could be
    emptied any more, so the copy could not be built anew again."""
    store = origin(then[min(facets)])
    both = {facet: name for facet, name in sorted(then.items()) if origin(name) == store}
    if len({*both.values()}) > 1:
        shown = ", ".join(f"{facet} from {name!r}" for facet, name in both.items())
        raise ConfigurationError(
            f"{store!r} would serve {etype} from both of its places then ({shown}). If it is given a facet at this "
            "moment, let that end (`polystore status` shows how far it is), and say it again. If it serves from both "
            "already, open with a configuration in which another store serves one of these facets, then with this one"
        )
