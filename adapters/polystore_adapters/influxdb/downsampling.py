"""A task of the server that keeps averages for longer than the points: what the option `downsample_s` asks for.

The averages of a bucket lie in a second one, with the same measurements and tags, so that a store that is opened there
reads them as points. Each run makes the last three windows anew, which takes in points that came late.
https://docs.influxdata.com/influxdb/v2/process-data/common-tasks/downsample-data/
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from polystore_adapters.influxdb.options import Place
from polystore_adapters.influxdb.points import quoted

Request = Callable[..., Awaitable[Any]]
"""path, method, query_params=[...] or body=...: one request, its answer as plain values."""


def name_of(place: Place) -> str:
    return f"polystore downsamples {place.bucket}"


def flux(place: Place) -> str:
    """What the server runs."""
    seconds = place.options.downsample_s or 0
    width = f"{seconds}s"
    span = f"start: date.truncate(t: date.sub(from: now(), d: {2 * seconds}s), unit: {width}), stop: now()"
    return "\n".join(
        [
            'import "date"',
            "",
            f"option task = {{name: {quoted(name_of(place))}, every: {width}}}",
            "",
            f"from(bucket: {quoted(place.bucket)})",
            f"    |> range({span})",
            '    |> filter(fn: (r) => r._field == "f" or r._field == "i")',
            "    |> toFloat()",
            '    |> set(key: "_field", value: "f")',
            '    |> group(columns: ["_measurement", "_field", "id", "tenant"])',
            f'    |> aggregateWindow(every: {width}, fn: mean, createEmpty: false, timeSrc: "_start")',
            f"    |> to(bucket: {quoted(place.averages)})",
        ]
    )


async def standing(request: Request, place: Place) -> dict[str, Any] | None:
    """The task as the server has it."""
    query = [("name", name_of(place)), ("org", place.organisation)]
    found = await request("/api/v2/tasks", "GET", query_params=query)
    return next(iter(found["tasks"]), None)


async def carry_out(request: Request, place: Place) -> None:
    """Make the task, or change it. May be repeated."""
    task = await standing(request, place)
    if task is None:
        await request("/api/v2/tasks", "POST", body={"org": place.organisation, "flux": flux(place)})
    else:
        await request(f"/api/v2/tasks/{task['id']}", "PATCH", body={"flux": flux(place), "status": "active"})
