"""Conditions, pages and streams."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any, cast
from uuid import UUID

import pytest

from polystore import (
    Condition,
    DecodeError,
    F,
    Field,
    Found,
    HybridDataArchitecture,
    InvalidFilter,
    NotFound,
    Order,
    StoreError,
    Unavailable,
)
from polystore.collection import Collection
from tests.integration.facade.world import Memory, Person, Reading, and_on_postgresql, down, everywhere, remember, split

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
READINGS = [
    Reading(
        id=i,
        at=NOON + timedelta(microseconds=i % 3),
        price=None if i % 4 == 0 else Decimal(i % 5) / 10,
        code=None if i % 6 == 0 else UUID(int=i % 7),
        flag=(None, True, False)[i % 3],
    )
    for i in range(-6, 17)
]
ORDERS: list[Sequence[Field | Order]] = [
    [],
    [F.price],
    [F.price.desc()],
    [F.flag, F.price.desc()],
    [F.flag.desc(), F.code],
    [F.at.desc(), F.code.desc(), F.price],
    [F.id.desc()],
    [F.code.desc(), F.id.desc(), F.at],
]


async def pages(
    records: Collection[Reading], where: Condition | None, order: Sequence[Field | Order], limit: int
) -> list[Reading]:
    out: list[Reading] = []
    cursor: str | None = None
    while True:
        page = await records.find(where, order_by=order, limit=limit, cursor=cursor)
        assert len(page) == limit or page.cursor is None
        out += page
        cursor = page.cursor
        if cursor is None:
            return out


def reference(order: Sequence[Field | Order]) -> list[Reading]:
    """The readings as find should sort them: missing values last in both directions, then the key."""
    rows = sorted(READINGS, key=lambda r: r.id)
    for one in reversed(order):
        by = one if isinstance(one, Order) else one.asc()
        (name,) = by.path
        present = [r for r in rows if getattr(r, name) is not None]
        present.sort(key=lambda r: getattr(r, name), reverse=by.descending)
        rows = present + [r for r in rows if getattr(r, name) is None]
    return rows


@and_on_postgresql
async def test_pages_of_any_order_hold_every_record_once(hda: HybridDataArchitecture) -> None:
    readings = hda.collection(Reading)
    await readings.put_many(READINGS)
    for order in ORDERS:
        wanted = reference(order)
        assert await pages(readings, None, order, 4) == wanted, order
        assert list(await readings.find(order_by=order)) == wanted, order
        positive = [r for r in wanted if r.id > 0]
        assert await pages(readings, F.id > 0, order, 5) == positive, order


@everywhere
async def test_pages_are_stable_while_others_write(hda: HybridDataArchitecture) -> None:
    readings = hda.collection(Reading)
    await readings.put_many([Reading(id=i, price=Decimal(i)) for i in range(0, 40, 2)])
    first = await readings.find(order_by=[F.price], limit=8)
    await readings.put(Reading(id=-1, price=Decimal(-1)))  # before the page: shifts every offset
    await readings.delete(0)
    await readings.put(Reading(id=17, price=Decimal(17)))
    second = await readings.find(order_by=[F.price], limit=8, cursor=first.cursor)
    assert [r.id for r in second] == [16, 17, 18, 20, 22, 24, 26, 28]


@split
async def test_a_cursor_belongs_to_its_query(hda: HybridDataArchitecture) -> None:
    readings = hda.collection(Reading)
    await readings.put_many(READINGS)
    page = await readings.find(F.id > 0, order_by=[F.price], limit=2)
    assert page.cursor is not None
    for wrong in (
        lambda: readings.find(F.id > 1, order_by=[F.price], cursor=page.cursor),
        lambda: readings.find(F.id > 0, order_by=[F.price.desc()], cursor=page.cursor),
        lambda: readings.find(order_by=[F.price], cursor=page.cursor),
        lambda: hda.tenant("acme").collection(Reading).find(F.id > 0, order_by=[F.price], cursor=page.cursor),
        lambda: hda.collection(Memory).find(cursor=page.cursor),
        lambda: hda.collection(Memory).search("글", cursor=page.cursor),
    ):
        with pytest.raises(InvalidFilter, match="another query"):
            await cast(Any, wrong())
    for broken in ("", "next", "한글", page.cursor[:-3]):
        with pytest.raises(InvalidFilter, match="cursor"):
            await readings.find(F.id > 0, order_by=[F.price], cursor=broken)


@split
async def test_amounts_and_conditions_are_checked_before_any_io(hda: HybridDataArchitecture) -> None:
    readings, memories = hda.collection(Reading), hda.collection(Memory)
    wrongs: list[Callable[[], Awaitable[object]]] = [
        lambda: readings.find(limit=0),
        lambda: readings.find(limit=10_001),
        lambda: memories.search("글", limit=0),
        lambda: memories.similar("글", limit=-1),
        lambda: memories.related("m", "ABOUT", limit=0),
        *(partial(readings.find, limit=limit) for limit in cast(Any, ["1", None, 2.5, True])),
        lambda: memories.hybrid("글", limit=cast(Any, "5")),
        lambda: memories.related("m", "ABOUT", depth=cast(Any, True)),
        lambda: readings.find(F.prize == 1),
        lambda: readings.count(F.price == "a lot"),
        lambda: readings.find(order_by=[F.shape]),
        lambda: memories.search("글", where=F.txt == "x"),
        lambda: memories.hybrid("글", where=F.importance == "high"),
        lambda: readings.find(cast(Any, True)),
    ]
    with down(hda.stores["home"], "find", "count", "get"), down(hda.stores["words"], "search"):
        for wrong in wrongs:
            with pytest.raises(InvalidFilter):
                await wrong()


@everywhere
async def test_stream_gives_every_record_by_key(hda: HybridDataArchitecture) -> None:
    readings = hda.collection(Reading)
    await readings.put_many(READINGS)
    assert [r.id async for r in readings.stream(batch=5)] == [r.id for r in READINGS]
    assert [r.id async for r in readings.stream(F.flag, batch=2)] == [r.id for r in READINGS if r.flag]
    assert [r async for r in hda.collection(Person).stream()] == []


@everywhere
async def test_count_exists_and_many_at_once(hda: HybridDataArchitecture) -> None:
    readings = hda.collection(Reading)
    await readings.put_many(READINGS)
    assert await readings.count() == len(READINGS)
    assert await readings.count(F.price.is_null()) == sum(r.price is None for r in READINGS)
    assert await readings.exists(3)
    assert not await readings.exists(99)
    found = await readings.get_many([3, 99, -6, 3])
    assert [r and r.id for r in found] == [3, None, -6, 3]
    assert await readings.get_many([]) == []


@everywhere
async def test_get_without_a_record_is_none_and_load_raises(hda: HybridDataArchitecture) -> None:
    people = hda.collection(Person)
    assert await people.get("nobody") is None
    with pytest.raises(NotFound, match="nobody"):
        await people.load("nobody")
    await people.put(Person(id="p", name="잠깐"))
    await people.delete("p")
    assert await people.get("p") is None
    with pytest.raises(NotFound):
        await people.load("p")


@split
async def test_values_read_are_the_callers_own(hda: HybridDataArchitecture) -> None:
    readings = hda.collection(Reading)
    await readings.put(Reading(id=1, shape=[1.0, 2.0, 3.0]))
    cast(list[float], cast(Reading, await readings.get(1)).shape).append(4.0)
    first, second = await asyncio.gather(readings.get_many([1]), readings.get_many([1]))
    cast(list[float], cast(Reading, first[0]).shape).clear()
    assert cast(Reading, second[0]).shape == [1.0, 2.0, 3.0]


@split
async def test_an_outage_is_never_an_empty_answer(hda: HybridDataArchitecture) -> None:
    await remember(hda)
    memories = hda.collection(Memory)
    with down(hda.stores["home"], "get", "find", "count"):
        for read in (
            lambda: memories.get("m1"),
            lambda: memories.exists("m1"),
            lambda: memories.load("m1"),
            lambda: memories.find(),
            lambda: memories.count(),
            lambda: memories.search("자전거"),
        ):
            with pytest.raises(Unavailable, match="home"):
                await cast(Any, read())


@split
async def test_a_damaged_record_is_not_a_missing_one(hda: HybridDataArchitecture) -> None:
    people = hda.collection(Person)
    await people.put(Person(id="p", name="x"))
    repository = cast(Any, hda.stores["home"].repository)
    cast(dict[str, Any], repository.server.part("person", "").rows["p"].body)["name"] = 7
    with pytest.raises(DecodeError, match=r"person 'p'.*Person"):
        await people.get("p")
    with pytest.raises(DecodeError):
        await people.find()


@and_on_postgresql
async def test_tenants_do_not_see_each_other(hda: HybridDataArchitecture) -> None:
    acme, umbrella = hda.tenant("acme"), hda.tenant("우산")
    await acme.collection(Memory).put(Memory(id="m", text="아크메의 비밀 자전거"), ack="applied")
    await umbrella.collection(Memory).put(Memory(id="m", text="우산의 비밀 자전거"), ack="applied")
    for view, text in ((acme, "아크메의 비밀 자전거"), (umbrella, "우산의 비밀 자전거")):
        memories = view.collection(Memory)
        assert cast(Memory, await memories.get("m")).text == text
        assert [m.text for m in await memories.find()] == [text]
        assert [hit.value.text for hit in await memories.search("비밀")] == [text]
        assert [hit.value.text for hit in await memories.similar("비밀 자전거")] == [text]
        assert await memories.count() == 1
    assert await hda.collection(Memory).count() == 0
    assert not await hda.collection(Memory).search("비밀")


@split
async def test_errors_name_store_operation_and_key(hda: HybridDataArchitecture) -> None:
    memories = hda.collection(Memory)
    with down(hda.stores["words"], "search"), pytest.raises(StoreError) as caught:
        await memories.search("글")
    assert (caught.value.store, caught.value.operation) == ("words", "search")


def test_a_page_is_a_sequence() -> None:
    page = Found([1, 2, 3], "more")
    assert (page[0], page[1:], list(page), len(page), page.cursor) == (1, [2, 3], [1, 2, 3], 3, "more")
