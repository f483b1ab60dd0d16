"""Logs through the facade: lines appended once, found by words, fields and time, page by page."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, ClassVar

import pytest

from polystore import (
    ConfigurationError,
    Embedding,
    EntityError,
    F,
    FileRef,
    Found,
    FullText,
    HybridDataArchitecture,
    InvalidData,
    InvalidFilter,
    Measure,
    Relation,
    Unavailable,
    Unique,
    UnsupportedOperation,
    entity,
)
from polystore.protocols import SupportsLog
from polystore.testing.conformance import MovableEnv
from tests.integration.facade.facts import Brief, Event, Person, at, config, everywhere, run
from tests.integration.facade.world import down

TEXTS = ("오늘 학교에서 친구를 만났다", "친구가 이사를 갔다", "GET /index 200", "GET /login 500", "오류: 연결이 끊겼다")


def lines() -> list[Event]:
    return [
        Event(id=f"e{i}", at=at(i), text=text, level=i % 3, cost=Decimal(f"0.{i}0")) for i, text in enumerate(TEXTS)
    ]


@everywhere
def test_lines_are_found_by_words_fields_and_time_newest_first(profile: str, tmp_path: Path) -> None:
    async def test(hda: HybridDataArchitecture) -> None:
        log = hda.log(Event)
        result = await log.append(lines()[0])
        assert (result.key, result.version, list(result.stores.values())) == ("e0", None, ["committed"])
        assert await log.append_many(lines()) == 5
        assert list(await log.range()) == lines()[::-1]
        assert list(await log.range(newest_first=False)) == lines()
        assert [one.id for one in await log.search("친구")] == ["e1", "e0"]
        assert [one.id for one in await log.search("get", where=F.level == 2)] == ["e2"]
        assert [one.id for one in await log.search("친구", start=at(1))] == ["e1"]
        assert [one.id for one in await log.range(at(1), at(4), where=F.level != 2)] == ["e3", "e1"]
        assert list(await log.search("!?")) == []
        assert await log.count() == 5
        assert await log.count(F.cost > Decimal("0.1"), end=at(4)) == 2
        assert await hda.tenant("acme").log(Event).count() == 0

    run(test, config(profile, tmp_path))


@everywhere
def test_pages_neither_repeat_nor_skip_a_line_also_of_one_moment(profile: str, tmp_path: Path) -> None:
    async def test(hda: HybridDataArchitecture) -> None:
        log = hda.log(Event)
        many = [Event(id=f"{i:03}", at=at(i // 10), text="같은 글") for i in range(60)]
        await log.append_many(many)
        readers: list[Callable[..., Awaitable[Found[Event]]]] = [log.range, functools.partial(log.search, "같은")]
        for read in readers:
            seen: list[str] = []
            cursor: str | None = None
            while True:
                page = await read(limit=7, cursor=cursor)
                seen += [one.id for one in page]
                await log.append(Event(id=f"new{len(seen)}", at=at(100), text="같은 글"))
                cursor = page.cursor
                if cursor is None:
                    break
            assert [id for id in seen if not id.startswith("new")] == [one.id for one in many][::-1]
        page = await log.range(limit=7)
        with pytest.raises(InvalidFilter, match="another query"):
            await log.range(limit=7, cursor=page.cursor, where=F.level == 1)
        with pytest.raises(InvalidFilter, match="another query"):
            await log.range(limit=7, cursor=page.cursor, newest_first=False)
        assert [one.id async for one in log.stream(end=at(3), batch=4)] == [one.id for one in many[:30]]

    run(test, config(profile, tmp_path))


@everywhere
def test_a_line_is_never_changed(profile: str, tmp_path: Path) -> None:
    async def test(hda: HybridDataArchitecture) -> None:
        log = hda.log(Event)
        await log.append(Event(id="a", at=at(), text="학교"))
        await log.append_many([Event(id="a", at=at(5), text="공원"), Event(id="b", at=at(), text="공원")])
        assert [(one.id, one.text) for one in await log.range(newest_first=False)] == [("a", "학교"), ("b", "공원")]

    run(test, config(profile, tmp_path))


@everywhere
def test_lines_older_than_the_time_to_live_are_gone(profile: str, tmp_path: Path) -> None:
    env = MovableEnv()

    async def test(hda: HybridDataArchitecture) -> None:
        log = hda.log(Brief)
        now = datetime.fromtimestamp(env.now_us() / 1e6, UTC)
        await log.append_many([Brief(id=i, at=now - timedelta(seconds=i * 20)) for i in range(5)])
        assert [one.id for one in await log.range()] in ([0, 1, 2], [0, 1, 2, 3])
        env.forward(50)
        assert [one.id for one in await log.range()] == [0]
        assert await log.count() == 1
        env.forward(60)
        assert list(await log.range()) == []

    run(test, config(profile, tmp_path), env=env)


def test_a_class_that_changes_keeps_its_lines(tmp_path: Path) -> None:
    @entity(data_type="log", name="note")
    @dataclass(kw_only=True)
    class Before:
        id: str
        at: datetime
        text: str
        level: int = 0

    @entity(data_type="log", name="note", renamed={"body": "text"})
    @dataclass(kw_only=True)
    class After:
        id: str
        at: datetime
        body: Annotated[str, FullText()]
        level: float = 0.0
        host: str = "here"

    async def write(hda: HybridDataArchitecture) -> None:
        await hda.log(Before).append(Before(id="a", at=at(), text="학교에서", level=3))

    async def read(hda: HybridDataArchitecture) -> None:
        await hda.log(After).append(After(id="b", at=at(1), body="학교 앞"))
        assert [(one.id, one.level, one.host) for one in await hda.log(After).search("학교")] == [
            ("b", 0.0, "here"),
            ("a", 3.0, "here"),
        ]

    run(write, config("sqlite", tmp_path), entities=[Before, Person])
    run(read, config("sqlite", tmp_path), entities=[After, Person])


# -- refused ----------------------------------------------------------------------------------------------------------


def test_what_is_no_line_is_refused_before_anything_is_sent() -> None:
    async def test(hda: HybridDataArchitecture) -> None:
        log = hda.log(Event)
        with hda.trace() as trace:
            with pytest.raises(InvalidData, match="event holds Event values"):
                await log.append(Person(id="p"))  # type: ignore[arg-type]
            with pytest.raises(InvalidData, match=r"Event\.at: a naive datetime"):
                await log.append(Event(at=datetime(2026, 1, 1), text=""))  # noqa: DTZ001
            with pytest.raises(InvalidFilter, match="no field 'levle'"):
                await log.range(where=F.levle == 1)
            with pytest.raises(InvalidFilter, match="start="):
                await log.range(datetime(2026, 1, 1))  # noqa: DTZ001
            with pytest.raises(InvalidFilter, match="limit="):
                await log.search("x", limit=0)
            with pytest.raises(UnsupportedOperation, match="FullText"):
                await hda.log(Brief).search("x")
        assert trace.steps == []

    run(test)


def test_a_log_is_no_collection_and_a_record_no_log() -> None:
    async def test(hda: HybridDataArchitecture) -> None:
        with pytest.raises(UnsupportedOperation, match=r"hda\.log\(Event\)"):
            hda.collection(Event)
        with pytest.raises(UnsupportedOperation, match='data_type="log"'):
            hda.log(Person)
        with pytest.raises(ConfigurationError, match="not an entity"):
            hda.log(str)

    run(test)


def _timeless() -> type[Any]:
    @dataclass
    class Line:
        id: str
        when: datetime

    return Line


def _dated() -> type[Any]:
    @dataclass
    class Line:
        id: str
        at: str

    return Line


def _optional() -> type[Any]:
    @dataclass
    class Line:
        id: str
        at: datetime | None = None

    return Line


def _unique() -> type[Any]:
    @dataclass
    class Line:
        id: str
        at: datetime
        number: Annotated[int, Unique()] = 0

    return Line


def _embedded() -> type[Any]:
    @dataclass
    class Line:
        id: str
        at: datetime
        text: Annotated[str, Embedding()] = ""

    return Line


def _related() -> type[Any]:
    @dataclass
    class Line:
        id: str
        at: datetime
        who: Annotated[str | None, Relation("BY", to="person")] = None

    return Line


def _measured() -> type[Any]:
    @dataclass
    class Line:
        id: str
        at: datetime
        mood: ClassVar[Measure[float]] = Measure(float)

    return Line


def _filed() -> type[Any]:
    @dataclass
    class Line:
        id: str
        at: datetime
        photo: FileRef | None = None

    return Line


@pytest.mark.parametrize("make", [_timeless, _dated, _optional, _unique, _embedded, _related, _measured, _filed])
def test_a_class_that_cannot_be_a_log_is_refused_at_open(make: Callable[[], type[Any]]) -> None:
    cls = entity(data_type="log")(make())

    async def test(hda: HybridDataArchitecture) -> None:
        raise AssertionError("it was opened")

    with pytest.raises(EntityError, match="Line"):
        run(test, entities=[cls, Person])


def test_an_outage_is_never_an_empty_answer() -> None:
    async def test(hda: HybridDataArchitecture) -> None:
        log = hda.log(Event)
        await log.append(lines()[0])
        with down(hda.stores["words"], *(name for name in vars(SupportsLog) if not name.startswith("_"))):
            for ask in (log.range(), log.search("학교"), log.count()):
                with pytest.raises(Unavailable, match="words"):
                    await ask

    run(test)
