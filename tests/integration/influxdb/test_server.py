"""Measures of an application in InfluxDB: what others find there, what restarts and refusals do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest
from polystore_adapters.influxdb import InfluxRepository, connect

from polystore import (
    ConfigurationError,
    HybridDataArchitecture,
    InvalidData,
    Measure,
    PermissionDenied,
    PolystoreError,
    SchemaMismatch,
    Unavailable,
    entity,
)
from polystore.env import Env
from polystore.model import PointRow, Series, Span
from polystore.testing.places.influxdb import own_bucket
from tests.loops import in_a_loop
from tests.stack import own_server, server

influxdb = server("influxdb")
NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
HOSTILE = ["a b", "a,b=c", 'say "${r._value}"', "back\\", "학교 100%", "%41", "line\nbreak", "'; drop"]


@entity()
@dataclass
class Person:
    id: str
    mood: ClassVar[Measure[float]] = Measure(float, unit="valence")
    note: ClassVar[Measure[str]] = Measure(str)


@pytest.fixture
def bucket(influxdb: str) -> Iterator[str]:
    with own_bucket(influxdb) as url:
        yield url


def application(folder: Path, url: str) -> Any:
    stores = {
        "home": {"url": f"sqlite:{folder}/home.db", "roles": ["home"]},
        "series": {"url": url, "roles": ["time_series"]},
    }
    return HybridDataArchitecture.open({"stores": stores}, entities=[Person])


async def prepared(url: str, **options: Any) -> InfluxRepository:
    store = await connect(url, options, Env())
    await store.prepare([], create=True)
    return store


@in_a_loop
async def test_points_are_what_the_driver_alone_finds(tmp_path: Path, bucket: str) -> None:
    async with application(tmp_path, bucket) as hda:
        people = hda.collection(Person)
        await people.put(Person("하늘"))
        moods = [(NOW + timedelta(minutes=i), i / 10) for i in range(90)]
        await people.append_many(Person.mood, (("하늘", at, value) for at, value in moods))
        await people.append(Person.note, "하늘", "오늘은 학교에 갔다", at=NOW)
        hours = await people.series(Person.mood, "하늘", start=NOW, every="1h", aggregate="avg")
        assert [round(one.value, 6) for one in hours] == [2.95, 7.45]
        client = hda.client("series")
        name = bucket.rpartition("/")[2]
        flux = f'from(bucket: "{name}") |> range(start: 2026-01-01T00:00:00Z, stop: 2027-01-01T00:00:00Z)'
        tables = await client.query_api().query(f'{flux} |> filter(fn: (r) => r._measurement == "person.mood")')
        found = [(one.get_time(), one.get_value(), one["id"]) for table in tables for one in table.records]
        assert found == [(at, value, "하늘") for at, value in moods]
        (note,) = await client.query_api().query(f'{flux} |> filter(fn: (r) => r._measurement == "person.note")')
        assert note.records[0].get_value() == "오늘은 학교에 갔다"


@in_a_loop
async def test_hostile_names_and_values_are_data(bucket: str) -> None:
    store = await prepared(bucket)
    series = [Series(tenant, "thing", "word", id, "str") for tenant in HOSTILE for id in HOSTILE]
    await store.append_points([PointRow(one, 1_000_000, one.id + one.tenant) for one in series])
    found = await store.last_points(series, None)
    assert [row and row.value for row in found] == [one.id + one.tenant for one in series]
    for one in series[::7]:
        assert [row.value for row in await store.points(one, Span(0), 10, False)] == [one.id + one.tenant]
    await store.aclose()


@in_a_loop
async def test_a_point_at_a_time_that_the_server_does_not_know_is_refused_and_not_tried_again(bucket: str) -> None:
    store = await prepared(bucket)
    series = Series("", "thing", "mood", "a")
    with pytest.raises(InvalidData) as caught:
        await store.append_points([PointRow(series, 1 << 60, 12345.0)])
    assert not caught.value.retryable
    assert "12345" not in str(caught.value)
    assert await store.points(series, Span(-(1 << 50), None), 10, newest_first=False) == []
    await store.aclose()


@in_a_loop
async def test_a_point_older_than_the_bucket_keeps_is_refused(bucket: str) -> None:
    store = await prepared(bucket, retention_s=3600)
    with pytest.raises(InvalidData, match="retention"):
        await store.append_points([PointRow(Series("", "thing", "mood", "a"), 1_000_000, 1.0)])
    await store.aclose()


@in_a_loop
async def test_a_server_that_was_killed_has_what_it_answered_for(tmp_path: Path) -> None:
    with own_server("influxdb") as mine:
        async with application(tmp_path, mine.url) as hda:
            people = hda.collection(Person)
            await people.put(Person("a"))
            await people.append(Person.mood, "a", 0.5, at=NOW)
            mine.kill()
            with pytest.raises(Unavailable):
                await people.last(Person.mood, "a")
            await people.append(Person.mood, "a", 0.75, at=NOW + timedelta(hours=1))  # kept by the journal
            mine.start()
            await hda.settle(30)
            assert [one.value for one in await people.series(Person.mood, "a", start=NOW)] == [0.5, 0.75]


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ((":polystore-test@", ":wrong@"), PermissionDenied, "rights"),
        (("/polystore/", "/polystore/no-"), SchemaMismatch, "no-kit.*polystore init"),
    ],
)
@in_a_loop
async def test_a_refusal_says_what_to_do_and_no_secret(
    bucket: str, change: tuple[str, str], error: type[PolystoreError], says: str
) -> None:
    store = await connect(bucket.replace(*change), {}, Env())
    point = PointRow(Series("", "thing", "mood", "a"), 1_000_000, 1.0)
    for call in (store.prepare([], create=False), store.append_points([point])):
        with pytest.raises(error, match=says) as caught:
            await call
        assert "polystore-test" not in str(caught.value)
    await store.aclose()
    with pytest.raises(Unavailable):
        await store.ping()


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("influxdb://host:1/org", {}),
        ("influxdb://:t@host:1", {}),
        ("influxdb:org", {}),
        ("influxdb://:t@host:1/org", {"timeout_s": 0}),
        ("influxdb://:t@host:1/org", {"tokn": "x"}),
        ("influxdb://:t@host:1/org", {"ca_file": "/no/such/file"}),
    ],
)
@in_a_loop
async def test_what_makes_no_sense_is_refused_before_anything_is_asked(url: str, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        await connect(url, options, Env())
