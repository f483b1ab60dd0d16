"""One simulated history, from a seed: servers, processes, what disturbs them, and what is left at the end."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence

from polystore.model import Body, Commit, Key, RetryRow, Settlement, Value, Write, key_hash
from polystore.testing import simloop
from polystore.testing.simloop import SimLoop
from polystore.testing.simulation.caching import CACHE, SimCacheServer, evictions
from polystore.testing.simulation.checkers import CHECKERS
from polystore.testing.simulation.corrupting import corruptions, still_wrong
from polystore.testing.simulation.growing import MOVED_S, GrowingNode, grow, servers_of, standing, unmoved, watch
from polystore.testing.simulation.history import HOME, Final, History
from polystore.testing.simulation.network import LATE_S, TROUBLES, Network
from polystore.testing.simulation.process import Node, SimEnv
from polystore.testing.simulation.scenario import Scenario
from polystore.testing.simulation.servers import (
    DOCUMENTS,
    FACTS,
    JOURNALED,
    POISONED,
    TYPES,
    SimEmbedder,
    SimServer,
    embedder_of,
    layouts,
    placements,
)
from polystore.testing.simulation.unguarded import UNGUARDED
from polystore.testing.simulation.workload import CLIENTS, Client, Plan, read_by_key

DRAIN_S = 40.0
"""How long after the last disturbance everything may take to be everywhere."""
OVERDUE_US = 5_000_000
"""How long a record may still be there after it has expired, once all is calm."""
_LOOK_S = 0.5


class Report(Value, frozen=True):
    """How a seed went. `violations` are "checker: message"; an empty list is what is wanted."""

    seed: int
    violations: list[str]
    covered: Counter[str]
    problems: Counter[str]
    trace: int
    steps: int
    virtual_s: float
    drain_s: float
    """From the last disturbance until nothing was owed any more."""
    writes: int

    @classmethod
    def broken(cls, seed: int, violation: str) -> Report:
        """Of a seed that could not be run to its end."""
        return cls(seed, [violation], Counter(), Counter(), 0, 0, 0.0, 0.0, 0)


class World:
    def __init__(self, loop: SimLoop, scenario: Scenario, log: Callable[[str], None] | None) -> None:
        self.loop = loop
        self.scenario = scenario
        self.history = History()
        if log is not None:
            self.history.log = lambda text: log(f"{loop.time():9.4f}  {text}")
        self.env = SimEnv(loop, scenario, self.history)
        self.random = self.env.random
        self.network = Network(loop, self.env, self.history, scenario.fault)
        self.embedder = embedder_of(scenario, self.env)
        names = (
            HOME,
            FACTS,
            *sorted({name for one in placements(scenario).values() for name in one.copies()} - {CACHE}),
            *servers_of(scenario),
        )
        self.servers = {
            name: SimServer(name, self.env, self.history, refuses=scenario.poison and name == POISONED)
            for name in names
        }
        self.servers[UNGUARDED].compares = not scenario.unguarded
        if scenario.cached:
            self.servers[CACHE] = SimCacheServer(self.env, self.history, self.servers[HOME])
        for name, server in self.servers.items():  # what is added later, its first process prepares
            server.prepare(layouts(name, scenario, self.embedder), create=True)
        self.servers[HOME].lends_to = self.servers.get(DOCUMENTS)
        self.plan = Plan(scenario.operations, scenario.poison, scenario.pause_s)
        self.nodes: list[Node] = []
        self.drain_s = 0.0
        self.complete = True
        """Whether the configuration names all copies."""
        self.added = False
        """Whether it names the store that is added."""
        if scenario.grown:
            watch(self.network, self.servers, self.history)

    # -- processes --------------------------------------------------------------------------------------------

    def start(self) -> Node:
        kind = GrowingNode if self.scenario.grown else Node
        name = f"p{len(self.nodes)}"
        node = kind(name, self.env, self.network, self.servers, self.scenario, self.embedder, complete=self.complete)
        if isinstance(node, GrowingNode):
            node.added = self.added

        async def main() -> None:
            manager = await node.open()
            self.history.note(f"{name} works as {manager.worker}")
            await asyncio.gather(
                *(Client(node, manager, self.plan).run() for _ in range(CLIENTS)),
                read_by_key(node, self.plan),
                *([node.search()] if isinstance(node, GrowingNode) else []),
            )

        node.process.start(main)
        self.nodes.append(node)
        return node

    def living(self) -> list[Node]:
        """The nodes that live: never none, the operator starts another one."""
        if not any(node.process.alive for node in self.nodes):
            self.start()
        return [node for node in self.nodes if node.process.alive]

    def preload(self) -> None:
        """Records that were there before any copy was."""
        server = self.servers[HOME]
        for i in range(10):
            key = Key("a", "note", f"old{i}")
            body: Body = {"id": key.id, "n": 0, "text": "old", "about": []}
            hash = TYPES["note"].content_hash(body)
            write = Write("put", key, key_hash("a", "note", key.id), body, hash)
            server.commit([Commit([JOURNALED.whole(write) if self.scenario.journaled else write])])

    # -- what goes wrong --------------------------------------------------------------------------------------

    async def disturb(self) -> None:
        for i in range(self.scenario.disturbances):
            await asyncio.sleep(self.random.expovariate(1 / 2.0))
            if i == self.scenario.disturbances // 2 and self.scenario.reconfigured:
                await self._reconfigure()
            await self.random.choice((self._kill, self._kill, self._pause, self._trouble, self._trouble, self._leave))()

    async def _kill(self) -> None:
        node = self.random.choice(self.living())
        self.history.note(f"{node.name} is killed")
        self.history.covered["killed"] += 1
        node.process.kill(after_steps=self.random.randrange(100))
        await self._replace()

    async def _leave(self) -> None:
        node = self.random.choice(self.living())
        self.history.covered["left"] += 1
        node.process.start(node.leave)
        await self._replace()

    async def _replace(self) -> None:
        await asyncio.sleep(self.random.expovariate(1 / 1.0))
        if len(self.living()) < self.scenario.processes:
            self.start()

    async def _reconfigure(self) -> None:
        """Take the graph out of the configuration, all processes at once: some would still read it. Later put it back,
        one process after the other: the old ones go on for a while and do not know of it."""
        self.history.covered["reconfigured"] += 1
        self.history.note("all start again without the graph")
        old = self.living()
        self.complete = False
        self._restart(old)
        await asyncio.sleep(self.random.expovariate(1 / 3.0))
        self.history.note("the graph comes back")
        old = self.living()
        self.complete = True
        self.start()
        await asyncio.sleep(self.random.expovariate(1 / 1.0))
        self._restart(old)

    def _restart(self, old: Sequence[Node]) -> None:
        for node in old:
            node.process.kill()
        while len(self.living()) < self.scenario.processes:
            self.start()

    async def _pause(self) -> None:
        node = self.random.choice(self.living())
        seconds = self.random.choice((0.5, 4.0, 10.0, 30.0)) * self.random.random()
        self.history.note(f"{node.name} pauses for {seconds:.1f} s")
        self.history.covered["paused"] += 1
        node.process.pause(seconds)

    async def _trouble(self) -> None:
        if isinstance(self.embedder, SimEmbedder) and self.random.random() < 0.2:
            self.embedder.down = True
            await asyncio.sleep(self.random.uniform(0, 8))
            self.embedder.down = False
            return
        where = self.random.choice(list(self.servers))
        if self.random.random() < 0.3:
            where = f"{self.random.choice(self.living()).name}>{where}"
        what = self.random.choice(TROUBLES)
        self.history.note(f"{where} is {what}")
        self.history.covered[f"{'link' if '>' in where else 'server'} {what}"] += 1
        self.network.trouble[where] = what
        await asyncio.sleep(self.random.choice((0.5, 3.0, 8.0)) * self.random.random())
        self.network.trouble.pop(where, None)
        self.history.note(f"{where} is back")

    # -- from beginning to end --------------------------------------------------------------------------------

    async def run(self) -> Final:
        if self.scenario.preloaded:
            self.preload()
        for _ in range(self.scenario.processes):
            self.start()
        disturbing = asyncio.create_task(self.disturb())
        growing = asyncio.create_task(grow(self)) if self.scenario.grown else None
        cache = self.servers.get(CACHE)
        forgetting = asyncio.create_task(evictions(cache, self.random)) if isinstance(cache, SimCacheServer) else None
        corrupting = asyncio.create_task(corruptions(self._corruptible(), self.random, self.history))
        if not self.scenario.corrupted:
            corrupting.cancel()
        while self.plan.left > 0 and not self.loop.failures:
            await asyncio.sleep(_LOOK_S)
            self.living()
        await disturbing
        if growing is not None:
            await growing
        corrupting.cancel()
        if forgetting is not None:
            forgetting.cancel()
        self.network.heal()
        if isinstance(self.embedder, SimEmbedder):
            self.embedder.heal()
        self.history.note("calm")
        drained = await self._drained()
        return self._final(drained)

    def _corruptible(self) -> list[SimServer]:
        """The copies; what a home without a journal of bodies loses, nobody has."""
        placed = standing(self.servers[HOME], self.scenario)
        names = sorted({name for one in placed.values() for name in one.facets.values()} - {HOME})
        return [self.servers[name] for name in names]

    async def _drained(self) -> bool:
        """Wait until the last request has landed and every pause is over, then for what the journal still owes."""
        resumes_at = max(node.process.resumes_at for node in self.living())
        await asyncio.sleep(max(0.0, resumes_at - self.loop.time()) + LATE_S)
        assert self.network.flying == 0
        self._repair()
        if self.scenario.grown:
            self.start()  # who is opened last decides, and what was said before may have arrived since
        began = self.loop.time()
        while self._owed() and self.drain_s < DRAIN_S + MOVED_S * bool(self.scenario.grown):
            self.living()
            await asyncio.sleep(_LOOK_S)
            self.drain_s = self.loop.time() - began
        return not self._owed()

    def _repair(self) -> None:
        """Owe a copy that cannot compare what requests that landed late have overtaken there, as `verify` finds it."""
        home, now_us = self.servers[HOME], self.env.now_us()
        for store, key in self.history.overtaken(["landed"]):
            self.history.covered["overtaken"] += 1
            h, version = key_hash(key.tenant, key.etype, key.id), home.version(key)
            home.settle(Settlement(owed=[RetryRow(store, key, h, version, version, "b", next_us=now_us)]))

    def _owed(self) -> str:
        """What the journal still owes, in words; a dead letter whose record has changed since is to be tried again."""
        home = self.servers[HOME]
        placed, gone = standing(home, self.scenario), self._gone()
        outbox = [f"{version} of {owed.owner}" for version, owed in home.outbox.items()]
        retry = {name: count for name, count in home.backlog().retry.items() if name not in gone}
        old = [row.key.id for row in self._parked() if row.version < home.version(row.key)]
        kept = sum(one.rows for one in home.kept.counts())
        absent = [
            f"{row.name} is {row.status}"
            for row in home.targets()
            if row.status != "active" and (row.status != "off" or row.name in placed[row.etype].copies())
        ]
        wrong = still_wrong(home, self._corruptible(), self.history)
        moving = unmoved(home, self.scenario)
        told = f"outbox {outbox}, retry {retry}, outdated dead letters {old}, copies {absent}, facts {kept}"
        told = f"{told}, corrupted {wrong}" if wrong else told
        told = f"{told}, moving {moving}" if moving else told
        return told if outbox or retry or old or absent or kept or wrong or moving else ""

    def _gone(self) -> set[str]:
        """Copies that have moved away: what they were owed then waits for nobody."""
        rows = self.servers[HOME].targets()
        return {row.name for row in rows} - {row.name for row in rows if row.status != "off"}

    def _parked(self) -> list[RetryRow]:
        gone = self._gone()
        return [row for row in self.servers[HOME].parked(None, None, 1_000_000)[0] if row.target not in gone]

    def _final(self, drained: bool) -> Final:
        for node in self.nodes:
            self.history.problems.update(node.manager.problems if node.manager else {})
        home = self.servers[HOME]
        return Final(
            stores={name: server.contents() for name, server in self.servers.items()},
            copies={etype: frozenset(one.copies()) - {CACHE} for etype, one in standing(home, self.scenario).items()},
            poisoned=home.poisoned_at([s for s in self.servers.values() if s.refuses]),
            vectors=home.wanted_vectors(self.embedder),
            drained=drained,
            owed=self._owed(),
            parked=self._parked(),
            facts=self.servers[FACTS].facts(),
            overdue=home.overdue(OVERDUE_US),
        )


def simulate(seed: int, log: Callable[[str], None] | None = None) -> Report:
    """Run the seed's history and judge it. `log` hears of every event, with its virtual time."""
    worlds: list[World] = []

    async def main(loop: SimLoop) -> Report:
        world = World(loop, Scenario.draw(seed), log)
        worlds.append(world)
        final = await world.run()
        violations = [f"{name}: {text}" for name, check in CHECKERS.items() for text in check(world.history, final)]
        return Report(
            seed=seed,
            violations=violations,
            covered=world.history.covered,
            problems=world.history.problems,
            trace=loop.trace,
            steps=loop.steps,
            virtual_s=loop.time(),
            drain_s=world.drain_s,
            writes=len(world.history.commits),
        )

    return simloop.run(seed, main)
