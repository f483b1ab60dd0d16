"""How many calls run and wait."""

import asyncio

import pytest

from polystore.errors import Backpressure
from polystore.layers.limit import Limit
from tests.unit.doubles import GET, virtually, way


class Room:
    """A store whose calls take a second; knows who is inside, and who was in which order."""

    def __init__(self, calls_max: int, waiting_max: int = 100) -> None:
        self.limit = Limit("room", calls_max, waiting_max)
        self.inside = 0
        self.most_inside = 0
        self.came = list[str]()

    async def visit(self, who: str, error: Exception | None = None) -> None:
        async def stay() -> None:
            self.came.append(who)
            self.inside += 1
            self.most_inside = max(self.most_inside, self.inside)
            try:
                await asyncio.sleep(1)
            finally:
                self.inside -= 1
            if error is not None:
                raise error

        await self.limit.call(GET, way(stay))

    def send(self, who: str) -> asyncio.Task[None]:
        return asyncio.create_task(self.visit(who))


def test_no_more_calls_run_at_once_than_allowed_and_all_come_through() -> None:
    async def main() -> None:
        room = Room(3)
        await asyncio.gather(*[room.visit(str(i)) for i in range(10)])
        assert room.most_inside == 3
        assert len(room.came) == 10
        assert asyncio.get_running_loop().time() == pytest.approx(4)

    virtually(main)


def test_first_come_first_served() -> None:
    async def main() -> None:
        room = Room(1)
        tasks = list[asyncio.Task[None]]()
        for i in range(5):
            tasks.append(room.send(str(i)))
            await asyncio.sleep(0.1)
        await asyncio.gather(*tasks)
        assert room.came == ["0", "1", "2", "3", "4"]

    virtually(main)


def test_one_more_than_may_wait_is_refused_at_once_with_the_stores_name() -> None:
    async def main() -> None:
        room = Room(1, waiting_max=2)
        tasks = [room.send(str(i)) for i in range(3)]
        await asyncio.sleep(0.5)
        with pytest.raises(Backpressure, match="room get"):
            await room.visit("too many")
        await asyncio.gather(*tasks)
        assert "too many" not in room.came

    virtually(main)


def test_a_failed_call_leaves_its_place() -> None:
    async def main() -> None:
        room = Room(1)
        with pytest.raises(ValueError, match="bug"):
            await room.visit("first", ValueError("bug"))
        await room.visit("second")

    virtually(main)


def test_who_gives_up_waiting_takes_no_place_and_keeps_none() -> None:
    async def main() -> None:
        room = Room(1, waiting_max=2)
        first, second, third = room.send("first"), room.send("second"), room.send("third")
        await asyncio.sleep(0.5)
        second.cancel()
        await asyncio.sleep(0.1)
        fourth = room.send("fourth")  # there is room to wait again
        await asyncio.gather(first, third, fourth)
        assert room.came.index("third") < room.came.index("fourth")
        assert "second" not in room.came

    virtually(main)


def test_a_place_offered_to_somebody_just_cancelled_goes_to_the_next() -> None:
    async def main() -> str:
        room = Room(1)
        first, second, third = [room.send(name) for name in ("first", "second", "third")]
        await asyncio.sleep(0.5)
        first.add_done_callback(lambda _: second.cancel())
        await asyncio.wait([first, second, third], timeout=100)
        assert third.done()
        await room.visit("fourth")
        return "cancelled" if second.cancelled() and "second" not in room.came else "visited"

    # Whether the place or the cancellation comes first is chance.
    assert {virtually(main, seed) for seed in range(100)} == {"cancelled", "visited"}
