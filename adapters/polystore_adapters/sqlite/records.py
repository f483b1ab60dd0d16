"""Records as a copy has them: brought to given versions, each only when newer than what stands."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from polystore.errors import InvalidData, PolystoreError, SchemaMismatch
from polystore.model import APPLIED, STALE, UNREADABLE, Body, Change, HashSpan, Key, Outcome, Page, Record, Stamp
from polystore_adapters.sqlite.facets import FacetRow
from polystore_adapters.sqlite.serving import check_serves
from polystore_adapters.sqlite.table import Draft, RecordTable

_TOMBSTONE_SQL = "SELECT version, deleted_at FROM ps_tombstone WHERE tenant = ? AND etype = ? AND id = ?"
_TOMBSTONES_SQL = (
    "SELECT t.id, t.version, t.deleted_at FROM json_each(?) k "
    "CROSS JOIN ps_tombstone t ON t.tenant = ? AND t.etype = ? AND t.id = k.value"
)
_BURY_SQL = "INSERT OR REPLACE INTO ps_tombstone (tenant, etype, id, version, h, deleted_at) VALUES (?, ?, ?, ?, ?, ?)"


Clock = Callable[[], int]
"""Microseconds since the epoch."""


class Tables(dict[str, RecordTable]):
    """Entity name -> its table, of the types that this repository was prepared for."""

    def __missing__(self, etype: str) -> RecordTable:
        raise SchemaMismatch(f"nothing is prepared for {etype!r}: prepare it with create=True first")


# -- reading ------------------------------------------------------------------------------------------------------


def get_one(db: sqlite3.Connection, table: RecordTable, key: Key, clock: Clock) -> Record | None:
    """The record or its tombstone; what has expired looks like one. A tombstone counts only where there is no row: a
    row is newer than it."""
    row = db.execute(table.get_sql, (key.tenant, table.key_value(key.id))).fetchone()
    if row is not None:
        if row[3] is not None and row[3] <= clock():
            return Record(key, row[0], None, b"", row[2])
        return table.record(key, row)
    gone = db.execute(_TOMBSTONE_SQL, (key.tenant, key.etype, key.id)).fetchone()
    return None if gone is None else Record(key, gone[0], None, b"", gone[1])


def get_many(db: sqlite3.Connection, tables: Tables, keys: Sequence[Key], clock: Clock) -> list[Record | None]:
    if len(keys) == 1:
        return [get_one(db, tables[keys[0].etype], keys[0], clock)]
    now = clock()
    found: dict[Key, Record] = {}
    for (etype, tenant), ids in by_table(keys).items():
        rows = tables[etype].stored(db, tenant, ids, bodies=True)
        for id, row in rows.items():
            key = Key(tenant, etype, id)
            if 0 < row.expires_us <= now:
                found[key] = Record(key, row.version, None, b"", row.updated_us)
            else:
                found[key] = Record(key, row.version, row.body, row.hash, row.updated_us, row.expires_us)
        missing = [id for id in ids if id not in rows]
        for id, (version, deleted_us) in tombstones(db, etype, tenant, missing).items():
            key = Key(tenant, etype, id)
            found[key] = Record(key, version, None, b"", deleted_us)
    return [found.get(key) for key in keys]


def by_table(keys: Iterable[Key]) -> dict[tuple[str, str], list[str]]:
    """(entity name, tenant) -> ids, each once."""
    out: dict[tuple[str, str], dict[str, None]] = {}
    for key in keys:
        out.setdefault((key.etype, key.tenant), {})[key.id] = None
    return {place: list(ids) for place, ids in out.items()}


def tombstones(db: sqlite3.Connection, etype: str, tenant: str, ids: Sequence[str]) -> dict[str, tuple[int, int]]:
    """id -> (version, time of the deletion) of the ids that have a tombstone."""
    if not ids:
        return {}
    rows = db.execute(_TOMBSTONES_SQL, (json.dumps(ids), tenant, etype))
    return {id: (version, deleted_us) for id, version, deleted_us in rows}


def scan(
    db: sqlite3.Connection,
    table: RecordTable,
    tenant: str,
    span: HashSpan,
    cursor: str | None,
    limit: int,
    now_us: int,
) -> Page:
    """See `Repository.scan`. What each facet has is compared with the row, too."""
    after: tuple[int, str] = (-1, "") if cursor is None else tuple(json.loads(cursor))
    try:
        rows = table.scan(db, tenant, span.low, span.high, after, limit + 1)
    except sqlite3.OperationalError as e:
        if hasattr(e, "sqlite_errorcode"):
            raise
        rows = _scan_damaged(db, table, tenant, span, after, limit + 1)
    more = len(rows) > limit
    del rows[limit:]
    last = rows[-1] if rows else None
    rows = [row for row in rows if row[6] is None or row[6] > now_us]
    sealed = {
        row[0]: one
        for row in rows
        if not any(isinstance(value, _Damaged) for value in row) and (one := table.codec.sealed(row[2], row[7:]))
    }
    readable = [row for row in rows if row[0] in sealed]
    facet_rows = [FacetRow(row[0], tenant, row[2], sealed[row[0]][0], {}, row[3]) for row in readable]
    faults = {row[0]: UNREADABLE for row in rows if row[0] not in sealed}
    if table.shared:
        changed = "the row was changed by somebody else, and not taken over yet"
        faults |= {row[0]: changed for row in readable if row[4] != sealed[row[0]][1]}
    for facet in table.facets:
        for rid, fault in facet.faults(db, facet_rows).items():
            faults[rid] = f"{faults[rid]}; {fault}" if rid in faults else fault
    digests: Mapping[int, Mapping[str, int]] = {} if table.vector is None else table.vector.digests(db, facet_rows)
    hashes = {rid: hash for rid, (_, hash) in sealed.items()}
    stamps = [
        Stamp(id, h, version, hashes.get(rid, b""), False, digests.get(rid, {}), faults.get(rid, ""))
        for rid, h, id, version, *_ in rows
    ]
    return Page(stamps, json.dumps([last[1], last[2]]) if more and last is not None else None)


def _scan_damaged(
    db: sqlite3.Connection, table: RecordTable, tenant: str, span: HashSpan, after: tuple[int, str], limit: int
) -> list[Any]:
    """The same rows where a text is no UTF-8."""
    factory, db.text_factory = db.text_factory, _text
    try:
        return table.scan(db, tenant, span.low, span.high, after, limit)
    finally:
        db.text_factory = factory


class _Damaged(str):
    """A text that is no UTF-8, to be told."""

    __slots__ = ()


def _text(stored: bytes) -> str:
    try:
        return stored.decode()
    except UnicodeDecodeError:
        return _Damaged(stored, "utf-8", "backslashreplace")


def expired(db: sqlite3.Connection, tables: Tables, etypes: Sequence[str], now_us: int, limit: int) -> list[Key]:
    """See `SupportsJournal.expired`."""
    keys: list[Key] = []
    for etype in etypes:
        rows = db.execute(tables[etype].expired_sql, (now_us, limit - len(keys)))
        keys += [Key(tenant, etype, str(id)) for tenant, id in rows]
    return keys


# -- writing ------------------------------------------------------------------------------------------------------


def apply(db: sqlite3.Connection, tables: Tables, changes: Sequence[Change]) -> list[Outcome | Exception]:
    """See `Repository.apply`: the newest change of a key that is newer than what stands wins, all in one write.

    Reading what stands and writing are one transaction of the only writer, so nothing comes between.
    """
    standing: dict[Key, int] = {}
    rids: dict[Key, int] = {}
    for (etype, tenant), ids in by_table(change.key for change in changes).items():
        rows = tables[etype].stored(db, tenant, ids, bodies=False)
        for id, row in rows.items():
            key = Key(tenant, etype, id)
            standing[key], rids[key] = row.version, row.rid
        for id, (version, _) in tombstones(db, etype, tenant, [id for id in ids if id not in rows]).items():
            standing[Key(tenant, etype, id)] = version
    newest: dict[Key, int] = {}
    drafts: dict[Key, Draft] = {}
    outcomes: list[Outcome | Exception] = [STALE] * len(changes)
    for i, change in sorted(enumerate(changes), key=lambda pair: pair[1].version):
        key = change.key
        if not change.replaces(standing.get(key, -1)):
            continue
        try:
            drafts[key] = draft(tables[key.etype], change)
        except PolystoreError as error:
            outcomes[i] = Outcome("rejected", error)
            continue
        if key in newest:
            outcomes[newest[key]] = STALE
        standing[key], newest[key], outcomes[i] = change.version, i, APPLIED
    write(db, tables, rids, drafts)
    highest: dict[str, int] = {}
    for key, one in drafts.items():
        highest[key.etype] = max(one.version, highest.get(key.etype, 0))
    for etype, version in highest.items():
        db.execute(
            "INSERT INTO ps_meta (k, v) VALUES (?, ?) ON CONFLICT (k) DO UPDATE SET v = max(v, excluded.v)",
            (f"newest:{etype}", version),
        )
    return outcomes


def newest(db: sqlite3.Connection, tables: Tables, etype: str) -> int:
    """See `Repository.newest`."""
    kept = "version" if tables[etype].layout.home else f"newest:{etype}"
    row = db.execute("SELECT v FROM ps_meta WHERE k = ?", (kept,)).fetchone()
    return 0 if row is None else int(row[0])


def draft(table: RecordTable, change: Change) -> Draft:
    """The row of a change. Raises InvalidData, DimensionMismatch."""
    if change.body is None:
        return Draft(change.version, change.h, b"", change.updated_us, None, None)
    columns = columns_of(table, change.key, change.body)
    vectors = table.layout.served(change.vectors)
    return Draft(
        *(change.version, change.h, change.hash, change.updated_us, change.body, columns, vectors),
        expires_us=change.expires_us,
    )


def columns_of(table: RecordTable, key: Key, body: Body) -> list[object]:
    """Raises InvalidData for a body whose values are not of their fields' kinds."""
    try:
        return table.columns(key, body)
    except (AttributeError, TypeError, ValueError) as e:
        raise InvalidData(f"{key.etype} {key.id!r}: the body does not fit the entity: {type(e).__name__}") from e


def write(db: sqlite3.Connection, tables: Tables, rids: Mapping[Key, int], drafts: Mapping[Key, Draft]) -> None:
    """Write the drafts: rows, facets, tombstones. A new row leaves an old tombstone behind, which says nothing any more
    and is purged with the others."""
    grouped: dict[str, dict[Key, Draft]] = {}
    buried: list[tuple[str, str, str, int, int, int]] = []
    for key, one in drafts.items():
        grouped.setdefault(key.etype, {})[key] = one
        if one.columns is None:
            buried.append((key.tenant, key.etype, key.id, one.version, one.h, one.updated_us))
    for etype, mine in grouped.items():
        if any(one.vectors for one in mine.values()):
            check_serves(db, tables[etype])
        tables[etype].write(db, rids, mine)
    if buried:
        db.executemany(_BURY_SQL, buried)
