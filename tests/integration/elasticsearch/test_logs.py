"""Logs whose home is an Elasticsearch server, behind the facade: chosen, kept while it is down, read by others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import pytest

from polystore import F, FullText, HybridDataArchitecture, entity
from tests.elasticsearch import own_prefix
from tests.loops import in_a_loop
from tests.stack import server

elasticsearch = server("elasticsearch")
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@entity(data_type="log")
@dataclass(kw_only=True)
class Said:
    id: str
    at: datetime
    text: Annotated[str, FullText()]
    level: str = "info"


@pytest.fixture
def prefix(elasticsearch: str) -> Iterator[str]:
    with own_prefix(elasticsearch) as own:
        yield own


def application(folder: Path, url: str, prefix: str) -> Any:
    stores = {
        "home": {"url": f"sqlite:{folder}/home.db"},
        "search": {"url": url, "roles": ["full_text"], "options": {"prefix": prefix}},
    }
    return HybridDataArchitecture.open({"stores": stores}, entities=[Said])


def said(i: int) -> Said:
    text = "오늘 학교에서 친구를 만났다" if i % 2 else "비가 와서 우산을 샀다"
    return Said(id=f"{i:04}", at=NOON + timedelta(minutes=i), text=text, level="error" if i % 5 == 0 else "info")


@in_a_loop
async def test_logs_live_where_words_are_found_best_and_are_found_counted_and_read_by_others(
    tmp_path: Path, elasticsearch: str, prefix: str
) -> None:
    async with application(tmp_path, elasticsearch, prefix) as hda:
        log = hda.log(Said)
        result = await log.append(said(0))
        assert result.stores == {"search": "committed"}, "the server is the home, and no copy"
        assert await log.append_many(said(i) for i in range(1_200)) == 1_200
        assert await log.count() == 1_200, "what was there already is not there twice"
        found = await log.search("교에", where=F.level == "error", end=NOON + timedelta(hours=1))
        assert [one.id for one in found] == [f"{i:04}" for i in range(55, 0, -10)]
        assert await log.counts("level", text="학교") == {"info": 480, "error": 120}
        hours = await log.counts("at", every="1d", start=NOON, end=NOON + timedelta(days=2))
        assert hours == {NOON.replace(hour=0): 720, NOON.replace(day=2, hour=0): 480}
        assert len([one async for one in log.stream(NOON, NOON + timedelta(hours=1), batch=25)]) == 60
        driver = hda.client("search")
        answer = await driver.search(index=f"{prefix}said", query={"term": {"level": "error"}}, track_total_hits=True)
        assert answer["hits"]["total"]["value"] == 240
        assert answer["hits"]["hits"][0]["_source"]["text"].startswith("비가")
    async with application(tmp_path, elasticsearch, prefix) as again:
        assert await again.log(Said).count(F.level == "error") == 240
