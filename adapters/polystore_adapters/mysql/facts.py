"""Points of measures in MariaDB, and facts that its journal keeps for a store that is down.

A series is a number (`ps_series`); a point is a row of (series, time) with its value in the column of its type.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from polystore.model import (
    Aggregate,
    Key,
    PointRow,
    PointValue,
    Series,
    Span,
    Spill,
    SpillCount,
    SpillRow,
    Windows,
    key_hash,
)
from polystore.protocols import first_run, spill_refused
from polystore_adapters.mysql.dialect import encode_float
from polystore_adapters.mysql.graph import slot_of
from polystore_adapters.mysql.locks import lock
from polystore_adapters.mysql.pool import Pool, Session
from polystore_adapters.mysql.schema import BUCKETS

TAKEN_US: Final = 5_000_000
FOR_EVER_US: Final = 1 << 62

_OF_SERIES = "series = (SELECT n FROM ps_series WHERE slot = %s)"
_SPAN = f"{_OF_SERIES} AND at >= %s AND at < %s"
_VALUES = {"float": "COALESCE(f, i + 0e0)", "int": "i", "bool": "i", "str": "s"}
_SPILL_COLUMNS = "n, attempts, store, kind, etype, tenant, id, count, payload"


def _slot(series: Series) -> bytes:
    return slot_of(series.etype, series.measure, series.tenant, series.id)


def _given(pool: Pool, series: Series, span: Span) -> tuple[Any, ...]:
    start = span.start_us
    if span.age_max_us is not None:
        start = max(start, pool.clock.now_us() - span.age_max_us)
    return _slot(series), start, FOR_EVER_US if span.end_us is None else span.end_us


# -- points -------------------------------------------------------------------------------------------------------


async def append(pool: Pool, points: Sequence[PointRow]) -> None:
    """The rows of the series are held, so that nobody erases one whose points are just being written."""
    series = {_slot(one.series): one.series for one in points}
    if not series:
        return
    known = "SELECT slot, n FROM ps_series WHERE slot IN %s ORDER BY slot LOCK IN SHARE MODE"
    slots = tuple(sorted(series))
    async with pool.transaction(name="points") as db:
        numbers = {slot: n for slot, n in await db.fetch(known, slots)}  # noqa: C416 -- rows are sequences of anything
        new = [
            (slot, one.etype, one.measure, one.tenant, one.id) for slot, one in series.items() if slot not in numbers
        ]
        if new:
            await db.insert("INSERT IGNORE INTO ps_series (slot, etype, measure, tenant, id)", sorted(new))
            numbers = {slot: n for slot, n in await db.fetch(known, slots)}  # noqa: C416
        rows = {(numbers[_slot(one.series)], one.at_us): _columns(one.value) for one in points}
        await db.insert(
            "INSERT INTO ps_point (series, at, i, f, s)",
            [(*place, *rows[place]) for place in sorted(rows)],
            "ON DUPLICATE KEY UPDATE i = VALUES(i), f = VALUES(f), s = VALUES(s)",
        )


def _columns(value: PointValue) -> tuple[int | None, float | str | None, str | None]:
    if isinstance(value, str):
        return None, None, value
    return (None, encode_float(value), None) if isinstance(value, float) else (int(value), None, None)


async def points(pool: Pool, series: Series, span: Span, limit: int, newest_first: bool) -> list[PointRow]:
    async with pool.session() as db:
        rows = await db.fetch(_points_sql(series, newest_first), *_given(pool, series, span), limit)
    return [_point(series, row) for row in rows]


def _points_sql(series: Series, newest_first: bool) -> str:
    order = "DESC" if newest_first else "ASC"
    return f"SELECT at, {_VALUES[series.kind]} FROM ps_point WHERE {_SPAN} ORDER BY at {order} LIMIT %s"


def _point(series: Series, row: Sequence[Any]) -> PointRow:
    return PointRow(series, row[0], _value(series, row[1]))


async def last_points(pool: Pool, series: Sequence[Series], age_max_us: int | None) -> list[PointRow | None]:
    span = Span(-FOR_EVER_US, None, age_max_us)
    async with pool.session() as db:
        found = [db.later(_points_sql(one, True), *_given(pool, one, span), 1) for one in series]
        await db.flush()
    return [_point(one, rows[0]) if rows else None for one, rows in zip(series, found, strict=True)]


def _value(series: Series, value: Any) -> PointValue:
    found: PointValue = bool(value) if series.kind == "bool" else value
    return found


async def windows(
    pool: Pool, series: Series, span: Span, windows: Windows, aggregate: Aggregate, limit: int
) -> list[tuple[int, PointValue]]:
    value = _VALUES[series.kind]
    edges = list(windows.edges)
    if edges:  # INTERVAL tells how many edges are not after the time, by halving
        low, cut = f"INTERVAL(at, {', '.join(['%s'] * len(edges))})", [*edges]
        having, bounds = "HAVING low BETWEEN 1 AND %s", [len(edges) - 1]
    else:
        low, cut = "at - MOD(MOD(at - %s, %s) + %s, %s)", [windows.origin_us, *([windows.width_us] * 3)]
        having, bounds = "", []
    chosen = {
        "avg": f"SUM({value})",
        "count": "COUNT(*)",
        "first": "MIN(at)",
        "last": "MAX(at)",
    }.get(aggregate, f"{aggregate}({value})")
    sql = (
        f"SELECT {low} AS low, {chosen} AS a, COUNT(*) AS n FROM ps_point WHERE {_SPAN} GROUP BY low {having} "
        "ORDER BY low LIMIT %s"
    )
    if aggregate in ("first", "last"):
        sql = f"SELECT w.low, {value}, w.n FROM ({sql}) AS w JOIN ps_point ON {_OF_SERIES} AND at = w.a ORDER BY w.low"
    async with pool.session() as db:
        given = (*cut, *_given(pool, series, span), *bounds, limit)
        rows = await db.fetch(sql, *given, *([_slot(series)] if aggregate in ("first", "last") else []))
    return [
        (edges[low - 1] if edges else int(low), _aggregated(series, aggregate, found, count))
        for low, found, count in rows
    ]


def _aggregated(series: Series, aggregate: Aggregate, value: Any, count: int) -> PointValue:
    if aggregate == "avg":
        return float((int(value) if series.kind == "int" else value) / count)
    if aggregate == "sum" and series.kind == "int":
        return int(value)  # DECIMAL: exact, however large
    found: PointValue = value
    return found if aggregate == "count" else _value(series, value)


async def erase(pool: Pool, key: Key, measures: Sequence[str]) -> None:
    if not measures:
        return
    async with pool.transaction(name="erase") as db:
        slots = tuple(sorted(slot_of(key.etype, one, key.tenant, key.id) for one in measures))
        rows = await db.fetch("SELECT n FROM ps_series WHERE slot IN %s ORDER BY slot FOR UPDATE", slots)
        if rows:
            numbers = tuple(n for (n,) in rows)
            await db.run("DELETE FROM ps_point WHERE series IN %s", numbers)
            await db.run("DELETE FROM ps_series WHERE n IN %s", numbers)


async def expire(pool: Pool, etype: str, measure: str, age_max_us: int, limit: int) -> int:
    """One look at each series for its oldest point: a DELETE that says IN (SELECT ...) would look at all points."""
    oldest = "SELECT p.at FROM ps_point p WHERE p.series = s.n ORDER BY p.series, p.at LIMIT 1"  # as the index has it
    sql = f"SELECT s.n FROM ps_series s WHERE s.etype = %s AND s.measure = %s AND ({oldest}) < %s LIMIT %s"
    async with pool.session(sent=True) as db:
        first = pool.clock.now_us() - age_max_us
        numbers = tuple(n for (n,) in await db.fetch(sql, etype, measure, first, limit))
        if not numbers:
            return 0
        return await db.run("DELETE FROM ps_point WHERE series IN %s AND at < %s LIMIT %s", numbers, first, limit)


# -- facts for other stores ---------------------------------------------------------------------------------------


async def keep(db: Session, spills: Sequence[Spill], now_us: int) -> int:
    """Keep these in the caller's transaction; one at a time, so that their numbers are in the order of commits. Returns
    the bytes that are then kept."""
    await db.run(
        "UPDATE ps_meta SET v = CAST(v AS SIGNED) + %s WHERE k = 'spill_bytes'", sum(len(one.payload) for one in spills)
    )
    kept = await db.value("SELECT v FROM ps_meta WHERE k = 'spill_bytes'")
    await db.insert(
        "INSERT INTO ps_spill (store, kind, etype, tenant, id, count, payload, created_at, error)",
        [(*msgspec.structs.astuple(one), now_us, "") for one in spills],
    )
    return int(kept)


async def spill(pool: Pool, spills: Sequence[Spill], bytes_max: int) -> None:
    if not spills:
        return
    async with pool.transaction(name="spill") as db:
        kept = await keep(db, spills, pool.clock.now_us())
        if kept > bytes_max:
            before = kept - sum(len(one.payload) for one in spills)
            raise spill_refused(spills, before, bytes_max)


async def spilled(pool: Pool, store: str, limit: int) -> list[SpillRow]:
    """See `SupportsSpill.spilled`."""
    if await pool.value("SELECT 1 FROM ps_spill WHERE store = %s LIMIT 1", store) is None:
        return []  # looking costs other workers nothing
    async with pool.transaction() as db:
        await lock(db, [key_hash("", "ps_spill", store) % BUCKETS])
        now = pool.clock.now_us()
        head = await db.value("SELECT next_us FROM ps_spill WHERE store = %s AND NOT aside ORDER BY n LIMIT 1", store)
        waiting = "NOT aside" if head is not None and head <= now else f"aside AND next_us <= {now:d}"
        rows = await db.fetch(
            f"SELECT {_SPILL_COLUMNS} FROM ps_spill WHERE store = %s AND {waiting} ORDER BY n LIMIT %s",
            store,
            limit + 1,
        )
        run = first_run((SpillRow(n, attempts, Spill(*rest)) for n, attempts, *rest in rows), limit)
        if run:
            taken = tuple(row.number for row in run)
            await db.run("UPDATE ps_spill SET next_us = %s WHERE n IN %s", now + TAKEN_US, taken)
    return run


async def unspill(pool: Pool, numbers: Sequence[int]) -> None:
    if not numbers:
        return
    async with pool.transaction() as db:
        # The count first, as who keeps something has it.
        await db.value("SELECT v FROM ps_meta WHERE k = 'spill_bytes' FOR UPDATE")
        size = await db.value("SELECT COALESCE(SUM(LENGTH(payload)), 0) FROM ps_spill WHERE n IN %s", tuple(numbers))
        await db.run("DELETE FROM ps_spill WHERE n IN %s", tuple(numbers))
        await db.run("UPDATE ps_meta SET v = CAST(v AS SIGNED) - %s WHERE k = 'spill_bytes'", int(size))


async def postpone(pool: Pool, numbers: Sequence[int], delay_us: int, error: str, aside: bool) -> None:
    if numbers:
        async with pool.session(sent=True) as db:
            sql = "UPDATE ps_spill SET next_us = %s, attempts = attempts + 1, error = %s, aside = %s WHERE n IN %s"
            await db.run(sql, pool.clock.now_us() + delay_us, error, aside, tuple(numbers))


async def spills(pool: Pool) -> list[SpillCount]:
    last = "SELECT e.error FROM ps_spill e WHERE e.store = s.store AND e.error <> '' ORDER BY e.n DESC LIMIT 1"
    sql = (
        f"SELECT s.store, COUNT(*), SUM(s.count), SUM(LENGTH(s.payload)), MIN(s.created_at), SUM(s.aside), ({last}) "
        "FROM ps_spill s GROUP BY s.store"
    )
    return [
        SpillCount(store, rows, int(count), int(size), oldest, int(aside), error or "")
        for store, rows, count, size, oldest, aside, error in await pool.fetch(sql)
    ]


async def erasing(pool: Pool, store: str, etype: str, tenant: str, ids: Sequence[str]) -> list[str]:
    if not ids:
        return []
    chosen = "kind = 'erase' AND etype = %s AND tenant = %s AND store = %s AND id IN %s"
    sql = f"SELECT DISTINCT id FROM ps_spill WHERE {chosen}"
    return [id for (id,) in await pool.fetch(sql, etype, tenant, store, tuple(ids))]
