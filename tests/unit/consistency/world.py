"""A home and copies in memory, stores that can fail, and virtual time: hours of outage take milliseconds."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, cast

from polystore_adapters.memory import MemoryRepository, MemoryServer

from polystore.consistency import DataConsistencyManager, Settings
from polystore.embedding import Embedder, HashedEmbedder
from polystore.entity import EntityType, entity, entity_types
from polystore.env import Env
from polystore.facets import Embedding, FullText
from polystore.model import Body, Change, Key, Outcome, Placement, Record, Write, key_hash
from polystore.protocols import Layout, Repository, VectorSpec
from polystore.store import Store
from polystore.testing.simloop import run

T = TypeVar("T")


@entity()
@dataclass
class Note:
    id: str
    text: Annotated[str, FullText(), Embedding()]


class VirtualEnv(Env):
    """Time is the loop's; randomness has a seed."""

    def __init__(self) -> None:
        self.random = random.Random(7)

    def now_us(self) -> int:
        return 1_700_000_000_000_000 + int(asyncio.get_event_loop().time() * 1e6)

    def monotonic(self) -> float:
        return asyncio.get_event_loop().time()


class Copy:
    """A memory repository whose `apply` can be made to fail, refuse or stall."""

    def __init__(self, inner: MemoryRepository) -> None:
        self.inner = inner
        self.down: Exception | None = None
        self.refuses: Callable[[Change], Exception | None] = lambda change: None
        self.poison: Callable[[Change], bool] = lambda change: False
        self.stall_s = self.each_s = 0.0
        self.calls = 0
        self.batches: list[list[str]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def ping(self) -> Any:
        if self.down is not None:
            raise self.down
        return await self.inner.ping()

    async def apply(self, changes: Sequence[Change]) -> list[Outcome]:
        self.calls += 1
        await asyncio.sleep(self.stall_s + self.each_s * len(changes))
        if self.down is not None:
            raise self.down
        if any(map(self.poison, changes)):
            raise ValueError("a driver's bug")
        self.batches.append([change.key.id for change in changes])
        good = [change for change in changes if self.refuses(change) is None]
        applied = dict(zip((id(c) for c in good), await self.inner.apply(good), strict=True))
        return [applied.get(id(c)) or Outcome("rejected", cast(Any, self.refuses(c))) for c in changes]


class World:
    """One home ("home") and copies "search" and "vectors" of Note. `manager()` is another process on them."""

    def __init__(self, embedder: Embedder | None = None) -> None:
        self.env = VirtualEnv()
        self.types: dict[str, EntityType[Any]] = entity_types([Note])
        self.placement = Placement("note", "home", {"full_text": "search", "vector": "vectors"})
        self.embedder = embedder or HashedEmbedder()
        self.servers = {name: MemoryServer(self.env) for name in ("home", "search", "vectors")}
        spec = {"text": VectorSpec(self.embedder.dimension, "cosine", "default")}
        note = self.types["note"]
        self.servers["home"].prepare([Layout(note, True, frozenset())], create=True)
        self.servers["search"].prepare([Layout(note, False, frozenset({"full_text"}))], create=True)
        self.servers["vectors"].prepare([Layout(note, False, frozenset({"vector"}), spec)], create=True)
        self.copies = {name: Copy(MemoryRepository(self.servers[name], self.env)) for name in ("search", "vectors")}
        self.home = MemoryRepository(self.servers["home"], self.env)
        self.managers: list[DataConsistencyManager] = []

    async def manager(
        self, *, placements: Mapping[str, Placement] = {}, placement: Placement | None = None, **settings: Any
    ) -> DataConsistencyManager:
        repositories = {"home": self.home, **self.copies}
        stores = {n: Store(n, cast(Repository, r), env=self.env) for n, r in repositories.items()}
        manager = DataConsistencyManager(
            self.env,
            self.types,
            stores,
            {"note": placement or self.placement, **placements},
            {"default": self.embedder},
            Settings(**settings),
        )
        await manager.start()
        self.managers.append(manager)
        return manager

    def write(self, manager: DataConsistencyManager, id: str, text: str | None, **options: Any) -> Write:
        key = Key("", "note", id)
        h = key_hash("", "note", id)
        if text is None:
            return Write("delete", key, h, None, **options)
        body: Body = {"id": id, "text": text}
        hashed = self.types["note"].content_hash(body)
        return Write("put", key, h, body, hashed, vectors=manager.inline_vectors("note", body), **options)

    async def put(self, manager: DataConsistencyManager, id: str, text: str | None, **ack: Any) -> Any:
        (result,) = await manager.write("note", [self.write(manager, id, text)], **ack)
        return result

    def held(self, store: str, id: str) -> Record | None:
        return self.servers[store].get_now(Key("", "note", id))

    def text(self, store: str, id: str) -> str | None:
        record = self.held(store, id)
        return record.body["text"] if record is not None and record.body is not None else None

    async def close(self) -> None:
        for manager in self.managers:
            await manager.stop()
            for store in manager.stores.values():
                await store.breaker.aclose()


def simulated(test: Callable[[World], Awaitable[T]], *, embedder: Embedder | None = None) -> T:
    """Run a test in virtual time."""

    async def main(_loop: Any) -> T:
        world = World(embedder)
        try:
            return await test(world)
        finally:
            await world.close()

    return run(1, main)


async def until(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
