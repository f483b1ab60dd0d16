"""A system that grows: a configuration with one more store is opened by one process after the other, or a copy is built
anew in its other place, while everything goes on. What opens, fills, compares and goes over is production code."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from polystore.collection import Collection, Scope, Wiring
from polystore.consistency import DataConsistencyManager
from polystore.errors import PolystoreError
from polystore.model import Key, Placement, key_hash
from polystore.opening import open_all
from polystore.selection.moves import other_place, read_moves
from polystore.testing.simloop import current_process
from polystore.testing.simulation.caching import CACHE, CacheReader, SimCacheServer
from polystore.testing.simulation.corrupting import corrupt_one, differs
from polystore.testing.simulation.history import HOME, History
from polystore.testing.simulation.network import Network
from polystore.testing.simulation.process import Node
from polystore.testing.simulation.scenario import Scenario
from polystore.testing.simulation.servers import DOCUMENTS, FACTS, LOGS, TYPES, SimServer, placements
from polystore.testing.simulation.workload import TENANTS

if TYPE_CHECKING:
    from polystore.testing.simulation.world import World

P = ParamSpec("P")
R = TypeVar("R")
GROWING, WORDS = "search", "words"
"""The copy that is replaced by another store, or by its other place; and that other store."""
OLD = [f"old{i}" for i in range(10)]
"""Records that were there before any copy was, and that nobody changes."""
LOOKED_S = 5.0
"""What leaves is delivered to for so long: a process that has not looked at the journal meanwhile counts as dead."""
MOVED_S = 90.0
"""How much longer it may take until everything is everywhere: a comparison that could not mend everything is repeated
after a minute."""
_SEARCH_S, _ROLLOUT_S = 0.5, 1.5
_TRIES = 200
"""To open, or to rebuild: more than all troubles together may last."""


def servers_of(scenario: Scenario) -> list[str]:
    """The servers that a seed has besides."""
    return {"": [], "added": [WORDS, other_place(GROWING)], "rebuilt": [other_place(GROWING)]}[scenario.grown]


def configuration(scenario: Scenario, *, added: bool) -> dict[str, Any]:
    """What the processes of such a seed are opened with; `added`: with the new store."""
    placed = placements(scenario)
    roles: dict[str, set[str]] = {HOME: {"home", "journal"}, FACTS: {"time_series", "full_text"}}
    pins: dict[str, dict[str, str]] = {etype: {"home": FACTS} for etype in LOGS}
    for etype, one in placed.items():
        facets = {**one.facets, **({"full_text": WORDS} if added else {})}
        around = {
            "home": one.home,
            "journal": one.journal,
            "cache": one.cache,
            "time_series": one.beside.get("time_series"),
        }
        pins[etype] = {**facets, **{role: name for role, name in around.items() if name}}
        for role, name in pins[etype].items():
            roles.setdefault(name, set()).add("document" if name == DOCUMENTS else role)
    roles.setdefault(GROWING, set()).add("full_text")
    stores = {
        name: {"url": "memory:", "roles": sorted(some), "timeout_s": 4.0 if name == HOME else 2.0}
        for name, some in sorted(roles.items())
    }
    return {"stores": stores, "pins": pins}


class Exits(AsyncExitStack):
    """Ends what was opened, one after the other. Who is killed in between ends nothing more: an `AsyncExitStack` would
    go on with the next one when it is thrown away."""

    def __init__(self) -> None:
        super().__init__()
        self._ends: list[Callable[[], Awaitable[object]]] = []

    def push_async_callback(
        self, callback: Callable[P, Awaitable[R]], /, *args: P.args, **kwds: P.kwargs
    ) -> Callable[P, Awaitable[R]]:
        self._ends.append(partial(callback, *args, **kwds))
        return callback

    async def aclose(self) -> None:
        while self._ends:
            await self._ends.pop()()


class GrowingNode(Node):
    """A process that opens everything as an application does, and searches."""

    added = False
    """Whether it was opened with the new store."""
    wiring: Wiring | None = None
    _exits: Exits

    async def open(self) -> DataConsistencyManager:
        network = self.network
        self.env.repositories[self.name] = lambda store: self.repository(self.servers[store])
        classes = [one.cls for one in (*TYPES.values(), *LOGS.values())]
        config = configuration(self.scenario, added=self.added)
        for _ in range(_TRIES):
            self._exits = Exits()
            try:
                self.wiring, _ = await open_all(
                    *(self._exits, config, classes, {"default": self.embedder}),
                    create=True,
                    env=self.env,
                    settings=self.settings(),
                )
            except PolystoreError as e:
                network.history.note(f"{self.name} cannot open: {type(e).__name__}: {e}")
                await self._exits.aclose()
                await asyncio.sleep(self.env.random.uniform(0.1, 1.0))
            else:
                break
        assert self.wiring is not None, f"{self.name} cannot be opened"
        server = self.servers.get(CACHE)
        if isinstance(server, SimCacheServer):
            cache, home = self.wiring.caches["note"], self.wiring.stores[HOME]
            self.reader = CacheReader(self.name, cache, home, server, network.history)
        self.facts, self.manager = self.wiring.facts, self.wiring.manager
        return self.manager

    async def close(self, manager: DataConsistencyManager) -> None:
        await self._exits.aclose()

    async def search(self) -> None:
        """Searches, to the end. What nobody changes is found by each of them."""
        r, wiring, history = self.env.random, self.wiring, self.network.history
        assert wiring is not None
        while True:
            await asyncio.sleep(r.expovariate(1 / _SEARCH_S))
            notes = Collection(Scope(wiring, wiring.types["note"], TENANTS[0]))
            try:
                hits = await notes.search("old", limit=50)
            except PolystoreError as e:
                history.note(f"{self.name} searches: {type(e).__name__}: {e}")
                continue
            lacking = {*OLD} - {hit.value.id for hit in hits}
            if lacking and not self.network.silent(self.name, LOOKED_S):
                history.incomplete.append(f"{self.name} searched, and did not find {', '.join(sorted(lacking))}")


# -- what a search is answered from -------------------------------------------------------------------------------


def watch(network: Network, servers: dict[str, SimServer], history: History) -> None:
    """Let every search be judged in the moment in which a server answers it."""
    for server in servers.values():
        server.asked = partial(_judge, network, servers[HOME], server, history)


def _judge(network: Network, home: SimServer, copy: SimServer, history: History, etype: str, tenant: str) -> None:
    """A copy that answers has what the home has, or is owed it. Nobody reads an answer to a request that came late, and
    who counts as dead may ask whom it knew."""
    process = current_process()
    if process is None or network.silent(process.name, LOOKED_S):
        return
    history.covered[f"searched at {copy.name}"] += 1
    status = next((row.status for row in home.targets() if (row.etype, row.name) == (etype, copy.name)), "unknown")
    if status != "active":
        history.incomplete.append(f"{copy.name} answered {process.name} for {etype}, and is {status}")
        return
    here, there = home.contents(), copy.contents()
    for key in sorted({*here, *there}, key=str):
        wrong = (key.etype, key.tenant) == (etype, tenant) and differs(here.get(key), there.get(key))
        if wrong and not (_owed(home, copy, key) or home.expires(key) or copy.expires(key)):
            history.incomplete.append(
                f"{copy.name} answered {process.name}: it is owed nothing, and has {key.id} at {there.get(key)}, the "
                f"home at {here.get(key)}"
            )


def _owed(home: SimServer, copy: SimServer, key: Key) -> bool:
    return home.pending(key.etype, copy.name, [(key_hash(key.tenant, key.etype, key.id), home.version(key))])


# -- what happens -------------------------------------------------------------------------------------------------


async def grow(world: World) -> None:
    """Returns when all processes that live are opened with the new store, or when the rebuild is over or given up."""
    await asyncio.sleep(world.random.expovariate(1 / 1.0))
    spoiling = asyncio.create_task(_spoil(world))
    if world.scenario.grown == "added":
        await _add(world)
    else:
        await _rebuild(world)
    spoiling.cancel()


async def _add(world: World) -> None:
    """One process after the other. Somebody may start one with the old configuration in between, or afterwards."""
    r, history, home = world.random, world.history, world.servers[HOME]
    history.note(f"{WORDS} is added")
    history.covered["store added"] += 1
    world.added = True
    world.start()
    stragglers = r.choice((0, 1))
    while True:
        await asyncio.sleep(r.expovariate(1 / _ROLLOUT_S))
        old = [node for node in world.living() if isinstance(node, GrowingNode) and not node.added]
        if not old and not stragglers:
            return
        if stragglers and (not old or r.random() < 0.5):
            stragglers -= 1
            for _ in range(0 if old else _TRIES):
                if not unmoved(home, world.scenario):
                    break
                await asyncio.sleep(0.2)
            served = any(one.facets["full_text"] == WORDS for one in standing(home, world.scenario).values())
            history.covered["straggler, once the new store served" if served else "straggler"] += 1
            world.added = False
            world.start()
            world.added = True
            continue
        node = r.choice(old)
        if r.random() < 0.5:
            node.process.kill()
        else:
            node.process.start(node.leave)
            await asyncio.sleep(3.0)
            node.process.kill()
        world.start()


async def _rebuild(world: World) -> None:
    """Said again, to whoever lives, when it came to nothing."""
    history = world.history
    for _ in range(_TRIES):
        node = world.random.choice(world.living())
        history.note(f"{node.name} rebuilds {GROWING}")
        history.covered["rebuild"] += 1
        over = asyncio.Event()
        node.process.start(partial(_rebuilt_by, node, over, history))
        while node.process.alive and not over.is_set():  # noqa: ASYNC110 -- who dies sets no event
            await asyncio.sleep(0.5)
        if history.covered["rebuilt"]:
            return


async def _rebuilt_by(node: Node, over: asyncio.Event, history: History) -> None:
    while node.manager is None:  # noqa: ASYNC110 -- it opens
        await asyncio.sleep(0.1)
    try:
        await node.manager.renewer.rebuild(GROWING, lambda _: None)
        history.covered["rebuilt"] += 1
    except PolystoreError as e:
        history.note(f"{node.name} could not rebuild: {type(e).__name__}: {e}")
    over.set()


async def _spoil(world: World) -> None:
    """Make one record of what is being filled wrong behind everybody's back: the comparison has to find it."""
    r, home = world.random, world.servers[HOME]
    while True:
        await asyncio.sleep(r.expovariate(1 / 0.2))
        upcoming = standing(home, world.scenario)["note"].upcoming.values()  # of another type it may serve already
        rows = [row for row in home.targets() if row.etype == "note" and row.status == "backfilling"]
        filling = [row.name for row in rows if row.name in upcoming]
        # What is written anew would be right again by itself, and what was deleted is looked for by the filling.
        kinds = ("missing", "older", "content")
        if filling and corrupt_one(world.servers[filling[0]], r, world.history, kinds, OLD):
            return


def standing(home: SimServer, scenario: Scenario) -> dict[str, Placement]:
    """Where everything lives by now, as the journal remembers it."""
    texts = home.placements()
    placed = placements(scenario)
    return {etype: read_moves(texts[etype], one) if etype in texts else one for etype, one in placed.items()}


def unmoved(home: SimServer, scenario: Scenario) -> list[str]:
    """What has not come to its end yet, in words."""
    return [
        f"{one.etype} from {one.facets} to {one.upcoming or WORDS}, leaving {one.leaving}"
        for one in standing(home, scenario).values()
        if one.upcoming or one.leaving or (scenario.grown == "added" and one.facets["full_text"] != WORDS)
    ]
