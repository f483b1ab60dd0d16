"""What a memory server is prepared for, and what happens when a class changed since the last time."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import msgspec

from polystore.embedding import unpack
from polystore.env import Env
from polystore.errors import SchemaMismatch
from polystore.evolution import Migration, StoredSchema, describe, plan
from polystore.model import CALLER, Body, Key, StoredVector, text_hash
from polystore.protocols import Layout, VectorSpec

from .tables import Row, Tables, draft


class Schema(Tables):
    """The layouts of the server's types."""

    stored: dict[Key, dict[tuple[str, str], StoredVector]]
    """The journal's vectors beside the home."""

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

    def clear(self, etype: str) -> None:
        """See `SupportsRebuild.clear`."""
        if etype in self.layouts:
            for tenant, part in self.parts(etype):
                for id in list(part.rows):
                    self.remove(Key(tenant, etype, id))
                del self._parts[etype, tenant]
            for known in (self.layouts, self._schemas, self._newest, self.retired):
                known.pop(etype, None)

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
            Key(tenant, etype, id): self._carried(layout, old, migration, Key(tenant, etype, id), row)
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

    def _carried(self, layout: Layout, old: Layout, migration: Migration, key: Key, row: Row) -> Row:
        """The record as the layout has it. Vectors of another embedder come from what the home keeps; a copy has to get
        them again, so its record is then older than any version."""
        body = migration.carry_out(row.body)
        hash = layout.entity.content_hash(body)
        new = draft(layout, key, row.version, row.h, body, hash, row.updated_us)
        was = {new: before for before, new in migration.rename}
        vectors: dict[str, array[float]] = {}
        fresh: list[str] = []
        for field, spec in layout.vectors.items() if "vector" in layout.facets else ():
            source = was.get(field, field)
            before = old.vectors.get(source)
            if before is not None and (before.dimension, before.embedder) == (spec.dimension, spec.embedder):
                vectors |= {field: row.vectors[source]} if source in row.vectors else {}
            else:
                fresh.append(field)
                kept = self._kept(key, field, spec, body)
                if kept is not None:
                    vectors[field] = unpack(kept)
        version = 0 if fresh and not layout.home else new.version
        return msgspec.structs.replace(new, vectors=vectors, version=version)

    def _kept(self, key: Key, field: str, spec: VectorSpec, body: Body) -> bytes | None:
        """The vector that the caller gave or the embedder made of the field's text, if any."""
        text = body.get(field)
        if not isinstance(text, str):
            return None
        for by in (CALLER, spec.embedder):
            one = self.stored.get(key, {}).get((field, by))
            if one is not None and one.text_hash == text_hash(text) and len(one.vector) == 4 * spec.dimension:
                return one.vector
        return None


def _check_unique(layout: Layout, rows: dict[Key, Row]) -> None:
    if layout.home:
        for field in layout.entity.unique:
            values = [(key.tenant, row.body.get(field)) for key, row in rows.items() if row.body.get(field) is not None]
            if len(set(values)) != len(values):
                raise SchemaMismatch(
                    f"{layout.entity.cls.__name__}.{field}: stored records share a value, so it cannot become unique; "
                    "change them first"
                )
