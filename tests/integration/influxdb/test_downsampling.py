"""Averages that a task of the server keeps: the task runs on the server, and what it makes is read."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from polystore_adapters.influxdb import InfluxRepository, connect
from polystore_adapters.influxdb.options import read_options

from polystore import ConfigurationError, SchemaMismatch
from polystore.env import Env
from polystore.model import PointRow, Series, Span
from polystore.testing.places.influxdb import own_bucket
from tests.loops import in_a_loop
from tests.stack import server

influxdb = server("influxdb")
HOUR = timedelta(hours=1)
ASKED = {"downsample_s": 3600, "downsample_retention_s": 86_400}
MOOD, STEPS = Series("", "person", "mood", "하늘"), Series("t 1", "person", "steps", "a", "int")


@pytest.fixture
def bucket(influxdb: str) -> Iterator[str]:
    with own_bucket(influxdb) as url, own_bucket(influxdb) as averages:
        yield f"{url} {averages.rpartition('/')[2]}"


async def opened(bucket: str, **changed: int) -> InfluxRepository:
    url, averages = bucket.split()
    return await connect(url, {**ASKED, "downsample_bucket": averages, **changed}, Env())


async def task_of(store: InfluxRepository) -> dict[str, str]:
    name = f"polystore downsamples {store._bucket}"  # pyright: ignore[reportPrivateUsage]
    found = await store._request("/api/v2/tasks", "GET", query_params=[("name", name)])  # pyright: ignore[reportPrivateUsage]
    (task,) = found["tasks"]
    return dict(task)


async def run(store: InfluxRepository) -> None:
    """Let the server run the task now."""
    request, id = store._request, (await task_of(store))["id"]  # pyright: ignore[reportPrivateUsage]
    begun = await request(f"/api/v2/tasks/{id}/runs", "POST", body={})
    for _ in range(600):
        state = await request(f"/api/v2/tasks/{id}/runs/{begun['id']}", "GET")
        if state["status"] == "success":
            return
        assert state["status"] != "failed", await request(f"/api/v2/tasks/{id}/runs/{begun['id']}/logs", "GET")
        await asyncio.sleep(0.05)
    raise AssertionError("the task did not end")


async def dropped(store: InfluxRepository) -> None:
    await store._request(f"/api/v2/tasks/{(await task_of(store))['id']}", "DELETE")  # pyright: ignore[reportPrivateUsage]
    await store.aclose()


@in_a_loop
async def test_the_task_makes_averages_that_a_store_on_their_bucket_reads(bucket: str) -> None:
    store = await opened(bucket)
    await store.prepare([], create=True)
    try:
        hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - HOUR
        begin = int(hour.timestamp()) * 1_000_000
        points = [PointRow(MOOD, begin + i * 1_000_000, i / 10) for i in range(61)]
        points += [PointRow(STEPS, begin + i * 1_000_000, i) for i in range(3)]
        await store.append_points(points)
        for _ in range(2):  # again, and late points are taken in
            await run(store)
        url, averages = bucket.split()
        second = await connect(f"{url.rpartition('/')[0]}/{averages}", {}, Env())
        (row,) = await second.points(MOOD, Span(0), 10, False)
        assert row.at_us == begin
        assert row.value == pytest.approx(3.0)
        steps = Series(STEPS.tenant, STEPS.etype, STEPS.measure, STEPS.id, "float")
        (steps_row,) = await second.points(steps, Span(0), 10, False)
        assert (steps_row.at_us, steps_row.value) == (begin, 1.0)
        await second.aclose()
    finally:
        await dropped(store)


@in_a_loop
async def test_a_task_that_is_not_as_asked_is_told_and_then_changed(bucket: str) -> None:
    store = await opened(bucket)
    with pytest.raises(SchemaMismatch, match="polystore init"):
        await store.prepare([], create=False)
    await store.prepare([], create=True)
    await store.prepare([], create=False)
    other = await opened(bucket, downsample_s=60)
    try:
        with pytest.raises(SchemaMismatch, match="not as the options ask"):
            await other.prepare([], create=False)
        await other.prepare([], create=True)
        assert "every: 60s" in (await task_of(other))["flux"]
        await other.prepare([], create=False)
    finally:
        await dropped(other)
        await store.aclose()


def test_windows_of_no_width_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="downsample_s"):
        read_options("influxdb://:t@127.0.0.1:1/o/b", {"downsample_s": 0})


@pytest.mark.parametrize("name", ["retention_s", "downsample_retention_s"])
def test_a_bucket_that_keeps_less_than_the_server_can_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="less than an hour"):
        read_options("influxdb://:t@127.0.0.1:1/o/b", {name: 60})


@pytest.mark.parametrize("name", ["b", "polystore"])
def test_averages_are_never_kept_among_the_points(name: str) -> None:
    url = "influxdb://:t@127.0.0.1:1/o" + ("/b" if name == "b" else "")
    with pytest.raises(ConfigurationError, match="want another one"):
        read_options(url, {"downsample_s": 60, "downsample_bucket": name})


@in_a_loop
async def test_a_bucket_that_the_server_does_not_make_is_told(influxdb: str) -> None:
    store = await connect(f"{influxdb}/_no", {}, Env())
    with pytest.raises(ConfigurationError, match="makes no bucket '_no'"):
        await store.prepare([], create=True)
    await store.aclose()
