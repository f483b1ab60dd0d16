"""An architecture belongs to the event loop it was opened in, and to the time before it is closed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest

from polystore import Collection, ConfigurationError, FullText, HybridDataArchitecture, Unavailable, entity

Call = Callable[[], Awaitable[object]]


@entity()
@dataclass(kw_only=True)
class Leaf:
    id: str
    text: Annotated[str, FullText()]


@pytest.fixture(params=["memory:", "sqlite:{}/one.db", "embedded:{}/data"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(request.param).format(tmp_path)


def test_another_event_loop_is_refused_before_anything_is_written(url: str) -> None:
    with asyncio.Runner() as first:
        hda = first.run(_opened(url))
        leaves = hda.collection(Leaf)

        async def elsewhere() -> None:
            calls: list[Call] = [
                lambda: leaves.put(Leaf(id="b", text="둘")),
                leaves.find,
                lambda: leaves.search("둘"),
                hda.settle,
            ]
            for call in calls:
                with pytest.raises(ConfigurationError, match="another event loop"):
                    await call()

        asyncio.run(elsewhere())
        assert first.run(leaves.exists("b")) is False
        assert first.run(leaves.exists("a")) is True
        first.run(hda.close())


async def _opened(url: str) -> HybridDataArchitecture:
    hda = await HybridDataArchitecture.open(url, entities=[Leaf])
    await hda.collection(Leaf).put(Leaf(id="a", text="하나"))
    return hda


def test_after_close_every_call_says_so(url: str) -> None:
    async def main() -> None:
        hda = await _opened(url)
        leaves = hda.collection(Leaf)
        await hda.close()
        calls: list[Call] = [
            lambda: leaves.put(Leaf(id="b", text="둘")),
            lambda: leaves.get("a"),
            leaves.find,
            lambda: leaves.search("둘"),
        ]
        for call in calls * 8:  # and goes on saying so: no breaker takes over
            with pytest.raises(Unavailable, match="closed; open the architecture again"):
                await call()

    asyncio.run(main())


def test_pages_of_a_search_go_on_though_records_come_and_go_between_them(url: str) -> None:
    async def main() -> None:
        async with HybridDataArchitecture.open(url, entities=[Leaf]) as hda:
            leaves = hda.collection(Leaf)
            await leaves.put_many([Leaf(id=f"l{i:03}", text="나무 하나") for i in range(90)])
            await leaves.put(Leaf(id="other", text="다른 글"), ack="applied")
            await hda.settle(30)
            found = await pages(leaves, lambda n: leaves.put(Leaf(id=f"x{n}", text="전혀 다른 글"), ack="applied"))
            assert found == [f"l{i:03}" for i in range(90)]
            found = await pages(leaves, lambda n: leaves.delete(f"x{n}", ack="applied"))
            assert found == [f"l{i:03}" for i in range(90)]

    asyncio.run(main())


async def pages(leaves: Collection[Leaf], between: Callable[[int], Awaitable[object]]) -> list[str]:
    """The ids of all pages of a search, with a write after each page."""
    found: list[str] = []
    cursor: str | None = None
    number = 0
    while True:
        page = await leaves.search("나무", limit=20, cursor=cursor)
        found += [hit.value.id for hit in page]
        cursor = page.cursor
        if cursor is None:
            return found
        await between(number)
        number += 1
