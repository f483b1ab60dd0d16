"""Following an application's writes from inside its own transactions, in a process that may have no architecture."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import sqlalchemy as sa

from polystore.entity import EntityType
from polystore.errors import SchemaMismatch
from polystore.evolution import load, plan
from polystore.protocols import Layout
from polystore.relational.serving import load_served

T = TypeVar("T")

_OURS = "polystore"


class Known(Generic[T]):
    """The tables of the application's own types, as the databases that a process writes are prepared for them.

    `ready_sql`: whether a database has polystore's tables; `meta_sql`: the values of two keys of `ps_meta`, which it
    takes in the driver's own way; `make`: the table of a layout, for the driver of a connection.
    """

    def __init__(
        self,
        ready_sql: str,
        meta_sql: Callable[[sa.Connection, str, str], tuple[str | None, str | None]],
        make: Callable[[Layout, sa.Connection], T],
    ) -> None:
        self._ready_sql = ready_sql
        self._meta_sql = meta_sql
        self._make = make
        self._made: dict[tuple[type[Any], str, str, str], T] = {}

    def knows(self, connection: sa.Connection, entity: EntityType[Any]) -> bool:
        """See `CapturesTables.knows`."""
        return self._meta(connection, entity) is not None

    def bare(self, connection: sa.Connection, entity: EntityType[Any]) -> T:
        """The table for what needs no facets."""
        return self._make(Layout(entity, True, frozenset()), connection)

    def table(self, connection: sa.Connection, entity: EntityType[Any]) -> T | None:
        """The table as the database is prepared for it; None: it is not. Raises SchemaMismatch when it is for another
        class."""
        meta = self._meta(connection, entity)
        if meta is None:
            return None
        place = (entity.cls, *meta, connection.dialect.driver)
        known = self._made.get(place)
        if known is None:
            schema, served = meta
            if plan(load(schema), entity).needed:
                raise SchemaMismatch(
                    f"{entity.cls.__name__}: the database is prepared for the class as it was; open an architecture "
                    "with the class as it is now, or run `polystore init`, before it is written"
                )
            one = load_served(served)
            known = self._made[place] = self._make(
                Layout(entity, one.home, frozenset(one.facets), one.vectors), connection
            )
        return known

    def _meta(self, connection: sa.Connection, entity: EntityType[Any]) -> tuple[str, str] | None:
        """How the database was last prepared for the type: its fields, and what it serves."""
        if not connection.info.get(_OURS):  # once there, the tables stay
            if not connection.exec_driver_sql(self._ready_sql).scalar():
                return None
            connection.info[_OURS] = True
        schema, served = self._meta_sql(connection, f"schema:{entity.name}", f"served:{entity.name}")
        return None if schema is None or served is None else (schema, served)
