"""Counts by value and by time, over records and over lines of logs."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Protocol, cast
from uuid import UUID

import msgspec

from polystore.entity import EntityType, entity, entity_type
from polystore.facets import FullText
from polystore.filters import F, predicate
from polystore.model import Line, Windows, window_of
from polystore.protocols import Layout, Repository, SupportsCounts, SupportsLog, SupportsSchema, SupportsTextSearch
from polystore.testing.conformance.base import Conformance, change, key_of, removal
from polystore.text import query

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR_US = 3_600_000_000
COUNT = 300
LONG = "긴 " * 600


class _Visit(msgspec.Struct, kw_only=True):
    id: str
    at: datetime
    text: Annotated[str, FullText()] = ""
    where: str | None = None
    floor: int = 0
    late: bool = False
    day: date | None = None
    who: UUID | None = None
    cost: float = 0.0


@entity(name="kit_visit")
class Visit(_Visit, kw_only=True):
    pass


@entity(name="kit_visit_line", data_type="log")
class VisitLine(_Visit, kw_only=True):
    pass


VISIT, LINE = entity_type(Visit), entity_type(VisitLine)


class Counting(Repository, SupportsCounts, Protocol):
    pass


class CountsConformance(Conformance):
    """`counts`."""

    protocol = SupportsCounts

    async def filled(self, of: EntityType[Any]) -> tuple[Counting, list[dict[str, Any]]]:
        """A store that holds many visits, and what it holds."""
        store = await self.connection()
        assert SupportsCounts in store.capabilities
        fact = of is LINE
        facets = frozenset({"full_text"} if SupportsTextSearch in store.capabilities and not fact else set[Any]())
        layout = Layout(of, fact, cast(Any, facets), kind="fact" if fact else "record")
        await cast(SupportsSchema, store).prepare([layout], create=True)
        r = random.Random(11)
        bodies = [dict(of.encode(_visit(of, i, r))) for i in range(COUNT)]
        if fact:
            lines = [Line(body["id"], body) for body in bodies]
            await cast(SupportsLog, store).append_lines(of.name, "", lines)
        else:
            written = [change(of, of.decode(body), i) for i, body in enumerate(bodies, 1)]
            await self.write(store, [*written, change(of, of.decode({**bodies[0], "id": "gone"}), COUNT + 1)])
            await self.write(store, [removal(key_of(of, "gone"), COUNT + 2)])
        return cast(Counting, store), bodies

    def kinds(self, store: Repository) -> Sequence[EntityType[Any]]:
        return [VISIT, LINE] if SupportsLog in store.capabilities else [VISIT]

    async def test_values_are_counted_most_frequent_first(self) -> None:
        for of in self.kinds(await self.connection()):
            store, bodies = await self.filled(of)
            for field in ("where", "floor", "late", "day", "who"):
                occurring = Counter(body[field] for body in bodies if body[field] is not None)
                wanted = sorted(occurring.items(), key=lambda item: (-item[1], item[0]))
                assert await store.counts(of.name, "", (), None, field, None, 1_000) == wanted, field
                assert await store.counts(of.name, "", (), None, field, None, 2) == wanted[:2], field
            assert await store.counts(of.name, "acme", (), None, "floor", None, 10) == []

    async def test_words_and_conditions_choose_what_is_counted(self) -> None:
        for of in self.kinds(await self.connection()):
            store, bodies = await self.filled(of)
            for condition in (F.floor >= 2, F.cost > 0.5, F.at >= NOON + timedelta(microseconds=1)):
                where = of.condition(condition)
                assert where is not None
                holds = predicate(where)
                chosen = Counter(body["late"] for body in bodies if holds(body) and "학교" in body["text"])
                asked = of.name, "", query("학교"), where, "late", None, 10
                assert dict(await store.counts(*asked)) == dict(chosen)

    async def test_times_are_counted_by_windows(self) -> None:
        for of in self.kinds(await self.connection()):
            store, bodies = await self.filled(of)
            noon_us = round(NOON.timestamp()) * 1_000_000
            days = [noon_us + n * 24 * HOUR_US for n in (-3, -1, 0, 1, 2)]
            for windows in (Windows(HOUR_US, HOUR_US // 2), Windows(90_000_001, 7), Windows(edges=days)):
                times = [noon_us + (body["at"] - NOON) // timedelta(microseconds=1) for body in bodies]
                begins = [begin for at in times if (begin := window_of(windows, at)) is not None]
                wanted = sorted(Counter(begins).items())
                assert await store.counts(of.name, "", (), None, "at", windows, 1_000) == wanted
                assert await store.counts(of.name, "", (), None, "at", windows, 3) == wanted[:3]


def _visit(of: EntityType[Any], i: int, r: random.Random) -> Any:
    return of.cls(
        id=f"{i:03}",
        at=NOON + timedelta(microseconds=r.choice((0, 1, 999, r.randrange(-(10**11), 10**11)))),
        text=r.choice(("학교에서", "공원에서", "학교 앞 공원")),
        where=r.choice((None, "서울", "부산", "", f"방 {i % 40}", LONG)),
        floor=r.randrange(-2, 5),
        late=r.random() < 0.3,
        day=r.choice((None, date(2026, 1, 1), date(1969, 12, 31))),
        who=r.choice((None, UUID(int=1), UUID(int=2**127))),
        cost=r.random(),
    )
