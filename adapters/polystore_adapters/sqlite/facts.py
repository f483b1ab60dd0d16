"""Points of measures in a SQLite file, and facts that its journal keeps for a store that is down.

A series is a number (`ps_series`), a point is a row of a table that is its own index: (series, time, value). So a
range of one series is read in one place of the file, and a point takes about 20 bytes.

Functions of one connection. Those that change something run inside the writer's transaction.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
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
)
from polystore.protocols import first_run, spill_refused

TABLES = (
    "CREATE TABLE IF NOT EXISTS ps_series (n INTEGER PRIMARY KEY AUTOINCREMENT, tenant TEXT NOT NULL, "
    "etype TEXT NOT NULL, measure TEXT NOT NULL, id TEXT NOT NULL, UNIQUE (etype, measure, tenant, id))",
    "CREATE TABLE IF NOT EXISTS ps_point (series INTEGER NOT NULL, at INTEGER NOT NULL, value NOT NULL, "
    "PRIMARY KEY (series, at)) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS ps_spill (n INTEGER PRIMARY KEY AUTOINCREMENT, store TEXT NOT NULL, "
    "kind TEXT NOT NULL, etype TEXT NOT NULL, tenant TEXT NOT NULL, id TEXT NOT NULL, count INTEGER NOT NULL, "
    "payload BLOB NOT NULL, created_at INTEGER NOT NULL, next_us INTEGER NOT NULL, attempts INTEGER NOT NULL, "
    "aside INTEGER NOT NULL, error TEXT NOT NULL)",
    "CREATE INDEX IF NOT EXISTS ps_spill_store ON ps_spill (store, aside, n)",
    "CREATE INDEX IF NOT EXISTS ps_spill_erase ON ps_spill (etype, tenant, id) WHERE kind = 'erase'",
)
TAKEN_US: Final = 5_000_000
_SERIES_SQL = "SELECT n FROM ps_series WHERE etype = ? AND measure = ? AND tenant = ? AND id = ?"
_INSERT_SPILL_SQL = (
    "INSERT INTO ps_spill (store, kind, etype, tenant, id, count, payload, created_at, next_us, attempts, aside, "
    "error) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, 0, 0, '')"
)


def missing(db: sqlite3.Connection) -> bool:
    """Whether the file is older than these tables, or empty."""
    sql = "SELECT count(*) FROM sqlite_master WHERE name IN ('ps_series', 'ps_point', 'ps_spill')"
    return int(db.execute(sql).fetchone()[0]) < 3


# -- points -------------------------------------------------------------------------------------------------------


def append(db: sqlite3.Connection, points: Sequence[PointRow]) -> None:
    numbers: dict[Series, int] = {}
    last: Series | None = None
    number = 0
    rows: list[tuple[int, int, PointValue]] = []
    for point in points:
        if point.series is not last:
            last = point.series
            found = numbers.get(last)
            number = numbers[last] = _number(db, last) if found is None else found
        rows.append((number, point.at_us, point.value))
    db.executemany("INSERT OR REPLACE INTO ps_point (series, at, value) VALUES (?, ?, ?)", rows)


def _number(db: sqlite3.Connection, series: Series) -> int:
    place = (series.etype, series.measure, series.tenant, series.id)
    found = db.execute(_SERIES_SQL, place).fetchone()
    if found is None:
        sql = "INSERT INTO ps_series (etype, measure, tenant, id) VALUES (?, ?, ?, ?) RETURNING n"
        found = db.execute(sql, place).fetchone()
    return int(found[0])


def _known(db: sqlite3.Connection, series: Series) -> int:
    """The number of a series; 0, which none has, for one without points."""
    found = db.execute(_SERIES_SQL, (series.etype, series.measure, series.tenant, series.id)).fetchone()
    return 0 if found is None else int(found[0])


def _bounds(span: Span, now_us: int) -> tuple[int, int]:
    start = span.start_us if span.age_max_us is None else max(span.start_us, now_us - span.age_max_us)
    return start, (1 << 62) if span.end_us is None else span.end_us


def points(
    db: sqlite3.Connection, series: Series, span: Span, limit: int, newest_first: bool, now_us: int
) -> list[PointRow]:
    sql = (
        "SELECT at, value FROM ps_point WHERE series = ? AND at >= ? AND at < ? "
        f"ORDER BY at {'DESC' if newest_first else 'ASC'} LIMIT ?"
    )
    rows = db.execute(sql, (_known(db, series), *_bounds(span, now_us), limit))
    return [PointRow(series, at, _value(series, value)) for at, value in rows]


def last_points(
    db: sqlite3.Connection, series: Sequence[Series], age_max_us: int | None, now_us: int
) -> list[PointRow | None]:
    span = Span(-(1 << 62), None, age_max_us)
    found = (points(db, one, span, 1, True, now_us) for one in series)
    return [one[0] if one else None for one in found]


def _value(series: Series, value: Any) -> PointValue:
    """SQLite has no bool, and a measure of floats may once have been one of ints."""
    match series.kind:
        case "bool":
            return bool(value)
        case "float":
            return float(value)
        case _:
            found: PointValue = value
            return found


_AGGREGATES: dict[Aggregate, str] = {
    "avg": "SELECT avg(value)",
    "min": "SELECT min(value)",
    "max": "SELECT max(value)",
    "sum": "SELECT total(value)",
    "count": "SELECT count(*)",
    "first": "SELECT value",
    "last": "SELECT value",
}
_ORDERS: dict[Aggregate, str] = {"first": " ORDER BY at LIMIT 1", "last": " ORDER BY at DESC LIMIT 1"}
_INT_SUM = "SELECT json_array(sum(value >> 32), sum(value & 4294967295))"
"""In two halves, which are put together where ints have no end: `sum` itself fails beyond 64 bits."""
# Each window begins where the first point behind the one before lies: gaps cost nothing, and nothing is sorted.
_FIXED_SQL = """
WITH RECURSIVE spans (low) AS (
    SELECT min(at) FROM ps_point WHERE series = :n AND at >= :start AND at < :end
    UNION ALL
    SELECT (SELECT min(at) FROM ps_point WHERE series = :n
        AND at >= low - ((low - :origin) % :width + :width) % :width + :width AND at < :end)
    FROM spans WHERE low IS NOT NULL LIMIT :limit
), bounds (low, high) AS (
    SELECT low - ((low - :origin) % :width + :width) % :width,
        low - ((low - :origin) % :width + :width) % :width + :width FROM spans WHERE low IS NOT NULL
)
"""
_EDGES_SQL = """
WITH bounds (low, high) AS (
    SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(:edges)
)
"""


def windows(
    db: sqlite3.Connection, series: Series, span: Span, windows: Windows, aggregate: Aggregate, limit: int, now_us: int
) -> list[tuple[int, PointValue]]:
    start, end = _bounds(span, now_us)
    given: dict[str, object] = {"n": _known(db, series), "start": start, "end": end, "limit": limit}
    if windows.edges:
        given["edges"] = json.dumps([*zip(windows.edges, windows.edges[1:], strict=False)])
    else:
        given |= {"origin": windows.origin_us, "width": windows.width_us}
    exact = aggregate == "sum" and series.kind == "int"
    sql = (
        f"{_EDGES_SQL if windows.edges else _FIXED_SQL} SELECT low, "
        f"({_INT_SUM if exact else _AGGREGATES[aggregate]} FROM ps_point WHERE series = :n "
        f"AND at >= max(low, :start) AND at < min(high, :end){_ORDERS.get(aggregate, '')}) AS found FROM bounds"
    )
    if windows.edges:
        present = "SELECT 1 FROM ps_point WHERE series = :n AND at >= max(low, :start) AND at < min(high, :end)"
        sql += f" WHERE EXISTS ({present}) LIMIT :limit"
    return [(low, _aggregated(series, aggregate, value, exact)) for low, value in db.execute(sql, given)]


def _aggregated(series: Series, aggregate: Aggregate, value: Any, exact: bool) -> PointValue:
    if exact:
        high, low = json.loads(value)
        return (int(high) << 32) + int(low)
    if aggregate in ("avg", "count"):
        found: PointValue = value
        return found
    return _value(series, value)


def erase(db: sqlite3.Connection, key: Key, measures: Sequence[str]) -> None:
    for measure in measures:
        number = _known(db, Series(key.tenant, key.etype, measure, key.id))
        db.execute("DELETE FROM ps_point WHERE series = ?", (number,))
        db.execute("DELETE FROM ps_series WHERE n = ?", (number,))


def expire(db: sqlite3.Connection, etype: str, measure: str, before_us: int, limit: int) -> int:
    sql = (
        "SELECT p.series, p.at FROM ps_series s CROSS JOIN ps_point p ON p.series = s.n AND p.at < ? "
        "WHERE s.etype = ? AND s.measure = ? LIMIT ?"
    )
    old = db.execute(sql, (before_us, etype, measure, limit)).fetchall()
    db.executemany("DELETE FROM ps_point WHERE series = ? AND at = ?", old)
    return len(old)


# -- facts for other stores ---------------------------------------------------------------------------------------


def keep(db: sqlite3.Connection, spills: Sequence[Spill], now_us: int) -> None:
    rows = [(*msgspec.structs.astuple(one), now_us) for one in spills]
    db.executemany(_INSERT_SPILL_SQL, rows)
    _count_bytes(db, sum(len(one.payload) for one in spills))


def _count_bytes(db: sqlite3.Connection, more: int) -> None:
    """The bytes of all payloads are counted: adding them up for every append would take longer and longer."""
    sql = "INSERT INTO ps_meta (k, v) VALUES ('spill_bytes', ?) ON CONFLICT (k) DO UPDATE SET v = v + excluded.v"
    db.execute(sql, (more,))


def spill(db: sqlite3.Connection, spills: Sequence[Spill], bytes_max: int, now_us: int) -> None:
    kept = (db.execute("SELECT v FROM ps_meta WHERE k = 'spill_bytes'").fetchone() or (0,))[0]
    if kept + sum(len(one.payload) for one in spills) > bytes_max:
        raise spill_refused(spills, kept, bytes_max)
    keep(db, spills, now_us)


def takeable(db: sqlite3.Connection, store: str, limit: int, now_us: int) -> list[SpillRow]:
    """See `SupportsSpill.spilled`."""
    head = "SELECT next_us FROM ps_spill WHERE store = ? AND aside = 0 ORDER BY n LIMIT 1"
    first = db.execute(head, (store,)).fetchone()
    waiting = "aside = 0" if first is not None and first[0] <= now_us else f"aside = 1 AND next_us <= {now_us:d}"
    columns = "n, attempts, store, kind, etype, tenant, id, count, payload"
    rows = db.execute(f"SELECT {columns} FROM ps_spill WHERE store = ? AND {waiting} ORDER BY n", (store,))
    with closing(rows):
        return first_run((SpillRow(n, attempts, Spill(*rest)) for n, attempts, *rest in rows), limit)


def spilled(db: sqlite3.Connection, store: str, limit: int, now_us: int) -> list[SpillRow]:
    rows = takeable(db, store, limit, now_us)
    taken = [(now_us + TAKEN_US, row.number) for row in rows]
    db.executemany("UPDATE ps_spill SET next_us = ? WHERE n = ?", taken)
    return rows


def unspill(db: sqlite3.Connection, numbers: Sequence[int]) -> None:
    sql = "DELETE FROM ps_spill WHERE n IN (SELECT value FROM json_each(?)) RETURNING length(payload)"
    _count_bytes(db, -sum(size for (size,) in db.execute(sql, (json.dumps(list(numbers)),))))


def postpone(db: sqlite3.Connection, numbers: Sequence[int], until_us: int, error: str, aside: bool) -> None:
    sql = "UPDATE ps_spill SET next_us = ?, attempts = attempts + 1, error = ?, aside = ? WHERE n = ?"
    db.executemany(sql, [(until_us, error, aside, n) for n in numbers])


def spills(db: sqlite3.Connection) -> list[SpillCount]:
    sql = (
        "SELECT store, count(*), sum(count), sum(length(payload)), min(created_at), sum(aside), "
        "coalesce((SELECT error FROM ps_spill e WHERE e.store = s.store AND e.error <> '' ORDER BY n DESC LIMIT 1), '')"
        " FROM ps_spill s GROUP BY store"
    )
    return [SpillCount(*row) for row in db.execute(sql)]


def erasing(db: sqlite3.Connection, store: str, etype: str, tenant: str, ids: Sequence[str]) -> list[str]:
    sql = (
        "SELECT id FROM ps_spill WHERE kind = 'erase' AND etype = ? AND tenant = ? AND store = ? "
        "AND id IN (SELECT value FROM json_each(?))"
    )
    return list({id for (id,) in db.execute(sql, (etype, tenant, store, json.dumps(list(ids))))})
