"""Making a file ready for the declared entities, and carrying stored records over when a class changed.

Everything happens in one transaction: a file is as before or as declared, never between.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import msgspec
import sqlalchemy as sa
from sqlalchemy.schema import CreateColumn, CreateIndex, CreateTable

from polystore.embedding import pack
from polystore.errors import SchemaMismatch
from polystore.evolution import Migration, StoredSchema, describe, load, plan
from polystore.model import Vectors, text_hash
from polystore.protocols import VectorSpec
from polystore.relational.serving import Served, differences, load_served, same
from polystore_adapters.sqlite import application, state, workers
from polystore_adapters.sqlite.facets import FacetRow
from polystore_adapters.sqlite.schema import check_file, create_tables, is_current
from polystore_adapters.sqlite.table import DIALECT, RecordTable

LATER = (*state.TABLES, *application.TABLES, *workers.TABLES)
"""Tables that files of older schema versions lack."""
PAGE = 500
"""Records in memory while facets are made anew."""


def prepare(db: sqlite3.Connection, path: str, tables: Sequence[RecordTable]) -> None:
    """Make or change what is needed. Raises SchemaMismatch for what cannot be changed without loss."""
    create_tables(db, path, LATER, shared=any(table.shared for table in tables))
    for table in tables:
        table.check(db, path)
        _Preparation(db, table).carry_out()


def clear(db: sqlite3.Connection, path: str, etype: str) -> None:
    """See `SupportsRebuild.clear`."""
    if not check_file(db, path):
        return
    for prefix in ("", "ps_text_", "ps_vec_", "ps_edge_"):
        db.execute(f'DROP TABLE IF EXISTS "{prefix}{etype}"')
    db.execute("DELETE FROM ps_tombstone WHERE etype = ?", (etype,))
    known = [(f"{name}:{etype}",) for name in ("schema", "served", "newest")]
    db.executemany("DELETE FROM ps_meta WHERE k = ?", known)


def compare(db: sqlite3.Connection, path: str, tables: Sequence[RecordTable]) -> None:
    """Raises SchemaMismatch when `prepare` would have something to do."""
    ready = check_file(db, path)
    if not (is_current(db, path) if ready else tables):
        raise SchemaMismatch(f"{path}: lacks tables of this version of polystore; run `polystore init`")
    for table in tables:
        table.check(db, path)
        difference = _Preparation(db, table).difference() if ready else "nothing is stored of it"
        if difference:
            raise SchemaMismatch(
                f"{path}: not prepared for {table.etype!r} as it is declared: {difference}; run `polystore init`, or "
                "open it with the right to create"
            )


class _Preparation:
    """One entity type in one file."""

    def __init__(self, db: sqlite3.Connection, table: RecordTable) -> None:
        self._db = db
        self._table = table
        layout = table.layout
        self._serves = Served(layout.home, sorted(layout.facets), layout.vectors)
        schema, served = self._meta("schema"), self._meta("served")
        self._schema: StoredSchema | None = None if schema is None else load(schema)
        self._served = None if served is None else load_served(served)
        self._migration: Migration | None = None if self._schema is None else plan(self._schema, table.entity)

    def _meta(self, name: str) -> str | None:
        sql = "SELECT v FROM ps_meta WHERE k = ?"
        row = self._db.execute(sql, (f"{name}:{self._table.etype}",)).fetchone()
        return None if row is None else str(row[0])

    def difference(self) -> str:
        """What is not as declared; empty when everything is."""
        told = differences(self._migration, self._served, self._serves)
        if told or self._table.shared or self._exists(f"ps_scan_{self._table.etype}"):
            return told
        return "an older polystore indexed its hashes otherwise"

    def carry_out(self) -> None:
        if not self.difference():
            return
        migration, table = self._migration, self._table
        if not table.shared:
            self._make(migration)
        self._facets(migration)
        schema = describe(table.entity) if migration is None else migration.schema
        values = {"schema": schema.json(), "served": msgspec.json.encode(self._serves).decode()}
        rows = [(f"{name}:{table.etype}", value) for name, value in values.items()]
        self._db.executemany("INSERT OR REPLACE INTO ps_meta (k, v) VALUES (?, ?)", rows)

    # -- table ------------------------------------------------------------------------------------------------

    def _make(self, migration: Migration | None) -> None:
        table = self._table
        if migration is not None:
            self._drop_indexes(migration)
            self._columns(migration)
        elif self._exists(table.etype):
            raise SchemaMismatch(
                f"the database has a table {table.etype!r} of another program; pass another @entity(name=...), or make "
                "its mapped class the entity"
            )
        else:
            self._db.execute(_ddl(CreateTable(table.definition)))
        self._create_indexes()

    def _drop_indexes(self, migration: Migration) -> None:
        wanted = {str(index.name) for index in self._table.definition.indexes}
        sql = "SELECT name FROM sqlite_master WHERE type = 'index' AND tbl_name = ? AND name GLOB 'ps_*'"
        for (name,) in self._db.execute(sql, (self._table.etype,)).fetchall():
            if name not in wanted or migration.widened:
                self._db.execute(f'DROP INDEX "{name}"')

    def _create_indexes(self) -> None:
        for index in sorted(self._table.definition.indexes, key=lambda one: str(one.name)):
            try:
                self._db.execute(_ddl(CreateIndex(index, if_not_exists=True)))
            except sqlite3.IntegrityError:
                field = [column.name for column in index.columns][-1]
                raise SchemaMismatch(
                    f"{self._table.entity.cls.__name__}.{field}: stored records share a value, so it cannot become "
                    "unique; change them first"
                ) from None

    def _columns(self, migration: Migration) -> None:
        table = f'"{self._table.etype}"'
        for old, new in migration.rename:
            self._db.execute(f'ALTER TABLE {table} RENAME COLUMN "{old}" TO "{new}"')
            for name in (f"ps_vec_{self._table.etype}", "ps_vector"):
                self._rename_vectors(name, old, new)
        for field, _ in migration.add:
            self._add_column(field)
        for field in migration.widened:
            self._widen(migration, field)
        for field, default in (*migration.add, *migration.fill):
            encode = DIALECT.encoders.get(self._table.entity.fields[field].kind.name)
            value = default if default is None or encode is None else encode(default)
            self._db.execute(f'UPDATE {table} SET "{field}" = ? WHERE "{field}" IS NULL', (value,))
        if migration.changes_content:
            self._hash_anew()

    def _rename_vectors(self, table: str, old: str, new: str) -> None:
        if self._exists(table):
            of_type = " AND etype = ?" if table == "ps_vector" else ""
            parameters = (new, old, self._table.etype)[: 3 if of_type else 2]
            self._db.execute(f'UPDATE "{table}" SET field = ? WHERE field = ?{of_type}', parameters)

    def _add_column(self, field: str, name: str | None = None) -> None:
        column = self._table.definition.c[field]
        text = _ddl(CreateColumn(column)).removeprefix(DIALECT.compiler.identifier_preparer.format_column(column))
        self._db.execute(f'ALTER TABLE "{self._table.etype}" ADD COLUMN "{name or field}"{text}')

    def _widen(self, migration: Migration, field: str) -> None:
        """Give the column the type of the field's new kind: a column of integers would turn 2.0 into 2 again."""
        table, before = f'"{self._table.etype}"', self._schema
        old = {new: was for was, new in migration.rename}.get(field, field)
        if (
            before is None
            or {**before.fields, **before.retired}[old].name == self._table.entity.fields[field].kind.name
        ):
            return
        self._add_column(field, "ps_wider")
        self._db.execute(f'UPDATE {table} SET ps_wider = "{field}"')
        self._db.execute(f'ALTER TABLE {table} DROP COLUMN "{field}"')
        self._db.execute(f'ALTER TABLE {table} RENAME COLUMN ps_wider TO "{field}"')

    def _hash_anew(self) -> None:
        entity = self._table.entity
        for rows in self._pages():
            hashes = [(entity.content_hash(row.body), row.rid) for row in rows]
            self._db.executemany(f'UPDATE "{entity.name}" SET ps_hash = ? WHERE ps_rid = ?', hashes)

    # -- facets -----------------------------------------------------------------------------------------------

    def _facets(self, migration: Migration | None) -> None:
        """Make the facets that are asked for, drop the others, and fill what is new or was made of other content."""
        table = self._table
        kinds = {"ps_text_": table.full_text, "ps_vec_": table.vector, "ps_edge_": table.graph}
        for prefix, facet in kinds.items():
            if facet is None:
                self._db.execute(f'DROP TABLE IF EXISTS "{prefix}{table.etype}"')
        changed = migration is not None and migration.changes_content
        stale = table.shared and changed
        for facet in (table.full_text, table.graph):
            if facet is None or not (facet.create(self._db) or changed):
                continue
            if table.shared:
                stale = True
                continue
            for rows in self._pages():
                facet.put(self._db, rows)
        if stale:
            # Its rows count as changed: they are taken over anew, some at a time, and the application goes on writing.
            self._db.execute("UPDATE ps_row SET hash = x'' WHERE etype = ?", (table.etype,))
        if table.vector is not None:
            self._vectors(migration, new=table.vector.create(self._db))

    def _vectors(self, migration: Migration | None, *, new: bool) -> None:
        """Keep the vectors whose field, embedder and dimension are as before; the others come from what
        embedders made, if the file keeps that, or have to be delivered again: a copy's rows are then older than any
        version, so that the next delivery of the same version counts."""
        table, served = self._table, self._served
        assert table.vector is not None
        was = {new_name: old for old, new_name in migration.rename} if migration is not None else {}
        before: Mapping[str, VectorSpec] = {} if served is None or new else served.vectors
        specs = table.layout.vectors
        keep = frozenset(field for field, spec in specs.items() if same(before.get(was.get(field, field)), spec))
        fresh = specs.keys() - keep
        if not fresh and before.keys() == {was.get(field, field) for field in keep}:
            return
        for rows in self._pages():
            table.vector.put(self._db, [row._replace(vectors=self._known(row, fresh), keep=keep) for row in rows])
        if fresh and not table.layout.home:
            self._db.execute(f'UPDATE "{table.etype}" SET ps_version = 0')

    def _known(self, row: FacetRow, fields: set[str]) -> Vectors:
        """The vectors that can be had of what the file holds."""
        found: dict[str, bytes] = {}
        for field in fields:
            value: Any = row.body.get(field)
            if isinstance(value, list):
                found[field] = pack(cast(list[float], value))
            elif isinstance(value, str):
                sql = (
                    "SELECT vec FROM ps_vector WHERE tenant = ? AND etype = ? AND id = ? AND field = ? AND embedder IN "
                    "('caller', ?) AND text_hash = ? AND length(vec) = ? ORDER BY embedder <> 'caller' LIMIT 1"
                )
                spec = self._table.layout.vectors[field]
                place = (row.tenant, self._table.etype, row.id, field)
                made = (spec.embedder, text_hash(value), 4 * spec.dimension)
                stored = self._db.execute(sql, (*place, *made)).fetchone()
                if stored is not None:
                    found[field] = stored[0]
        return found

    # -- small things -----------------------------------------------------------------------------------------

    def _pages(self) -> Iterator[list[FacetRow]]:
        """All live records, some at a time."""
        last = 0
        while True:
            rows: list[Any] = self._db.execute(self._table.page_sql, (last, PAGE)).fetchall()
            if not rows:
                return
            last = rows[-1][0]
            decode = self._table.codec.decode
            yield [
                FacetRow(rid, tenant, str(id), decode(str(id), tuple(fields)), {}, version)
                for rid, tenant, id, version, *fields in rows
            ]

    def _exists(self, table: str) -> bool:
        return self._db.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchone() is not None


def _ddl(statement: sa.ClauseElement) -> str:
    return str(statement.compile(dialect=DIALECT.compiler))
