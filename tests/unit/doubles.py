"""What the tests of layers and stores put in place of the world: a clock that follows the loop, scripted stores."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar, cast

from polystore.env import Env
from polystore.model import (
    APPLIED,
    Change,
    Commit,
    Committed,
    HashSpan,
    Instance,
    Key,
    Limits,
    Outcome,
    Page,
    Record,
    Write,
    Written,
)
from polystore.operations import Call, Operation
from polystore.protocols import Repository, SupportsCommit, SupportsInlineGet
from polystore.testing import simloop

T = TypeVar("T")


class LoopEnv(Env):
    """The time of the running loop, and always the same chances."""

    def __init__(self) -> None:
        super().__init__()
        self.random.seed(1)

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()


def virtually(main: Callable[[], Coroutine[Any, Any, T]], seed: int = 1) -> T:
    """Run `main` in virtual time; what happens at the same moment happens in an order that follows from the seed."""
    return simloop.run(seed, lambda _: main())


def key(id: str, etype: str = "thing", tenant: str = "") -> Key:
    return Key(tenant, etype, id)


def record(one: Key) -> Record:
    return Record(one, 1, {"id": one.id, "tags": ["a"]})


def commit(*ids: str) -> Commit:
    return Commit([Write("put", key(id), 0, {"id": id}) for id in ids])


GET: Operation[Any] = Operation("get", ([key("k")],), Repository)
COMMIT: Operation[Any] = Operation("commit", ([commit("k")],), SupportsCommit)


def way(do: Callable[[], Awaitable[Any]]) -> Call:
    """The rest of the way to a store that does this."""

    def call(_: Operation[Any]) -> Awaitable[Any]:
        return do()

    return cast(Call, call)


class Script:
    """What a store does call by call: raises the errors in turn, then answers. Counts the calls."""

    def __init__(self, *errors: BaseException | None) -> None:
        self.errors = list(errors)
        self.calls = 0

    async def __call__(self) -> str:
        self.calls += 1
        await asyncio.sleep(0)
        error = self.errors.pop(0) if self.errors else None
        if error is not None:
            raise error
        return "done"


class Fake:
    """A repository that notes its calls. Every key has a record; ids that begin with "no" have none.

    `trouble` is called before each answer and may wait or raise.
    """

    capabilities: frozenset[type] = frozenset({SupportsCommit})

    def __init__(self, batch_max: int = 500) -> None:
        self.limits = Limits(batch_max=batch_max)
        self.gets: list[list[Key]] = []
        self.commits: list[list[Commit]] = []
        self.applied = 0
        self.pings = 0
        self.closed = False
        self.trouble: Callable[[Any], Awaitable[object]] = _none

    async def get(self, keys: Sequence[Key]) -> list[Record | None]:
        self.gets.append(list(keys))
        await self.trouble(keys)
        return [None if one.id.startswith("no") else record(one) for one in keys]

    async def commit(self, commits: Sequence[Commit]) -> list[Committed | Exception]:
        self.commits.append(list(commits))
        await self.trouble(commits)
        return [Committed([Written(7, False) for _ in one.writes]) for one in commits]

    async def apply(self, changes: Sequence[Change]) -> list[Outcome]:
        self.applied += 1
        await self.trouble(changes)
        return [APPLIED] * len(changes)

    async def scan(self, etype: str, tenant: str, span: HashSpan, cursor: str | None, limit: int) -> Page:
        await self.trouble(None)
        return Page([], None)

    async def tenants(self, etype: str) -> list[str]:
        await self.trouble(None)
        return [""]

    async def newest(self, etype: str) -> int:
        await self.trouble(None)
        return 0

    async def ping(self) -> Instance:
        self.pings += 1
        await self.trouble(None)
        return Instance("fake", "1", "run")

    async def aclose(self) -> None:
        self.closed = True


async def _none(_: object) -> None:
    await asyncio.sleep(0)


class InlineFake(Fake):
    capabilities = frozenset({SupportsCommit, SupportsInlineGet})

    def __init__(self) -> None:
        super().__init__()
        self.inline_error: Exception | None = None

    def get_now(self, key: Key) -> Record | None:
        if self.inline_error is not None:
            raise self.inline_error
        return record(key)
