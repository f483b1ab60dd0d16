"""Who waits for a connection gets one in turn, whatever the others do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from polystore.errors import Unavailable
from polystore.relational.pool import Connections


class Connection:
    alive = True


def pool_of(size: int, connect: Callable[[], Awaitable[Connection]] | None = None) -> Connections[Connection]:
    async def made() -> Connection:
        await asyncio.sleep(0)
        return Connection()

    def close(one: Connection) -> None:
        one.alive = False

    return Connections("here", size, connect or made, close, lambda one: one.alive)


def test_who_gives_one_back_and_takes_one_at_once_leaves_none_of_the_others_waiting() -> None:
    async def main() -> None:
        pool, turns = pool_of(2), dict.fromkeys(range(5), 0)

        async def user(number: int) -> None:
            while sum(turns.values()) < 500:
                connection = await pool.take()
                assert pool.checked_out <= 2
                await asyncio.sleep(0)
                turns[number] += 1
                pool.give(connection)

        await asyncio.gather(*map(user, turns))
        assert min(turns.values()) >= 90
        assert pool.checked_out == 0

    asyncio.run(main())


def test_a_connection_for_one_who_was_cancelled_goes_to_the_next() -> None:
    async def main() -> None:
        pool = pool_of(1)
        held = await pool.take()
        first, second = (asyncio.create_task(pool.take()) for _ in range(2))
        await asyncio.sleep(0)
        pool.give(held)
        first.cancel()
        assert await asyncio.wait_for(second, 1) is held
        assert pool.checked_out == 1

    asyncio.run(main())


def test_room_for_a_new_one_goes_to_the_next_when_it_cannot_be_made_or_its_taker_is_cancelled() -> None:
    async def main() -> None:
        attempts: list[int] = []

        async def connect() -> Connection:
            attempts.append(1)
            await asyncio.sleep(0)
            if len(attempts) == 2:
                raise Unavailable("not this one")
            return Connection()

        pool = pool_of(1, connect)
        held = await pool.take()
        first, second, third = (asyncio.create_task(pool.take()) for _ in range(3))
        await asyncio.sleep(0)
        pool.drop(held)
        first.cancel()
        with pytest.raises(Unavailable, match="not this one"):
            await second
        assert (await asyncio.wait_for(third, 1)).alive

    asyncio.run(main())


def test_the_end_of_the_pool_ends_all_who_wait_and_all_that_are_in_use() -> None:
    async def main() -> None:
        pool = pool_of(1)
        held = await pool.take()
        waiting = [asyncio.create_task(pool.take()) for _ in range(3)]
        await asyncio.sleep(0)
        pool.give(held)  # the first of them has it now, and has not run yet
        pool.end()
        for one in waiting:
            with pytest.raises(Unavailable, match="closed"):
                await one
        assert (held.alive, pool.checked_out) == (False, 0)

    asyncio.run(main())
