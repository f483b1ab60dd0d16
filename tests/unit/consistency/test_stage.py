"""How an embedder is asked: not while it is down, not before it said, in the pace that was configured."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence

import pytest

from polystore.consistency.stage import HARMLESS, Stage
from polystore.embedding import pack
from polystore.errors import (
    CircuitOpen,
    ConfigurationError,
    DimensionMismatch,
    InvalidData,
    PermissionDenied,
    PolystoreError,
    RateLimited,
    StoreTimeout,
    Unavailable,
)
from polystore.layers.breaker import FAILURES_IN_A_ROW
from tests.unit.consistency.world import VirtualEnv, World, simulated, until


class Service:
    """An embedder outside the process that does as told, and remembers when it was asked for what."""

    name, dimension, batch_max, chars_max = "service-1", 2, 4, 20

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.refuses: frozenset[str] = frozenset()
        self.answer: Sequence[Sequence[float]] | None = None
        self.calls_per_minute: float | None = None
        self.calls: list[list[str]] = []
        self.times: list[float] = []

    async def embed(self, texts: Sequence[str], *, purpose: str) -> Sequence[Sequence[float]]:
        self.calls.append(list(texts))
        self.times.append(asyncio.get_running_loop().time())
        if self.error is not None:
            raise self.error
        if self.refuses & set(texts):
            raise InvalidData("refused")
        return self.answer or [[float(len(text)), 1.0] for text in texts]


class Asked:
    """A stage in virtual time."""

    def __init__(self) -> None:
        self.service = Service()
        self.stage = Stage("embed:service-1:2", self.service, VirtualEnv())

    async def fails(self, *texts: str) -> PolystoreError:
        with pytest.raises(PolystoreError) as caught:
            await self.stage.embed(texts, "document", 5.0)
        return caught.value


def test_an_embedder_that_keeps_failing_is_asked_once_in_a_while() -> None:
    async def test(world: World) -> None:
        one = Asked()
        one.service.error = ConnectionError("refused")
        for _ in range(FAILURES_IN_A_ROW):
            assert type(await one.fails("a")) is Unavailable
        calls = len(one.service.calls)
        assert type(await one.fails("a")) is CircuitOpen
        for _ in range(6000):  # ten minutes
            await asyncio.sleep(0.1)
            await one.fails("a")
        assert 300 <= len(one.service.calls) - calls <= 600
        one.service.error = None
        await asyncio.sleep(2.0)
        assert await one.stage.embed(["a"], "document", 5.0) == [pack([1.0, 1.0])]
        assert await one.stage.embed(["a"], "query", 5.0) == [pack([1.0, 1.0])]  # at once again

    simulated(test)


def test_who_finds_out_whether_it_answers_again_does_so_alone() -> None:
    async def test(world: World) -> None:
        one = Asked()
        one.service.error = ConnectionError("refused")
        for _ in range(FAILURES_IN_A_ROW):
            await one.fails("a")
        await asyncio.sleep(2.0)
        calls = len(one.service.calls)
        await asyncio.gather(*(one.fails("a") for _ in range(10)))
        assert len(one.service.calls) == calls + 1

    simulated(test)


def test_retry_after_is_kept_by_everybody() -> None:
    async def test(world: World) -> None:
        one = Asked()
        one.service.error = RateLimited("slow down", retry_after_s=30.0)
        error = await one.fails("a")
        assert isinstance(error, RateLimited)
        assert (error.store, error.operation) == ("embed:service-1:2", "embed")
        one.service.error = None
        await asyncio.sleep(29.0)
        error = await one.fails("b")
        assert isinstance(error, CircuitOpen)
        assert error.retry_after_s == pytest.approx(1.0)
        await asyncio.sleep(1.1)
        await one.stage.embed(["b"], "query", 5.0)
        assert one.service.times[1] - one.service.times[0] >= 30.0

    simulated(test)


def test_calls_for_stored_texts_keep_the_pace_and_questions_do_not_wait() -> None:
    async def test(world: World) -> None:
        one = Asked()
        one.service.calls_per_minute = 60
        storing = asyncio.create_task(one.stage.each([f"t{i}" for i in range(20)], 5.0))
        await asyncio.sleep(0.5)
        await one.stage.embed(["question"], "query", 5.0)
        await storing
        times = [at for at, call in zip(one.service.times, one.service.calls, strict=True) if call != ["question"]]
        assert [round(b - a, 3) for a, b in itertools.pairwise(times)] == [1.0] * 4
        assert one.service.calls[1] == ["question"]

    simulated(test)


def test_a_call_that_does_not_end_is_cut_off() -> None:
    async def test(world: World) -> None:
        one = Asked()

        async def never(texts: Sequence[str], *, purpose: str) -> Sequence[Sequence[float]]:
            await asyncio.sleep(1e6)
            raise AssertionError

        one.service.embed = never  # type: ignore[method-assign]
        assert type(await one.fails("a")) is StoreTimeout

    simulated(test)


def test_texts_are_cut_and_batched_as_the_embedder_asks() -> None:
    async def test(world: World) -> None:
        one = Asked()
        found = await one.stage.each(["가" * 50, *[f"t{i}" for i in range(5)]], 5.0)
        assert found == [pack([20.0, 1.0]), *[pack([2.0, 1.0])] * 5]
        assert [len(call) for call in one.service.calls] == [4, 2]
        assert one.stage.made == 6

    simulated(test)


def test_the_refused_texts_are_found_among_the_others() -> None:
    async def test(world: World) -> None:
        one = Asked()
        one.service.refuses = frozenset({"t1", "t6"})
        found = await one.stage.each([f"t{i}" for i in range(8)], 5.0)
        assert [type(one) for one in found] == [InvalidData if i in (1, 6) else bytes for i in range(8)]
        assert not one.stage.open

    simulated(test)


@pytest.mark.parametrize(
    "error",
    [InvalidData("any text"), PermissionDenied("the key"), ConfigurationError("the model"), ConnectionError("down")],
    ids=lambda error: type(error).__name__,
)
def test_what_is_wrong_with_every_text_is_wrong_with_none(error: Exception) -> None:
    async def test(world: World) -> None:
        one = Asked()
        one.service.error = error
        found = await one.stage.each(["a", "b", "c"], 5.0)
        assert all(isinstance(one, Unavailable) for one in found)
        assert len(one.service.calls) <= 2  # at most the batch, and a harmless text
        assert one.service.calls[1:] in ([], [[HARMLESS]])

    simulated(test)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ([[1.0, 1.0]], Unavailable),
        ([[1.0]] * 2, DimensionMismatch),
        ([[1.0, float("nan")]] * 2, InvalidData),
        ([[1.0, 1e300]] * 2, InvalidData),
        ([["a", "b"]] * 2, InvalidData),
    ],
)
def test_answers_are_checked(answer: Sequence[Sequence[float]], kind: type[PolystoreError]) -> None:
    async def test(world: World) -> None:
        one = Asked()
        one.service.answer = answer
        assert type(await one.fails("a", "b")) is kind

    simulated(test)


def test_a_record_whose_text_is_refused_reaches_its_copies_without_a_vector() -> None:
    service = Service()
    service.refuses = frozenset({"독"})

    async def test(world: World) -> None:
        manager = await world.manager()
        await world.put(manager, "a", "바다")
        await world.put(manager, "b", "독")
        await until(lambda: world.text("vectors", "b") == "독")
        await manager.settle(60)
        assert world.servers["home"].backlog().parked == {"embed:service-1:2": 1}
        assert world.text("search", "b") == "독"
        await world.put(manager, "b", "약")
        await manager.settle(60)
        assert world.text("vectors", "b") == "약"
        assert world.servers["home"].backlog().parked == {}

    simulated(test, embedder=service)


def test_a_refusal_is_known_to_the_next_process_too() -> None:
    service = Service()
    service.refuses = frozenset({"독"})

    async def test(world: World) -> None:
        first = await world.manager()
        world.copies["vectors"].down = Unavailable("down")
        await world.put(first, "b", "독")
        await until(lambda: bool(world.servers["home"].backlog().parked))
        await first.stop()
        world.copies["vectors"].down = None
        second = await world.manager()
        await second.settle(120)
        assert world.text("vectors", "b") == "독"

    simulated(test, embedder=service)


def test_a_copy_is_complete_although_writes_never_pause() -> None:
    async def test(world: World) -> None:
        first = await world.manager()
        for i in range(20):
            await world.put(first, f"n{i}", "text")
        await first.settle(60)
        target = next(row for row in world.servers["home"].targets() if row.name == "vectors")
        world.servers["home"].set_target(type(target)("note", "vectors", target.bit, "backfilling"))
        stop = asyncio.Event()

        async def write() -> None:
            i = 0
            while not stop.is_set():
                i += 1
                await world.put(first, f"new{i}", f"text {i}")
                await asyncio.sleep(0.1)  # faster than the embedder: something is always owed

        writing = asyncio.create_task(write())
        await until(
            lambda: all(row.status == "active" for row in world.servers["home"].targets() if row.name == "vectors")
        )
        assert world.servers["home"].backlog().retry["vectors"] > 0
        stop.set()
        await writing
        await first.settle(600)

    simulated(test, embedder=Slow())


class Slow(Service):
    """Always behind: every text waits half a second."""

    async def embed(self, texts: Sequence[str], *, purpose: str) -> Sequence[Sequence[float]]:
        await asyncio.sleep(0.5)
        return await super().embed(texts, purpose=purpose)
