"""Points of measures in partitions by time: where they go, how old ones leave, how those of before get there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
from polystore_adapters.postgresql import connect
from polystore_adapters.postgresql.partitions import WIDTH_US
from polystore_adapters.postgresql.repository import PostgresRepository

from polystore.env import Env
from polystore.errors import SchemaMismatch
from polystore.model import PointRow, Series, Span, Windows
from tests.postgresql import fresh_database, fresh_schema, server
from tests.stack import url_of

HEAT, MOOD = Series("", "sensor", "heat", "s1", "float"), Series("", "sensor", "mood", "s1", "float")
EVER = Span(-(1 << 62), None, None)
DAY_US = 86_400_000_000


@asynccontextmanager
async def opened(path: str | None, *, create: bool = True, **options: Any) -> AsyncGenerator[PostgresRepository]:
    url = options.pop("url", None) or url_of("postgresql")
    store = await connect(url, options if path is None else {"schema": path, **options}, Env())
    try:
        await store.prepare([], create=create)
        yield store
    finally:
        await store.aclose()


def in_a_schema(test: Callable[[str], Coroutine[Any, Any, None]]) -> None:
    with fresh_schema() as path:
        asyncio.run(test(path))


def points(series: Series, first_us: int, count: int, step_us: int = 1_000_000) -> list[PointRow]:
    return [PointRow(series, first_us + i * step_us, float(i)) for i in range(count)]


def tables(path: str) -> set[str]:
    sql = "SELECT string_agg(relname, ',') FROM pg_class WHERE relkind = 'r' AND relnamespace = $1::regnamespace"
    found: str = server().value(f"{sql} AND relname LIKE 'ps\\_point\\_%'", path.partition(",")[0])
    return set(found.split(","))


def test_each_time_has_a_partition_and_what_is_far_from_now_lies_with_the_rest() -> None:
    async def main(path: str) -> None:
        async with opened(path) as store:
            now = Env().now_us()
            this = now // WIDTH_US
            wanted = [*points(HEAT, now - 4 * WIDTH_US, 5, WIDTH_US), *points(HEAT, -5 * 365 * DAY_US, 2)]
            wanted += points(HEAT, now + 40 * 365 * DAY_US, 2)
            await store.append_points(wanted)
            assert tables(path) == {"ps_point_rest", *(f"ps_point_{this - i}" for i in range(5))}
            wanted.sort(key=lambda one: one.at_us)
            assert await store.points(HEAT, EVER, 100, False) == wanted
            assert await store.points(HEAT, EVER, 3, True) == wanted[:-4:-1]
            assert await store.last_points([MOOD, HEAT], None) == [None, wanted[-1]]
            assert sum(int(n) for _, n in await store.windows(HEAT, EVER, Windows(WIDTH_US), "count", 100)) == 9

    in_a_schema(main)


def test_a_partition_whose_points_are_all_too_old_goes_as_a_whole_and_no_other() -> None:
    async def main(path: str) -> None:
        async with opened(path) as store:
            first = (Env().now_us() // WIDTH_US - 6) * WIDTH_US
            old, shared, few, young = (first + i * WIDTH_US for i in (0, 1, 2, 6))
            await store.append_points(points(HEAT, old, 700))
            await store.append_points([*points(HEAT, shared, 300), *points(MOOD, shared, 5)])
            await store.append_points([*points(HEAT, few, 8), *points(HEAT, young, 4)])
            names = [f"ps_point_{at // WIDTH_US}" for at in (old, shared, few, young)]
            removed = [await store.expire_points("sensor", "heat", 3 * WIDTH_US, 200) for _ in range(4)]
            assert removed == [700, 200, 108, 0]
            assert tables(path) == {"ps_point_rest", names[1], names[3]}, "the one with few is empty, and gone"
            assert await store.points(HEAT, EVER, 100, False) == points(HEAT, young, 4)
            assert await store.points(MOOD, EVER, 100, False) == points(MOOD, shared, 5)
            await store.append_points(points(MOOD, old, 2))  # this process believes the partition is there
            assert len(await store.points(MOOD, EVER, 100, False)) == 7

    in_a_schema(main)


def test_points_of_one_table_become_the_rest_when_that_is_asked_for() -> None:
    now = Env().now_us()

    async def main(path: str) -> None:
        schema = path.partition(",")[0]
        async with opened(path) as store:
            await store.append_points(points(HEAT, now, 200))
        server().run(
            f"CREATE TABLE {schema}.one AS TABLE {schema}.ps_point; DROP TABLE {schema}.ps_point; "
            f"ALTER TABLE {schema}.one RENAME TO ps_point; ALTER TABLE {schema}.ps_point ADD PRIMARY KEY (series, at)"
        )
        with pytest.raises(SchemaMismatch, match="in one table, to be in partitions by time; run `polystore init`"):
            async with opened(path, create=False):
                pass
        async with opened(path) as store:
            later = [*points(HEAT, now + 300_000_000, 5), *points(HEAT, now + WIDTH_US, 3)]
            await store.append_points(later)  # of a time that the rest has, and of one that it has not
            assert await store.points(HEAT, EVER, 300, False) == [*points(HEAT, now, 200), *later]
            assert tables(path) == {"ps_point_rest", f"ps_point_{(now + WIDTH_US) // WIDTH_US}"}

    in_a_schema(main)


def test_points_of_a_user_who_may_not_make_tables_lie_with_the_rest() -> None:
    async def main(path: str) -> None:
        schema = path.partition(",")[0]
        async with opened(path):
            pass
        server().run(
            f"CREATE ROLE {schema} LOGIN PASSWORD 'kit'; GRANT USAGE ON SCHEMA {schema} TO {schema}; "
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {schema}"
        )
        try:
            url = f"postgresql://{schema}:kit@{url_of('postgresql').rpartition('@')[2]}"
            async with opened(path, create=False, url=url) as store:
                await store.append_points(points(HEAT, Env().now_us(), 300))
                assert len(await store.points(HEAT, EVER, 1_000, False)) == 300
            assert tables(path) == {"ps_point_rest"}
        finally:
            server().run(f"DROP OWNED BY {schema}; DROP ROLE {schema}")

    in_a_schema(main)


def test_many_points_appended_again_through_a_pooler_change_nothing() -> None:
    async def main(url: str) -> None:
        async with opened(None, url=url, pooler="transaction") as store:
            given = points(HEAT, Env().now_us(), 500)
            await store.append_points(given[:300])
            await asyncio.gather(*(store.append_points(given) for _ in range(4)))
            assert await store.points(HEAT, EVER, 1_000, False) == given

    with fresh_database() as database:
        asyncio.run(main(f"{url_of('pgbouncer').rpartition('/')[0]}/{database}"))
