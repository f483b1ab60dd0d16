"""An architecture with a cache, whose stores stop where the test says so."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar, cast

from polystore_adapters.memory import MemoryServer, forget_servers

from polystore import Embedding, FullText, HybridDataArchitecture, Relation, entity, new_id
from polystore.consistency import Settings
from polystore.env import Env
from polystore.errors import Unavailable
from polystore.protocols import SupportsInlineCache, SupportsInlineGet

R = TypeVar("R")


@entity()
@dataclass
class Note:
    id: str
    text: Annotated[str, FullText(), Embedding()] = ""
    n: int = 0
    tags: list[str] = field(default_factory=list[str])
    about: Annotated[list[str], Relation("ABOUT", to="Note")] = field(default_factory=list[str])


@entity(cache="off")
@dataclass
class Secret:
    id: str = field(default_factory=new_id)


PROMPT = Settings(awaken_spread_s=0.01, retry_max_s=0.1)


def config(home: str = "memory:", cache: str = "memory:", **pins: Any) -> dict[str, Any]:
    """A home, and a cache beside it."""
    return {
        "stores": {
            "home": {"url": home, "roles": ["home", "full_text", "vector", "graph"]},
            "cache": {"url": cache, "roles": ["cache"]},
        },
        "pins": pins,
    }


class Gate:
    """Calls of one verb of one store stop here until `open`."""

    def __init__(self) -> None:
        self.arrived = asyncio.Event()
        self.opened = asyncio.Event()

    async def __call__(self) -> None:
        self.arrived.set()
        await self.opened.wait()

    def open(self) -> None:
        self.opened.set()


class StoppingEnv(Env):
    """The real world, whose clock can be set forward, and whose stores stop or fail where the test says so. The home is
    one that has to be waited for, as over a network; so is the cache when `remote`. Stores that are `refused` cannot be
    connected."""

    def __init__(self, *, remote: bool = False, refused: Collection[str] = ()) -> None:
        super().__init__()
        self.ahead_us = 0
        self.remote = remote
        self.refused = refused
        self.stops: dict[tuple[str, str, str], Gate] = {}
        self.failing: dict[tuple[str, str], Exception] = {}
        self.calls: list[tuple[str, str]] = []

    def now_us(self) -> int:
        return super().now_us() + self.ahead_us

    def forward(self, seconds: float) -> None:
        self.ahead_us += int(seconds * 1e6)

    def connected(self, store: str, repository: R) -> R:
        if store in self.refused:
            raise Unavailable("no route")
        return cast(R, Stopping(store, repository, self))

    def stop(self, store: str, verb: str, when: str = "before") -> Gate:
        """The next call of the verb stops before it is carried out, or before its answer is brought."""
        gate = self.stops[store, verb, when] = Gate()
        return gate

    def fail(self, store: str, *verbs: str, error: Exception | None = None) -> None:
        for verb in verbs:
            self.failing[store, verb] = error or Unavailable("pulled the plug")

    def heal(self) -> None:
        self.failing.clear()

    def count(self, store: str, verb: str) -> int:
        return self.calls.count((store, verb))


class Stopping:
    """In front of a repository."""

    def __init__(self, store: str, repository: Any, env: StoppingEnv) -> None:
        self._store = store
        self._repository = repository
        self._env = env
        away = {SupportsInlineGet} | ({SupportsInlineCache} if env.remote else set[type]())
        self.capabilities = frozenset[type](repository.capabilities) - away

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._repository, name)
        if inspect.iscoroutinefunction(value) and name not in ("aclose", "prepare"):
            return self._called(name, value)
        return self._now(name, value) if name.endswith("_now") else value

    def _now(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            if error := self._env.failing.get((self._store, name)):
                raise error
            return method(*args)

        return call

    def _called(self, name: str, method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def call(*args: Any) -> Any:
            env = self._env
            env.calls.append((self._store, name))
            if gate := env.stops.pop((self._store, name, "before"), None):
                await gate()
            if error := env.failing.get((self._store, name)):
                raise error
            answer = await method(*args)
            if gate := env.stops.pop((self._store, name, "after"), None):
                await gate()
            return answer

        return call


def opened(
    env: Env | None = None, where: Any = None, entities: Sequence[type[Any]] = (Note,)
) -> AbstractAsyncContextManager[HybridDataArchitecture]:
    """The architecture of `config()`, or of `where`."""
    return HybridDataArchitecture.open(
        config() if where is None else where, entities=entities, settings=PROMPT, env=env or StoppingEnv()
    )


def server_of(hda: HybridDataArchitecture) -> MemoryServer:
    """What is behind the cache."""
    return cast(MemoryServer, cast(Any, hda.stores["cache"].repository).server)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.002)


def run(main: Callable[[], Coroutine[Any, Any, None]], within_s: float = 20) -> None:
    """Run a test, whose gates nobody may forget to open."""

    async def limited() -> None:
        async with asyncio.timeout(within_s):
            await main()

    try:
        asyncio.run(limited())
    finally:
        forget_servers()
