"""Live state through the facade, on every profile: sessions, counters, what they refuse, and what expires."""

from __future__ import annotations

import asyncio
import functools
import math
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import msgspec
import pydantic
import pytest

from polystore import (
    AlreadyExists,
    ConfigurationError,
    Conflict,
    DecodeError,
    FullText,
    HybridDataArchitecture,
    InvalidData,
    NotFound,
    OutcomeUnknown,
    Unavailable,
    UnsupportedOperation,
    ValueTooLarge,
    entity,
)
from polystore.model import VALUE_BYTES_MAX, Key
from polystore.protocols import SupportsState
from polystore.testing.conformance import MovableEnv
from tests.integration.facade.world import SPLIT, Config, Person, down

STATE_APART: Config = {
    "stores": {**SPLIT["stores"], "live": {"url": "memory:", "roles": ["live_state"]}},
}


class Mood(Enum):
    CALM = "calm"
    WILD = "wild"


@dataclass
class Cart:
    items: list[str] = field(default_factory=list[str])
    seal: bytes = b""
    total: Decimal = Decimal(0)


@entity(data_type="session", ttl_s=1800)
@dataclass(kw_only=True)
class Session:
    id: str
    user: str
    page: str = "/"
    cart: Cart = field(default_factory=Cart)
    mood: Mood = Mood.CALM
    since: datetime | None = None
    token: bytes = b""
    price: Decimal | None = None


@entity(data_type="counter", key="number")
class Counter(msgspec.Struct, kw_only=True):
    number: int
    hits: int = 0
    level: float = 1.5
    flag: bool = False
    maybe: int | None = None


@entity(data_type="live_state", key="code", ttl_s=60)
class Place(pydantic.BaseModel):
    code: UUID
    x: int
    label: str
    raw: bytes = b""


ENTITIES = [Person, Session, Counter, Place]
Test = Callable[[HybridDataArchitecture, MovableEnv], Coroutine[Any, Any, None]]


def everywhere(test: Test) -> Callable[[str, Path], None]:
    """Run an async test on every profile, with a clock that it can set forward."""

    @pytest.mark.parametrize("profile", ["memory", "memory apart", "sqlite", "embedded"])
    def run(profile: str, tmp_path: Path) -> None:
        configs: dict[str, Config] = {
            "memory": "memory:",
            "memory apart": STATE_APART,
            "sqlite": f"sqlite:{tmp_path}/app.db",
            "embedded": f"embedded:{tmp_path}/app",
        }
        opened(test, configs[profile])

    functools.update_wrapper(run, test, assigned=("__module__", "__name__", "__qualname__", "__doc__"))
    del run.__wrapped__  # type: ignore[attr-defined]  # pytest would ask the wrapped one for its arguments
    return run


def opened(test: Test, config: Config) -> None:
    async def main() -> None:
        env = MovableEnv()
        async with HybridDataArchitecture.open(config, entities=ENTITIES, env=env) as hda:
            await test(hda, env)

    asyncio.run(main())


FULL = Session(
    id="s1",
    user="민지 '; DROP TABLE ps_state; --",
    cart=Cart(["a", ""], b"\0\xff", Decimal("1.10")),
    mood=Mood.WILD,
    since=datetime(2026, 2, 28, 23, 59, 59, 999999, tzinfo=UTC),
    token=bytes(range(256)),
    price=Decimal("12345678901234567890.12345678901234"),
)


@everywhere
async def test_a_session_comes_back_exactly_and_ends_when_its_class_says(
    hda: HybridDataArchitecture, env: MovableEnv
) -> None:
    sessions = hda.state(Session)
    assert await sessions.get("s1") is None
    assert await sessions.ttl("s1") is None
    await sessions.put(FULL)
    assert await sessions.get("s1") == FULL
    assert 1790 < (await sessions.ttl("s1") or 0) <= 1800
    env.forward(1799)
    assert await sessions.touch("s1")
    env.forward(1799)
    assert await sessions.get("s1") == FULL
    env.forward(2)
    assert await sessions.get("s1") is None
    assert not await sessions.touch("s1")
    assert not await sessions.delete("s1")


@everywhere
async def test_pydantic_models_and_other_keys_come_back_too(hda: HybridDataArchitecture, env: MovableEnv) -> None:
    places = hda.state(Place)
    one = Place(code=UUID(int=7), x=-1, label="here", raw=b"\xfe\0")
    await places.put(one)
    assert await places.get(UUID(int=7)) == one
    assert [key async for key in places.stream_keys()] == [UUID(int=7)]
    assert await places.get_many([UUID(int=8), UUID(int=7)]) == [None, one]


@everywhere
async def test_create_is_for_what_is_not_there(hda: HybridDataArchitecture, env: MovableEnv) -> None:
    sessions = hda.state(Session)
    await sessions.create(Session(id="s", user="a"), ttl_s=5)
    with pytest.raises(AlreadyExists, match="session 's'"):
        await sessions.create(Session(id="s", user="b"))
    env.forward(6)
    await sessions.create(Session(id="s", user="b"))
    assert (await sessions.get("s") or FULL).user == "b"


@everywhere
async def test_an_update_changes_what_it_names_and_not_the_time_to_live(
    hda: HybridDataArchitecture, env: MovableEnv
) -> None:
    sessions = hda.state(Session)
    await sessions.put(Session(id="s", user="a"), ttl_s=100)
    env.forward(50)
    assert (await sessions.update("s", {"page": "/cart"})).page == "/cart"
    changed = await sessions.update("s", lambda one: Session(id=one.id, user=one.user, page=one.page + "/2"))
    assert (changed.user, changed.page) == ("a", "/cart/2")
    assert changed == await sessions.get("s")
    assert 40 < (await sessions.ttl("s") or 0) <= 50
    await sessions.update("s", {"page": "/"}, ttl_s=500)
    env.forward(400)
    assert await sessions.get("s") is not None
    env.forward(200)
    with pytest.raises(NotFound, match="session 's' does not exist"):
        await sessions.update("s", {"page": "/x"})
    with pytest.raises(NotFound, match="session 's' does not exist"):
        await sessions.update("s", lambda one: one)
    assert await sessions.get("s") is None


@everywhere
async def test_changes_at_the_same_time_lose_nothing(hda: HybridDataArchitecture, env: MovableEnv) -> None:
    counters = hda.state(Counter)
    await counters.put(Counter(number=1, hits=100))

    async def change() -> int:
        done = 0
        for _ in range(5):
            try:
                await counters.update(1, lambda one: msgspec.structs.replace(one, hits=one.hits + 1))
                done += 1
            except Conflict:  # five others came between
                pass
        return done

    async def count() -> None:
        for _ in range(25):
            await counters.incr(1, "hits", 10)
            await counters.incr(1, "level", 0.25)

    done = await asyncio.gather(change(), change(), count(), count(), change())
    assert await counters.get(1) == Counter(number=1, hits=600 + sum(one or 0 for one in done), level=14.0)


@everywhere
async def test_counting_begins_where_the_class_says(hda: HybridDataArchitecture, env: MovableEnv) -> None:
    counters = hda.state(Counter)
    assert await counters.incr(5, "hits") == 1
    assert await counters.incr(5, "hits", -3) == -2
    level = await counters.incr(6, "level", 0.5, ttl_s=10)
    assert (level, type(level)) == (2.0, float)
    assert await counters.get(6) == Counter(number=6, level=2.0)
    assert (await counters.ttl(5), await counters.ttl(7)) == (math.inf, None)
    env.forward(11)
    assert await counters.get(6) is None
    assert await counters.incr(6, "hits") == 1
    with pytest.raises(InvalidData, match="hits would not fit 64 bits"):
        await counters.incr(6, "hits", (1 << 63) - 1)
    assert await counters.incr(6, "hits", 0) == 1
    with pytest.raises(NotFound, match="place '00"):  # label has no default
        await hda.state(Place).incr(UUID(int=1), "x")


@everywhere
async def test_tenants_never_meet(hda: HybridDataArchitecture, env: MovableEnv) -> None:
    ours, theirs = hda.state(Counter), hda.tenant("acme").state(Counter)
    await ours.put(Counter(number=1, hits=1))
    assert await theirs.get(1) is None
    assert await theirs.incr(1, "hits", 5) == 5
    assert not await theirs.delete(2)
    assert await theirs.delete(1)
    assert [key async for key in theirs.stream_keys()] == []
    assert await ours.get(1) == Counter(number=1, hits=1)


@everywhere
async def test_all_keys_are_listed_page_by_page(hda: HybridDataArchitecture, env: MovableEnv) -> None:
    counters = hda.state(Counter)
    await asyncio.gather(*(counters.put(Counter(number=n), ttl_s=10 if n % 2 else None) for n in range(1_200)))
    env.forward(11)
    assert sorted([key async for key in counters.stream_keys()]) == list(range(0, 1_200, 2))


@everywhere
async def test_what_cannot_be_is_refused_before_any_step(hda: HybridDataArchitecture, env: MovableEnv) -> None:
    sessions, counters = hda.state(Session), hda.state(Counter)
    store = hda.stores[hda.remembered["session"].placement.home]
    with down(store, *(name for name in vars(SupportsState) if not name.startswith("_"))):
        wrong: list[Coroutine[Any, Any, object]] = [
            sessions.put(Session(id="", user="a")),
            sessions.put(Session(id="a", user=5)),  # type: ignore[arg-type]
            sessions.put(Session(id="a", user="x"), ttl_s=0),
            sessions.put(Session(id="a", user="x"), ttl_s=math.inf),
            sessions.update("a", {"usr": "x"}),
            sessions.update("a", {"id": "b"}),
            sessions.update("a", 5),  # type: ignore[arg-type]
            counters.incr(1, "hit"),
            counters.incr(1, "number"),
            counters.incr(1, "flag"),
            counters.incr(1, "maybe"),
            counters.incr(1, "hits", 1.0),
            counters.incr(1, "level", 1),
            counters.incr(1, "level", math.nan),
            counters.touch(1),
        ]
        for call in wrong:
            with pytest.raises(InvalidData):
                await call
        with pytest.raises(ValueTooLarge):
            await sessions.put(Session(id="a", user="x" * (VALUE_BYTES_MAX // 2), page="x" * (VALUE_BYTES_MAX // 2)))
        with pytest.raises(UnsupportedOperation, match=r"use hda.collection\(Person\)"):
            hda.state(Person)
        with pytest.raises(UnsupportedOperation, match=r"use hda.state\(Session\)$"):
            hda.collection(Session)
        with pytest.raises(UnsupportedOperation, match=r"use hda.state\(Session\)$"):
            await hda.read_operation({"kind": "key", "entity": "session", "key": "a"})
        with pytest.raises(UnsupportedOperation, match=r"use hda.state\(Session\)$"):
            await hda.write_operation({"core": {"user": "x"}}, entity=Session, key="a")


@everywhere
async def test_the_key_does_not_change_in_an_update(hda: HybridDataArchitecture, env: MovableEnv) -> None:
    sessions = hda.state(Session)
    await sessions.put(Session(id="s", user="a"))
    with pytest.raises(InvalidData, match="session 's': the function changed the key"):
        await sessions.update("s", lambda one: Session(id="t", user=one.user))
    assert await sessions.get("t") is None


@everywhere
async def test_a_store_that_is_down_is_said_and_nothing_is_kept_for_it(
    hda: HybridDataArchitecture, env: MovableEnv
) -> None:
    counters = hda.state(Counter)
    home = hda.remembered["counter"].placement.home
    with down(hda.stores[home], "get_state", "increment"):
        with pytest.raises(Unavailable) as refused:
            await counters.incr(1, "hits")
        assert (refused.value.store, refused.value.operation, refused.value.key) == (home, "increment", "1")
        with pytest.raises(Unavailable):
            await counters.get(1)
    env.forward(60)
    assert await counters.get(1) is None


def test_an_increment_whose_answer_is_lost_is_not_repeated() -> None:
    async def test(hda: HybridDataArchitecture, env: MovableEnv) -> None:
        counters = hda.state(Counter)
        repository: Any = hda.stores["memory"].repository
        sound = repository.increment

        async def lose_the_answer(*args: Any) -> None:
            await sound(*args)
            raise OutcomeUnknown("the line broke")

        repository.increment = lose_the_answer
        with pytest.raises(OutcomeUnknown):
            await counters.incr(1, "hits")
        assert await counters.get(1) == Counter(number=1, hits=1)

    opened(test, {"stores": {"memory": {"url": "memory:"}}})


def test_a_value_that_does_not_fit_its_class_is_an_error_and_not_missing() -> None:
    async def test(hda: HybridDataArchitecture, env: MovableEnv) -> None:
        repository: Any = hda.stores["memory"].repository
        for fields in ({"number": b"1", "hits": b'"many"'}, {"number": b"1", "hits": b"{"}, {}):
            await repository.put_state(Key("", "counter", "1"), fields, None)
            with pytest.raises(DecodeError, match="counter") as found:
                await hda.state(Counter).get(1)
            assert "many" not in str(found.value)

    opened(test, {"stores": {"memory": {"url": "memory:"}}})


def test_a_class_that_grew_reads_its_defaults_and_counts_from_them() -> None:
    async def test(hda: HybridDataArchitecture, env: MovableEnv) -> None:
        repository: Any = hda.stores["memory"].repository
        await repository.put_state(Key("", "counter", "1"), {"number": b"1", "hits": b"7", "gone": b"[]"}, None)
        assert await hda.state(Counter).get(1) == Counter(number=1, hits=7, level=1.5)
        assert await hda.state(Counter).incr(1, "level", 1.0) == 2.5

    opened(test, {"stores": {"memory": {"url": "memory:"}}})


def test_values_and_counts_outlive_the_process_in_files(tmp_path: Path) -> None:
    async def write(hda: HybridDataArchitecture, env: MovableEnv) -> None:
        await hda.state(Session).put(FULL)
        await hda.state(Counter).incr(1, "hits", 3)

    async def read(hda: HybridDataArchitecture, env: MovableEnv) -> None:
        assert await hda.state(Session).get("s1") == FULL
        assert await hda.state(Counter).incr(1, "hits", 3) == 6
        assert hda.remembered["session"].placement.home == "state"

    opened(write, f"embedded:{tmp_path}/app")
    opened(read, f"embedded:{tmp_path}/app")
    assert (tmp_path / "app/state.db").exists()


def test_an_application_may_have_nothing_but_state() -> None:
    async def main() -> None:
        async with HybridDataArchitecture.open("memory:", entities=[Counter]) as hda:
            assert await hda.state(Counter).incr(1, "hits") == 1

    asyncio.run(main())


def test_without_a_store_for_state_open_says_what_to_configure() -> None:
    async def main() -> None:
        with pytest.raises(ConfigurationError, match="Session: no configured store can hold its data_type 'session'"):
            await HybridDataArchitecture.open(SPLIT, entities=[Session])

    asyncio.run(main())


def test_state_has_nothing_that_only_records_have() -> None:
    @entity(data_type="session", name="worded")
    @dataclass
    class Worded:
        id: str
        text: Annotated[str, FullText()] = ""

    async def main() -> None:
        with pytest.raises(ConfigurationError, match=r"Worded: .* has no FullText\(\)"):
            await HybridDataArchitecture.open("memory:", entities=[Worded])

    asyncio.run(main())
