"""Making and changing the tables of entity types: all of one call in one transaction, so never in halves.

Changes are those of `polystore.evolution`: carried out when asked for, else told as a difference.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from polystore.errors import SchemaMismatch
from polystore.evolution import Migration, StoredSchema, describe, load, plan
from polystore.model import Body, Key
from polystore.protocols import Layout, VectorSpec
from polystore.relational.serving import Served, differences, known_vectors, load_served, same
from polystore_adapters.postgresql import graph, touching
from polystore_adapters.postgresql.application import table_of
from polystore_adapters.postgresql.dialect import ident
from polystore_adapters.postgresql.driver import asyncpg
from polystore_adapters.postgresql.options import Options
from polystore_adapters.postgresql.partitions import move, partitioned
from polystore_adapters.postgresql.pgvector import (
    BYTES,
    Kept,
    VectorColumn,
    chosen,
    extension,
    load_kept,
    make_extension,
)
from polystore_adapters.postgresql.pool import Pool, Session
from polystore_adapters.postgresql.schema import LEASES, PREPARE_LOCK, check_database, create_tables, exists
from polystore_adapters.postgresql.table import RecordTable, sent, vector_column

PAGE = 500
"""Records in memory while facets are made anew."""
KNOWN_SQL = (
    "SELECT vec FROM ps_vector WHERE tenant = $1 AND etype = $2 AND id = $3 AND field = $4 AND "
    "embedder IN ('caller', $5) AND text_hash = $6 AND length(vec) = $7 "
    "ORDER BY embedder <> 'caller' LIMIT 1"
)


class _Record(NamedTuple):
    key: Key
    body: Body


async def prepare(db: Session, place: str, tables: Sequence[RecordTable]) -> None:
    """Make or change what is needed. Raises SchemaMismatch for what cannot be changed without loss."""
    await create_tables(db, place)
    if not await partitioned(db):
        await move(db)
    if not await exists(db, "ps_lease"):
        await db.run(LEASES)
    for table in tables:
        await (await _of(db, place, table)).carry_out()


async def described(
    db: Session, place: str, options: Options, layouts: Sequence[Layout], *, make: bool
) -> list[RecordTable]:
    """The tables of these types; their vectors as the database keeps them, or as the options ask for. `make`: the
    extension too, where they ask for it. Raises SchemaMismatch where that cannot be."""
    there = await extension(db)
    if there is None and make and options.vectors == "pgvector":
        await db.run(PREPARE_LOCK)
        await make_extension(db, place)
        there = await extension(db)
    stored: dict[str, str] = {}
    if await check_database(db, place):
        names = [f"{name}:{layout.entity.name}" for name in ("served", "vectors") for layout in layouts]
        stored = dict(await db.fetch("SELECT k, v FROM ps_meta WHERE k = ANY($1::text[])", names))
    tables: list[RecordTable] = []
    for layout in layouts:
        etype = layout.entity.name
        served, was = stored.get(f"served:{etype}"), stored.get(f"vectors:{etype}")
        before = load_kept(was) if was else BYTES if served and load_served(served).vectors else None
        specs = list(layout.vectors.values()) if "vector" in layout.facets else []
        kept = chosen(options, before, specs, there, place, etype) if specs else BYTES
        tables.append(table_of(layout, kept, there or ""))
    return tables


async def make_schema(pool: Pool, name: str) -> None:
    """Where it is missing."""
    async with pool.transaction() as db:
        await db.run(PREPARE_LOCK)
        await db.run(f"CREATE SCHEMA IF NOT EXISTS {ident(name)}")


async def clear(db: Session, place: str, etype: str) -> None:
    """See `SupportsRebuild.clear`."""
    if await check_database(db, place):
        await db.run(f"DROP TABLE IF EXISTS {ident(etype)}, {ident('ps_edge', etype)}")
        await db.run("DELETE FROM ps_tombstone WHERE etype = $1", etype)
        names = [f"{name}:{etype}" for name in ("schema", "served", "vectors", "newest")]
        await db.run("DELETE FROM ps_meta WHERE k = ANY($1::text[])", names)


async def compare(db: Session, place: str, tables: Sequence[RecordTable]) -> str:
    """What `prepare` would have to do, with the names of the types; "" for nothing."""
    if not await check_database(db, place):
        names = ", ".join(repr(table.etype) for table in tables)
        return f"nothing is stored of {names}" if tables else "it lacks polystore's tables"
    if not await partitioned(db):
        return "the points of measures lie in one table, to be in partitions by time"
    if not await exists(db, "ps_lease"):
        return "it lacks the table of leases"
    for table in tables:
        difference = (await _of(db, place, table)).difference()
        if difference:
            return f"not prepared for {table.etype!r} as it is declared: {difference}"
    return ""


async def _of(db: Session, place: str, table: RecordTable) -> _Preparation:
    sql = "SELECT k, v FROM ps_meta WHERE k = ANY($1::text[])"
    names = ("schema", "served", "vectors")
    found = dict(await db.fetch(sql, [f"{name}:{table.etype}" for name in names]))
    return _Preparation(db, place, table, *(found.get(f"{name}:{table.etype}") for name in names))


class _Preparation:
    """One entity type in one database."""

    def __init__(
        self, db: Session, place: str, table: RecordTable, schema: str | None, served: str | None, kept: str | None
    ) -> None:
        self._db = db
        self._place = place
        self._table = table
        layout = table.layout
        self._serves = Served(layout.home, sorted(layout.facets), layout.vectors)
        self._schema: StoredSchema | None = None if schema is None else load(schema)
        self._served = None if served is None else load_served(served)
        self._kept = BYTES if kept is None else load_kept(kept)
        self._migration: Migration | None = None if self._schema is None else plan(self._schema, table.entity)

    def difference(self) -> str:
        """What is not as declared; empty when everything is."""
        if self._served is not None and self._served.home != self._serves.home:
            raise SchemaMismatch(
                f"{self._place}: has the {'home' if self._served.home else 'copy'} of {self._table.etype!r}; a copy "
                "cannot become a home here, or a home a copy: use another database or the option schema"
            )
        told = differences(self._migration, self._served, self._serves)
        if self._keeps != self._kept and self._migration is not None:
            vectors = f"vectors are kept in {self._kept}, to be kept in {self._keeps}"
            told = f"{told}; {vectors}" if told else vectors
        return told

    @property
    def _keeps(self) -> Kept:
        """How vectors are to be kept; as they are where there are none."""
        return self._table.kept if self._table.vectors else self._kept

    async def carry_out(self) -> None:
        if not self.difference():
            return
        migration, table, db = self._migration, self._table, self._db
        if migration is not None:
            await self._drop_indexes(migration)
            if not table.shared:
                await self._columns(migration)
            elif migration.changes_content:
                await self._hash_anew()
        elif await exists(db, table.name):
            raise SchemaMismatch(
                f"{self._place}: has a table {table.etype!r} of another program; pass another @entity(name=...)"
            )
        else:
            await db.run(table.create_sql())
            if table.shared:
                await db.run(touching.TABLES)
        await self._facets(migration)
        await self._create_indexes()
        if any(column.indexed for column in table.vectors.values()):
            await db.run(f"ANALYZE {table.name}")  # a planner that knows nothing would look at each vector
        schema = describe(table.entity) if migration is None else migration.schema
        values = {
            "schema": schema.json(),
            "served": msgspec.json.encode(self._serves).decode(),
            "vectors": self._keeps.json(),
        }
        await db.each(
            "INSERT INTO ps_meta (k, v) VALUES ($1, $2) ON CONFLICT (k) DO UPDATE SET v = excluded.v",
            [(f"{name}:{table.etype}", value) for name, value in values.items()],
        )

    # -- table ------------------------------------------------------------------------------------------------

    async def _drop_indexes(self, migration: Migration) -> None:
        wanted = self._table.indexes
        sql = (
            "SELECT indexname FROM pg_indexes WHERE schemaname = current_schema() AND tablename = $1 "
            "AND indexname LIKE 'ps\\_%' AND indexname NOT LIKE 'ps\\_key\\_%'"
        )
        for (name,) in await self._db.fetch(sql, self._table.bare):
            if ident(name) not in wanted or migration.changes_content:
                await self._db.run(f"DROP INDEX {ident(name)}")

    async def _create_indexes(self) -> None:
        table = self._table
        unique = {ident("ps_unique", table.etype, field): field for field in table.unique}
        for name, text in table.indexes.items():
            try:
                await self._db.run(f"CREATE {'UNIQUE ' if name in unique else ''}INDEX IF NOT EXISTS {name} {text}")
            except asyncpg.UniqueViolationError:
                raise SchemaMismatch(
                    f"{table.entity.cls.__name__}.{unique[name]}: stored records share a value, so it cannot become "
                    "unique; change them first"
                ) from None

    async def _columns(self, migration: Migration) -> None:
        table, db, fields = self._table.name, self._db, self._table.entity.fields
        for old, new in migration.rename:
            await db.run(f"ALTER TABLE {table} RENAME COLUMN {ident(old)} TO {ident(new)}")
            await db.run("UPDATE ps_vector SET field = $1 WHERE field = $2 AND etype = $3", new, old, self._table.etype)
            if await self._has_column(vector_column(old)):
                old_name, new_name = ident("ps_vec", old), ident("ps_vec", new)
                await db.run(f"ALTER TABLE {table} RENAME COLUMN {old_name} TO {new_name}")
        for field, _ in migration.add:
            await db.run(f"ALTER TABLE {table} ADD COLUMN {ident(field)}{self._table.column_sql(field)}")
        for field in migration.widened:
            if fields[field].kind.name == "float":
                await db.run(f"ALTER TABLE {table} ALTER COLUMN {ident(field)} TYPE double precision")
        for field, default in (*migration.add, *migration.fill):
            if default is not None:
                value = self._table.codec.encode({field: default})[self._table.codec.names.index(field)]
                live = "" if self._table.home else " AND NOT ps_deleted"
                column = ident(field)
                await db.run(f"UPDATE {table} SET {column} = $1 WHERE {column} IS NULL{live}", value)
        if migration.changes_content:
            await self._hash_anew()

    async def _has_column(self, name: str) -> bool:
        sql = (
            "SELECT EXISTS (SELECT 1 FROM information_schema.columns WHERE table_schema = current_schema() "
            "AND table_name = $1 AND column_name = $2)"
        )
        return bool(await self._db.value(sql, self._table.bare, name))

    async def _hash_anew(self) -> None:
        entity = self._table.entity
        async for records in self._pages():
            await self._set(records, "ps_hash", "bytea", [entity.content_hash(one.body) for one in records])

    async def _set(self, records: Sequence[_Record], column: str, type_: str, values: Sequence[Any]) -> None:
        table, key = self._table, ident(self._table.key)
        await self._db.run(
            f"UPDATE {table.name} t SET {column} = u.value::{type_} FROM unnest($1::text[], $2::{table.key_type}[], "
            f"$3::{sent(type_)}[]) AS u (tenant, id, value) WHERE t.ps_tenant = u.tenant AND t.{key} = u.id",
            [one.key.tenant for one in records],
            [table.key_value(one.key.id) for one in records],
            values,
        )

    # -- facets -----------------------------------------------------------------------------------------------

    async def _facets(self, migration: Migration | None) -> None:
        """Make the facets that are asked for, drop the others, and fill what is new or was made of other content."""
        table, db = self._table, self._db
        changed = migration is not None and migration.changes_content
        if table.full_text is not None:
            new = not await self._has_column("ps_line")
            for column, type_ in table.full_text.columns.items():
                await db.run(f"ALTER TABLE {table.name} ADD COLUMN IF NOT EXISTS {column} {type_}")
            if (new or changed or self._was_otherwise(migration, "full_text")) and migration is not None:
                async for records in self._pages():
                    rows = [table.full_text.values(one.body) for one in records]
                    for (column, type_), values in zip(
                        table.full_text.columns.items(), zip(*rows, strict=True), strict=True
                    ):
                        await self._set(records, column, type_, list(values))
        elif await self._has_column("ps_line"):
            for column in ("ps_terms", "ps_line", "ps_length"):
                await db.run(f"ALTER TABLE {table.name} DROP COLUMN {column}")
        await self._edges(changed=changed or self._was_otherwise(migration, "graph"))
        await self._vectors(migration)

    def _was_otherwise(self, migration: Migration | None, facet: str) -> bool:
        if migration is None:
            return False
        return any(one.facet == facet for one in (*migration.facets_added, *migration.facets_removed))

    async def _edges(self, *, changed: bool) -> None:
        table, db = self._table, self._db
        name = ident("ps_edge", table.etype)
        if table.edges is None:
            await db.run(f"DROP TABLE IF EXISTS {name}")
            return
        new = not await exists(db, name)
        if new:
            for statement in graph.create_sql(table):
                await db.run(statement)
        if new or changed:
            async for records in self._pages():
                await graph.replace(db, table, {one.key: one.body for one in records})

    async def _vectors(self, migration: Migration | None) -> None:
        """Keep the vectors whose field, embedder and dimension are as before; the others come from what embedders made,
        if the database keeps that, or have to be delivered again: a copy's rows are then older than any version, so
        that the next delivery of the same version counts."""
        table, db, served = self._table, self._db, self._served
        was = {new: old for old, new in migration.rename} if migration is not None else {}
        before: Mapping[str, VectorSpec] = {} if served is None else served.vectors
        specs: Mapping[str, VectorSpec] = table.layout.vectors if table.vectors else {}
        for field in {*before, *(new for new, old in was.items() if old in before)}:
            if field not in specs:
                await db.run(f"ALTER TABLE {table.name} DROP COLUMN IF EXISTS {ident('ps_vec', field)}")
        fresh = {field for field, spec in specs.items() if not same(before.get(was.get(field, field)), spec)}
        for field, column in sorted(table.vectors.items()):
            if field in fresh:
                await db.run(f"ALTER TABLE {table.name} DROP COLUMN IF EXISTS {column.name}")
                await db.run(f"ALTER TABLE {table.name} ADD COLUMN {column.name} {column.definition}")
            elif self._kept.form != table.kept.form:
                await self._convert(column)
        if not fresh or migration is None:
            return
        stored = functools.partial(self._db.value, KNOWN_SQL)
        async for records in self._pages():
            found = [await known_vectors(one.key, one.body, specs, fresh, stored) for one in records]
            for field in sorted(fresh):
                column = table.vectors[field]
                await self._set(records, column.name, column.type, [column.sent(one.get(field)) for one in found])
        if not table.home:
            await db.run(f"UPDATE {table.name} SET ps_version = 0 WHERE NOT ps_deleted")

    async def _convert(self, column: VectorColumn) -> None:
        """Into a column of the other form: the same vectors."""
        table, db, key, new = self._table, self._db, ident(self._table.key), ident("ps_new", column.field)
        old = column._replace(kept=self._kept)
        await db.run(f"ALTER TABLE {table.name} ADD COLUMN {new} {column.definition}")
        last: tuple[Any, ...] = ()
        while True:
            after = f"(ps_tenant, {key}) > ($1, $2)" if last else "TRUE"
            rows = await db.fetch(
                f"SELECT ps_tenant, {key}, {old.read()} FROM {table.name} WHERE {old.name} IS NOT NULL AND {after} "
                f"ORDER BY ps_tenant, {key} LIMIT {PAGE}",
                *last,
            )
            if not rows:
                break
            last = (rows[-1][0], rows[-1][1])
            records = [_Record(Key(tenant, table.etype, str(id)), {}) for tenant, id, _ in rows]
            await self._set(records, new, column.type, [column.sent(old.packed(row[2])) for row in rows])
        await db.run(f"ALTER TABLE {table.name} DROP COLUMN {old.name}")
        await db.run(f"ALTER TABLE {table.name} RENAME COLUMN {new} TO {column.name}")

    # -- small things -----------------------------------------------------------------------------------------

    async def _pages(self) -> AsyncGenerator[list[_Record]]:
        """All live records, some at a time. Rows of the application are none: they count as changed and are taken over
        anew, while the application goes on writing."""
        if self._table.shared:
            await self._db.run(f"UPDATE {self._table.name} SET ps_hash = ''::bytea")
            return
        table, key = self._table, ident(self._table.key)
        fields = ", ".join([*(ident(one) for one in table.codec.names), "ps_exact"])
        live = "TRUE" if table.home else "NOT ps_deleted"
        last: tuple[Any, ...] = ()
        while True:
            after = f"(ps_tenant, {key}) > ($1, $2)" if last else "TRUE"
            rows = await self._db.fetch(
                f"SELECT ps_tenant, {key}, {fields} FROM {table.name} WHERE {live} AND {after} "
                f"ORDER BY ps_tenant, {key} LIMIT {PAGE}",
                *last,
            )
            if not rows:
                return
            last = (rows[-1][0], rows[-1][1])
            yield [
                _Record(Key(row[0], table.etype, str(row[1])), table.codec.decode(str(row[1]), row[2:])) for row in rows
            ]
