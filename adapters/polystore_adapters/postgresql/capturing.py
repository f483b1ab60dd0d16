"""Following an application's writes from inside its own transactions, in a process that may have no architecture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from polystore.entity import EntityType
from polystore.protocols import Layout
from polystore.relational.capturing import Known
from polystore_adapters.postgresql import touching
from polystore_adapters.postgresql.application import ApplicationTable
from polystore_adapters.postgresql.following import follow
from polystore_adapters.postgresql.joining import READY_SQL, Joined, driven
from polystore_adapters.postgresql.pgvector import BYTES, EXTENSION_SQL, load_kept

_META_SQL = (
    "SELECT (SELECT v FROM ps_meta WHERE k = 'schema:' || $1::text), (SELECT v FROM ps_meta WHERE k = 'served:' || "
    f"$1::text), (SELECT v FROM ps_meta WHERE k = 'vectors:' || $1::text), ({EXTENSION_SQL})"
)


def _meta(connection: sa.Connection, etype: str) -> Sequence[str | None]:
    found: Sequence[str | None] = driven(Joined(connection).row(_META_SQL, etype))
    return found


def _make(layout: Layout, connection: sa.Connection, more: Sequence[str]) -> ApplicationTable:
    """`more`: how vectors are kept, and where the extension for them is."""
    kept, extension = more or ("", "")
    return ApplicationTable(layout, load_kept(kept) if kept else BYTES, extension, connection.dialect)


class PostgresTables:
    """`CapturesTables` of PostgreSQL databases."""

    def __init__(self) -> None:
        self._known = Known(READY_SQL, _meta, _make)

    def knows(self, connection: sa.Connection, entity: EntityType[Any]) -> bool:
        return self._known.knows(connection, entity)

    def follow(self, connection: sa.Connection, entity: EntityType[Any], ids: Sequence[str]) -> None:
        table = self._known.table(connection, entity)
        if table is not None:
            driven(follow(Joined(connection), table, ids))

    def has_trigger(self, connection: sa.Connection, entity: EntityType[Any]) -> bool:
        return driven(touching.installed(Joined(connection), self._known.bare(connection, entity)))

    def install_trigger(self, connection: sa.Connection, entity: EntityType[Any]) -> None:
        driven(touching.install(Joined(connection), self._known.bare(connection, entity)))

    def remove_trigger(self, connection: sa.Connection, entity: EntityType[Any]) -> None:
        driven(touching.remove(Joined(connection), self._known.bare(connection, entity)))


TABLES = PostgresTables()
