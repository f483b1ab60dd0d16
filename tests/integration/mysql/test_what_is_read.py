"""Tables that grow are read by their indexes: a page, a step and a sweep read about as many rows as they are about."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

import pytest
from polystore_adapters.mysql.repository import MysqlRepository

from polystore.entity import EntityType
from polystore.env import Env
from polystore.facets import Edge
from polystore.model import Commit, HashSpan, Key, PointRow, Series, Span, TargetRow, Write, key_hash
from polystore.protocols import Layout
from polystore.testing.conformance.entities import NUMBERED, PERSON, Numbered, Person, Since
from tests.mysql import FLAVOURS, connected, fresh_database

T = TypeVar("T")
COUNT, PAGE = 2_000, 20
MINUTE_US = 60_000_000


def writes(etype: EntityType[Any], values: Iterator[tuple[str, Any]]) -> list[Write]:
    return [
        Write("put", Key("", etype.name, id), key_hash("", etype.name, id), body, etype.content_hash(body))
        for id, value in values
        for body in [etype.encode(value)]
    ]


async def fill(store: MysqlRepository) -> None:
    numbers = writes(NUMBERED, ((str(i), Numbered(i)) for i in range(COUNT)))
    knowing = (Person(id=f"{i}", knows=[Edge(f"{i + 1}", Since(2020, ""))]) for i in range(COUNT))
    people = writes(PERSON, ((one.id, one) for one in knowing))
    for answer in await store.commit([Commit(numbers), Commit(people)]):
        assert not isinstance(answer, Exception)
    now = store.clock.now_us()
    series = [Series("", "thing", "mood", f"{i}") for i in range(10)]
    await store.append_points([PointRow(one, now - i * MINUTE_US, 0.5) for one in series for i in range(COUNT // 10)])
    async with store._pool.session() as db:  # pyright: ignore[reportPrivateUsage]
        await db.fetch("ANALYZE TABLE kit_numbered, kit_person, ps_edge_kit_person, ps_point, ps_series")


async def read(store: MysqlRepository, call: Callable[[], Awaitable[T]]) -> tuple[int, T]:
    """How many rows the one connection has read for it, https://mariadb.com/kb/en/server-status-variables/ ."""

    async def so_far() -> int:
        rows = await store._pool.fetch(  # pyright: ignore[reportPrivateUsage]
            "SHOW SESSION STATUS WHERE variable_name IN ('Handler_read_next', 'Handler_read_prev', 'Handler_read_key', "
            "'Handler_read_first', 'Handler_read_last')"  # a table from end to end is _rnd_next, as the answer to this
        )
        return sum(int(value) for _, value in rows)

    before = await so_far()
    answer = await call()
    return await so_far() - before, answer


@pytest.mark.parametrize("server", FLAVOURS)
def test_what_is_asked_is_found_by_an_index(server: str) -> None:
    target = TargetRow(NUMBERED.name, "copy", 0, "backfilling")

    async def main(url: str) -> None:
        store: Any = await connected(Env(), url, pool_size=1)
        try:
            layouts = [Layout(NUMBERED, True, frozenset()), Layout(PERSON, True, frozenset({"graph"}))]
            await store.prepare(layouts, create=True)
            await fill(store)
            await store.set_target(target)
            for etype in (NUMBERED, PERSON):
                half = HashSpan(1 << 31)
                rows, page = await read(store, lambda: store.scan(etype.name, "", half, None, PAGE))  # noqa: B023
                assert (rows < 8 * PAGE, len(page.stamps)) == (True, PAGE), rows
            row = await store.backfill(await store.backfill(target, COUNT - 3 * PAGE), PAGE)
            rows, row = await read(store, lambda: store.backfill(row, PAGE))
            assert rows < 12 * PAGE, f"{rows} read for a page that is not the first"
            rows, near = await read(store, lambda: store.traverse(PERSON.name, "", "7", ["KNOWS"], "in", 2, None, PAGE))
            assert ([one.id for one in near], rows < PAGE) == (["6", "5"], True), rows
            rows, gone = await read(store, lambda: store.expire_points("thing", "mood", COUNT * MINUTE_US, PAGE))
            assert (gone, rows < 3 * PAGE) == (0, True), f"{rows} points read to find none that is too old"
            kept_us = (COUNT // 10 - 1) * MINUTE_US - MINUTE_US // 2
            assert await store.expire_points("thing", "mood", kept_us, 7) == 7
            assert await store.expire_points("thing", "mood", kept_us, 7) == 3, "the oldest of each of ten"
            assert len(await store.points(Series("", "thing", "mood", "3"), Span(0), COUNT, False)) == COUNT // 10 - 1
        finally:
            await store.aclose()

    with fresh_database(server) as url:
        asyncio.run(main(url))
