"""One entity type in PostgreSQL: its table, and the SQL that reads and writes it.

At a home a deleted record's row is gone and its tombstone stands in `ps_tombstone`. In a copy the row stays as the
tombstone, `ps_deleted`: so one statement compares versions and writes, whatever else is under way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.schema import CreateColumn, CreateTable

from polystore.errors import EntityError
from polystore.model import Body, Key, Record, Vectors
from polystore.protocols import Layout
from polystore.relational import Statements
from polystore.relational.deciding import Draft as Draft
from polystore.relational.deciding import Row as Row
from polystore_adapters.postgresql.dialect import Codec, PostgresDialect, ident
from polystore_adapters.postgresql.full_text import FullText
from polystore_adapters.postgresql.pgvector import BYTES, Kept, VectorColumn
from polystore_adapters.postgresql.pool import Session

DIALECT = PostgresDialect()
META = {"ps_version": "bigint", "ps_hash": "bytea", "ps_updated_at": "bigint", "ps_expires_at": "bigint"}
LIVE = "(ps_expires_at IS NULL OR ps_expires_at > ps_now_us())"
"""By the database's clock."""
OWN = {"ps_tenant": "text", **META, "ps_h": "bigint", "ps_exact": "jsonb"}
_TYPES = {
    "str": "text",
    "int": "bigint",
    "float": "double precision",
    "bool": "boolean",
    "bytes": "bytea",
    "datetime": "timestamptz",
    "date": "date",
    "decimal": "numeric",
    "uuid": "uuid",
    "json": "jsonb",
}


class RecordTable:
    """SQL and value forms of one entity type; holds no data."""

    shared = False
    """Whether the rows are the application's own, see `ApplicationTable`."""

    def __init__(self, layout: Layout, kept: Kept = BYTES, schema: str = "") -> None:
        self.layout = layout
        self.kept = kept
        self.schema = schema
        self.home = layout.home
        self.entity = entity = layout.entity
        self.etype = entity.name
        self.key = entity.key
        if entity.name.startswith("pg_"):
            raise EntityError(f"{entity.cls.__name__}: tables cannot be named {entity.name!r}; pass @entity(name=...)")
        kind = entity.fields[entity.key].kind.name
        self._key_of: Callable[[str], Any] = {"int": int, "uuid": UUID}.get(kind, str)
        self.key_type = _TYPES[kind]
        self.codec = Codec(entity)
        self.name = self.rows = ident(self.etype)
        self.lookup = ident(self.key)
        self.full_text = FullText(entity) if "full_text" in layout.facets and entity.full_text else None
        fields = layout.vectors.items() if "vector" in layout.facets else ()
        self.vectors = {field: VectorColumn(self.etype, field, spec, kept, schema) for field, spec in fields}
        self.edges = ident("ps_edge", self.etype) if "graph" in layout.facets and entity.relations else None
        self.unique = entity.unique if layout.home else ()
        self._key_index = self.codec.names.index(entity.key)
        self._describe()
        self._write_sql()

    def _describe(self) -> None:
        types = DIALECT.types
        fields: list[sa.Column[Any]] = [
            sa.Column(name, types[spec.kind.name], nullable=name != self.key)
            for name, spec in self.entity.fields.items()
        ]
        own: list[sa.Column[Any]] = [
            sa.Column("ps_tenant", sa.Text(collation="C"), nullable=False),
            sa.Column("ps_version", sa.BigInteger(), nullable=False),
            sa.Column("ps_h", sa.BigInteger(), nullable=False),
            sa.Column("ps_hash", sa.LargeBinary(), nullable=False),
            sa.Column("ps_updated_at", sa.BigInteger(), nullable=False),
            sa.Column("ps_expires_at", sa.BigInteger()),
            sa.Column("ps_exact", DIALECT.types["json"]),
        ]
        if not self.home:
            own.append(sa.Column("ps_deleted", sa.Boolean(), nullable=False))
        key = sa.PrimaryKeyConstraint("ps_tenant", self.key, name=ident("ps_key", self.etype)[1:-1])
        self.definition = sa.Table(self.etype, sa.MetaData(), *[*own, *fields], key)
        self.live = LIVE if self.home else f"{LIVE} AND NOT ps_deleted"
        self.source = f"(SELECT * FROM {self.name} WHERE {self.live})"
        source = sa.select(self.definition).where(sa.text(self.live)).subquery("t")
        self.statements = Statements(source, (*META, *self.codec.names, "ps_exact"), self.key, DIALECT)

    @property
    def bare(self) -> str:
        """The table's name as the catalog has it."""
        return self.name[1:-1]

    @property
    def facet_columns(self) -> dict[str, str]:
        """Columns of the facets: name -> type."""
        columns = dict(self.full_text.columns) if self.full_text is not None else {}
        return {**columns, **{one.name[1:-1]: one.type for one in self.vectors.values()}}

    @property
    def indexes(self) -> dict[str, str]:
        """Name -> what stands behind CREATE INDEX name; those beginning with ps_unique hold values unique."""
        name, key = self.name, ident(self.key)
        live = "" if self.home else " WHERE NOT ps_deleted"
        out = {
            ident("ps_h", self.etype): f"ON {name} (ps_tenant, ps_h)",
            ident("ps_expiry", self.etype): f"ON {name} (ps_expires_at) WHERE ps_expires_at IS NOT NULL",
        }
        if not self.home:  # `newest` of a copy looks for the highest
            out[ident("ps_version", self.etype)] = f"ON {name} (ps_version)"
        for field in self.unique:
            out[ident("ps_unique", self.etype, field)] = f"ON {name} (ps_tenant, {ident(field)})"
        for field in (*self.entity.index, *(self.entity.unique if not self.home else ())):
            if field not in self.unique and field != self.key:
                out[ident("ps_index", self.etype, field)] = f"ON {name} (ps_tenant, {ident(field)}, {key}){live}"
        if self.full_text is not None:
            out[ident("ps_text", self.etype)] = f"ON {name} USING gin (ps_terms)"
        for one in self.vectors.values():
            out |= one.indexes(name)
        return out

    def _write_sql(self) -> None:
        name, key = self.name, ident(self.key)
        fields = [ident(one) for one in self.codec.names]
        read = ", ".join([*META, *fields, "ps_exact"])
        live = "" if self.home else " AND NOT ps_deleted"
        gone = "(ps_expires_at IS NOT NULL AND ps_expires_at <= ps_now_us())"
        gone += "" if self.home else " OR ps_deleted"
        vectors = "".join(f", {one.read()}" for one in self.vectors.values())
        among = f"FROM {self.rows} WHERE ps_tenant = $1 AND {self.lookup} = ANY($2::{self.key_type}[])"
        self.get_sql = f"SELECT {read}, {gone} {among}"
        # A list of unknown length is planned anew each time, one key is not.
        self.get_one_sql = f"SELECT {read}, {gone} FROM {self.rows} WHERE ps_tenant = $1 AND {self.lookup} = $2"
        self.versions_sql = f"SELECT {key}, {', '.join(META)} {among}{live} "
        # Every driver gives text alike, of what is JSON some make objects: a caller's connection may have any.
        texts = [
            f"{one}::text" if spec.kind.name == "json" and not self.shared else one
            for one, spec in zip(fields, self.entity.fields.values(), strict=True)
        ]
        self.rows_sql = f"SELECT {', '.join([*META, *texts, 'ps_exact::text'])}{vectors} {among}{live}"
        self.holders_sql = {
            one: f"SELECT {ident(one)}, {key}, ps_expires_at FROM {name} WHERE ps_tenant = $1 AND {ident(one)} = "
            f"ANY($2::{_TYPES[self.entity.fields[one].kind.name]}[])"
            for one in self.unique
        }
        text = f'({key}::text COLLATE "C")' if self.key_type != "text" else key
        self.scan_sql = (
            f"SELECT ps_h, {read}{vectors}{self._text_columns} FROM {self.rows} WHERE ps_tenant = $1 AND "
            f"ps_h >= $2 AND ps_h < $3 AND (ps_h, {text}) > ($4, $5) AND {self.live} ORDER BY ps_h, {text} LIMIT $6"
        )
        self.tenants_sql = f'SELECT DISTINCT ps_tenant COLLATE "C" FROM {name} WHERE TRUE{live} ORDER BY 1'
        self.expired_sql = f"SELECT ps_tenant, {key} FROM {name} WHERE ps_expires_at <= ps_now_us(){live} LIMIT $1"
        self.keys_sql = (
            f"SELECT ps_tenant, {key}, ps_h, ps_version FROM {name} WHERE (ps_tenant, {key}) > ($1, $2){live} "
            f"ORDER BY ps_tenant, {key} LIMIT $3"
        )
        self.first_keys_sql = self.keys_sql.replace("(ps_tenant, " + key + ") > ($1, $2)", "TRUE").replace("$3", "$1")
        self.since_sql = f"SELECT ps_tenant, {key}, ps_h, ps_version FROM {name}"
        self.free_sql = (
            f"UPDATE {name} SET {', '.join(f'{ident(one)} = NULL' for one in self.unique)} "
            f"WHERE ps_tenant = $1 AND {key} = ANY($2::{self.key_type}[])"
        )
        self.delete_sql = f"DELETE FROM {name} WHERE ps_tenant = $1 AND {key} = ANY($2::{self.key_type}[])"
        self._upsert(name, key)

    @property
    def field_columns(self) -> dict[str, str]:
        """Columns of the body: name -> type."""
        columns = {ident(one): _TYPES[spec.kind.name] for one, spec in self.entity.fields.items()}
        return {**columns, "ps_exact": "jsonb"}

    @property
    def _text_columns(self) -> str:
        return ", ps_line" if self.full_text is not None else ""

    def _upsert(self, name: str, key: str) -> None:
        """`written`: the columns that a write sets, with their types, in the order of `values`."""
        self.written: dict[str, str] = {
            **{ident(one): OWN[one] for one in ("ps_tenant", "ps_h", *META)},
            **self.field_columns,
            **({} if self.home else {"ps_deleted": "boolean"}),
            **{ident(one): type_ for one, type_ in self.facet_columns.items()},
        }
        self.copied = None if self.facet_columns else [one.strip('"') for one in self.written]
        """The names of `written`, where COPY takes the values as they are."""
        kept = {'"ps_tenant"', '"ps_h"', key}
        self.changes = ", ".join(f"{one} = excluded.{one}" for one in self.written if one not in kept)
        arrays = ", ".join(f"${i}::{sent(type_)}[]" for i, type_ in enumerate(self.written.values(), 1))
        columns = ", ".join(self.written)
        rows = ", ".join(
            f"u.{column}" if sent(type_) == type_ else f"u.{column}::{type_}" for column, type_ in self.written.items()
        )
        self.upsert_sql = (
            f"INSERT INTO {name} AS t ({columns}) SELECT {rows} FROM unnest({arrays}) AS u ({columns}) "
            f"ON CONFLICT (ps_tenant, {key}) DO UPDATE SET {self.changes}"
        )
        # The version is the guard: late and repeated changes find one that is not older.
        self.apply_sql, self.overwrite_sql = (
            f"{self.upsert_sql} WHERE t.ps_version {older} excluded.ps_version RETURNING ps_tenant, {key}, ps_version"
            for older in ("<", "<=")
        )

    # -- keys and values --------------------------------------------------------------------------------------

    def key_value(self, id: str) -> Any:
        """What the key column holds."""
        return self._key_of(id)

    def columns(self, key: Key, body: Body) -> list[Any]:
        """The fields' columns and `ps_exact`. The key's column is the key itself. Raises InvalidData."""
        values = self.codec.encode(body)
        values[self._key_index] = self._key_of(key.id)
        return values

    def values(self, key: Key, one: Draft) -> list[Any]:
        """A row of `written`."""
        columns = one.columns
        if columns is None:
            empty: list[Any] = [None] * (len(self.codec.names) + 1)
            empty[self._key_index] = self._key_of(key.id)
            columns = empty
        own = (key.tenant, one.h, one.version, one.hash, one.updated_us, one.expires_us or None)
        deleted = () if self.home else (one.columns is None,)
        return [*own, *columns, *deleted, *self.facet_values(one.body, one.vectors)]

    def facet_values(self, body: Body | None, vectors: Vectors) -> list[Any]:
        """Those of `facet_columns`."""
        text = self.full_text.values(body) if self.full_text is not None else ()
        return [*text, *(column.sent(vectors.get(field)) for field, column in self.vectors.items())]

    def in_order(self, drafts: Mapping[Key, Draft]) -> list[list[Any]]:
        """Rows of `written` in the order of keys: all writers lock rows in one order."""
        return [self.values(key, drafts[key]) for key in sorted(drafts, key=lambda key: (key.tenant, key.id))]

    def arrays(self, drafts: Mapping[Key, Draft]) -> list[list[Any]]:
        """The arguments of `upsert_sql` and `apply_sql`."""
        return [list(column) for column in zip(*self.in_order(drafts), strict=True)]

    def record(self, key: Key, row: Sequence[Any]) -> Record:
        """The record of a row that begins with META and the fields. Raises DecodeError."""
        end = len(META) + len(self.codec.names) + 1
        return Record(key, row[0], self.codec.decode(key.id, row[len(META) : end]), row[1], row[2], row[3] or 0)

    def id_of(self, row: Sequence[Any], first: int = 0) -> str:
        """The key of a row of META and fields that begins at `first`."""
        return str(row[first + len(META) + self._key_index])

    def vectors_of(self, values: Sequence[Any]) -> dict[str, bytes]:
        found = zip(self.vectors.items(), values, strict=True)
        return {field: column.packed(one) for (field, column), one in found if one is not None}

    def vector_values(self, one: Draft) -> list[bytes | str | None]:
        """What the parameters of the vectors' columns are given."""
        return [column.sent(one.vectors.get(field)) for field, column in self.vectors.items()]

    async def check(self, db: Session, place: str) -> None:
        """Raises SchemaMismatch where the database cannot hold it."""

    # -- definition -------------------------------------------------------------------------------------------

    def create_sql(self) -> str:
        return str(CreateTable(self.definition).compile(dialect=DIALECT.compiler))

    def column_sql(self, field: str) -> str:
        """The type of a field's column, as ALTER TABLE takes it."""
        column = self.definition.c[field]
        text = str(CreateColumn(column).compile(dialect=DIALECT.compiler))
        return text.removeprefix(DIALECT.compiler.identifier_preparer.format_column(column)).removesuffix(" NOT NULL")


def vector_column(field: str) -> str:
    return ident("ps_vec", field)[1:-1]


def sent(type_: str) -> str:
    """The type of a parameter for columns of this one: drivers have no forms of some."""
    return "text" if type_ == "tsvector" or type_.endswith(".vector") else type_
