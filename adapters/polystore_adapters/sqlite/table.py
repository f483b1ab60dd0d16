"""One entity type in a SQLite file: its table, its facets, and the SQL that reads and writes them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Any

import msgspec

from polystore.model import HASH_SPACE, Body, Key, Record, Vectors
from polystore.protocols import Layout
from polystore.relational import Statements
from polystore_adapters.sqlite.definition import SEGMENT_BITS, TABLE_COLUMNS, record_table
from polystore_adapters.sqlite.dialect import Codec, SqliteDialect
from polystore_adapters.sqlite.facets import FacetRow, RowFacet
from polystore_adapters.sqlite.facets.full_text import FullTextFacet
from polystore_adapters.sqlite.facets.graph import GraphFacet
from polystore_adapters.sqlite.facets.vector import VectorFacet
from polystore_adapters.sqlite.many import Insert

DIALECT = SqliteDialect()
META_COLUMNS = ("ps_version", "ps_hash", "ps_updated_at", "ps_expires_at")
_SEGMENT = f"ps_rid >> {SEGMENT_BITS}"


class Row(msgspec.Struct, gc=False):
    """A live row as it stands in the file. `body` is read only where it is asked for."""

    rid: int
    version: int
    hash: bytes
    updated_us: int
    expires_us: int = 0
    body: Body | None = None


class Draft(msgspec.Struct, gc=False):
    """What a row is to become. `columns` None: deleted. `keep`: vector fields that stay as they are."""

    version: int
    h: int
    hash: bytes
    updated_us: int
    body: Body | None
    columns: Sequence[Any] | None
    vectors: Vectors = {}
    keep: frozenset[str] = frozenset()
    expires_us: int = 0


class RecordTable:
    """SQL and value forms of one entity type. Holds no data, so that all connections share it."""

    shared = False
    """Whether the rows are the application's own, see `ApplicationTable`."""
    _among = f"{_SEGMENT} IN (SELECT value FROM json_each(?)) AND "
    """Segments of the index of hashes, see `SEGMENT_BITS`."""

    def __init__(self, layout: Layout, vector_cache_bytes: int) -> None:
        self.layout = layout
        self.entity = entity = layout.entity
        self.etype = entity.name
        self.key = entity.key
        self._describe()
        self.full_text = (
            FullTextFacet(entity, self.source) if "full_text" in layout.facets and entity.full_text else None
        )
        self.vector = (
            VectorFacet(entity, layout.vectors, vector_cache_bytes, self.source)
            if "vector" in layout.facets and layout.vectors
            else None
        )
        self.graph = GraphFacet(entity) if "graph" in layout.facets and entity.relations else None
        self.facets: list[RowFacet] = [f for f in (self.full_text, self.vector, self.graph) if f is not None]
        self.unique = entity.unique if layout.home else ()
        self.plain = not (self.shared or self.unique or self.vector or entity.files or entity.embeddings)
        """Whether a new record is a row and what its facets make of it, and nothing besides."""
        self._key_index = self.codec.names.index(entity.key)
        self.int_key = entity.fields[entity.key].kind.name == "int"
        self._write_sql()

    def _describe(self) -> None:
        """What is read: the columns' forms, and the table as it stands behind FROM."""
        self.codec = Codec(self.entity)
        self.source = f'"{self.etype}"'
        self.definition = record_table(self.entity, DIALECT, home=self.layout.home)
        self.statements = Statements(self.definition.alias("t"), (*META_COLUMNS, *self.codec.names), self.key, DIALECT)

    def check(self, db: sqlite3.Connection, path: str) -> None:
        """Raises SchemaMismatch where the file cannot hold it."""

    def _write_sql(self) -> None:
        table, key = self.source, f'"{self.key}"'
        fields = ", ".join(f'"{name}"' for name in self.codec.names)
        meta = ", ".join(META_COLUMNS)
        self.get_sql = f"SELECT {meta}, {fields} FROM {table} WHERE ps_tenant = ? AND {key} = ?"
        among = f"FROM json_each(?) k CROSS JOIN {table} t ON t.ps_tenant = ? AND t.{key} = k.value"
        t_fields = ", ".join(f't."{name}"' for name in self.codec.names)
        t_meta = ", ".join(f"t.{name}" for name in META_COLUMNS)
        self._versions_sql = f"SELECT t.{key}, t.ps_rid, {t_meta} {among}"
        self._rows_sql = f"SELECT t.{key}, t.ps_rid, {t_meta}, {t_fields} {among}"
        self._unique_sql = {
            name: f'SELECT {key} FROM {table} WHERE ps_tenant = ? AND "{name}" = ?' for name in self.unique
        }
        columns = [*TABLE_COLUMNS, *(f'"{name}"' for name in self.codec.names)]
        kept = {"ps_rid", "ps_tenant", "ps_h", f'"{self.key}"'}
        assignments = ", ".join(f"{column} = excluded.{column}" for column in columns if column not in kept)
        self._insert = Insert(table, columns[1:])
        self._upsert = Insert(table, columns, f" ON CONFLICT (ps_rid) DO UPDATE SET {assignments}")
        nulls = ", ".join(f'"{name}" = NULL' for name in self.unique)
        self._free_sql = f"UPDATE {table} SET {nulls} WHERE ps_rid = ?" if nulls else None
        self._delete_sql = f"DELETE FROM {table} WHERE ps_rid = ?"
        self.owe_sql = (
            "INSERT INTO ps_outbox (version, tenant, etype, id, h, targets, owner, claimed_at, claims, created_at) "
            f"SELECT ps_version, ps_tenant, ?, {key}, ps_h, ?, ?, ?, 0, ps_updated_at FROM {table} WHERE ps_rid >= ?"
        )
        self._last_rid_sql = f"SELECT coalesce(max(ps_rid), 0) FROM {table}"
        self.page_sql = f"SELECT ps_rid, ps_tenant, {key}, ps_version, {fields} FROM {table} WHERE ps_rid > ? LIMIT ?"
        self._scan_sql = (
            f"SELECT ps_rid, ps_h, CAST({key} AS TEXT) AS ps_id, {meta}, {fields} FROM {table} "
            f"WHERE {self._among}ps_tenant = ? AND ps_h >= ? AND ps_h < ? AND (ps_h > ? OR CAST({key} AS TEXT) > ?) "
            "ORDER BY ps_h, ps_id LIMIT ?"
        )
        next_ = f"SELECT min({_SEGMENT}) FROM {table}"
        self._segments_sql = (
            f"WITH RECURSIVE s (i) AS ({next_} UNION ALL SELECT ({next_} WHERE {_SEGMENT} > s.i) FROM s "
            "WHERE s.i IS NOT NULL) SELECT i FROM s WHERE i IS NOT NULL"
        )
        self.tenants_sql = f"SELECT DISTINCT ps_tenant FROM {table} ORDER BY 1"
        self.expiring_sql = f"SELECT 1 FROM {table} WHERE ps_expires_at IS NOT NULL LIMIT 1"
        self.expired_sql = f"SELECT ps_tenant, {key} FROM {table} WHERE ps_expires_at <= ? LIMIT ?"
        self.keys_sql = (
            f"SELECT ps_tenant, {key}, ps_h, ps_version FROM {table} WHERE (ps_tenant, {key}) > (?, ?) "
            f"ORDER BY ps_tenant, {key} LIMIT ?"
        )
        self.since_sql = f"SELECT ps_tenant, {key}, ps_h, ps_version FROM {table}"

    # -- keys and values --------------------------------------------------------------------------------------

    def key_value(self, id: str) -> Any:
        """What the key column holds."""
        return int(id) if self.int_key else id

    def columns(self, key: Key, body: Body) -> list[Any]:
        """The fields' columns. The key's column is the key itself, whose text may be the body's in another form."""
        values = self.codec.encode(body)
        values[self._key_index] = int(key.id) if self.int_key else key.id
        return values

    def record(self, key: Key, row: Sequence[Any]) -> Record:
        """The record of a row of `get_sql` or of `statements.find`. Raises DecodeError."""
        return Record(key, row[0], self.codec.decode(key.id, row[4:]), row[1], row[2], row[3] or 0)

    def with_defaults(self, db: sqlite3.Connection, body: Body) -> Body:
        """The body with what only the database can tell."""
        return body

    def read_back(self, key: Key, columns: Sequence[Any], body: Body, hash: bytes) -> tuple[Body, bytes]:
        """The body and its hash as the columns will give them back."""
        return body, hash

    # -- reading ----------------------------------------------------------------------------------------------

    def stored(self, db: sqlite3.Connection, tenant: str, ids: Sequence[str], *, bodies: bool) -> dict[str, Row]:
        """The live rows among these ids."""
        wanted = msgspec.json.encode([self.key_value(id) for id in ids]).decode()
        if not bodies:
            rows = db.execute(self._versions_sql, (wanted, tenant))
            return {str(id): Row(rid, version, hash, us, ends or 0) for id, rid, version, hash, us, ends in rows}
        return {
            str(id): Row(rid, version, hash, us, ends or 0, self.codec.decode(str(id), fields))
            for id, rid, version, hash, us, ends, *fields in db.execute(self._rows_sql, (wanted, tenant))
        }

    def found(self, db: sqlite3.Connection, tenant: str, sql: str, parameters: Sequence[Any]) -> list[Record]:
        """The records of a query of `statements.find`."""
        key = len(META_COLUMNS) + self._key_index
        return [self.record(Key(tenant, self.etype, str(row[key])), row) for row in db.execute(sql, parameters)]

    def holder(self, db: sqlite3.Connection, tenant: str, field: str, value: Any) -> str | None:
        """The id of the stored record with this value of a unique field."""
        row = db.execute(self._unique_sql[field], (tenant, value)).fetchone()
        return None if row is None else str(row[0])

    def scan(
        self, db: sqlite3.Connection, tenant: str, low: int, high: int, after: tuple[int, str], limit: int
    ) -> list[Any]:
        """The first rows of a hash range after (h, id): rid, h, id, version, hash, updated_us, expires_us, fields.

        Of every segment a part of the range is read. Hashes are spread evenly: the part is to all hashes what the rows
        wanted are to all rows there can be, and is widened where rows were deleted or are of other tenants."""
        h, id = after
        low = max(low, h)
        segments = [i for (i,) in db.execute(self._segments_sql)]
        most = min(len(segments) << SEGMENT_BITS, self._last_rid(db))
        among = msgspec.json.encode(segments).decode()
        rows: list[Any] = []
        wider = 1
        while len(rows) < limit and low < high:
            lack = limit - len(rows)
            top = min(high, low + 1 + wider * (lack + lack // 8 + 32) * HASH_SPACE // max(1, most))
            rows += db.execute(self._scan_sql, (among, tenant, low, top, h, id, lack))
            low, wider = top, 2 * wider
        return rows

    # -- writing ----------------------------------------------------------------------------------------------

    def write(self, db: sqlite3.Connection, rids: Mapping[Key, int], drafts: Mapping[Key, Draft]) -> None:
        """Bring the rows and their facets to the drafts. `rids`: the rows that stand in the file."""
        gone = [rids[key] for key, draft in drafts.items() if draft.columns is None and key in rids]
        live = [(key, draft) for key, draft in drafts.items() if draft.columns is not None]
        if gone:
            for facet in self.facets:
                facet.remove(db, gone)
            db.executemany(self._delete_sql, [(rid,) for rid in gone])
        if not live:
            return
        fresh = self._fresh(db) if any(key not in rids for key, _ in live) else iter(())
        placed = [(rids[key] if key in rids else next(fresh), key, draft) for key, draft in live]
        if self._free_sql is not None and len(placed) > 1:
            # Values go from record to record in one commit, in an order that the final rows do not show.
            db.executemany(self._free_sql, [(rids[key],) for _, key, _ in placed if key in rids])
        self._upsert.run(
            db,
            [
                (
                    *(rid, key.tenant, one.version, one.h, one.hash, one.updated_us, one.expires_us or None),
                    *(one.columns or ()),
                )
                for rid, key, one in placed
            ],
        )
        if self.facets:
            rows = [
                FacetRow(rid, key.tenant, key.id, one.body or {}, one.vectors, one.version, one.keep)
                for rid, key, one in placed
            ]
            for facet in self.facets:
                facet.put(db, rows)

    def insert(self, db: sqlite3.Connection, values: list[Any], rows: int) -> range:
        """Add rows that are not there, of all columns but the row number, which is the answer. Facets are apart."""
        first = self._last_rid(db) + 1
        self._insert.flat(db, values)
        return range(first, first + rows)

    def _fresh(self, db: sqlite3.Connection) -> Iterator[int]:
        """Row numbers that no row has."""
        return count(self._last_rid(db) + 1)

    def _last_rid(self, db: sqlite3.Connection) -> int:
        (last,) = db.execute(self._last_rid_sql).fetchone()
        return int(last)
