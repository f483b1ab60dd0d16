"""Records as a copy has them: brought to given versions, each only when newer than what stands."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from polystore.model import (
    FIRST_VERSION,
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
from polystore.relational.deciding import Draft
from polystore.relational.records import Prepared, by_table
from polystore_adapters.mysql import graph
from polystore_adapters.mysql.dialect import decode_json, encode_json
from polystore_adapters.mysql.pool import Pool, Session
from polystore_adapters.mysql.table import META, RecordTable

TOMBSTONES_SQL = "SELECT id, version, deleted_at FROM ps_tombstone WHERE tenant = %s AND etype = %s AND id IN %s"


Tables = Prepared[RecordTable]

# -- reading ------------------------------------------------------------------------------------------------------


async def get(pool: Pool, tables: Tables, keys: Sequence[Key]) -> list[Record | None]:
    """See `Repository.get`. A tombstone counts only where there is no row: a row is newer than it."""
    found: dict[Key, Record] = {}
    for (etype, tenant), ids in by_table(keys).items():
        table = tables[etype]
        async with pool.session() as db:
            now_us = pool.clock.now_us()
            for row in await db.fetch(table.get_sql, tenant, table.key_values(ids)):
                key = Key(tenant, etype, table.id_of(row))
                gone = row[-1] or (row[3] is not None and row[3] <= now_us)
                found[key] = Record(key, row[0], None, b"", row[2]) if gone else table.record(key, row)
            missing = tuple(id for id in ids if Key(tenant, etype, id) not in found)
            if table.home and missing:
                for id, version, deleted_us in await db.fetch(TOMBSTONES_SQL, tenant, etype, missing):
                    key = Key(tenant, etype, id)
                    found[key] = Record(key, version, None, b"", deleted_us)
    return [found.get(key) for key in keys]


async def scan(pool: Pool, table: RecordTable, tenant: str, span: HashSpan, cursor: str | None, limit: int) -> Page:
    """See `Repository.scan`. What each facet has is compared with the row, too, as it was at the same moment.

    The order is that of the keys' texts, which an index of numbers has not: there the page's last hash is asked for
    first, else each page would sort all that is still to come.
    """
    h, id = (-1, "") if cursor is None else decode_json(cursor)
    stamps: list[Stamp] = []
    bodies: dict[str, Body] = {}
    fields = 1 + len(META) + len(table.codec.names) + 1
    async with pool.snapshot() as db:
        low, high, after = max(span.low, h), span.high, (h, id, pool.clock.now_us())
        if table.kind == "int":
            last = await db.value(table.page_end_sql, tenant, low, high, *after, limit)
            high = high if last is None else last + 1
        rows = await db.fetch(table.scan_sql, tenant, low, high, *after, limit + 1)
        for row in rows[:limit]:
            id = table.id_of(row, 1)
            sealed = table.codec.sealed(id, row[1 + len(META) : fields])
            if sealed is None:
                stamps.append(Stamp(id, row[0], row[1], b"", fault=UNREADABLE))
                continue
            body, hash = sealed
            fault = ""
            if table.full_text is not None and row[-1] != table.full_text.expected(body):
                fault = "full text: the indexed terms are not those of the text"
            digests = {field: vector_digest(one) for field, one in table.vectors_of(row[fields:]).items()}
            stamps.append(Stamp(id, row[0], row[1], hash, False, digests, fault))
            bodies[id] = body
        if table.edges is not None and bodies:
            stamps = await graph.compared(db, table, tenant, stamps, bodies)
    return Page(stamps, encode_json([stamps[-1].h, stamps[-1].id]) if len(rows) > limit and stamps else None)


# -- writing ------------------------------------------------------------------------------------------------------


async def apply(pool: Pool, tables: Tables, changes: Sequence[Change]) -> list[Outcome]:
    """See `Repository.apply`."""

    async def write(table: RecordTable, drafts: Mapping[Key, Draft]) -> list[Key]:
        if table.edges is None and (table.full_text is None or not pool.flavour.texts_alone):
            async with pool.session(sent=True) as db:
                written = await _write(db, table, drafts)
                await db.flush()
                return written
        async with pool.transaction() as db:
            written = await _write(db, table, drafts)
            if table.edges is not None:
                await graph.replace(db, table, {key: drafts[key].body for key in written})  # under the rows' locks
            return written

    return await relational.apply(tables, changes, write)


async def _write(db: Session, table: RecordTable, drafts: Mapping[Key, Draft]) -> list[Key]:
    """What was newer than what stood. What is sent is guarded again: another writer may come between. Only the edges of
    what has won are replaced, so where there are some, what stands then is asked for."""
    before = await _versions(db, table, drafts)
    again = any(one.overwrites for one in drafts.values())
    newer = {key: one for key, one in drafts.items() if one.version + again > before.get(key, -1)}
    guard = table.overwrite_sql if again else table.apply_sql
    await db.insert(table.insert_sql, table.rows(newer), guard, texts=table.full_text is not None)
    if table.edges is None:
        return list(newer)
    stand = await _versions(db, table, newer)
    return [key for key, one in newer.items() if stand.get(key) == one.version]


async def _versions(db: Session, table: RecordTable, keys: Iterable[Key]) -> dict[Key, int]:
    """The versions that stand, tombstones' too."""
    asked = {
        tenant: db.later(table.versions_sql, tenant, table.key_values(ids))
        for (_, tenant), ids in by_table(keys).items()
    }
    await db.flush()
    return {Key(tenant, table.etype, str(row[0])): row[1] for tenant, rows in asked.items() for row in rows}


async def newest(pool: Pool, tables: Tables, etype: str) -> int:
    """See `Repository.newest`. A copy keeps its tombstones, and so its highest version."""
    table = tables[etype]
    if table.home:
        async with pool.session() as db:
            last = int(await db.value(db.flavour.newest))
        return last if last > FIRST_VERSION else 0
    return int(await pool.value(f"SELECT MAX(ps_version) FROM {table.name}") or 0)
