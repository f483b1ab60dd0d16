"""One entity type in MariaDB: its table, and the SQL that reads and writes it.

At a home a deleted record's row is gone and its tombstone stands in `ps_tombstone`. In a copy the row stays as the
tombstone, `ps_deleted`: so one statement compares versions and writes, whatever else is under way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from polystore.errors import EntityError
from polystore.model import Body, Key, Record
from polystore.protocols import Layout
from polystore.relational import Statements
from polystore.relational.deciding import Draft, Row
from polystore_adapters.mysql.dialect import DECODERS, ID_CHARACTERS, NAME_MAX, Codec, MysqlDialect, ident, name_of
from polystore_adapters.mysql.full_text import FullText

DIALECT = MysqlDialect()
META = ("ps_version", "ps_hash", "ps_updated_at", "ps_expires_at")
_OWN = {
    "ps_tenant": "VARCHAR(128) NOT NULL",
    "ps_h": "BIGINT NOT NULL",
    "ps_version": "BIGINT NOT NULL",
    "ps_hash": "VARBINARY(64) NOT NULL",
    "ps_updated_at": "BIGINT NOT NULL",
    "ps_expires_at": "BIGINT",
}
_KEY_TYPES = {"str": f"VARCHAR({ID_CHARACTERS})", "int": "BIGINT", "uuid": "CHAR(36)"}
_LONG = ("str", "bytes", "decimal")
"""Kinds whose columns an index has the beginning of."""
INDEXED_CHARACTERS = 100


class RecordTable:
    """SQL and value forms of one entity type; holds no data."""

    def __init__(self, layout: Layout, indexes: Mapping[str, str] | None = None) -> None:
        """`indexes`: what it has beside its own, as in `indexes`."""
        self.layout = layout
        self.home = layout.home
        self.entity = entity = layout.entity
        self.etype = entity.name
        self.key = entity.key
        if entity.name.startswith("ps_") or len(entity.name) > NAME_MAX:
            raise EntityError(f"{entity.cls.__name__}: tables cannot be named {entity.name!r}; pass @entity(name=...)")
        self.kind = entity.fields[entity.key].kind.name
        self.codec = Codec(entity)
        self.name = ident(self.etype)
        self.full_text = FullText(entity) if "full_text" in layout.facets and entity.full_text else None
        self.vectors: Sequence[str] = tuple(layout.vectors) if "vector" in layout.facets else ()
        self.edges = ident("ps_edge", self.etype) if "graph" in layout.facets and entity.relations else None
        self.unique: Sequence[str] = entity.unique if layout.home else ()
        self._more_indexes = indexes or {}
        self._key_index = self.codec.names.index(entity.key)
        self._describe()
        self._read_sql()
        self._write_sql()

    def _describe(self) -> None:
        own: list[sa.Column[Any]] = [
            sa.Column("ps_tenant", sa.Text()),
            sa.Column("ps_version", sa.BigInteger()),
            sa.Column("ps_hash", sa.LargeBinary()),
            sa.Column("ps_updated_at", sa.BigInteger()),
            sa.Column("ps_expires_at", sa.BigInteger()),
            sa.Column("ps_exact", mysql.LONGTEXT()),
            sa.Column("ps_deleted", sa.Boolean()),
        ]
        fields = [sa.Column(name, DIALECT.types[spec.kind.name]) for name, spec in self.entity.fields.items()]
        table: sa.FromClause = sa.Table(self.etype, sa.MetaData(), *own, *fields)
        self.source = self.name
        if self.home:
            described: sa.FromClause = table.alias("t")
        else:
            self.source = f"(SELECT * FROM {self.name} WHERE NOT ps_deleted)"
            described = sa.select(table).where(sa.text("NOT ps_deleted")).subquery("t")
        self.statements = Statements(described, (*META, *self.codec.names, "ps_exact"), self.key, DIALECT)

    @property
    def facet_columns(self) -> dict[str, str]:
        """Columns of the facets: bare name -> type."""
        columns = dict(self.full_text.columns) if self.full_text is not None else {}
        return {**columns, **{vector_column(field): "LONGBLOB" for field in self.vectors}}

    @property
    def columns_sql(self) -> dict[str, str]:
        """Bare name -> type, of all columns."""
        return {
            **_OWN,
            **{name: self.type_of(name) for name in self.codec.names},
            "ps_exact": "LONGTEXT",
            **({} if self.home else {"ps_deleted": "TINYINT(1) NOT NULL"}),
            **self.facet_columns,
        }

    def type_of(self, field: str) -> str:
        """The type of a field's column. All but the key may be missing: a column that is added later has no value in
        the rows of before, and a tombstone has none."""
        if field == self.key:
            return f"{_KEY_TYPES[self.kind]} NOT NULL"
        return str(DIALECT.types[self.entity.fields[field].kind.name].compile(dialect=DIALECT.compiler))

    @property
    def indexes(self) -> dict[str, str]:
        """Bare name -> what stands behind ADD."""
        out = {
            "ps_h": "KEY {} (ps_tenant, ps_h)",
            "ps_expiry": "KEY {} (ps_expires_at)",
            "ps_versions": "KEY {} (ps_version)",
            **self._more_indexes,
        }
        for field in dict.fromkeys((*self.entity.index, *self.entity.unique)):
            kind = self.entity.fields[field].kind.name
            if field != self.key and kind != "json":
                length = f"({INDEXED_CHARACTERS})" if kind in _LONG else ""
                out[name_of("ps_index", field)] = f"KEY {{}} (ps_tenant, {ident(field)}{length})"
        if self.full_text is not None:
            out["ps_text"] = "FULLTEXT KEY {} (ps_terms)"
        return {name: text.format(ident(name)) for name, text in out.items()}

    def create_sql(self) -> str:
        columns = [f"{ident(name)} {type_}" for name, type_ in self.columns_sql.items()]
        parts = [*columns, f"PRIMARY KEY (ps_tenant, {ident(self.key)})", *self.indexes.values()]
        return f"CREATE TABLE {self.name} ({', '.join(parts)})"

    # -- statements -------------------------------------------------------------------------------------------

    def _read_sql(self) -> None:
        name, key = self.name, ident(self.key)
        read = ", ".join([*META, *(ident(one) for one in self.codec.names), "ps_exact"])
        deleted = "0" if self.home else "ps_deleted"
        vectors = "".join(f", {ident(vector_column(one))}" for one in self.vectors)
        among = f"FROM {name} WHERE ps_tenant = %s AND {key} IN %s"
        self.get_sql = f"SELECT {read}, {deleted} {among}"
        self.versions_sql = f"SELECT {key}, {', '.join(META)} {among}"
        self.rows_sql = f"SELECT {read}{vectors} {among}"
        self.holders_sql = {
            one: f"SELECT {ident(one)}, {key}, ps_expires_at FROM {name} WHERE ps_tenant = %s AND {ident(one)} IN %s"
            for one in self.unique
        }
        text = f"CAST({key} AS CHAR)" if self.kind == "int" else key
        line = ", ps_line" if self.full_text is not None else ""
        live = "" if self.home else " AND NOT ps_deleted"
        self.live = f"(t.ps_expires_at IS NULL OR t.ps_expires_at > %s){live}"
        spanned = (
            f"FROM {name} FORCE INDEX (ps_h) WHERE ps_tenant = %s AND ps_h >= %s AND ps_h < %s AND "
            f"(ps_h > %s OR {text} > %s) AND (ps_expires_at IS NULL OR ps_expires_at > %s){live}"
        )
        self.scan_sql = f"SELECT ps_h, {read}{vectors}{line} {spanned} ORDER BY ps_h, {text} LIMIT %s"
        self.page_end_sql = f"SELECT ps_h {spanned} ORDER BY ps_h LIMIT 1 OFFSET %s"
        self.tenants_sql = f"SELECT DISTINCT ps_tenant FROM {name} WHERE 1 = 1{live} ORDER BY 1"
        self.expired_sql = f"SELECT ps_tenant, {key} FROM {name} WHERE ps_expires_at <= %s{live} LIMIT %s"
        later = f"(ps_tenant = %s AND {key} > %s OR ps_tenant > %s)"  # of pairs that are compared no index is used
        self.keys_sql = (
            f"SELECT ps_tenant, {key}, ps_h, ps_version FROM {name} WHERE {later}{live} "
            f"ORDER BY ps_tenant, {key} LIMIT %s"
        )
        self.since_sql = f"SELECT ps_tenant, {key}, ps_h, ps_version FROM {name} WHERE ps_version >= %s"
        self.first_keys_sql = self.keys_sql.replace(later, "1 = 1")
        self.pages_sql = self.keys_sql.replace("ps_h, ps_version FROM", f"{read} FROM")
        self.first_pages_sql = self.first_keys_sql.replace("ps_h, ps_version FROM", f"{read} FROM")

    def _write_sql(self) -> None:
        key = ident(self.key)
        columns = [ident(one) for one in self.columns_sql]
        changed = [one for one in columns if one not in ("`ps_tenant`", "`ps_h`", "`ps_version`", key)]
        self.insert_sql = f"INSERT INTO {self.name} ({', '.join(columns)})".replace("%%", "%")
        put = ", ".join(f"{one} = VALUES({one})" for one in [*changed, "ps_version"])
        self.put_sql = f"ON DUPLICATE KEY UPDATE {put}".replace("%%", "%")
        # The version is the guard: late and repeated changes find one that is not older. It is assigned last, for what
        # stands behind it would be compared with the new one.
        self.apply_sql, self.overwrite_sql = (self._guarded(changed, compared) for compared in (">", ">="))
        self.delete_sql = f"DELETE FROM {self.name} WHERE ps_tenant = %s AND {key} IN %s"

    def _guarded(self, changed: Sequence[str], compared: str) -> str:
        newer = ", ".join(
            f"{one} = IF(VALUES(ps_version) {compared} ps_version, VALUES({one}), {one})" for one in changed
        )
        sql = f"ON DUPLICATE KEY UPDATE {newer}, ps_version = GREATEST(ps_version, VALUES(ps_version))"
        return sql.replace("%%", "%")

    # -- keys and values --------------------------------------------------------------------------------------

    def key_value(self, id: str) -> Any:
        """What the key column holds."""
        return int(id) if self.kind == "int" else id

    def key_values(self, ids: Sequence[str]) -> tuple[Any, ...]:
        return tuple(self.key_value(id) for id in ids)

    def form_of(self, field: str, value: Any) -> Any:
        """What the column holds of a value."""
        encode = DIALECT.encoder(field, self.entity.fields[field].kind.name)
        return value if encode is None else encode(value)

    def value_of(self, field: str, form: Any) -> Any:
        """The plain value of what the column holds."""
        decode = DECODERS.get(self.entity.fields[field].kind.name)
        return form if decode is None else decode(form)

    def columns(self, key: Key, body: Body) -> list[Any]:
        """The fields' columns and `ps_exact`. The key's column is the key itself. Raises InvalidData."""
        values = self.codec.encode(body)
        values[self._key_index] = self.key_value(key.id)
        return values

    def values(self, key: Key, one: Draft) -> list[Any]:
        """A row of `insert_sql`."""
        columns = one.columns
        if columns is None:
            columns = [None] * (len(self.codec.names) + 1)
            columns[self._key_index] = self.key_value(key.id)
        own = (key.tenant, one.h, one.version, one.hash, one.updated_us, one.expires_us or None)
        deleted = () if self.home else (one.columns is None,)
        text = self.full_text.values(one.body) if self.full_text is not None else ()
        return [*own, *columns, *deleted, *text, *(one.vectors.get(field) for field in self.vectors)]

    def rows(self, drafts: Mapping[Key, Draft]) -> list[list[Any]]:
        """Rows in the order of keys: all writers lock in one order."""
        return [self.values(key, drafts[key]) for key in sorted(drafts, key=lambda key: (key.tenant, key.id))]

    def record(self, key: Key, row: Sequence[Any]) -> Record:
        """The record of a row that begins with META and the fields. Raises DecodeError."""
        end = len(META) + len(self.codec.names) + 1
        return Record(key, row[0], self.codec.decode(key.id, row[len(META) : end]), row[1], row[2], row[3] or 0)

    def standing(self, key: Key, row: Sequence[Any]) -> Row:
        """A row of `rows_sql`."""
        one = self.record(key, row)
        vectors = self.vectors_of(row[len(META) + len(self.codec.names) + 1 :])
        return Row(one.version, one.hash, one.updated_us, one.expires_us, one.body, vectors)

    def id_of(self, row: Sequence[Any], first: int = 0) -> str:
        """The key of a row of META and fields that begins at `first`."""
        return str(row[first + len(META) + self._key_index])

    def vectors_of(self, values: Sequence[Any]) -> dict[str, bytes]:
        return {field: one for field, one in zip(self.vectors, values, strict=False) if one is not None}


def vector_column(field: str) -> str:
    """The bare name of the column of a field's vectors."""
    return name_of("ps_vec", field)
