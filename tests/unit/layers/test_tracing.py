"""Who hears of which operation."""

import asyncio

import pytest

from polystore.errors import Unavailable
from polystore.layers import tracing
from polystore.layers.tracing import Step, Tracing
from polystore.operations import Operation
from polystore.protocols import Repository
from tests.unit.doubles import GET, LoopEnv, Script, key, virtually, way


def test_a_step_says_store_verb_duration_and_number_of_items() -> None:
    async def main() -> None:
        layer = Tracing("search", LoopEnv().monotonic)
        two: Operation[None] = Operation("get", ([key("a"), key("b")],), Repository)
        with tracing.collect() as trace:
            await layer.call(two, way(lambda: asyncio.sleep(0.5)))
            await layer.call(Operation.of(Repository.ping), way(Script()))
        assert trace.steps == [Step("search", "get", 500, 2), Step("search", "ping", 0, 1)]

    virtually(main)


def test_a_failed_step_names_the_class_of_its_error() -> None:
    async def main() -> None:
        with tracing.collect() as trace, pytest.raises(Unavailable):
            await Tracing("search", LoopEnv().monotonic).call(GET, way(Script(Unavailable("down"))))
        assert [step.error for step in trace.steps] == ["Unavailable"]

    virtually(main)


def test_tasks_made_in_the_block_are_heard_and_others_are_not() -> None:
    async def main() -> None:
        layer = Tracing("s", LoopEnv().monotonic)
        outside = asyncio.create_task(asyncio.sleep(1))
        with tracing.collect() as trace:
            await asyncio.gather(layer.call(GET, way(Script())), layer.call(GET, way(Script())))
            with tracing.use(None):
                await layer.call(GET, way(Script()))
        await layer.call(GET, way(Script()))
        await outside
        assert len(trace.steps) == 2

    virtually(main)
