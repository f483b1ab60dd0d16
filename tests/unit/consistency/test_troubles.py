"""What goes wrong around the manager: at a bad moment, or again and again."""

from __future__ import annotations

from collections.abc import Sequence

from polystore.consistency.manager import PROBLEMS_MAX
from polystore.errors import Unavailable
from polystore.model import Key
from tests.unit.consistency.world import World, simulated, until


def test_what_a_copy_is_owed_is_due_when_it_is_back_also_when_the_home_fails_at_that_moment() -> None:
    async def test(world: World) -> None:
        manager = await world.manager(retry_base_s=1000.0, retry_max_s=1000.0)
        world.copies["search"].down = Unavailable("away")
        for i in range(10):
            await world.put(manager, f"n{i}", "하나")
        await until(lambda: manager.stores["search"].breaker.open)
        awaken, failing = world.home.awaken, list[float]()

        async def failing_at_first(target: str, keys: Sequence[Key] | None, within_us: int) -> int:
            if keys is None:
                failing.append(world.env.monotonic())
                if failing[-1] - failing[0] < 3.0:  # longer than a call is repeated
                    raise Unavailable("away for a moment")
            return await awaken(target, keys, within_us)

        world.home.awaken = failing_at_first  # type: ignore[method-assign]
        world.copies["search"].down = None
        await manager.settle(30)
        assert len(failing) > 1

    simulated(test)


def test_of_what_goes_wrong_again_and_again_the_last_is_remembered() -> None:
    async def test(world: World) -> None:
        manager = await world.manager()
        for i in range(PROBLEMS_MAX + 5):
            manager.report("the usual")
            manager.report(f"{i}")
        assert len(manager.problems) == PROBLEMS_MAX
        assert manager.problems["the usual"] == PROBLEMS_MAX + 5
        assert "5" not in manager.problems

    simulated(test)
