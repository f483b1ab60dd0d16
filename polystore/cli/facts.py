"""Commands about facts: series, log."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from typing import Annotated, Any

import typer

from polystore.cli.data import Entity, Limit, Where, conditions
from polystore.cli.running import Context, entity_named, key_of, plain, run
from polystore.collection.windows import zone_of
from polystore.errors import ConfigurationError

Moment = Annotated[str | None, typer.Option(help="Such as 2026-03-01 or 2026-03-01T09:00.")]
Zone = Annotated[str, typer.Option(help="The time zone of what is said and shown.")]


def moment(name: str, text: str | None, zone: tzinfo) -> datetime | None:
    """Raises ConfigurationError for a text that is no time."""
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigurationError(f"--{name} {text!r}: write a date or a time, such as 2026-03-01T09:00") from None
    return at if at.tzinfo is not None else at.replace(tzinfo=zone)


def series(
    context: typer.Context,
    entity: Entity,
    key: Annotated[str, typer.Argument(help="The record's key.")],
    measure: Annotated[str, typer.Argument(help="Name of the measure.")],
    start: Moment = None,
    end: Moment = None,
    every: Annotated[str | None, typer.Option(help="Width of windows: 30s, 5m, 1h, 1d, 1w, 1mo, 1y.")] = None,
    aggregate: Annotated[str, typer.Option(help="Of windows: avg, min, max, sum, count, first, last.")] = "avg",
    tz: Zone = "UTC",
    limit: Limit = 100,
) -> None:
    """Show the points of a measure, or windows of them. Without --start: the last 24 hours."""
    state: Context = context.obj

    async def command() -> None:
        async with state.opened() as hda:
            one = entity_named(hda, entity)
            zone = zone_of(tz)
            since = moment("start", start, zone) or datetime.now(UTC) - timedelta(days=1)
            asked: dict[str, Any] = {"start": since, "end": moment("end", end, zone), "tz": zone, "limit": limit}
            if every is not None:
                asked |= {"every": every, "aggregate": aggregate}
            if measure not in one.measures:
                known = ", ".join(one.measures) or "none"
                raise ConfigurationError(f"{one.cls.__name__} has no measure {measure!r}; its measures: {known}")
            read: Any = hda.collection(one.cls).series
            points = await read(one.measures[measure], key_of(one, key), **asked)
            state.show([{"at": point.at.isoformat(), "value": point.value} for point in points])

    run(state, command)


def log(
    context: typer.Context,
    entity: Entity,
    text: Annotated[str | None, typer.Argument(help="Words to look for.")] = None,
    where: Where = None,
    start: Moment = None,
    end: Moment = None,
    tz: Zone = "UTC",
    limit: Limit = 20,
) -> None:
    """Show the lines of a log, newest first."""
    state: Context = context.obj

    async def command() -> None:
        async with state.opened() as hda:
            one = entity_named(hda, entity)
            zone = zone_of(tz)
            lines = hda.log(one.cls)
            since, until = moment("start", start, zone), moment("end", end, zone)
            holds = conditions(one, where)
            if text is None:
                page = await lines.range(since, until, where=holds, limit=limit)
            else:
                page = await lines.search(text, where=holds, start=since, end=until, limit=limit)
            state.show([plain(one, value) for value in page])

    run(state, command)
