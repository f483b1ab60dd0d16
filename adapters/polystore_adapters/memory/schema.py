"""What a memory server is prepared for, and what happens when a class changed since the last time."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import msgspec

from polystore.env import Env
from polystore.errors import SchemaMismatch
from polystore.evolution import Migration, StoredSchema, describe, plan
from polystore.model import Key
from polystore.protocols import Layout

from .tables import Row, Tables, draft


class Schema(Tables):
    """The layouts of the server's types."""

    def __init__(self, env: Env) -> None:
        super().__init__(env)
        self._schemas: dict[str, StoredSchema] = {}

    def prepare(self, layouts: Sequence[Layout], *, create: bool) -> None:
        records = [layout for layout in layouts if layout.kind == "record"]
        plans = [(layout, self._planned(layout, create=create)) for layout in records]
        for layout, migration in plans:
            if migration is not None:
                self._migrate(layout, migration)
            else:
                self.layouts[layout.entity.name] = layout
                self._schemas.setdefault(layout.entity.name, describe(layout.entity))

    def _planned(self, layout: Layout, *, create: bool) -> Migration | None:
        """What the layout changes about stored records; None when there are none, or nothing changes."""
        etype = layout.entity.name
        old = self.layouts.get(etype) if create else self.layout(etype)
        if old is None:
            return None
        migration = plan(self._schemas[etype], layout.entity)
        same = (old.home, old.facets, old.vectors) == (layout.home, layout.facets, layout.vectors)
        if same and not migration.needed:
            return None
        if not create:
            raise SchemaMismatch(f"{etype}: the declared class is not what is stored; prepare it with create=True")
        return migration

    def _migrate(self, layout: Layout, migration: Migration) -> None:
        """Carry the records over: new bodies and hashes, facets made anew; versions stay."""
        etype = layout.entity.name
        old = self.layouts[etype]
        rows = {
            Key(tenant, etype, id): _carried(layout, old, migration, Key(tenant, etype, id), row)
            for tenant, part in self.parts(etype)
            for id, row in part.rows.items()
        }
        _check_unique(layout, rows)
        for key in rows:
            self.remove(key)
        self.layouts[etype], self._schemas[etype] = layout, migration.schema
        self.retired[etype] = frozenset(migration.schema.retired)
        for key, row in rows.items():
            self.install(key, row)


def _carried(layout: Layout, old: Layout, migration: Migration, key: Key, row: Row) -> Row:
    body = migration.carry_out(row.body)
    hash = layout.entity.content_hash(body)
    new = draft(layout, key, row.version, row.h, body, hash, row.updated_us)
    was = {new: before for before, new in migration.rename}
    vectors: dict[str, array[float]] = {}
    for field, spec in layout.vectors.items():
        source = was.get(field, field)
        if "vector" in layout.facets and source in row.vectors and old.vectors[source] == spec:
            vectors[field] = row.vectors[source]
    return msgspec.structs.replace(new, vectors=vectors)


def _check_unique(layout: Layout, rows: dict[Key, Row]) -> None:
    if layout.home:
        for field in layout.entity.unique:
            values = [(key.tenant, row.body.get(field)) for key, row in rows.items() if row.body.get(field) is not None]
            if len(set(values)) != len(values):
                raise SchemaMismatch(
                    f"{layout.entity.cls.__name__}.{field}: stored records share a value, so it cannot become unique; "
                    "change them first"
                )
