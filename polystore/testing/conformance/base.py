"""What the kit's classes share: the loop, the connections of a test, and what must be left when it ends."""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal, NoReturn, Protocol, TypeVar, cast

import pytest

from polystore.entity import EntityType
from polystore.env import Env
from polystore.model import Body, Change, Commit, Committed, Key, Record, Vectors, Write, Written, key_hash
from polystore.protocols import (
    Layout,
    Repository,
    SupportsCommit,
    SupportsRefresh,
    SupportsSchema,
    SupportsTextSearch,
    SupportsTraversal,
    SupportsVectorSearch,
    VectorSpec,
)
from polystore.testing.conformance.entities import ACCOUNT, NUMBERED, STORED_DIMENSION, THING, Account, Thing

T = TypeVar("T")
Connect = Callable[[Env], Awaitable[Repository]]
"""A new connection to the data of one test, which is empty at first and shared with no other test."""

TEST_LIMIT_S = 120.0
"""A single test takes far less; a store that never answers must not hold up the whole suite."""
_Facet = Literal["full_text", "vector", "graph"]
_FACETS: Mapping[_Facet, type] = {
    "full_text": SupportsTextSearch,
    "vector": SupportsVectorSearch,
    "graph": SupportsTraversal,
}


class MovableEnv(Env):
    """The real world, whose clocks can be set forward."""

    def __init__(self) -> None:
        super().__init__()
        self.random.seed(7)
        self.ahead_us = 0

    def now_us(self) -> int:
        return super().now_us() + self.ahead_us

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead_us / 1e6

    def forward(self, seconds: float) -> None:
        self.ahead_us += int(seconds * 1e6)


class Closable(Protocol):
    async def aclose(self) -> None: ...


class InItsOwnLoop:
    """Async tests without a plugin: each runs in an event loop of its own. What is in `opened` is closed after it, and
    neither a task nor a thread may be left then."""

    opened: list[Closable]
    given_back_s: float = 5.0
    """So long a connection may still be in use after the last call."""

    def in_use(self, one: Any) -> int:
        """How many connections of what was opened are in use. Override it where the repository itself does not say."""
        return int(getattr(one, "checked_out", 0))

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for name, value in list(vars(cls).items()):
            if name.startswith("test_") and inspect.iscoroutinefunction(value):
                setattr(cls, name, _in_its_own_loop(value))


class Conformance(InItsOwnLoop):
    """Base of the kit's classes. A subclass named `Test...` overrides the fixture `connect`, and nothing else:

        class TestRepository(RepositoryConformance):
            @pytest.fixture
            def connect(self, tmp_path: Path) -> Connect:
                return lambda env: my_adapter.connect(f"mystore:{tmp_path}/data", {}, env)

    Every call of it must reach the same data, and every test other data.
    """

    protocol: ClassVar[type]
    """The protocol that this class tests; the repository must claim it."""
    home: ClassVar[bool] = False
    """True: the store is prepared as the home and written by `commit`; False: as a copy, written by `apply`."""
    types: ClassVar[Sequence[EntityType[Any]]] = (THING, NUMBERED)
    """What the store is prepared for."""

    _connect: Connect
    env: MovableEnv

    @pytest.fixture
    def connect(self) -> Connect:
        """The one thing a subclass gives."""
        raise NotImplementedError(f"{type(self).__name__} must override the fixture `connect`, see {__name__}")

    @pytest.fixture(autouse=True)
    def given(self, connect: Connect) -> None:
        self.use(connect)

    def use(self, connect: Connect) -> None:
        """Test what `connect` reaches. Only needed where a test is called without pytest."""
        self._connect = connect
        self.env = MovableEnv()
        self.opened = []

    # -- connections ------------------------------------------------------------------------------------------

    async def connection(self) -> Repository:
        """One more connection, not prepared."""
        repository = await self._connect(self.env)
        self.opened.append(repository)
        return repository

    async def open(self, *more: EntityType[Any]) -> Any:
        """One more connection to the data, prepared for the kit's entities. It has the protocols under test; the
        caller says which by the type of the variable. What only one test needs is `more`: to make it is, at some
        servers, most of the time that a test takes."""
        repository = await self.connection()
        assert self.protocol is Repository or self.protocol in repository.capabilities, (
            f"{type(self).__name__} tests {self.protocol.__name__}, which the repository does not claim: claim it in "
            "`capabilities`, or leave this class out"
        )
        if SupportsSchema in repository.capabilities:
            await cast(SupportsSchema, repository).prepare(
                layouts(repository, (*self.types, *more), home=self.home), create=True
            )
        return repository

    async def seen(self, repository: Repository, etype: str) -> None:
        """What other connections wrote is shown by the next question to this one."""
        if SupportsRefresh in repository.capabilities:
            await cast(SupportsRefresh, repository).refresh(etype)

    async def write(self, repository: Repository, changes: Sequence[Change]) -> dict[Key, int]:
        """Bring the records to these states, by the way of a home or of a copy. Returns key -> version."""
        if not self.home:
            parts = {(c.key.etype, c.key.tenant): list[Change]() for c in changes}
            for c in changes:
                parts[c.key.etype, c.key.tenant].append(c)
            for chunk in (chunk for part in parts.values() for chunk in chunks(part, repository.limits.batch_max)):
                outcomes = await repository.apply(chunk)
                assert [o.status for o in outcomes] == ["applied"] * len(chunk), outcomes
            return {change.key: change.version for change in changes}
        writes = [
            Write("delete" if c.deleted else "put", c.key, c.h, c.body, c.hash, vectors=c.vectors) for c in changes
        ]
        return {
            write.key: written.version
            for write, written in zip(writes, await commit(cast(SupportsCommit, repository), *writes), strict=True)
        }


def _in_its_own_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(self: InItsOwnLoop, **given: Any) -> None:
        threads = set(threading.enumerate())
        asyncio.run(_whole(self, test, given))
        assert _soon(lambda: not set(threading.enumerate()) - threads), (
            f"threads are left after aclose(): {set(threading.enumerate()) - threads}"
        )

    return run


async def _whole(self: InItsOwnLoop, test: Callable[..., Coroutine[Any, Any, None]], given: Mapping[str, Any]) -> None:
    limit = asyncio.timeout(TEST_LIMIT_S)
    try:
        async with limit:
            await test(self, **given)
    except TimeoutError:
        assert not limit.expired(), f"no end after {TEST_LIMIT_S} s"
        raise
    else:
        await _given_back(self)
    finally:
        for one in reversed(self.opened):
            await one.aclose()
    for _ in range(10):
        await asyncio.sleep(0)
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert not left, f"tasks are left after aclose(): {left}"


async def _given_back(self: InItsOwnLoop) -> None:
    """None is in use when no call is under way, whatever was cancelled."""
    until = time.monotonic() + self.given_back_s
    for one in self.opened:
        while count := self.in_use(one):
            assert time.monotonic() < until, f"{count} connections are checked out, and no call is under way"
            await asyncio.sleep(0.01)


def _soon(true: Callable[[], bool]) -> bool:
    until = time.monotonic() + 5
    while not true():
        if time.monotonic() > until:
            return False
        time.sleep(0.005)
    return True


# -- what tests say often -----------------------------------------------------------------------------------------


def layouts(repository: Repository, types: Iterable[EntityType[Any]], *, home: bool) -> list[Layout]:
    """The entity types with every facet that the repository can serve."""
    out: list[Layout] = []
    for one in types:
        declared: dict[_Facet, object] = {
            "full_text": one.full_text,
            "vector": one.embeddings,
            "graph": one.relations,
        }
        facets: frozenset[_Facet] = frozenset(
            facet for facet, fields in declared.items() if fields and _FACETS[facet] in repository.capabilities
        )
        vectors = {
            field: VectorSpec(embedding.dimension or STORED_DIMENSION, embedding.metric, embedding.embedder)
            for field, embedding in one.embeddings.items()
        }
        out.append(Layout(one, home, facets, vectors))
    return out


def key_of(etype: EntityType[Any], id: object, tenant: str = "") -> Key:
    return Key(tenant, etype.name, etype.key_id(id))


def change(etype: EntityType[T], value: T, version: int, *, tenant: str = "", vectors: Vectors | None = None) -> Change:
    """The change that brings a copy to this value."""
    body = etype.encode(value)
    key = key_of(etype, getattr(value, etype.key), tenant)
    h = key_hash(key.tenant, key.etype, key.id)
    return Change(key, version, h, body, etype.content_hash(body), 1_700_000_000_000_000 + version, vectors or {})


def removal(key: Key, version: int) -> Change:
    """The change that deletes the record."""
    return Change(key, version, key_hash(key.tenant, key.etype, key.id), None, b"", 1_700_000_000_000_000 + version)


def write(kind: Any, etype: EntityType[T], value: T, *, tenant: str = "", **options: Any) -> Write:
    """A write of a whole value: create, put, skip or insert."""
    key = key_of(etype, getattr(value, etype.key), tenant)
    body = etype.encode(value)
    return Write(kind, key, key_hash(key.tenant, key.etype, key.id), body, etype.content_hash(body), **options)


def update(etype: EntityType[Any], id: str, changes: dict[str, object], *, tenant: str = "", **options: Any) -> Write:
    key = key_of(etype, id, tenant)
    return Write("update", key, key_hash(tenant, key.etype, key.id), etype.encode_patch(changes), **options)


def delete(etype: EntityType[Any], id: str, *, tenant: str = "", **options: Any) -> Write:
    key = key_of(etype, id, tenant)
    return Write("delete", key, key_hash(tenant, key.etype, key.id), None, **options)


def put(id: str, **fields: Any) -> Write:
    return write("put", THING, Thing(id=id, **fields))


def account(id: str, email: str, *, tenant: str = "", number: int | None = None) -> Write:
    return write("put", ACCOUNT, Account(id=id, email=email, number=number), tenant=tenant)


async def commit(repository: SupportsCommit, *writes: Write, **options: Any) -> Sequence[Written]:
    """One commit; its error is raised."""
    return (await committed(repository, Commit(writes, **options))).written


async def committed(repository: SupportsCommit, one: Commit) -> Committed:
    (answer,) = await repository.commit([one])
    if isinstance(answer, Exception):
        raise answer
    return answer


async def state(repository: Repository, key: Key) -> Record | None:
    (record,) = await repository.get([key])
    return record


async def live(repository: Repository, key: Key) -> tuple[int, Body]:
    """Version and body of a record that must be there."""
    record = await state(repository, key)
    if record is None or record.body is None:
        fail(f"{key} is not there: {record}")
    return record.version, record.body


def turns(most: int, least: int) -> Iterator[int]:
    """0, 1, 2...: as many as a store takes in a second, but `least` and no more than `most`."""
    until = time.monotonic() + 1
    for turn in range(most):
        if turn >= least and time.monotonic() > until:
            return
        yield turn


def chunks(items: Sequence[T], size: int) -> Iterable[Sequence[T]]:
    return (items[i : i + size] for i in range(0, len(items), size))


def fail(why: str) -> NoReturn:
    raise AssertionError(why)


def same(a: Any, b: Any) -> bool:
    """Equal to the last bit and of the same type, to the bottom: 1, 1.0 and True differ, and so do 1.1 and 1.10."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        ours, theirs = cast(dict[Any, Any], a), cast(dict[Any, Any], b)
        return ours.keys() == theirs.keys() and all(same(v, theirs[k]) for k, v in ours.items())
    if isinstance(a, list):
        return len(cast(list[Any], a)) == len(b) and all(map(same, cast(list[Any], a), b))
    return repr(a) == repr(b)
