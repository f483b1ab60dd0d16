"""An application of its own for the tests of the facade: people, what they remember, and what they measured."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import msgspec
import pytest

from polystore import (
    Edge,
    Embedding,
    FullText,
    HybridDataArchitecture,
    Index,
    Relation,
    Unavailable,
    Unique,
    entity,
    new_id,
)
from polystore.consistency import Settings
from polystore.model import Key
from polystore.store import Store
from tests.postgresql import configured, fresh_schema

Config = str | Mapping[str, Any]


@entity()
class Person(msgspec.Struct, kw_only=True):
    id: str = msgspec.field(default_factory=new_id)
    name: str
    email: Annotated[str | None, Unique()] = None


@dataclass
class About:
    weight: float


@entity()
@dataclass(kw_only=True)
class Memory:
    id: str = field(default_factory=new_id)
    agent: Annotated[str, Index()] = "a1"
    title: Annotated[str | None, FullText()] = None
    text: Annotated[str, FullText(), Embedding()]
    about: Annotated[list[Edge[About]], Relation("ABOUT", to=Person)] = field(default_factory=list[Edge[About]])
    importance: float | None = None
    happened: datetime | None = None


@entity()
@dataclass(kw_only=True)
class Reading:
    """Keys that are no text, values of every kind that can be sorted, and a vector of its own."""

    id: int
    at: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    price: Decimal | None = None
    code: UUID | None = None
    flag: bool | None = None
    shape: Annotated[list[float] | None, Embedding(dimension=3, metric="l2")] = None


ENTITIES = [Person, Memory, Reading]

PROMPT = Settings(awaken_spread_s=0.01, retry_max_s=0.1)
"""What a store missed while it was down is delivered at once when it is back."""

SPLIT: Mapping[str, Any] = {
    "stores": {
        "home": {"url": "memory:", "roles": ["home"]},
        "words": {"url": "memory:", "roles": ["full_text"]},
        "shapes": {"url": "memory:", "roles": ["vector"]},
        "ties": {"url": "memory:", "roles": ["graph"]},
    }
}
"""Every role in a store of its own, in memory."""

KOREAN = {
    "m1": "어제 한강에서 자전거를 타다가 민지를 만났다",
    "m2": "민지와 헤어진 뒤로 밤마다 산책을 한다",
    "m3": "새로 산 자전거의 브레이크가 고장 났다",
    "m4": "We walked along the Han river and talked about bicycles",
    "m5": "비가 오는 날에는 파전을 부쳐 먹는다",
}


def profiles() -> list[str]:
    return ["split memory", "one memory", "sqlite", "embedded"]


def config_of(profile: str, directory: Path) -> Config:
    configs: dict[str, Config] = {
        "split memory": SPLIT,
        "one memory": "memory:",
        "sqlite": f"sqlite:{directory}/app.db",
        "embedded": f"embedded:{directory}/app",
    }
    return configs[profile]


@contextmanager
def placed(profile: str, directory: Path) -> Generator[Config]:
    """The configuration of a profile, also of "postgresql": that server alone."""
    if profile == "postgresql":
        with fresh_schema() as path:
            yield {"stores": {"main": configured(path)}}
    else:
        yield config_of(profile, directory)


Test = Callable[[HybridDataArchitecture], Coroutine[Any, Any, None]]


def everywhere(test: Test) -> Callable[[str, Path], None]:
    """Run an async test of an open architecture on every profile."""
    return _on(profiles(), test)


def and_on_postgresql(test: Test) -> Callable[[str, Path], None]:
    """As `everywhere`, and on PostgreSQL alone: for a few tests of each kind, since a server takes its time."""
    return _on([*profiles(), "postgresql"], test)


def _on(names: Sequence[str], test: Test) -> Callable[[str, Path], None]:
    @pytest.mark.parametrize("profile", names)
    def run(profile: str, tmp_path: Path) -> None:
        with placed(profile, tmp_path) as config:
            opened(test, config)

    return _named(run, test)


def split(test: Test) -> Callable[[], None]:
    """Run an async test with every role in a store of its own."""

    def run() -> None:
        opened(test, SPLIT)

    return _named(run, test)


def opened(test: Test, config: Config) -> None:
    async def main() -> None:
        async with HybridDataArchitecture.open(config, entities=ENTITIES, settings=PROMPT) as hda:
            await test(hda)

    asyncio.run(main())


def _named(run: Callable[..., None], test: Test) -> Callable[..., None]:
    functools.update_wrapper(run, test, assigned=("__module__", "__name__", "__qualname__", "__doc__"))
    del run.__wrapped__  # type: ignore[attr-defined]  # pytest would ask the wrapped one for its arguments
    return run


async def remember(hda: HybridDataArchitecture, **texts: str) -> None:
    """Store texts by id, and wait until they can be found."""
    memories = hda.collection(Memory)
    await memories.put_many([Memory(id=id, text=text) for id, text in (texts or KOREAN).items()])
    await hda.settle(10)


@contextmanager
def behind(store: Store) -> Generator[None]:
    """What is delivered to the store does not arrive, and nobody is told: no failure opens its breaker."""
    arrives = asyncio.Event()

    async def apply(*args: object) -> None:
        await arrives.wait()
        raise Unavailable("lost on the way")

    setattr(store.repository, "apply", apply)  # noqa: B010 -- not the method's type
    try:
        yield
    finally:
        delattr(store.repository, "apply")
        arrives.set()


@contextmanager
def down(store: Store, *verbs: str) -> Generator[None]:
    """Calls of these verbs find the store unreachable."""

    async def refuse(*args: object, **kwargs: object) -> None:
        raise Unavailable("pulled the plug")

    def refuse_now(key: Key) -> None:
        raise Unavailable("it would have to wait")

    inline = store.__dict__["_inline"]  # bound when the store was made
    if "get" in verbs and inline is not None:
        store.__dict__["_inline"] = refuse_now
    for verb in verbs:
        setattr(store.repository, verb, refuse)
    try:
        yield
    finally:
        store.__dict__["_inline"] = inline
        for verb in verbs:
            delattr(store.repository, verb)
