"""Points of measures in PostgreSQL, and facts that its journal keeps for a store that is down.

A series is a number (`ps_series`); a point is a row of (series, time) with its value in the column of its type, in the
partition of its time (`partitions.py`).
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
from polystore_adapters.postgresql import partitions
from polystore_adapters.postgresql.driver import asyncpg
from polystore_adapters.postgresql.partitions import Partitions
from polystore_adapters.postgresql.pool import Pool, Session

TABLES = f"""{partitions.TABLES}
CREATE TABLE ps_series (n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, tenant text COLLATE "C" NOT NULL,
    etype text COLLATE "C" NOT NULL, measure text COLLATE "C" NOT NULL, id text COLLATE "C" NOT NULL,
    UNIQUE (etype, measure, tenant, id));
CREATE TABLE ps_spill (n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, store text NOT NULL, kind text NOT NULL,
    etype text NOT NULL, tenant text NOT NULL, id text NOT NULL, count integer NOT NULL, payload bytea NOT NULL,
    created_at bigint NOT NULL, next_us bigint NOT NULL DEFAULT 0, attempts integer NOT NULL DEFAULT 0,
    aside boolean NOT NULL DEFAULT false, error text NOT NULL DEFAULT '');
CREATE INDEX ps_spill_store ON ps_spill (store, aside, n);
CREATE INDEX ps_spill_erase ON ps_spill (etype, tenant, id) WHERE kind = 'erase';
INSERT INTO ps_meta (k, v) VALUES ('spill_bytes', '0');
"""
TAKEN_US: Final = 5_000_000
SPILL_LOCK = "SELECT pg_advisory_xact_lock(1886614645, $1::int)"

_PLACES = "unnest($1::text[], $2::text[], $3::text[], $4::text[])"
_MAKE_SERIES_SQL = f"INSERT INTO ps_series (etype, measure, tenant, id) SELECT * FROM {_PLACES} ON CONFLICT DO NOTHING"
_KNOWN_SERIES_SQL = (
    "SELECT etype, measure, tenant, id, n FROM ps_series WHERE (etype, measure, tenant, id) IN "
    f"(SELECT * FROM {_PLACES}) ORDER BY n FOR KEY SHARE"
)
_POINTS_SQL = (
    "INSERT INTO ps_point (series, at, i, f, s) SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], "
    "$4::double precision[], $5::text[]) ON CONFLICT (series, at) DO UPDATE SET i = excluded.i, f = excluded.f, "
    "s = excluded.s"
)
_COLUMNS = ("series", "at", "i", "f", "s")
COPY_MIN: Final = 100
"""Points that are copied rather than inserted: that is three times as quick, and begins with a question more."""
_OF_SERIES = "series = (SELECT n FROM ps_series WHERE etype = $1 AND measure = $2 AND tenant = $3 AND id = $4)"
_SPAN = f"{_OF_SERIES} AND at >= greatest($5, ps_now_us() - $6::bigint) AND at < $7"  # greatest() passes NULL over
_LAST_SQL = (
    f"SELECT u.o, p.* FROM {_PLACES} WITH ORDINALITY AS u (etype, measure, tenant, id, o) "
    "JOIN ps_series s USING (etype, measure, tenant, id) CROSS JOIN LATERAL (SELECT at, i, f, s FROM ps_point "
    "WHERE series = s.n AND ($5::bigint IS NULL OR at >= ps_now_us() - $5) ORDER BY at DESC LIMIT 1) AS p"
)
_VALUES = {"float": "coalesce(f, i::double precision)", "int": "i", "bool": "i", "str": 's COLLATE "C"'}
_SPILL_COLUMNS = "n, attempts, store, kind, etype, tenant, id, count, payload"


def _place(series: Series) -> tuple[str, str, str, str]:
    return series.etype, series.measure, series.tenant, series.id


def _given(series: Series, span: Span) -> tuple[Any, ...]:
    return (*_place(series), span.start_us, span.age_max_us, (1 << 62) if span.end_us is None else span.end_us)


# -- points -------------------------------------------------------------------------------------------------------


async def append(pool: Pool, points: Sequence[PointRow], parts: Partitions) -> None:
    """The rows of the series are held, so that nobody erases one whose points are just being written."""
    await parts.make(pool, (one.at_us for one in points))
    places = sorted({_place(one.series) for one in points})
    if not places:
        return
    given = [list(column) for column in zip(*places, strict=True)]
    async with pool.transaction(name="points") as db:
        found = await db.fetch(_KNOWN_SERIES_SQL, *given)
        if len(found) < len(places):
            await db.run(_MAKE_SERIES_SQL, *given)
            found = await db.fetch(_KNOWN_SERIES_SQL, *given)
        numbers = {(etype, measure, tenant, id): n for etype, measure, tenant, id, n in found}
        rows = {(numbers[_place(one.series)], one.at_us): _columns(one.value) for one in points}
        values = [(*place, *rows[place]) for place in sorted(rows)]
        if len(values) < COPY_MIN or not await _copied(db, values):
            await db.run(_POINTS_SQL, *map(list, zip(*values, strict=True)))


async def _copied(db: Session, rows: Sequence[tuple[Any, ...]]) -> bool:
    """Whether all are written; none is when one of them is there already."""
    await db.run("SAVEPOINT copied")
    try:
        await db.connection.copy_records_to_table("ps_point", records=rows, columns=_COLUMNS)
    except asyncpg.UniqueViolationError:
        await db.run("ROLLBACK TO SAVEPOINT copied")
        return False
    return True


def _columns(value: PointValue) -> tuple[int | None, float | None, str | None]:
    if isinstance(value, str):
        return None, None, value
    return (None, value, None) if isinstance(value, float) else (int(value), None, None)


async def points(pool: Pool, series: Series, span: Span, limit: int, newest_first: bool) -> list[PointRow]:
    sql = (
        f"SELECT at, {_VALUES[series.kind]} FROM ps_point WHERE {_SPAN} "
        f"ORDER BY at {'DESC' if newest_first else 'ASC'} LIMIT $8"
    )
    rows = await pool.fetch(sql, *_given(series, span), limit)
    return [PointRow(series, at, _value(series, value)) for at, value in rows]


async def last_points(pool: Pool, series: Sequence[Series], age_max_us: int | None) -> list[PointRow | None]:
    given: list[list[str]] = [list(column) for column in zip(*map(_place, series), strict=True)]
    found: list[PointRow | None] = [None] * len(series)
    if series:
        for row in await pool.fetch(_LAST_SQL, *given, age_max_us):
            at: int = row[0] - 1
            found[at] = PointRow(series[at], row[1], _value(series[at], _of_columns(series[at], *row[2:])))
    return found


def _of_columns(series: Series, i: int | None, f: float | None, s: str | None) -> Any:
    if series.kind == "str":
        return s
    return i if series.kind != "float" else f if f is not None or i is None else float(i)


def _value(series: Series, value: Any) -> PointValue:
    found: PointValue = bool(value) if series.kind == "bool" else value
    return found


async def windows(
    pool: Pool, series: Series, span: Span, windows: Windows, aggregate: Aggregate, limit: int
) -> list[tuple[int, PointValue]]:
    value = _VALUES[series.kind]
    chosen = {
        "avg": f"avg({value})::double precision",
        "count": "count(*)",
        "first": f"(array_agg({value} ORDER BY at))[1]",
        "last": f"(array_agg({value} ORDER BY at DESC))[1]",
    }.get(aggregate, f"{aggregate}({value})")
    given: tuple[object, ...]
    if windows.edges:
        low, given = "($8::bigint[])[width_bucket(at, $8::bigint[])]", (list(windows.edges),)
        inside = "AND at >= ($8::bigint[])[1] AND at < ($8::bigint[])[cardinality($8::bigint[])]"
        limited = "$9"
    else:
        low, inside, limited = "at - ((at - $8) % $9 + $9) % $9", "", "$10"
        given = (windows.origin_us, windows.width_us)
    sql = (
        f"SELECT {low} AS low, {chosen} FROM ps_point WHERE {_SPAN} {inside} GROUP BY low ORDER BY low LIMIT {limited}"
    )
    rows = await pool.fetch(sql, *_given(series, span), *given, limit)
    return [(low, _aggregated(series, aggregate, found)) for low, found in rows]


def _aggregated(series: Series, aggregate: Aggregate, value: Any) -> PointValue:
    if aggregate == "sum" and series.kind == "int":
        return int(value)  # numeric: exact, however large
    found: PointValue = value
    return found if aggregate in ("avg", "count") else _value(series, value)


async def erase(pool: Pool, key: Key, measures: Sequence[str]) -> None:
    async with pool.transaction(name="erase") as db:
        gone = await db.fetch(
            "DELETE FROM ps_series WHERE etype = $1 AND tenant = $2 AND id = $3 AND measure = ANY($4::text[]) "
            "RETURNING n",
            *(key.etype, key.tenant, key.id, list(measures)),
        )
        await db.run("DELETE FROM ps_point WHERE series = ANY($1::bigint[])", [n for (n,) in gone])


async def expire(pool: Pool, etype: str, measure: str, age_max_us: int, limit: int, parts: Partitions) -> int:
    """Whole partitions first, of which one may hold more than `limit`."""
    before: int = await pool.value("SELECT ps_now_us() - $1::bigint", age_max_us)
    gone = await parts.drop(pool, etype, measure, before, limit)
    if gone:
        return gone
    sql = (
        "DELETE FROM ps_point WHERE (series, at) IN (SELECT p.series, p.at FROM ps_series s JOIN ps_point p ON "
        "p.series = s.n AND p.at < $3 WHERE s.etype = $1 AND s.measure = $2 LIMIT $4)"
    )
    return await pool.run(sql, etype, measure, before, limit)


# -- facts for other stores ---------------------------------------------------------------------------------------


async def keep(db: Session, spills: Sequence[Spill]) -> int:
    """Keep these in the caller's transaction; one at a time, so that their numbers are in the order of commits. Returns
    the bytes that are then kept."""
    sql = "UPDATE ps_meta SET v = (v::bigint + $1::bigint)::text WHERE k = 'spill_bytes' RETURNING v::bigint"
    kept = await db.value(sql, sum(len(one.payload) for one in spills))
    rows = [msgspec.structs.astuple(one) for one in spills]
    await db.run(
        "INSERT INTO ps_spill (store, kind, etype, tenant, id, count, payload, created_at) SELECT u.*, ps_now_us() "
        "FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::int[], $7::bytea[]) AS u",
        *map(list, zip(*rows, strict=True)),
    )
    return int(kept)


async def spill(pool: Pool, spills: Sequence[Spill], bytes_max: int) -> None:
    if not spills:
        return
    async with pool.transaction(name="spill") as db:
        kept = await keep(db, spills)
        if kept > bytes_max:
            before = kept - sum(len(one.payload) for one in spills)
            raise spill_refused(spills, before, bytes_max)


async def spilled(pool: Pool, store: str, limit: int) -> list[SpillRow]:
    """See `SupportsSpill.spilled`."""
    if await pool.value("SELECT 1 FROM ps_spill WHERE store = $1 LIMIT 1", store) is None:
        return []  # looking costs other workers nothing
    async with pool.transaction() as db:
        await db.run(SPILL_LOCK, key_hash("", "ps_spill", store) % (1 << 31))
        now: int = await db.value("SELECT ps_clock_us()")
        head = await db.value("SELECT next_us FROM ps_spill WHERE store = $1 AND NOT aside ORDER BY n LIMIT 1", store)
        waiting = "NOT aside" if head is not None and head <= now else f"aside AND next_us <= {now:d}"
        rows = await db.fetch(
            f"SELECT {_SPILL_COLUMNS} FROM ps_spill WHERE store = $1 AND {waiting} ORDER BY n LIMIT $2",
            store,
            limit + 1,
        )
        run = first_run((SpillRow(n, attempts, Spill(*rest)) for n, attempts, *rest in rows), limit)
        taken = [row.number for row in run]
        await db.run("UPDATE ps_spill SET next_us = $1 WHERE n = ANY($2::bigint[])", now + TAKEN_US, taken)
    return run


async def unspill(pool: Pool, numbers: Sequence[int]) -> None:
    sql = (
        "WITH d AS (DELETE FROM ps_spill WHERE n = ANY($1::bigint[]) RETURNING length(payload) AS size) UPDATE ps_meta "
        "SET v = (v::bigint - (SELECT coalesce(sum(size), 0) FROM d))::text WHERE k = 'spill_bytes'"
    )
    await pool.run(sql, list(numbers))


async def postpone(pool: Pool, numbers: Sequence[int], delay_us: int, error: str, aside: bool) -> None:
    sql = (
        "UPDATE ps_spill SET next_us = ps_now_us() + $2, attempts = attempts + 1, error = $3, aside = $4 "
        "WHERE n = ANY($1::bigint[])"
    )
    await pool.run(sql, list(numbers), delay_us, error, aside)


async def spills(pool: Pool) -> list[SpillCount]:
    sql = (
        "SELECT store, count(*), sum(count), sum(length(payload)), min(created_at), count(*) FILTER (WHERE aside), "
        "coalesce((array_agg(error ORDER BY n DESC) FILTER (WHERE error <> ''))[1], '') FROM ps_spill GROUP BY store"
    )
    return [
        SpillCount(store, rows, int(count), int(size), oldest, aside, error)
        for store, rows, count, size, oldest, aside, error in await pool.fetch(sql)
    ]


async def erasing(pool: Pool, store: str, etype: str, tenant: str, ids: Sequence[str]) -> list[str]:
    sql = (
        "SELECT DISTINCT id FROM ps_spill WHERE kind = 'erase' AND etype = $1 AND tenant = $2 AND store = $3 "
        "AND id = ANY($4::text[])"
    )
    return [id for (id,) in await pool.fetch(sql, etype, tenant, store, list(ids))]
