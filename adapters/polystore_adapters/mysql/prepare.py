"""Making and changing the tables of entity types, under the lock of `schema.lock`.

The server commits each change of a table by itself. So every step looks first at what is there and can be repeated, and
what `ps_meta` says of a type changes last: after an end in the middle the next call goes on.

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
from polystore.protocols import VectorSpec
from polystore.relational.serving import Served, differences, known_vectors, load_served, same
from polystore_adapters.mysql import graph
from polystore_adapters.mysql.dialect import ident, name_of
from polystore_adapters.mysql.pool import Session
from polystore_adapters.mysql.schema import check_database, columns_of, comment_of, create_tables, exists, has_index
from polystore_adapters.mysql.table import RecordTable, vector_column

PAGE = 500
"""Records in memory while facets are made anew."""
KNOWN_SQL = (
    "SELECT vec FROM ps_vector WHERE tenant = %s AND etype = %s AND id = %s AND field = %s AND "
    "embedder IN ('caller', %s) AND text_hash = %s AND LENGTH(vec) = %s "
    "ORDER BY embedder <> 'caller' LIMIT 1"
)


class _Record(NamedTuple):
    key: Key
    body: Body


async def prepare(db: Session, place: str, tables: Sequence[RecordTable]) -> None:
    """Make or change what is needed. Raises SchemaMismatch for what cannot be changed without loss."""
    await create_tables(db, place)
    for table in tables:
        await (await _of(db, place, table)).carry_out()


async def clear(db: Session, place: str, etype: str) -> None:
    """See `SupportsRebuild.clear`. What is known of it goes last."""
    if await check_database(db, place):
        await db.run(f"DROP TABLE IF EXISTS {ident('ps_edge', etype)}, {ident(etype)}")
        await db.run("DELETE FROM ps_tombstone WHERE etype = %s", etype)
        names = tuple(f"{name}:{etype}" for name in ("schema", "served", "newest"))
        await db.run("DELETE FROM ps_meta WHERE k IN %s", names)


async def compare(db: Session, place: str, tables: Sequence[RecordTable]) -> str:
    """What `prepare` would have to do, with the names of the types; "" for nothing. Raises SchemaMismatch where another
    program has changed a table: an empty one in its place would look like records that were deleted."""
    if not await check_database(db, place):
        names = ", ".join(repr(table.etype) for table in tables)
        return f"nothing is stored of {names}" if tables else "it lacks polystore's tables"
    if not await exists(db, "ps_lease"):
        return "it lacks the table of leases"
    for table in tables:
        difference = (await _of(db, place, table)).difference()
        if difference:
            return f"not prepared for {table.etype!r} as it is declared: {difference}"
    await _check_columns(db, place, tables)
    return ""


async def _check_columns(db: Session, place: str, tables: Sequence[RecordTable]) -> None:
    for table in tables:
        lacks = table.columns_sql.keys() - await columns_of(db, table.etype)
        if lacks:
            gone = "" if table.key not in lacks else ", which is gone"
            raise SchemaMismatch(
                f"{place}: another program has changed the table of {table.etype!r}{gone}: it lacks "
                f"{', '.join(sorted(lacks))}. Restore it from a backup; a copy can be made anew in an empty database"
            )


async def _of(db: Session, place: str, table: RecordTable) -> _Preparation:
    names = tuple(f"{name}:{table.etype}" for name in ("schema", "served"))
    rows = await db.fetch("SELECT k, v FROM ps_meta WHERE k IN %s", names)
    found = {str(row[0]): str(row[1]) for row in rows}
    return _Preparation(db, place, table, found.get(names[0]), found.get(names[1]))


class _Preparation:
    """One entity type in one database."""

    def __init__(self, db: Session, place: str, table: RecordTable, schema: str | None, served: str | None) -> None:
        self._db = db
        self._place = place
        self._table = table
        layout = table.layout
        self._serves = Served(layout.home, sorted(layout.facets), layout.vectors)
        self._schema: StoredSchema | None = None if schema is None else load(schema)
        self._served = None if served is None else load_served(served)
        self._migration: Migration | None = None if self._schema is None else plan(self._schema, table.entity)

    def difference(self) -> str:
        """What is not as declared; empty when everything is."""
        if self._served is not None and self._served.home != self._serves.home:
            raise SchemaMismatch(
                f"{self._place}: has the {'home' if self._served.home else 'copy'} of {self._table.etype!r}; a copy "
                "cannot become a home here, or a home a copy: use another database"
            )
        return differences(self._migration, self._served, self._serves)

    async def carry_out(self) -> None:
        if not self.difference():
            return
        migration, table, db = self._migration, self._table, self._db
        comment = await comment_of(db, table.etype)
        if migration is None and comment is not None and comment != "polystore":
            raise SchemaMismatch(
                f"{self._place}: has a table {table.etype!r} of another program; pass another @entity(name=...)"
            )
        if comment is None:
            await db.create(table.create_sql())
        await self._check_unique(migration)
        if migration is not None:
            await self._columns(migration)
        await self._facet_columns()
        await self._indexes()
        if migration is not None and migration.changes_content:
            await self._hash_anew()
        await self._facets(migration)
        schema = describe(table.entity) if migration is None else migration.schema
        values = {"schema": schema.json(), "served": msgspec.json.encode(self._serves).decode()}
        rows = [(f"{name}:{table.etype}", value) for name, value in values.items()]
        await db.run("BEGIN")
        await db.insert("INSERT INTO ps_meta (k, v)", rows, "ON DUPLICATE KEY UPDATE v = VALUES(v)")
        await db.run("COMMIT")

    # -- table ------------------------------------------------------------------------------------------------

    async def _alter(self, change: str) -> None:
        await self._db.run(f"ALTER TABLE {self._table.name} {change}")

    async def _check_unique(self, migration: Migration | None) -> None:
        """Values are held unique by the locks of `commit.py`, and looked up by an index."""
        table = self._table
        there = await columns_of(self._db, table.etype)
        renamed = {new: old for old, new in migration.rename} if migration is not None else {}
        for field in table.unique:
            column = field if field in there else renamed.get(field, field)
            if column not in there:
                continue
            sql = (
                f"SELECT 1 FROM {table.name} WHERE {ident(column)} IS NOT NULL GROUP BY ps_tenant, {ident(column)} "
                "HAVING COUNT(*) > 1 LIMIT 1"
            )
            if await self._db.value(sql) is not None:
                raise SchemaMismatch(
                    f"{table.entity.cls.__name__}.{field}: stored records share a value, so it cannot become unique; "
                    "change them first"
                )

    async def _indexes(self) -> None:
        """Drop what is not declared any more, make what is new."""
        sql = (
            "SELECT DISTINCT index_name FROM information_schema.statistics WHERE table_schema = DATABASE() "
            "AND table_name = %s AND index_name LIKE 'ps\\\\_%%'"
        )
        there = {name for (name,) in await self._db.fetch(sql, self._table.etype)}
        wanted = self._table.indexes
        for name in sorted(there - wanted.keys()):
            await self._alter(f"DROP KEY {ident(name)}")
        for name in sorted(wanted.keys() - there):
            await self._alter(f"ADD {wanted[name]}")

    async def _columns(self, migration: Migration) -> None:
        table, db = self._table, self._db
        there = await columns_of(db, table.etype)
        for old, new in migration.rename:
            if old in there and new not in there:
                await self._drop_index_of(old)
                await self._alter(f"CHANGE COLUMN {ident(old)} {ident(new)} {self._type_before(old, new)}")
                there = there - {old} | {new}
            await db.run("UPDATE ps_vector SET field = %s WHERE field = %s AND etype = %s", new, old, table.etype)
            if vector_column(old) in there and vector_column(new) not in there:
                await self._alter(f"CHANGE COLUMN {ident(vector_column(old))} {ident(vector_column(new))} LONGBLOB")
        for field, _ in migration.add:
            if field not in there:
                await self._alter(f"ADD COLUMN {ident(field)} {table.type_of(field)}")
        for field in migration.widened:
            await self._alter(f"MODIFY COLUMN {ident(field)} {table.type_of(field)}")
        live = "" if table.home else " AND NOT ps_deleted"
        for field, default in (*migration.add, *migration.fill):
            if default is not None:
                column = ident(field)
                value = table.codec.encode({field: default})[table.codec.names.index(field)]
                await db.run(f"UPDATE {table.name} SET {column} = %s WHERE {column} IS NULL{live}", value)

    def _type_before(self, old: str, new: str) -> str:
        """A column keeps its type while it is renamed; it is widened afterwards."""
        from polystore_adapters.mysql.table import DIALECT

        schema = self._schema
        kinds = {} if schema is None else {**schema.fields, **schema.retired}
        if new == self._table.key or old not in kinds:
            return self._table.type_of(new)
        return str(DIALECT.types[kinds[old].name].compile(dialect=DIALECT.compiler))

    async def _drop_index_of(self, field: str) -> None:
        await self._drop_index(name_of("ps_index", field))

    async def _drop_index(self, name: str) -> None:
        if await has_index(self._db, self._table.etype, name):
            await self._alter(f"DROP KEY {ident(name)}")

    async def _facet_columns(self) -> None:
        """Make the columns of the facets that are asked for, drop the others."""
        there = await columns_of(self._db, self._table.etype)
        wanted = self._table.facet_columns
        mine = {name for name in there if name.startswith("ps_vec_") or name in ("ps_terms", "ps_line", "ps_length")}
        if "ps_terms" in mine - wanted.keys():
            await self._drop_index("ps_text")
        for name in sorted(mine - wanted.keys()):
            await self._alter(f"DROP COLUMN {ident(name)}")
        for name in wanted.keys() - there:
            await self._alter(f"ADD COLUMN {ident(name)} {wanted[name]}")

    async def _hash_anew(self) -> None:
        entity = self._table.entity
        async for records in self._pages():
            await self._set(records, {"ps_hash": [entity.content_hash(one.body) for one in records]})

    async def _set(self, records: Sequence[_Record], columns: Mapping[str, Sequence[Any]]) -> None:
        table = self._table
        names = list(columns)
        changes = ", ".join(f"{ident(name)} = %s" for name in names)
        sql = f"UPDATE {table.name} SET {changes} WHERE ps_tenant = %s AND {ident(table.key)} = %s"
        await self._db.run("BEGIN")
        for i, one in enumerate(records):
            values = [columns[name][i] for name in names]
            self._db.later(sql, *values, one.key.tenant, table.key_value(one.key.id))
        await self._db.run("COMMIT")

    # -- facets -----------------------------------------------------------------------------------------------

    async def _facets(self, migration: Migration | None) -> None:
        """Fill the facets that are new or were made of other content."""
        table, db = self._table, self._db
        before = frozenset[str]() if self._served is None else frozenset(self._served.facets)
        changed = migration is not None and (
            migration.changes_content or bool(migration.facets_added) or bool(migration.facets_removed)
        )
        if table.full_text is not None and (changed or "full_text" not in before):
            async for records in self._pages():
                rows = [table.full_text.values(one.body) for one in records]
                await self._set(records, dict(zip(table.full_text.columns, zip(*rows, strict=True), strict=True)))
        edges = ident("ps_edge", table.etype)
        if table.edges is None:
            await db.run(f"DROP TABLE IF EXISTS {edges}")
        else:
            await db.create(graph.create_sql(table))
            if changed or "graph" not in before:
                async for records in self._pages():
                    await graph.replace(db, table, {one.key: one.body for one in records})
                    await db.flush()
        await self._vectors(migration)

    async def _vectors(self, migration: Migration | None) -> None:
        """Keep the vectors whose field, embedder and dimension are as before; the others come from what embedders made,
        if the database keeps that, or have to be delivered again: a copy's rows are then older than any version, so
        that the next delivery of the same version counts."""
        table, served = self._table, self._served
        was = {new: old for old, new in migration.rename} if migration is not None else {}
        before: Mapping[str, VectorSpec] = {} if served is None else served.vectors
        specs: Mapping[str, VectorSpec] = table.layout.vectors if table.vectors else {}
        fresh = {field for field, spec in specs.items() if not same(before.get(was.get(field, field)), spec)}
        if not fresh or migration is None:
            return
        stored = functools.partial(self._db.value, KNOWN_SQL)
        async for records in self._pages():
            found = [await known_vectors(one.key, one.body, specs, fresh, stored) for one in records]
            await self._set(records, {vector_column(name): [one.get(name) for one in found] for name in sorted(fresh)})
        if not table.home:
            await self._db.run(f"UPDATE {table.name} SET ps_version = 0 WHERE NOT ps_deleted")

    async def _pages(self) -> AsyncGenerator[list[_Record]]:
        """All live records, some at a time."""
        table = self._table
        rows = await self._db.fetch(table.first_pages_sql, PAGE)
        while rows:
            yield [
                _Record(Key(row[0], table.etype, str(row[1])), table.codec.decode(str(row[1]), row[6:])) for row in rows
            ]
            rows = await self._db.fetch(table.pages_sql, rows[-1][0], rows[-1][1], rows[-1][0], PAGE)
