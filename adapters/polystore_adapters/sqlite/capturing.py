"""Following an application's writes from inside its own transactions, in a process that may have no architecture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from polystore.entity import EntityType
from polystore.env import SYSTEM_ENV
from polystore.protocols import Layout
from polystore.relational.capturing import Known
from polystore_adapters.sqlite.application import ApplicationTable
from polystore_adapters.sqlite.following import Following
from polystore_adapters.sqlite.joining import LOCK_SQL, joined
from polystore_adapters.sqlite.records import Tables

_READY_SQL = "SELECT 1 FROM sqlite_master WHERE name = 'ps_meta'"
_META_SQL = "SELECT (SELECT v FROM ps_meta WHERE k = ?), (SELECT v FROM ps_meta WHERE k = ?)"


def _meta(connection: sa.Connection, etype: str) -> Sequence[str | None]:
    return connection.exec_driver_sql(_META_SQL, (f"schema:{etype}", f"served:{etype}")).one()


def _make(layout: Layout, connection: sa.Connection, more: Sequence[str]) -> ApplicationTable:
    return ApplicationTable(layout, 0)


class SqliteTables:
    """`CapturesTables` of SQLite files."""

    def __init__(self) -> None:
        self._known = Known(_READY_SQL, _meta, _make)

    def knows(self, connection: sa.Connection, entity: EntityType[Any]) -> bool:
        return self._known.knows(connection, entity)

    def follow(self, connection: sa.Connection, entity: EntityType[Any], ids: Sequence[str]) -> None:
        table = self._known.table(connection, entity)
        if table is None:
            return
        db = joined(connection)
        db.execute(LOCK_SQL)
        Following(db, Tables({entity.name: table}), SYSTEM_ENV).follow(entity.name, ids)

    def has_trigger(self, connection: sa.Connection, entity: EntityType[Any]) -> bool:
        return self._known.bare(connection, entity).has_trigger(joined(connection))

    def install_trigger(self, connection: sa.Connection, entity: EntityType[Any]) -> None:
        self._known.bare(connection, entity).install_trigger(joined(connection))

    def remove_trigger(self, connection: sa.Connection, entity: EntityType[Any]) -> None:
        self._known.bare(connection, entity).remove_trigger(joined(connection))


TABLES = SqliteTables()
