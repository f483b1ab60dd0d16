"""One simulated process: its own stores, its own manager, and the ways in which it ends."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import TypeVar, cast

from polystore.cache import CacheStore
from polystore.consistency import DataConsistencyManager, Settings
from polystore.consistency.facts import Facts
from polystore.embedding import Embedder
from polystore.env import Env
from polystore.errors import PolystoreError
from polystore.journaled import lend
from polystore.model import Placement
from polystore.protocols import Repository
from polystore.store import Settings as StoreSettings
from polystore.store import Store
from polystore.testing.simloop import SimLoop, current_process
from polystore.testing.simulation.caching import CACHE, CacheReader, SimCacheServer
from polystore.testing.simulation.corrupting import RECONCILE_S, ROUND_S
from polystore.testing.simulation.history import HOME, History
from polystore.testing.simulation.network import DocumentRepository, Link, Network, SimRepository
from polystore.testing.simulation.scenario import Scenario
from polystore.testing.simulation.servers import DOCUMENTS, FACTS, LOGS, TYPES, SimServer, placements
from polystore.testing.simulation.unguarded import UnguardedRepository

R = TypeVar("R")
START_US = 1_700_000_000_000_000


class SimEnv(Env):
    """Time is the loop's, randomness the seed's, and at the scenario's crashpoint the process that passes it dies."""

    def __init__(self, loop: SimLoop, scenario: Scenario, history: History) -> None:
        self.random = random.Random(f"env {scenario.seed}")
        self._loop = loop
        self._history = history
        self.repositories: dict[str, Callable[[str], Repository]] = {}
        """Process -> its connection with a server, where it connects as an application does."""
        self._crash_at = scenario.crash_at
        self._hits_left = scenario.crash_hit

    def now_us(self) -> int:
        return START_US + int(self._loop.time() * 1e6)

    def monotonic(self) -> float:
        return self._loop.time()

    def connected(self, store: str, repository: R) -> R:
        process = current_process()
        assert process is not None
        return cast(R, self.repositories[process.name](store))

    def crashpoint(self, name: str) -> None:
        self._history.covered[f"passed {name}"] += 1
        process = current_process()
        if name != self._crash_at or process is None or not process.alive:
            return
        self._hits_left -= 1
        if self._hits_left == 0:
            self._history.covered[f"died at {name}"] += 1
            self._history.note(f"{process.name} dies at {name}")
            process.kill()


class Node:
    """A process of the application. A restart is a new Node."""

    def __init__(
        self,
        name: str,
        env: SimEnv,
        network: Network,
        servers: dict[str, SimServer],
        scenario: Scenario,
        embedder: Embedder,
        *,
        complete: bool,
    ) -> None:
        self.name = name
        self.process = network.loop.process(name)
        self.network = network
        self.servers = servers
        self.env = env
        self.manager: DataConsistencyManager | None = None
        self.reader: CacheReader | None = None
        self.facts: Facts | None = None
        self.scenario = scenario
        self.embedder = embedder
        self._placements = placements(scenario, complete=complete)

    async def open(self) -> DataConsistencyManager:
        """Connect and start, as often as it takes."""
        while True:
            manager = self._manager()
            try:
                await manager.start()
            except PolystoreError as e:
                self.network.history.note(f"{self.name} cannot start: {e}")
                await self._stop(manager)
                await asyncio.sleep(self.env.random.uniform(0.1, 1.0))
            else:
                assert self.facts is not None
                self.facts.start()
                self.manager = manager
                return manager

    def _manager(self) -> DataConsistencyManager:
        stores = {
            name: Store(
                name,
                self.repository(server),
                env=self.env,
                settings=StoreSettings(timeout_s=4.0 if name == HOME else 2.0),
            )
            for name, server in self.servers.items()
            if name in (HOME, FACTS) or any(name in one.copies() for one in self._placements.values())
        }
        lend(self.env, stores, TYPES, self._placements)
        embedders = {"default": self.embedder}
        if CACHE in stores:
            cache = stores[CACHE] = CacheStore(stores[CACHE], TYPES, self.env)
            server = cast(SimCacheServer, self.servers[CACHE])
            self.reader = CacheReader(self.name, cache, stores[HOME], server, self.network.history)
        manager = DataConsistencyManager(self.env, TYPES, stores, self._placements, embedders, self.settings())
        logs = {etype: Placement(etype, FACTS, {}) for etype in LOGS}
        self.facts = Facts(manager, {**TYPES, **LOGS}, stores, logs, stores[HOME])
        return manager

    def settings(self) -> Settings:
        return Settings(
            queue_max=self.scenario.queue_max,
            lanes=2,
            batch_max=self.scenario.batch_max,
            backfill_chunk=4,
            embed_timeout_s=3.0,
            kept_s=2.0,
            reconcile_s=RECONCILE_S if self.scenario.corrupted else 0.0,
            reconcile_full_s=ROUND_S,
        )

    def repository(self, server: SimServer) -> SimRepository:
        link, size = Link(self.network, self.name, server), self.scenario.batch_max
        durable = self.scenario.journaled != "forgetful"
        if not server.compares:
            return UnguardedRepository(self.servers[HOME], server, self.env, link, size, durable=durable)
        kind = DocumentRepository if server.name == DOCUMENTS else SimRepository
        return kind(server, self.env, link, size, durable=durable)

    async def leave(self) -> None:
        """End as a process should: deliver what is in hand, say goodbye, close."""
        manager = self.manager
        if manager is None:
            self.process.kill()
            return
        await manager.drain(2.0)
        await self.close(manager)
        self.network.history.note(f"{self.name} has left")
        self.process.kill()

    async def close(self, manager: DataConsistencyManager) -> None:
        await self._stop(manager)

    async def _stop(self, manager: DataConsistencyManager) -> None:
        assert self.facts is not None
        await self.facts.stop()
        await manager.stop()
        for store in manager.stores.values():
            await store.aclose()
