"""Lines of logs: appended once, found by their words, their fields and their time, newest or oldest first."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Protocol, cast
from uuid import UUID

import msgspec

from polystore.entity import EntityType, entity, entity_type
from polystore.facets import FullText, Index
from polystore.filters import F
from polystore.model import Line
from polystore.protocols import FACTS_MAX, Layout, Repository, SupportsLog, SupportsSchema
from polystore.testing.conformance.base import Conformance
from polystore.text import matches, query

TTL_S = 3600.0
MIDNIGHT = datetime(2026, 1, 1, tzinfo=UTC)


@entity(name="kit_event", data_type="log")
class Event(msgspec.Struct, kw_only=True):
    id: str
    at: datetime
    text: Annotated[str, FullText()] = ""
    note: Annotated[str | None, FullText()] = None
    level: Annotated[int, Index()] = 0
    cost: Decimal | None = None
    who: UUID | None = None
    tags: list[str] = []


@entity(name="kit_trace", data_type="log", key="number", ttl_s=TTL_S)
class Trace(msgspec.Struct, kw_only=True):
    number: int
    at: datetime


EVENT = entity_type(Event)
TRACE = entity_type(Trace)


class Logging(Repository, SupportsLog, Protocol):
    pass


def event(id: str, text: str = "", *, second: float = 0.0, **fields: Any) -> Line:
    value = Event(id=id, at=MIDNIGHT + timedelta(seconds=second), text=text, **fields)
    return Line(id, EVENT.encode(value))


class LogConformance(Conformance):
    """`append_lines`, `lines`, `count_lines`, `expire_lines`."""

    protocol = SupportsLog

    async def open(self, *more: EntityType[Any]) -> Any:
        store = await self.connection()
        assert SupportsLog in store.capabilities
        types: list[EntityType[Any]] = [EVENT, TRACE, *more]
        layouts = [Layout(one, True, frozenset(), kind="fact") for one in types]
        await cast(SupportsSchema, store).prepare(layouts, create=True)
        return store

    async def ids(self, store: Logging, text: str = "", where: Any = None, **options: Any) -> list[str]:
        found = await store.lines(
            EVENT.name,
            options.get("tenant", ""),
            query(text),
            EVENT.condition(where),
            options.get("limit", FACTS_MAX),
            options.get("newest_first", False),
        )
        return [line.id for line in found]

    # -- append -----------------------------------------------------------------------------------------------

    async def test_a_line_appended_again_is_one_line_and_never_changes(self) -> None:
        store: Logging = await self.open()
        await store.append_lines(EVENT.name, "", [event("a", "학교"), event("b", "공원")])
        await store.append_lines(EVENT.name, "", [event("b", "바다"), event("c", "산"), event("c", "산")])
        assert await self.ids(store) == ["a", "b", "c"]
        assert (await self.ids(store, "공원"), await self.ids(store, "바다")) == (["b"], [])

    async def test_every_field_comes_back_as_it_was(self) -> None:
        store: Logging = await self.open()
        other: Logging = await self.open()
        at = MIDNIGHT + timedelta(microseconds=123_456)
        given = Event(
            id="가\u0301'x",
            at=at,
            text="글",
            note=None,
            level=-3,
            cost=Decimal("1.10"),
            who=UUID(int=7),
            tags=["a", "b"],
        )
        await store.append_lines(EVENT.name, "", [Line(given.id, EVENT.encode(given))])
        await self.seen(other, EVENT.name)
        (line,) = await other.lines(EVENT.name, "", (), None, 10, False)
        assert EVENT.decode(line.body) == given
        assert str(line.body["cost"]) == "1.10"

    async def test_keys_of_another_type(self) -> None:
        store: Logging = await self.open()
        now = datetime.fromtimestamp(self.env.now_us() // 1_000_000, UTC)
        lines = [Line(str(n), TRACE.encode(Trace(number=n, at=now))) for n in (10, 9, -1)]
        await store.append_lines(TRACE.name, "", lines)
        await store.append_lines(TRACE.name, "", lines)
        found = await store.lines(TRACE.name, "", (), None, 10, False)
        assert [line.body["number"] for line in found] == [-1, 9, 10], "of one time: by key, as numbers"

    async def test_tenants_are_apart(self) -> None:
        store: Logging = await self.open()
        await store.append_lines(EVENT.name, "", [event("a", "학교")])
        await store.append_lines(EVENT.name, "acme", [event("a", "공원"), event("b", "공원")])
        assert (await self.ids(store), await self.ids(store, tenant="acme")) == (["a"], ["a", "b"])
        assert (await self.ids(store, "공원"), await self.ids(store, "공원", tenant="acme")) == ([], ["a", "b"])
        assert await store.count_lines(EVENT.name, "acme", None) == 2

    async def test_the_largest_batch(self) -> None:
        store: Logging = await self.open()
        await store.append_lines(EVENT.name, "", [event(f"{i:05}", f"줄 {i}", second=i) for i in range(FACTS_MAX)])
        await store.append_lines(EVENT.name, "", [])
        assert await store.count_lines(EVENT.name, "", None) == FACTS_MAX
        assert await self.ids(store, newest_first=True, limit=2) == ["09999", "09998"]

    # -- read -------------------------------------------------------------------------------------------------

    async def test_words_find_what_the_reference_finds(self) -> None:
        store: Logging = await self.open()
        texts = [
            "오늘 학교에서 친구를",
            "친구가 이사를",
            "GET /index 200",
            "오류: 연결이 끊겼다",
            "get lost",
            "학교 앞",
        ]
        lines = [event(f"{i}", text, second=i, note=texts[-i] if i % 2 else None) for i, text in enumerate(texts)]
        await store.append_lines(EVENT.name, "", lines)
        held = {line.id: f"{line.body['text']}\n{line.body['note'] or ''}" for line in lines}
        for asked in ("학교", "친구", "친구 학교", "GET", "200", "연결이", "를", "없는말", "get index", "index get"):
            wanted = [id for id, text in held.items() if matches(text, query(asked))]
            assert await self.ids(store, asked) == wanted, asked
            assert await self.ids(store, asked, newest_first=True) == wanted[::-1], asked

    async def test_conditions_on_fields_and_time_hold_before_the_limit(self) -> None:
        store: Logging = await self.open()
        lines = [event(f"{i:02}", "학교" if i % 2 else "공원", second=i, level=i % 5) for i in range(60)]
        await store.append_lines(EVENT.name, "", lines)
        late = F.at >= MIDNIGHT + timedelta(seconds=20)
        early = F.at < MIDNIGHT + timedelta(seconds=50)
        where = late & early & (F.level == 3)
        assert await self.ids(store, where=where) == [f"{i:02}" for i in range(20, 50) if i % 5 == 3]
        assert await self.ids(store, "학교", where=where) == [f"{i:02}" for i in range(20, 50) if i % 5 == 3 and i % 2]
        assert await self.ids(store, "학교", where=where, limit=1, newest_first=True) == ["43"]
        assert await store.count_lines(EVENT.name, "", EVENT.condition(where)) == 6

    async def test_ordered_by_time_and_then_by_key_in_both_directions(self) -> None:
        store: Logging = await self.open()
        rng = random.Random(5)
        lines = [event(f"{i:02}", "글", second=rng.randrange(8) / 1_000_000) for i in range(40)]
        rng.shuffle(lines)
        await store.append_lines(EVENT.name, "", lines)
        wanted = [line.id for line in sorted(lines, key=lambda line: (line.body["at"], line.id))]
        assert await self.ids(store) == wanted
        assert await self.ids(store, newest_first=True) == wanted[::-1]
        assert await self.ids(store, "글", newest_first=True, limit=7) == wanted[::-1][:7]

    # -- gone -------------------------------------------------------------------------------------------------

    async def test_lines_that_are_too_old_are_not_there_and_then_removed(self) -> None:
        store: Logging = await self.open()
        now = datetime.fromtimestamp(self.env.now_us() / 1e6, UTC)
        ages = (TTL_S + 100, TTL_S + 50, TTL_S + 20, TTL_S - 100, 0)
        lines = [
            Line(str(n), TRACE.encode(Trace(number=n, at=now - timedelta(seconds=age)))) for n, age in enumerate(ages)
        ]
        for tenant in ("", "acme"):
            await store.append_lines(TRACE.name, tenant, lines)
        await store.append_lines(EVENT.name, "", [event("kept")])
        assert await self._traces(store) == ["3", "4"]
        assert await store.count_lines(TRACE.name, "", None) == 2
        assert [await store.expire_lines(TRACE.name, 4) for _ in range(3)] == [4, 2, 0]
        assert await store.expire_lines(EVENT.name, 100) == 0, "without a ttl nothing is ever too old"
        assert (await self._traces(store), await self.ids(store)) == (["3", "4"], ["kept"])
        self.env.forward(200)
        assert await self._traces(store) == ["4"], "the clock of the store says what is old"

    async def _traces(self, store: Logging) -> Sequence[str]:
        return [line.id for line in await store.lines(TRACE.name, "", (), None, 100, False)]
