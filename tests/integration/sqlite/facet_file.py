"""A SQLite file with an entity's table and one facet, as the adapter lays it out."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Generic, TypeVar

from polystore_adapters.sqlite.facets import FacetRow, RowFacet

from polystore.entity import EntityType

F = TypeVar("F", bound=RowFacet)


def connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False)


class FacetFile(Generic[F]):
    """Records by (tenant, id) in a file, each with its rid; a freed rid is given to another record, as SQLite does."""

    def __init__(self, path: Path, entity: EntityType[Any], facet: F) -> None:
        self.path = path
        self.entity = entity
        self.facet = facet
        self.db = connect(path)
        self.db.execute("PRAGMA journal_mode = WAL")
        columns = "".join(f', "{name}"' for name in entity.fields if name != entity.key)
        kind = "INTEGER" if entity.fields[entity.key].kind.name == "int" else "TEXT"
        self.db.execute(
            f'CREATE TABLE IF NOT EXISTS "{entity.name}" (ps_rid INTEGER PRIMARY KEY, ps_tenant TEXT, '
            f'ps_version INTEGER, "{entity.key}" {kind}{columns}, UNIQUE (ps_tenant, "{entity.key}"))'
        )
        self.made = facet.create(self.db)
        self.rows: dict[tuple[str, str], FacetRow] = {}

    def put(
        self,
        bodies: Iterable[Mapping[str, Any]],
        *,
        tenant: str = "",
        version: int = 1,
        vectors: Mapping[str, Mapping[str, bytes]] = {},
        keep: frozenset[str] = frozenset(),
    ) -> None:
        """Write these records in one transaction; `vectors` by id."""
        rows: list[FacetRow] = []
        self.db.execute("BEGIN IMMEDIATE")
        for body in bodies:
            id = self.entity.key_id(body[self.entity.key])
            known = self.rows.get((tenant, id))
            rid = known.rid if known is not None else None
            plain = {name: value for name, value in body.items() if isinstance(value, str | int | float)}
            names = ["ps_rid", "ps_tenant", "ps_version", *plain]
            places = ", ".join("?" * len(names))
            rid = self.db.execute(
                f'INSERT OR REPLACE INTO "{self.entity.name}" ({", ".join(map(_quoted, names))}) VALUES ({places})',
                (rid, tenant, version, *plain.values()),
            ).lastrowid
            assert rid is not None
            row = FacetRow(rid, tenant, id, body, vectors.get(id, {}), version, keep)
            self.rows[tenant, id] = row
            rows.append(row)
        self.facet.put(self.db, rows)
        self.db.execute("COMMIT")

    def remove(self, ids: Iterable[str], tenant: str = "") -> None:
        self.db.execute("BEGIN IMMEDIATE")
        rids = [self.rows.pop((tenant, id)).rid for id in ids]
        self.db.executemany(f'DELETE FROM "{self.entity.name}" WHERE ps_rid = ?', [(rid,) for rid in rids])
        self.facet.remove(self.db, rids)
        self.db.execute("COMMIT")

    def faults(self) -> Mapping[int, str]:
        return self.facet.faults(self.db, list(self.rows.values()))


def _quoted(name: str) -> str:
    return f'"{name}"'


@contextmanager
def facet_file(entity: EntityType[Any], facet: F) -> Generator[FacetFile[F], None, None]:
    with TemporaryDirectory() as directory:
        file = FacetFile(Path(directory) / "file.db", entity, facet)
        try:
            yield file
        finally:
            file.db.close()
