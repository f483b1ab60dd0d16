"""A table of the application's own as the home of an entity type: read and written as it is, never altered.

What polystore keeps of each row stands beside it in `ps_row`, written in the same transaction. A row without an entry
there was written by somebody else: it is read like the others, at version 0, until `following.follow` takes it over.
Values have the forms that SQLAlchemy's types give them. There is one tenant, "".
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import sqlalchemy as sa

from polystore.model import Body, Key
from polystore.protocols import Layout
from polystore.relational import Statements
from polystore.relational.application import Convert, Form, FormCodec, check_columns, check_foreign_keys
from polystore_adapters.sqlite.dialect import Codec, SqliteDialect
from polystore_adapters.sqlite.facets import FacetRow
from polystore_adapters.sqlite.many import Insert
from polystore_adapters.sqlite.table import DIALECT, META_COLUMNS, Draft, RecordTable

if TYPE_CHECKING:
    from polystore.mapped import MappedClass

TABLES = (
    "CREATE TABLE IF NOT EXISTS ps_row (rid INTEGER PRIMARY KEY, etype TEXT NOT NULL, tenant TEXT NOT NULL, "
    "id NOT NULL, version INTEGER NOT NULL, h INTEGER NOT NULL, hash BLOB NOT NULL, updated_at INTEGER NOT NULL, "
    "expires_at INTEGER, UNIQUE (etype, id, tenant))",
    "CREATE INDEX IF NOT EXISTS ps_row_h ON ps_row (etype, h)",
    "CREATE TABLE IF NOT EXISTS ps_touch (etype TEXT NOT NULL, id NOT NULL, PRIMARY KEY (etype, id)) WITHOUT ROWID",
)
"""`id` is what the key column of the application's table holds: a number or a text, each as it is."""
_MOVES = ("CASCADE", "SET NULL", "SET DEFAULT")
"""What a foreign key can do to rows without anybody writing them."""

Noted = tuple[int, int, bytes, int]
"""Number of a row, version, content hash, and when it ends; 0: never."""


class _Codec(FormCodec, Codec):
    """For a table of the application: its columns' types decide."""


class _Dialect(SqliteDialect):
    """Conditions compare with what the columns hold."""

    listed = SqliteDialect.listed - {"decimal"}  # kept as floats

    def __init__(self, forms: Mapping[str, Form]) -> None:
        self._forms = forms

    def encoder(self, field: str, kind: str) -> Convert | None:
        return self._forms[field].encode


class ApplicationTable(RecordTable):
    """SQL and value forms of an entity type whose home is a table of the application."""

    shared = True
    _among = ""  # the hashes of all rows are in one index

    def _describe(self) -> None:
        mapped = self.entity.mapped
        assert mapped is not None
        self.mapped: MappedClass[Any] = mapped
        self.name = mapped.table.name
        self._forms = {name: Form(mapped.columns[name], DIALECT.compiler) for name in self.entity.fields}
        self.codec = _Codec(self.entity, self._forms)
        self._column = {name: _quoted(mapped.columns[name].column.name) for name in self._forms}
        self._table, self._pk = _quoted(self.name), self._column[self.key]
        fields = ", ".join(f'u.{column} AS "{name}"' for name, column in self._column.items())
        # Either side may be the one that is looked up: SQLite takes no index of `id`, which has no type, for a typed
        # column, so one of the equalities is with the column's bare value.
        self.source = (
            "(SELECT coalesce(r.rid, 0) AS ps_rid, '' AS ps_tenant, coalesce(r.version, 0) AS ps_version, r.h AS ps_h, "
            "coalesce(r.hash, x'') AS ps_hash, coalesce(r.updated_at, 0) AS ps_updated_at, r.expires_at AS "
            f"ps_expires_at, {fields} FROM {self._table} u LEFT JOIN ps_row r "
            f"ON r.etype = '{self.etype}' AND r.tenant = '' AND r.id = +u.{self._pk} AND u.{self._pk} = r.id)"
        )
        kinds = {name: DIALECT.types[spec.kind.name] for name, spec in self.entity.fields.items()}
        columns: list[sa.ColumnClause[Any]] = [
            sa.column(name) for name in ("ps_rid", "ps_tenant", "ps_h", *META_COLUMNS)
        ]
        columns += [sa.column(name, type_) for name, type_ in kinds.items()]
        source = sa.text(self.source[1:-1]).columns(*columns).subquery("t")
        self.statements = Statements(source, (*META_COLUMNS, *self.codec.names), self.key, _Dialect(self._forms))

    def _write_sql(self) -> None:
        super()._write_sql()
        table, pk, of_type = self._table, self._pk, f"etype = '{self.etype}'"
        columns = [*self._column.values()]
        changes = ", ".join(f"{one} = excluded.{one}" for one in columns if one != pk)
        action = f"UPDATE SET {changes}" if changes else "NOTHING"
        self._upsert = Insert(table, columns, f" ON CONFLICT ({pk}) DO {action}")
        self._delete_sql = f"DELETE FROM {table} WHERE {pk} = ?"
        self._last_rid_sql = "SELECT coalesce(max(rid), 0) FROM ps_row"
        fields = ", ".join(f'"{name}"' for name in self.codec.names)
        self.page_sql = (
            f'SELECT ps_rid, ps_tenant, "{self.key}", ps_version, {fields} FROM {self.source} WHERE ps_rid > ? '
            "ORDER BY ps_rid LIMIT ?"
        )
        self.tenants_sql = f"SELECT '' FROM {table} LIMIT 1"
        self.expiring_sql = f"SELECT 1 FROM ps_row WHERE {of_type} AND expires_at IS NOT NULL LIMIT 1"
        self.expired_sql = f"SELECT '', id FROM ps_row WHERE {of_type} AND expires_at <= ? LIMIT ?"
        self.keys_sql = (
            f"SELECT '', id, h, version FROM ps_row WHERE {of_type} AND tenant = ? AND id > ? ORDER BY id LIMIT ?"
        )
        self.since_sql = f"SELECT '', id, h, version AS ps_version FROM ps_row WHERE {of_type}"
        among = f"FROM json_each(?) k CROSS JOIN ps_row r ON r.{of_type} AND r.id = k.value AND r.tenant = ''"
        self._known_sql = f"SELECT r.id, r.rid, r.version, r.hash, r.expires_at {among}"
        self.strays_sql = (
            f'SELECT "{self.key}" FROM {self.source} WHERE ps_hash = x\'\' AND "{self.key}" > ? ORDER BY 1 LIMIT ?'
        )
        self.gone_sql = (
            f"SELECT r.id FROM ps_row r LEFT JOIN {table} u ON u.{pk} = r.id WHERE r.{of_type} AND u.{pk} IS NULL "
            "LIMIT ?"
        )

    # -- keys and values --------------------------------------------------------------------------------------

    def with_defaults(self, db: sqlite3.Connection, body: Body) -> Body:
        lacking = [name for name, form in self._forms.items() if name not in body and form.default is not None]
        return {**body, **{name: self._default(db, name) for name in lacking}} if lacking else body

    def _default(self, db: sqlite3.Connection, name: str) -> Any:
        sql = self._forms[name].default_sql(DIALECT.compiler)
        if self.entity.fields[name].kind.name in ("int", "float", "bool", "decimal"):
            sql = f"CAST({sql} AS NUMERIC)"  # as the column's own affinity does
        return self._forms[name].decode(db.execute(f"SELECT {sql}").fetchone()[0])

    def read_back(self, key: Key, columns: Sequence[Any], body: Body, hash: bytes) -> tuple[Body, bytes]:
        """A number with its column's digits, a time without its zone."""
        whole = self.codec.decode(key.id, columns)
        return whole, self.entity.content_hash(whole, bounded=True)

    # -- reading ----------------------------------------------------------------------------------------------

    def scan(
        self, db: sqlite3.Connection, tenant: str, low: int, high: int, after: tuple[int, str], limit: int
    ) -> list[Any]:
        h, id = after
        return db.execute(self._scan_sql, (tenant, max(low, h), high, h, id, limit)).fetchall()

    # -- what stands beside the rows --------------------------------------------------------------------------

    def known(self, db: sqlite3.Connection, ids: Sequence[str]) -> dict[str, Noted]:
        """What polystore noted of those of the rows that it knows."""
        wanted = msgspec.json.encode([self.key_value(id) for id in ids]).decode()
        rows = db.execute(self._known_sql, (wanted,))
        return {str(id): (rid, version, hash, ends or 0) for id, rid, version, hash, ends in rows}

    def write(self, db: sqlite3.Connection, rids: Mapping[Key, int], drafts: Mapping[Key, Draft]) -> None:
        """As `RecordTable.write`. A draft of no columns is of a row that somebody else has written already."""
        gone = [key for key, draft in drafts.items() if draft.columns is None and key in rids]
        live = [(key, draft) for key, draft in drafts.items() if draft.columns is not None]
        if gone:
            for facet in self.facets:
                facet.remove(db, [rids[key] for key in gone if rids[key]])
            db.executemany(self._delete_sql, [(self.key_value(key.id),) for key in gone])
            db.executemany("DELETE FROM ps_row WHERE rid = ?", [(rids[key],) for key in gone])
        written = [tuple(one.columns) for _, one in live if one.columns]
        if written:
            self._upsert.run(db, written)
        if live:
            self._note(db, rids, live)
        touched = [(self.etype, self.key_value(key.id)) for key in drafts]
        db.executemany("DELETE FROM ps_touch WHERE etype = ? AND id = ?", touched)

    def _note(self, db: sqlite3.Connection, rids: Mapping[Key, int], live: Sequence[tuple[Key, Draft]]) -> None:
        """Versions and facets of rows that stand."""
        fresh = self._fresh(db)
        placed = [(rids.get(key) or next(fresh), key, draft) for key, draft in live]
        db.executemany(
            "INSERT INTO ps_row (rid, etype, tenant, id, version, h, hash, updated_at, expires_at) "
            "VALUES (?, ?, '', ?, ?, ?, ?, ?, ?) ON CONFLICT (rid) DO UPDATE SET version = excluded.version, "
            "hash = excluded.hash, updated_at = excluded.updated_at, expires_at = excluded.expires_at",
            [
                (
                    *(rid, self.etype, self.key_value(key.id), one.version, one.h, one.hash, one.updated_us),
                    one.expires_us or None,
                )
                for rid, key, one in placed
            ],
        )
        rows = [
            FacetRow(rid, "", key.id, one.body or {}, one.vectors, one.version, one.keep) for rid, key, one in placed
        ]
        for facet in self.facets:
            facet.put(db, rows)

    # -- whether it can be a home -----------------------------------------------------------------------------

    def check(self, db: sqlite3.Connection, path: str) -> None:
        """Raises SchemaMismatch where the application's table is not what its class says, or is changed by foreign
        keys behind everybody's back."""
        found = {row[1] for row in db.execute(f"PRAGMA table_info({self._table})")}
        check_columns(path, self.etype, self.mapped, found)
        keys = db.execute(f"PRAGMA foreign_key_list({self._table})").fetchall()
        rules = [(row[2], event, rule) for row in keys for event, rule in (("UPDATE", row[5]), ("DELETE", row[6]))]
        moves = [one for one in rules if one[2] in _MOVES]
        if moves and not self.has_trigger(db):
            check_foreign_keys(path, self.name, moves)

    # -- the trigger ------------------------------------------------------------------------------------------

    @property
    def trigger(self) -> str:
        return f"ps_touch_{self.etype}"

    def has_trigger(self, db: sqlite3.Connection) -> bool:
        sql = "SELECT 1 FROM sqlite_master WHERE type = 'trigger' AND name = ? AND tbl_name = ?"
        return db.execute(sql, (f"{self.trigger}_update", self.name)).fetchone() is not None

    def install_trigger(self, db: sqlite3.Connection) -> None:
        """Note which rows change, whoever writes them. Idempotent."""
        for statement in TABLES:
            db.execute(statement)
        for event, rows in {"insert": ("NEW",), "update": ("OLD", "NEW"), "delete": ("OLD",)}.items():
            notes = "".join(
                f"INSERT INTO ps_touch (etype, id) SELECT '{self.etype}', {row}.{self._pk} WHERE NOT EXISTS "
                f"(SELECT 1 FROM ps_touch WHERE etype = '{self.etype}' AND id = {row}.{self._pk}); "
                for row in rows
            )
            if event == "delete":  # who inserts the key again makes another record, of which nobody has set an end
                mine = f"etype = '{self.etype}' AND id = OLD.{self._pk} AND expires_at IS NOT NULL"
                notes += f"UPDATE ps_row SET expires_at = NULL, hash = x'' WHERE {mine}; "
            db.execute(
                f'CREATE TRIGGER IF NOT EXISTS "{self.trigger}_{event}" AFTER {event.upper()} ON {self._table} '
                f"BEGIN {notes}END"
            )

    def remove_trigger(self, db: sqlite3.Connection) -> None:
        for event in ("insert", "update", "delete"):
            db.execute(f'DROP TRIGGER IF EXISTS "{self.trigger}_{event}"')


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def table_of(layout: Layout, vector_cache_bytes: int) -> RecordTable:
    """The table of an entity type in this file: a mapped class is at home in its own."""
    own = layout.home and layout.entity.mapped is not None
    return (ApplicationTable if own else RecordTable)(layout, vector_cache_bytes)
