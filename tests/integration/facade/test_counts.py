"""Counts by field and by time through the facade: the same wherever they are made."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import pytest

from polystore import F, FullText, HybridDataArchitecture, InvalidFilter, UnsupportedOperation, entity
from polystore.collection import counting
from tests.integration.facade.facts import Event, at, config, everywhere, run


@entity()
@dataclass(kw_only=True)
class Visit:
    id: str
    at: datetime
    text: Annotated[str, FullText()] = ""
    place: str | None = None
    cost: float = 0.0


@entity()
@dataclass(kw_only=True)
class Silent:
    id: str
    tags: list[str] = field(default_factory=list[str])


PLACES = ("공원", "학교", None)
TOGETHER = [Visit, Event, Silent]


@everywhere
def test_lines_are_counted_by_value_and_by_window(
    profile: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "BATCH", 7)  # of a store that does not count by itself, many pages are read

    async def test(hda: HybridDataArchitecture) -> None:
        log = hda.log(Event)
        await log.append_many(
            Event(id=f"{i:02}", at=at(7 * i), text="학교" if i % 2 else "공원", level=i % 3) for i in range(25)
        )
        assert list((await log.counts("level")).items()) == [(0, 9), (1, 8), (2, 8)]
        assert await log.counts("level", text="학교", where=F.level > 0, limit=1) == {1: 4}
        assert await log.counts("level", start=at(70)) == {0: 5, 1: 5, 2: 5}
        assert await log.counts("level", text="!?") == {}
        hours = await log.counts("at", every="1h", start=at(1), end=at(125), tz="Asia/Seoul")
        assert list(hours.items()) == [(at(), 8), (at(60), 9)]
        assert {begin.utcoffset() for begin in hours} == {timedelta(hours=9)}
        days = await log.counts("at", every="1d", start=at(-60), end=at(24 * 60))
        assert list(days.items()) == [(at(), 25)]

    run(test, config(profile, tmp_path), entities=TOGETHER)


@everywhere
def test_records_are_counted_by_value_and_by_window(
    profile: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "BATCH", 7)

    async def test(hda: HybridDataArchitecture) -> None:
        visits = hda.collection(Visit)
        results = await visits.put_many(
            [
                Visit(id=f"{i:02}", at=at(7 * i), text="학교 앞" if i % 2 else "공원", place=PLACES[i % 3])
                for i in range(25)
            ]
        )
        assert await visits.counts("place") == {"공원": 9, "학교": 8}
        deleted = await visits.delete("00")
        assert await visits.counts("place", after=deleted.token) == {"공원": 8, "학교": 8}
        assert await visits.counts("place", text="학교", where=F.at < at(70)) == {"공원": 2, "학교": 2}
        hours = await visits.counts("at", every="1h", start=at(7), end=at(70), after=results[-1].token)
        assert list(hours.items()) == [(at(), 8), (at(60), 1)]

    run(test, config(profile, tmp_path), entities=TOGETHER)


def test_what_cannot_be_counted_is_refused_before_anything_is_asked() -> None:
    async def test(hda: HybridDataArchitecture) -> None:
        visits = hda.collection(Visit)
        with pytest.raises(InvalidFilter, match="did you mean 'place'"):
            await visits.counts("plase")
        with pytest.raises(InvalidFilter, match="not counted; times are counted with every="):
            await visits.counts("at")
        refused: list[tuple[str, dict[str, Any]]] = [
            ("cost", {}),
            ("place", {"every": "1h", "start": at(), "end": at(1)}),
            ("at", {"every": "1h"}),
            ("at", {"every": "1h", "start": at().replace(tzinfo=None), "end": at()}),
            ("place", {"start": at()}),
        ]
        for by, more in refused:
            with pytest.raises(InvalidFilter):
                await visits.counts(by, **more)
        with pytest.raises(InvalidFilter):
            await hda.collection(Silent).counts("tags")
        with pytest.raises(UnsupportedOperation, match="FullText"):
            await hda.collection(Silent).counts("id", text="학교")

    run(test, entities=TOGETHER)
