"""A table of the application's own as the home of an entity type: read and written as it is, never altered.

What polystore keeps of each row stands in a side table of the type, `ps_row_<entity>`, written in the same
transaction: its version and hashes, its full text and its vectors. A row without an entry there was written by somebody
else: it is read like the others, at version 0, until `following.follow` takes it over. Values have the forms that
SQLAlchemy's types give them. There is one tenant, "".

The lock of a key is the row itself, and where there is none its entry in the side table; versions are drawn under it
(`lock`). An application's sessions hold it already when they are followed, so they never wait for one another more than
they would without polystore.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.sql import operators

from polystore.filters import Compare
from polystore.model import Body, Commit, Key, Write
from polystore.protocols import Layout
from polystore.relational import Statements
from polystore.relational.application import Form, FormCodec, check_columns, check_foreign_keys
from polystore.relational.dialect import Bind
from polystore_adapters.postgresql import graph
from polystore_adapters.postgresql.dialect import Codec, PostgresDialect, ident
from polystore_adapters.postgresql.locks import Again
from polystore_adapters.postgresql.pgvector import Kept
from polystore_adapters.postgresql.pool import Session
from polystore_adapters.postgresql.table import LIVE, META, Draft, RecordTable, Row

if TYPE_CHECKING:
    from polystore.mapped import Column, MappedClass

_NUMERIC, _FLOAT = 1700, 701
"""Type codes, which SQLAlchemy asks for (https://www.postgresql.org/docs/current/catalog-pg-type.html)."""
_RULES = {"c": "CASCADE", "n": "SET NULL", "d": "SET DEFAULT"}
_MOVES_SQL = """
SELECT confrelid::regclass::text, confupdtype::text, confdeltype::text FROM pg_constraint
WHERE conrelid = to_regclass($1) AND contype = 'f'
"""
_COLUMNS_SQL = "SELECT attname::text FROM pg_attribute WHERE attrelid = to_regclass($1) AND attnum > 0"
_LATER_SQL = (
    "SELECT 1 FROM ps_tombstone t JOIN unnest($2::text[], $3::bigint[]) AS n (id, version) ON t.id = n.id "
    "WHERE t.tenant = '' AND t.etype = $1 AND t.version > n.version LIMIT 1"
)
HAS_TRIGGER_SQL = "SELECT 1 FROM pg_trigger WHERE tgname = $1 AND tgrelid = to_regclass($2) AND tgenabled <> 'D'"
OWN_NOTES_SQL = "DELETE FROM ps_touch WHERE tx = pg_current_xact_id() AND etype = $1 AND id = ANY($2::text[])"


class _Driver(PGDialect):
    """How asyncpg takes and gives values: JSON as text, decimals as they are."""

    supports_native_decimal = True


_made: Any = _Driver
DRIVER: sa.Dialect = _made()


class _ByCodePoint(sa.Text):
    """A text column of any collation, compared and sorted as everywhere in polystore."""

    class comparator_factory(sa.Text.Comparator[str]):  # noqa: N801 -- SQLAlchemy's name
        def operate(self, op: Any, *other: Any, **kwargs: Any) -> Any:
            if op in (operators.lt, operators.le, operators.gt, operators.ge, operators.asc_op, operators.desc_op):
                return op(sa.type_coerce(sa.collate(self.expr, "C"), sa.Text()), *other, **kwargs)
            return super().operate(op, *other, **kwargs)


class _Form(Form):
    """A column here: the type that its values have in an array, and the one that settles them."""

    def __init__(self, one: Column, dialect: sa.Dialect) -> None:
        impl: Any = one.column.type.dialect_impl(dialect)
        while isinstance(impl, sa.types.TypeDecorator):
            impl = impl.impl_instance
        floats = isinstance(impl, sa.Float)
        super().__init__(one, dialect, _FLOAT if floats else _NUMERIC)
        self.type: str = impl.compile(dialect=dialect)
        enum = isinstance(impl, sa.Enum) and impl.native_enum
        text = isinstance(impl, sa.String) and not enum
        self.array = "text" if text else "numeric" if isinstance(impl, sa.Numeric) and not floats else self.type
        # A text that is too long is an error when it is written; a cast would cut it.
        self.settles = not text and not enum and not isinstance(impl, (sa.Boolean, sa.Integer, sa.LargeBinary, sa.Date))
        self.uuid = isinstance(impl, sa.Uuid) and impl.native_uuid
        self.char = isinstance(impl, sa.CHAR) or (isinstance(impl, sa.Uuid) and not impl.native_uuid)

    def decode(self, value: Any) -> Any:
        return super().decode(UUID(bytes=value.bytes) if isinstance(value, UUID) else value)  # asyncpg has its own


class _Codec(FormCodec, Codec):
    """As other codecs here, with nothing in `ps_exact`."""

    def encode(self, body: Body) -> list[Any]:
        return [*super().encode(body), None]

    def decode(self, id: str, values: Sequence[Any]) -> dict[str, Any]:
        return super().decode(id, values[: len(self.names)])


class _Dialect(PostgresDialect):
    """Conditions compare with what the columns hold."""

    def __init__(self, forms: Mapping[str, Form], key: str) -> None:
        self._forms = forms
        self._key = key

    def encoder(self, field: str, kind: str) -> Any:
        return None if field == self._key else self._forms[field].encode

    def json(self, column: sa.ColumnElement[Any], node: Compare, bind: Bind) -> sa.ColumnElement[bool]:
        return super().json(sa.cast(column, JSONB), node, bind)


class ApplicationTable(RecordTable):
    """SQL and value forms of an entity type whose home is a table of the application, for one driver."""

    shared = True

    def __init__(self, layout: Layout, kept: Kept, schema: str, dialect: sa.Dialect = DRIVER) -> None:
        self._driver = dialect
        self._others: dict[str, ApplicationTable] = {}
        super().__init__(layout, kept, schema)

    def on(self, dialect: sa.Dialect) -> ApplicationTable:
        """The same for connections of another driver."""
        known = self._others.get(dialect.driver)
        if known is None:
            known = self._others[dialect.driver] = ApplicationTable(self.layout, self.kept, self.schema, dialect)
        return known

    def _describe(self) -> None:
        mapped = self.entity.mapped
        assert mapped is not None
        self.mapped: MappedClass[Any] = mapped
        self.table = ident(mapped.table.name)
        self.name = ident("ps_row", self.etype)
        self.unique = ()
        self.forms = {name: _Form(mapped.columns[name], self._driver) for name in self.entity.fields}
        self.codec = _Codec(self.entity, self.forms)
        self._column = {name: ident(mapped.columns[name].column.name) for name in self.forms}
        self.pk, key = self._column[self.key], self.forms[self.key]
        self.key_type = "uuid" if key.uuid else "bpchar" if key.char else key.array if key.array == "text" else "bigint"
        self._key_of = int if self.key_type == "bigint" else key.encode
        self.lookup = "ps_key"
        facets = "".join(f", r.{ident(one)}" for one in self.facet_columns)
        fields = ", ".join(
            f"{self.id_sql(f'u.{self.pk}')} AS {ident(name)}" if name == self.key else f"u.{column} AS {ident(name)}"
            for name, column in self._column.items()
        )
        self.select = (
            "SELECT ''::text AS ps_tenant, coalesce(r.ps_version, 0) AS ps_version, r.ps_h, "
            "coalesce(r.ps_hash, ''::bytea) AS ps_hash, coalesce(r.ps_updated_at, 0) AS ps_updated_at, "
            f"r.ps_expires_at, NULL::text AS ps_exact, u.{self.pk} AS ps_key, {fields}{facets} FROM {self.table} u "
            f"LEFT JOIN {self.name} r ON r.ps_tenant = '' AND r.{ident(self.key)} = u.{self.pk}"
        )
        self.live = LIVE
        self.rows = f"({self.select}) AS t"
        self.source = f"(SELECT * FROM {self.rows} WHERE {LIVE})"
        types = {**PostgresDialect.types, "str": _ByCodePoint()}
        columns: list[sa.ColumnClause[Any]] = [sa.column(name) for name in ("ps_tenant", *META, "ps_exact")]
        columns += [sa.column(name, types[spec.kind.name]) for name, spec in self.entity.fields.items()]
        source = sa.text(self.source[1:-1]).columns(*columns).subquery("t")
        dialect = _Dialect(self.forms, self.key)
        self.statements = Statements(source, (*META, *self.codec.names, "ps_exact"), self.key, dialect)

    def trigger(self, event: str) -> str:
        """The name of the trigger that notes such changes, in quotes."""
        return ident("ps_touch", event, self.etype)

    def id_sql(self, column: str) -> str:
        """The id of a row, as SQL."""
        return f"replace({column}::text, '-', '')" if self.key_type == "uuid" else column

    @property
    def field_columns(self) -> dict[str, str]:
        return {ident(self.key): self.key_type}

    @property
    def indexes(self) -> dict[str, str]:
        application = [ident("ps_index", self.etype, field) for field in self.entity.index]
        return {name: text for name, text in super().indexes.items() if name not in application}

    def _write_sql(self) -> None:
        super()._write_sql()
        side, key, columns = self.name, ident(self.key), list(self._column.values())
        id = self.id_sql(key)
        self.keys_sql = self.keys_sql.replace(f"SELECT ps_tenant, {key}", f"SELECT ps_tenant, {id}", 1)
        self.since_sql = self.since_sql.replace(f"SELECT ps_tenant, {key}", f"SELECT ps_tenant, {id}", 1)
        self.first_keys_sql = self.first_keys_sql.replace(f"SELECT ps_tenant, {key}", f"SELECT ps_tenant, {id}", 1)
        self.expired_sql = f"SELECT '', {id} FROM {side} WHERE ps_expires_at <= ps_now_us() LIMIT $1"
        self.tenants_sql = f"SELECT '' FROM {self.table} LIMIT 1"
        among = f"= ANY($1::{self.key_type}[])"
        self.lock_sql = (
            f"SELECT {self.id_sql(self.pk)} FROM {self.table} WHERE {self.pk} {among} ORDER BY {self.pk} "
            "FOR NO KEY UPDATE"
        )
        self.lock_noted_sql = (
            f"SELECT {id}, {', '.join(META)} FROM {side} WHERE ps_tenant = '' AND {key} {among} ORDER BY {key} "
            "FOR UPDATE"
        )
        self.bodies_sql = (
            f"SELECT {self.id_sql(self.pk)}, {', '.join(columns)} FROM {self.table} WHERE {self.pk} {among}"
        )
        self.gone_sql = (
            f"SELECT {self.id_sql(f'r.{key}')} FROM {side} r LEFT JOIN {self.table} u ON u.{self.pk} = r.{key} "
            f"WHERE r.ps_tenant = '' AND u.{self.pk} IS NULL LIMIT $1"
        )
        strays = f"SELECT {self.id_sql('ps_key')} FROM {self.rows} WHERE ps_hash = ''::bytea AND "
        end = " ORDER BY ps_key LIMIT "
        self.first_strays_sql, self.strays_sql = f"{strays}TRUE{end}$1", f"{strays}ps_key > $2{end}$1"
        arrays = ", ".join(f"${i}::{form.array}[]" for i, form in enumerate(self.forms.values(), 1))
        insert = (
            f"INSERT INTO {self.table} ({', '.join(columns)}) OVERRIDING SYSTEM VALUE SELECT * FROM unnest({arrays}) "
            f"ON CONFLICT ({self.pk}) DO "
        )
        changes = ", ".join(f"{one} = excluded.{one}" for one in columns if one != self.pk)
        self._insert_sql = f"{insert}NOTHING RETURNING 1"
        self._put_sql = f"{insert}UPDATE SET {changes}" if changes else f"{insert}NOTHING"
        self._gone_sql = f"DELETE FROM {self.table} WHERE {self.pk} {among}"

    # -- keys and values --------------------------------------------------------------------------------------

    def id_of(self, row: Sequence[Any], first: int = 0) -> str:
        return str(row[first + len(META) + self._key_index])

    def values(self, key: Key, one: Draft) -> list[Any]:
        own = (key.tenant, one.h, one.version, one.hash, one.updated_us, one.expires_us or None)
        text = self.full_text.values(one.body) if self.full_text is not None else ()
        return [*own, self.key_value(key.id), *text, *self.vector_values(one)]

    # -- writing ----------------------------------------------------------------------------------------------

    async def write(self, db: Session, drafts: Mapping[Key, Draft], stored: Collection[Key]) -> None:
        """Bring the rows to the drafts, under their locks. Raises Again when somebody else came between where there was
        no row to lock."""
        ids = [key.id for key in drafts]
        gone = [self.key_value(key.id) for key, one in drafts.items() if one.columns is None]
        if gone:
            await db.run(self._gone_sql, gone)
            await db.run(self.delete_sql, "", gone)
        live = {key: one for key, one in drafts.items() if one.columns is not None}
        await self._put(db, {key: one for key, one in live.items() if one.columns and key in stored})
        await self._insert(db, {key: one for key, one in live.items() if one.columns and key not in stored})
        if live:
            await db.run(self.upsert_sql, *self.arrays(live))
        if self.edges is not None:
            await graph.replace(db, self, {key: one.body for key, one in drafts.items()})
        await db.run(OWN_NOTES_SQL, self.etype, ids)

    async def _put(self, db: Session, drafts: Mapping[Key, Draft]) -> None:
        if drafts:
            await db.run(self._put_sql, *self._arrays(drafts))

    async def _insert(self, db: Session, drafts: Mapping[Key, Draft]) -> None:
        if not drafts:
            return
        # Whoever inserts such a key meanwhile is waited for. If he commits, our versions were drawn too early; so were
        # they if the row came and went again.
        inserted = await db.fetch(self._insert_sql, *self._arrays(drafts))
        versions = [one.version for one in drafts.values()]
        later = await db.value(_LATER_SQL, self.etype, [key.id for key in drafts], versions)
        if len(inserted) < len(drafts) or later is not None:
            raise Again(())

    def _arrays(self, drafts: Mapping[Key, Draft]) -> list[list[Any]]:
        rows = [
            (one.columns or ())[: len(self.forms)] for _, one in sorted(drafts.items(), key=lambda pair: pair[0].id)
        ]
        return [list(column) for column in zip(*rows, strict=True)]

    async def settled(self, db: Session, body: Body, *, whole: bool) -> Body:
        """The body as the columns will give it back: numbers with their column's digits, and in a `whole` one what
        only the database can tell."""
        given = [name for name, form in self.forms.items() if form.settles and name != self.key and name in body]
        lacking = [name for name, form in self.forms.items() if whole and form.default is not None and name not in body]
        if not given and not lacking:
            return body
        casts = [f"${i}::{self.forms[name].array}::{self.forms[name].type}" for i, name in enumerate(given, 1)]
        casts += [f"({self.forms[name].default_sql(self._driver)})::{self.forms[name].type}" for name in lacking]
        row = await db.row(f"SELECT {', '.join(casts)}", *(self.forms[name].encode(body[name]) for name in given))
        found = zip((*given, *lacking), row, strict=True)
        return {**body, **{name: self.forms[name].decode(value) for name, value in found}}

    # -- definition -------------------------------------------------------------------------------------------

    def create_sql(self) -> str:
        """The side table; its key is of the very type of the application's column."""
        key = ident(self.key)
        return (
            f"CREATE TABLE {self.name} AS SELECT ''::text COLLATE \"C\" AS ps_tenant, {self.pk} AS {key}, 0::bigint AS "
            "ps_version, 0::bigint AS ps_h, ''::bytea AS ps_hash, 0::bigint AS ps_updated_at, 0::bigint AS "
            f"ps_expires_at FROM {self.table} WITH NO DATA; "
            f"ALTER TABLE {self.name} ADD PRIMARY KEY (ps_tenant, {key})"
        )

    async def check(self, db: Session, place: str) -> None:
        """Raises SchemaMismatch where the application's table is not what its class says, or is changed by foreign
        keys behind everybody's back."""
        found = [name for (name,) in await db.fetch(_COLUMNS_SQL, self.table)]
        check_columns(place, self.etype, self.mapped, found)
        rows = await db.fetch(_MOVES_SQL, self.table)
        moves = [
            (to, event, _RULES[rule])
            for to, *rules in rows
            for event, rule in zip(("UPDATE", "DELETE"), rules, strict=True)
            if rule in _RULES
        ]
        if moves and not await db.value(HAS_TRIGGER_SQL, self.trigger("update")[1:-1], self.table):
            check_foreign_keys(place, self.mapped.table.name, moves)


def table_of(layout: Layout, kept: Kept, schema: str) -> RecordTable:
    """The table of an entity type in this database: a mapped class is at home in its own. `kept`, `schema`: how its
    vectors are kept, see `pgvector`."""
    own = layout.home and layout.entity.mapped is not None
    return ApplicationTable(layout, kept, schema) if own else RecordTable(layout, kept, schema)


# -- locks --------------------------------------------------------------------------------------------------------


async def lock(db: Session, table: ApplicationTable, ids: Sequence[str]) -> tuple[set[str], dict[str, Row]]:
    """Lock rows, as whoever writes them does. Returns which stand, and what is noted of each; versions may be drawn for
    both. A row that comes meanwhile is in neither: it is its writer's, who holds it."""
    wanted = [table.key_value(id) for id in sorted(ids)]
    standing = {str(id) for (id,) in await db.fetch(table.lock_sql, wanted)}
    notes = await db.fetch(table.lock_noted_sql, wanted)
    noted = {str(id): Row(version, hash, updated, ends or 0) for id, version, hash, updated, ends in notes}
    if absent := noted.keys() - standing:  # one may have come before its note was locked
        again = [table.key_value(id) for id in sorted(absent)]
        standing |= {str(id) for (id,) in await db.fetch(table.lock_sql, again)}
    return standing, noted


async def locked(db: Session, tables: Mapping[str, RecordTable], keys: Iterable[Key]) -> set[Key]:
    """Lock those of the keys that are rows of the application. Returns the ones that stand."""
    ids: dict[str, list[str]] = {}
    for key in keys:
        if tables[key.etype].shared:
            ids.setdefault(key.etype, []).append(key.id)
    found: set[Key] = set()
    for etype in sorted(ids):
        table = tables[etype]
        assert isinstance(table, ApplicationTable)
        found |= {Key("", etype, id) for id in (await lock(db, table, ids[etype]))[0]}
    return found


async def settled(db: Session, tables: Mapping[str, RecordTable], commits: Sequence[Commit]) -> Sequence[Commit]:
    """The commits with the bodies that the application's columns will give back."""
    if not any(tables[write.key.etype].shared for commit in commits for write in commit.writes):
        return commits
    out: list[Commit] = []
    for commit in commits:
        writes = [await _settled(db, tables[write.key.etype], write) for write in commit.writes]
        out.append(msgspec.structs.replace(commit, writes=writes))
    return out


async def _settled(db: Session, table: RecordTable, write: Write) -> Write:
    if not isinstance(table, ApplicationTable) or write.body is None:
        return write
    body = await table.settled(db, write.body, whole=write.kind != "update")
    hash = write.hash if write.kind == "update" else table.entity.content_hash(body, bounded=True)
    return msgspec.structs.replace(write, body=body, hash=hash)
