"""Rate limits and channels through the facade, on every profile."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pydantic
import pytest

from polystore import (
    Allowance,
    ConfigurationError,
    DecodeError,
    HybridDataArchitecture,
    InvalidData,
    OutcomeUnknown,
    Unavailable,
    UnsupportedOperation,
    ValueTooLarge,
)
from polystore.collection.limiter import rate_of
from polystore.opening import latecomers
from polystore.store import Store
from polystore.store import open_store as connected
from polystore.testing.conformance import MovableEnv
from tests.integration.facade.test_state import ENTITIES, everywhere, opened
from tests.integration.facade.world import SPLIT, down

# -- limits -------------------------------------------------------------------------------------------------------


@everywhere
async def test_a_window_slides(hda: HybridDataArchitecture, env: MovableEnv) -> None:
    logins = hda.limiter("login", limit=3, per_s=600)
    for left in (2, 1, 0):
        assert await logins.take("minji") == Allowance(True, left, 0.0)
        env.forward(100)
    refused = await logins.take("minji")
    assert (refused.allowed, refused.remaining) == (False, 0)
    assert 299 < refused.retry_after_s <= 300
    assert (await logins.peek("minji")).allowed is False
    assert (await logins.take("jiwoo", cost=3)).allowed
    env.forward(300)
    assert (await logins.take("minji")).allowed
    assert not (await logins.take("minji")).allowed
    await logins.reset("minji")
    assert (await logins.peek("minji")).remaining == 3


@everywhere
async def test_a_bucket_fills_up_again_and_holds_its_burst(hda: HybridDataArchitecture, env: MovableEnv) -> None:
    calls = hda.limiter("calls", limit=60, per_s=3600, kind="token_bucket", burst=5)
    assert (await calls.take(1, cost=5)).allowed
    refused = await calls.take(1, cost=2)
    assert not refused.allowed
    assert 119 < refused.retry_after_s <= 120
    env.forward(121)
    assert (await calls.take(1, cost=2)).allowed
    env.forward(36_000)
    assert (await calls.peek(1)).remaining == 5


@everywhere
async def test_limits_are_of_one_tenant_one_name_and_one_key(hda: HybridDataArchitecture, env: MovableEnv) -> None:
    for view in (hda, hda.tenant("acme")):
        for name in ("login", "session"):
            for key in ("a", 1, UUID(int=1), "민지 '; DROP TABLE ps_limit; --"):
                limiter = view.limiter(name, limit=1, per_s=60)
                assert (await limiter.take(key)).allowed
                assert not (await limiter.take(key)).allowed


@everywhere
async def test_takers_at_the_same_time_get_the_limit_and_no_more(hda: HybridDataArchitecture, env: MovableEnv) -> None:
    answers = await asyncio.gather(*(hda.limiter("x", limit=17, per_s=600).take("k") for _ in range(100)))
    assert sum(one.allowed for one in answers) == 17
    assert sorted(one.remaining for one in answers if one.allowed) == list(range(17))


def test_rates_and_costs_that_cannot_be_are_refused() -> None:
    wrong: list[dict[str, Any]] = [
        {"limit": 0},
        {"limit": 1.5},
        {"limit": 1_000_001},
        {"per_s": 0},
        {"per_s": math.inf},
        {"per_s": "1"},
        {"kind": "fixed_window"},
        {"burst": 5},
        {"kind": "token_bucket", "burst": 0},
    ]
    for one in wrong:
        given: dict[str, Any] = {"limit": 5, "per_s": 1.0, "kind": "sliding_window", "burst": None, **one}
        with pytest.raises(ConfigurationError, match="limiter 'x'"):
            rate_of("x", **given)

    async def test(hda: HybridDataArchitecture, env: MovableEnv) -> None:
        limiter = hda.limiter("x", limit=5, per_s=1)
        for cost in (0, 6, True, 1.0):
            with pytest.raises(InvalidData, match="cost= is an int from 1 to 5"):
                await limiter.take("k", cost=cost)  # type: ignore[arg-type]
        for key in ("", 1.5, None, "x" * 600):
            with pytest.raises(InvalidData):
                await limiter.take(key)  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match="limiter: the name"):
            hda.limiter("", limit=5, per_s=1)

    opened(test, "memory:")


@everywhere
async def test_a_limiter_whose_store_is_down_says_so(hda: HybridDataArchitecture, env: MovableEnv) -> None:
    limiter = hda.limiter("x", limit=5, per_s=60)
    name = _live_state(hda)
    with down(hda.stores[name], "take_allowance"), pytest.raises(Unavailable) as refused:
        await limiter.take("k")
    assert (refused.value.store, refused.value.operation, refused.value.key) == (name, "take_allowance", "k")
    assert (await limiter.take("k")).remaining == 4


def test_what_was_taken_outlives_the_process_in_files(tmp_path: Path) -> None:
    async def take(hda: HybridDataArchitecture, env: MovableEnv) -> None:
        assert (await hda.limiter("x", limit=2, per_s=86_400).take("k")).allowed

    async def look(hda: HybridDataArchitecture, env: MovableEnv) -> None:
        assert (await hda.limiter("x", limit=2, per_s=86_400).peek("k")).remaining == 1

    opened(take, f"embedded:{tmp_path}/app")
    opened(look, f"embedded:{tmp_path}/app")


def test_limits_and_channels_go_to_the_store_that_is_made_for_them() -> None:
    stores = {**SPLIT["stores"], "live": {"url": "memory:", "roles": ["live_state"]}, "all": {"url": "memory:"}}

    async def test(hda: HybridDataArchitecture, env: MovableEnv) -> None:
        assert _live_state(hda) == "live"
        assert "in live" in repr(hda.channel("c", type=str))

    opened(test, {"stores": dict(reversed(stores.items()))})


def test_a_store_that_did_not_answer_is_waited_for_and_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that opened at other times would count apart."""
    live = {"url": "memory:", "roles": ["live_state"], "required": False}
    config = {"stores": {"main": {"url": "memory:"}, "live": live}}

    async def open_store(name: str, *given: Any) -> Store:
        if name == "live":
            raise Unavailable("no route", store=name)
        return await connected(name, *given)

    async def main() -> None:
        monkeypatch.setattr(latecomers, "open_store", open_store)
        async with HybridDataArchitecture.open(config, entities=ENTITIES[:1]) as hda:
            with pytest.raises(Unavailable, match="live"):
                hda.limiter("x", limit=1, per_s=1)

    asyncio.run(main())


def test_an_answer_that_takes_too_long_may_have_counted() -> None:
    async def main() -> None:
        config = {"stores": {"slow": {"url": "memory:", "timeout_s": 0.05}}}
        async with HybridDataArchitecture.open(config, entities=ENTITIES) as hda:
            repository: Any = hda.stores["slow"].repository

            async def stall(*given: Any) -> None:
                await asyncio.Event().wait()

            repository.take_allowance = stall
            with pytest.raises(OutcomeUnknown, match="carried out or not; look before doing it again"):
                await hda.limiter("x", limit=1, per_s=1).take("k")

    asyncio.run(main())


def test_without_a_store_for_live_state_limits_and_channels_say_what_to_configure() -> None:
    async def main() -> None:
        async with HybridDataArchitecture.open(SPLIT, entities=ENTITIES[:1]) as hda:
            with pytest.raises(UnsupportedOperation, match="add 'live_state' to its roles"):
                hda.limiter("x", limit=1, per_s=1)
            with pytest.raises(UnsupportedOperation, match="add 'live_state' to its roles"):
                hda.channel("x", type=str)

    asyncio.run(main())


def _live_state(hda: HybridDataArchitecture) -> str:
    return repr(hda.limiter("x", limit=1, per_s=1)).rpartition(" in ")[2].rstrip(")")


# -- channels -----------------------------------------------------------------------------------------------------


@dataclass
class Part:
    at: datetime
    seal: bytes = b""


@dataclass
class Turn:
    speaker: str
    text: str
    price: Decimal | None = None
    parts: list[Part] = field(default_factory=list[Part])


class Model(pydantic.BaseModel):
    x: int


TURN = Turn("민지", "안녕", Decimal("1.10"), [Part(datetime(2026, 1, 1, tzinfo=UTC), b"\0\xff")])


@everywhere
async def test_every_listener_gets_every_message_in_order(hda: HybridDataArchitecture, env: MovableEnv) -> None:
    turns = hda.channel("turns", type=Turn)
    await turns.publish(Turn("nobody", "listens"))
    async with turns.subscribe() as first, hda.channel("turns", type=Turn).subscribe() as second:
        for n in range(50):
            await turns.publish(Turn("a", str(n)))
        await turns.publish(TURN)
        for one in (first, second):
            assert [(await anext(one)).text for _ in range(50)] == [str(n) for n in range(50)]
            assert await anext(one) == TURN
    assert [one async for one in first] == []


@everywhere
async def test_channels_are_of_one_tenant_and_one_name(hda: HybridDataArchitecture, env: MovableEnv) -> None:
    async with hda.channel("a", type=str).subscribe() as messages:
        await hda.channel("b", type=str).publish("other name")
        await hda.tenant("acme").channel("a", type=str).publish("other tenant")
        await hda.channel("a", type=str).publish("mine")
        assert await anext(messages) == "mine"


@everywhere
async def test_a_slow_reader_loses_the_oldest_and_the_loss_is_counted(
    hda: HybridDataArchitecture, env: MovableEnv
) -> None:
    numbers = hda.channel("n", type=int)
    async with numbers.subscribe(buffer=3) as messages, numbers.subscribe() as quick:
        for n in range(10):
            await numbers.publish(n)
        assert [await anext(messages) for _ in range(3)] == [7, 8, 9]
        assert (messages.lost, quick.lost) == (7, 0)


@everywhere
async def test_closing_the_architecture_ends_the_reading(hda: HybridDataArchitecture, env: MovableEnv) -> None:
    numbers = hda.channel("n", type=int)

    async def read() -> list[int]:
        async with numbers.subscribe() as messages:
            started.set()
            return [one async for one in messages]

    started = asyncio.Event()
    reading = asyncio.create_task(read())
    await started.wait()
    await numbers.publish(1)
    await hda.close()
    assert await reading == [1]
    with pytest.raises(Unavailable):
        await numbers.publish(2)
    with pytest.raises(Unavailable):
        async with numbers.subscribe():
            pass


@everywhere
async def test_a_reader_that_is_cancelled_leaves(hda: HybridDataArchitecture, env: MovableEnv) -> None:
    numbers = hda.channel("n", type=int)

    async def read() -> None:
        async with numbers.subscribe() as messages:
            started.set()
            async for _ in messages:
                pass

    started = asyncio.Event()
    reading = asyncio.create_task(read())
    await started.wait()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    await numbers.publish(1)


def test_a_message_of_another_type_is_an_error_in_its_turn() -> None:
    async def test(hda: HybridDataArchitecture, env: MovableEnv) -> None:
        async with hda.channel("c", type=Turn).subscribe() as messages:
            await hda.channel("c", type=str).publish("secret")
            await hda.channel("c", type=Turn).publish(TURN)
            with pytest.raises(DecodeError, match="channel 'c': a message does not fit Turn") as found:
                await anext(messages)
            assert "secret" not in str(found.value)
            assert await anext(messages) == TURN

    opened(test, "memory:")


def test_any_type_that_a_field_can_have_may_be_a_message() -> None:
    class Struct(msgspec.Struct):
        at: UUID

    async def test(hda: HybridDataArchitecture, env: MovableEnv) -> None:
        samples: list[tuple[Any, Any]] = [
            (str, "가\n"),
            (float, 0.1 + 0.2),
            (bytes, b"\0\xff"),
            (Decimal, Decimal("1.10")),
            (dict[str, list[int]], {"a": [1]}),
            (Struct, Struct(UUID(int=1))),
            (Model, Model(x=1)),
        ]
        for of, value in samples:
            channel = hda.channel("c", type=of)
            async with channel.subscribe() as messages:
                await channel.publish(value)
                assert await anext(messages) == value
        wrong: list[Coroutine[Any, Any, None]] = [
            hda.channel("c", type=int).publish("1"),  # type: ignore[arg-type]
            hda.channel("c", type=float).publish(math.nan),
            hda.channel("c", type=str).publish("\ud800"),
        ]
        for call in wrong:
            with pytest.raises(InvalidData, match="channel 'c'"):
                await call
        with pytest.raises(ValueTooLarge, match="save it as a record or a file"):
            await hda.channel("c", type=str).publish("x" * (1 << 20))
        with pytest.raises(ConfigurationError, match="channel 'c': the type"):
            hda.channel("c", type=set)
        with pytest.raises(InvalidData, match="buffer="):
            hda.channel("c", type=str).subscribe(buffer=0)

    opened(test, "memory:")


def test_a_message_whose_answer_is_lost_is_not_sent_twice() -> None:
    async def test(hda: HybridDataArchitecture, env: MovableEnv) -> None:
        repository: Any = hda.stores["one"].repository
        sound = repository.publish

        async def lose_the_answer(*args: Any) -> None:
            await sound(*args)
            raise OutcomeUnknown("the line broke")

        numbers = hda.channel("n", type=int)
        async with numbers.subscribe() as messages:
            repository.publish = lose_the_answer
            with pytest.raises(OutcomeUnknown):
                await numbers.publish(1)
            del repository.publish
            await numbers.publish(2)
            assert [await anext(messages), await anext(messages)] == [1, 2]

    opened(test, {"stores": {"one": {"url": "memory:"}}})


def test_architectures_on_the_same_file_hear_each_other_in_any_thread(tmp_path: Path) -> None:
    """Several in one process, each in a thread and a loop of its own."""
    url = f"embedded:{tmp_path}/app"

    async def publish() -> None:
        async with HybridDataArchitecture.open(url, entities=ENTITIES) as other:
            for n in range(20):
                await other.channel("n", type=int).publish(n)

    async def main() -> None:
        async with (
            HybridDataArchitecture.open(url, entities=ENTITIES) as hda,
            hda.channel("n", type=int).subscribe() as messages,
        ):
            await asyncio.gather(*(asyncio.to_thread(asyncio.run, publish()) for _ in range(2)))
            async with asyncio.timeout(10):
                got = [await anext(messages) for _ in range(40)]
            assert sorted(got) == sorted([*range(20), *range(20)])

    asyncio.run(main())
