"""Records as a copy has them: brought to given versions, each only when newer than what stands."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from polystore.errors import IntegrityViolation, InvalidData, PolystoreError, SchemaMismatch
from polystore.model import (
    APPLIED,
    FIRST_VERSION,
    STALE,
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
from polystore.relational.deciding import Draft
from polystore_adapters.mysql import graph
from polystore_adapters.mysql.dialect import decode_json, encode_json
from polystore_adapters.mysql.pool import Pool, Session
from polystore_adapters.mysql.table import META, RecordTable

TOMBSTONES_SQL = "SELECT id, version, deleted_at FROM ps_tombstone WHERE tenant = %s AND etype = %s AND id IN %s"


class Tables(dict[str, RecordTable]):
    """Entity name -> its table, of the types that this repository was prepared for."""

    def __missing__(self, etype: str) -> RecordTable:
        raise SchemaMismatch(f"nothing is prepared for {etype!r}: prepare it with create=True first")


def by_table(keys: Iterable[Key]) -> dict[tuple[str, str], list[str]]:
    """(entity name, tenant) -> ids, each once, sorted."""
    out: dict[tuple[str, str], set[str]] = {}
    for key in keys:
        out.setdefault((key.etype, key.tenant), set()).add(key.id)
    return {place: sorted(out[place]) for place in sorted(out)}


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
    """See `Repository.scan`. What each facet has is compared with the row, too."""
    h, id = (-1, "") if cursor is None else decode_json(cursor)
    stamps: list[Stamp] = []
    bodies: list[tuple[str, Body]] = []
    fields = 1 + len(META) + len(table.codec.names) + 1
    async with pool.session() as db:
        now_us = pool.clock.now_us()
        rows = await db.fetch(table.scan_sql, tenant, max(span.low, h), span.high, h, id, now_us, limit + 1)
        for row in rows[:limit]:
            id = table.id_of(row, 1)
            body = table.codec.decode(id, row[1 + len(META) : fields])
            fault = ""
            if table.full_text is not None and row[-1] != table.full_text.expected(body):
                fault = "full text: the indexed terms are not those of the text"
            digests = {field: vector_digest(one) for field, one in table.vectors_of(row[fields:]).items()}
            stamps.append(Stamp(id, row[0], row[1], table.entity.content_hash(body), False, digests, fault))
            bodies.append((id, body))
        if table.edges is not None and bodies:
            stamps = await graph.compared(db, table, tenant, stamps, bodies)
    last = stamps[-1] if stamps else None
    return Page(stamps, encode_json([last.h, last.id]) if len(rows) > limit and last is not None else None)


# -- writing ------------------------------------------------------------------------------------------------------


def draft(table: RecordTable, change: Change) -> Draft:
    """The row of a change. Raises InvalidData, DimensionMismatch."""
    if change.body is None:
        return Draft(change.version, change.h, b"", change.updated_us, None, None)
    columns = table.columns(change.key, change.body)
    vectors = table.layout.served(change.vectors)
    return Draft(
        *(change.version, change.h, change.hash, change.updated_us, change.body, columns, vectors),
        expires_us=change.expires_us,
    )


async def apply(pool: Pool, tables: Tables, changes: Sequence[Change]) -> list[Outcome]:
    """See `Repository.apply`: of a key's changes only the newest is sent, and wins only over what is older."""
    newest: dict[Key, int] = {}
    drafts: dict[str, dict[Key, Draft]] = {}
    outcomes: list[Outcome] = [STALE] * len(changes)
    for i, change in sorted(enumerate(changes), key=lambda pair: pair[1].version):
        try:
            one = draft(tables[change.key.etype], change)
        except PolystoreError as error:
            outcomes[i] = Outcome("rejected", error)
            continue
        drafts.setdefault(change.key.etype, {})[change.key] = one
        newest[change.key] = i
    for etype in sorted(drafts):
        for key, why in (await _apply(pool, tables[etype], drafts[etype])).items():
            outcomes[newest[key]] = APPLIED if why is None else Outcome("rejected", why)
    return outcomes


async def _apply(pool: Pool, table: RecordTable, drafts: Mapping[Key, Draft]) -> dict[Key, PolystoreError | None]:
    """The keys that were written, and those that cannot be."""
    try:
        if table.edges is None and (table.full_text is None or not pool.flavour.texts_alone):
            async with pool.session(sent=True) as db:
                return dict.fromkeys(await _write(db, table, drafts))
        async with pool.transaction() as db:
            written = await _write(db, table, drafts)
            if table.edges is not None:
                await graph.replace(db, table, {key: drafts[key].body for key in written})  # under the rows' locks
            return dict.fromkeys(written)
    except (InvalidData, IntegrityViolation) as error:
        if len(drafts) == 1:
            return dict.fromkeys(drafts, error)
    found: dict[Key, PolystoreError | None] = {}
    for key, one in drafts.items():
        found.update(await _apply(pool, table, {key: one}))
    return found


async def _write(db: Session, table: RecordTable, drafts: Mapping[Key, Draft]) -> list[Key]:
    """What was newer than what stood. What is sent is guarded again: another writer may come between."""
    before = await _versions(db, table, drafts)
    newer = {key: one for key, one in drafts.items() if one.version > before.get(key, -1)}
    await db.insert(table.insert_sql, table.rows(newer), table.apply_sql, texts=table.full_text is not None)
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
