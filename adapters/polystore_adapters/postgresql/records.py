"""Records as a copy has them: brought to given versions, each only when newer than what stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from polystore.model import (
    UNREADABLE,
    Body,
    Change,
    HashSpan,
    Key,
    Outcome,
    Page,
    Record,
    Stamp,
    vector_digest,
)
from polystore.relational import records as relational
from polystore.relational.records import Prepared, by_table
from polystore_adapters.postgresql import graph
from polystore_adapters.postgresql.dialect import decode_json, encode_json
from polystore_adapters.postgresql.pool import Pool
from polystore_adapters.postgresql.table import META, Draft, RecordTable

TOMBSTONES_SQL = (
    "SELECT id, version, deleted_at FROM ps_tombstone WHERE tenant = $1 AND etype = $2 AND id = ANY($3::text[])"
)


Tables = Prepared[RecordTable]

# -- reading ------------------------------------------------------------------------------------------------------


async def get(pool: Pool, tables: Tables, keys: Sequence[Key]) -> list[Record | None]:
    """See `Repository.get`. A tombstone counts only where there is no row: a row is newer than it."""
    if len(keys) != 1:
        return await _get_many(pool, tables, keys)
    (key,) = keys
    table = tables[key.etype]
    rows = await pool.fetch(table.get_one_sql, key.tenant, table.key_value(key.id))
    if rows:
        return [_record(table, key, rows[0])]
    buried = await pool.fetch(TOMBSTONES_SQL, key.tenant, key.etype, [key.id]) if table.home else ()
    return [Record(key, version, None, b"", deleted_us) for _, version, deleted_us in buried] or [None]


async def _get_many(pool: Pool, tables: Tables, keys: Sequence[Key]) -> list[Record | None]:
    found: dict[Key, Record] = {}
    for (etype, tenant), ids in by_table(keys).items():
        table = tables[etype]
        for row in await pool.fetch(table.get_sql, tenant, [table.key_value(id) for id in ids]):
            key = Key(tenant, etype, table.id_of(row))
            found[key] = _record(table, key, row)
        if table.home and len(missing := [id for id in ids if Key(tenant, etype, id) not in found]):
            for id, version, deleted_us in await pool.fetch(TOMBSTONES_SQL, tenant, etype, missing):
                key = Key(tenant, etype, id)
                found[key] = Record(key, version, None, b"", deleted_us)
    return [found.get(key) for key in keys]


def _record(table: RecordTable, key: Key, row: Any) -> Record:
    """The record of a row of `get_sql`, which ends with whether it is gone."""
    return Record(key, row[0], None, b"", row[2]) if row[-1] else table.record(key, row)


async def scan(pool: Pool, table: RecordTable, tenant: str, span: HashSpan, cursor: str | None, limit: int) -> Page:
    """See `Repository.scan`. What each facet has is compared with the row, too."""
    h, id = (-1, "") if cursor is None else decode_json(cursor)
    rows = await pool.fetch(table.scan_sql, tenant, max(span.low, h), span.high, h, id, limit + 1)
    more = len(rows) > limit
    stamps: list[Stamp] = []
    bodies: dict[str, Body] = {}
    fields = 1 + len(META) + len(table.codec.names) + 1
    for row in rows[:limit]:
        id = table.id_of(row, 1)
        sealed = table.codec.sealed(id, row[1 + len(META) : fields])
        if sealed is None:
            stamps.append(Stamp(id, row[0], row[1], b"", fault=UNREADABLE))
            continue
        body, hash = sealed
        vectors = table.vectors_of(row[fields : fields + len(table.vectors)])
        changed = table.shared and hash != row[2]
        fault = "the row was changed by somebody else, and not taken over yet" if changed else ""
        if table.full_text is not None and row[-1] != table.full_text.expected(body):
            text = "full text: the indexed terms are not those of the text"
            fault = f"{fault}; {text}" if fault else text
        digests = {field: vector_digest(one) for field, one in vectors.items()}
        stamps.append(Stamp(id, row[0], row[1], hash, False, digests, fault))
        bodies[id] = body
    if table.edges is not None:
        stamps = await graph.compared(pool, table, tenant, stamps, bodies)
    last = stamps[-1] if stamps else None
    return Page(stamps, encode_json([last.h, last.id]) if more and last is not None else None)


# -- writing ------------------------------------------------------------------------------------------------------


async def apply(pool: Pool, tables: Tables, changes: Sequence[Change]) -> list[Outcome]:
    """See `Repository.apply`."""

    async def write(table: RecordTable, drafts: Mapping[Key, Draft]) -> list[Key]:
        sql = table.overwrite_sql if any(one.overwrites for one in drafts.values()) else table.apply_sql
        if table.edges is None:
            rows = await pool.fetch(sql, *table.arrays(drafts))
            return [Key(tenant, table.etype, str(id)) for tenant, id, _ in rows]
        async with pool.transaction() as db:
            rows = await db.fetch(sql, *table.arrays(drafts))
            keys = [Key(tenant, table.etype, str(id)) for tenant, id, _ in rows]
            await graph.replace(db, table, {key: drafts[key].body for key in keys})  # under the rows' locks
            return keys

    return await relational.apply(tables, changes, write)


async def newest(pool: Pool, tables: Tables, etype: str) -> int:
    """See `Repository.newest`. A copy keeps its tombstones, and so its highest version until they are purged."""
    table = tables[etype]
    if table.home:
        sql = "SELECT CASE WHEN is_called AND last_value > 0 THEN last_value ELSE 0 END FROM ps_version"
        return int(await pool.value(sql))
    kept: Any = await pool.value(
        f"SELECT greatest((SELECT max(ps_version) FROM {table.name}), "
        "(SELECT v::bigint FROM ps_meta WHERE k = 'newest:' || $1))",
        etype,
    )
    return int(kept or 0)
