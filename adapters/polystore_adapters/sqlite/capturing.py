"""Following an application's writes from inside its own transactions, in a process that may have no architecture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from polystore.entity import EntityType
from polystore.env import SYSTEM_ENV
from polystore.errors import SchemaMismatch
from polystore.evolution import load, plan
from polystore.protocols import Layout
from polystore_adapters.sqlite.application import ApplicationTable
from polystore_adapters.sqlite.following import Following
from polystore_adapters.sqlite.joining import LOCK_SQL, joined
from polystore_adapters.sqlite.prepare import Served
from polystore_adapters.sqlite.records import Tables

_OURS = "polystore"
_META_SQL = "SELECT (SELECT v FROM ps_meta WHERE k = ?), (SELECT v FROM ps_meta WHERE k = ?)"


class SqliteTables:
    """`CapturesTables` of SQLite files."""

    def __init__(self) -> None:
        self._made: dict[tuple[type[Any], str, str], ApplicationTable] = {}

    def knows(self, connection: sa.Connection, entity: EntityType[Any]) -> bool:
        return self._meta(connection, entity) is not None

    def follow(self, connection: sa.Connection, entity: EntityType[Any], ids: Sequence[str]) -> None:
        meta = self._meta(connection, entity)
        if meta is None:
            return
        db = joined(connection)
        db.execute(LOCK_SQL)
        Following(db, Tables({entity.name: self._table(entity, *meta)}), SYSTEM_ENV).follow(entity.name, ids)

    def has_trigger(self, connection: sa.Connection, entity: EntityType[Any]) -> bool:
        return self._bare(entity).has_trigger(joined(connection))

    def install_trigger(self, connection: sa.Connection, entity: EntityType[Any]) -> None:
        self._bare(entity).install_trigger(joined(connection))

    def remove_trigger(self, connection: sa.Connection, entity: EntityType[Any]) -> None:
        self._bare(entity).remove_trigger(joined(connection))

    def _meta(self, connection: sa.Connection, entity: EntityType[Any]) -> tuple[str, str] | None:
        """How the file was last prepared for the type: its fields, and what it serves."""
        if not connection.info.get(_OURS):  # once there, the tables stay
            found = connection.exec_driver_sql("SELECT 1 FROM sqlite_master WHERE name = 'ps_meta'").first()
            if found is None:
                return None
            connection.info[_OURS] = True
        keys = (f"schema:{entity.name}", f"served:{entity.name}")
        schema, served = connection.exec_driver_sql(_META_SQL, keys).one()
        return None if schema is None else (schema, served)

    def _table(self, entity: EntityType[Any], schema: str, served: str) -> ApplicationTable:
        known = self._made.get((entity.cls, schema, served))
        if known is None:
            if plan(load(schema), entity).needed:
                raise SchemaMismatch(
                    f"{entity.cls.__name__}: the database is prepared for the class as it was; open an architecture "
                    "with the class as it is now, or run `polystore init`, before it is written"
                )
            one = msgspec.json.decode(served, type=Served)
            facets: Any = frozenset(one.facets)
            known = ApplicationTable(Layout(entity, one.home, facets, one.vectors), 0)
            self._made[entity.cls, schema, served] = known
        return known

    def _bare(self, entity: EntityType[Any]) -> ApplicationTable:
        return ApplicationTable(Layout(entity, True, frozenset()), 0)


TABLES = SqliteTables()
