"""Following an application's writes from inside its own transactions, in a process that may have no architecture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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

    `ready_sql`: whether a database has polystore's tables. `meta`: what it was last prepared for of an entity: the
    values of `schema:...` and `served:...` in `ps_meta`, and of what else `make` needs to know, which makes the table
    of a layout for the driver of a connection.
    """

    def __init__(
        self,
        ready_sql: str,
        meta: Callable[[sa.Connection, str], Sequence[str | None]],
        make: Callable[[Layout, sa.Connection, Sequence[str]], T],
    ) -> None:
        self._ready_sql = ready_sql
        self._meta_of = meta
        self._make = make
        self._made: dict[tuple[object, ...], T] = {}

    def knows(self, connection: sa.Connection, entity: EntityType[Any]) -> bool:
        """See `CapturesTables.knows`."""
        return self._meta(connection, entity) is not None

    def bare(self, connection: sa.Connection, entity: EntityType[Any]) -> T:
        """The table for what needs no facets."""
        return self._make(Layout(entity, True, frozenset()), connection, ())

    def table(self, connection: sa.Connection, entity: EntityType[Any]) -> T | None:
        """The table as the database is prepared for it; None: it is not. Raises SchemaMismatch when it is for another
        class."""
        meta = self._meta(connection, entity)
        if meta is None:
            return None
        place = (entity.cls, *meta, connection.dialect.driver)
        known = self._made.get(place)
        if known is None:
            schema, served, *more = meta
            if plan(load(schema), entity).needed:
                raise SchemaMismatch(
                    f"{entity.cls.__name__}: the database is prepared for the class as it was; open an architecture "
                    "with the class as it is now, or run `polystore init`, before it is written"
                )
            one = load_served(served)
            facets: Any = frozenset(one.facets)
            layout = Layout(entity, one.home, facets, one.vectors)
            known = self._made[place] = self._make(layout, connection, more)
        return known

    def _meta(self, connection: sa.Connection, entity: EntityType[Any]) -> tuple[str, ...] | None:
        """How the database was last prepared for the type: its fields, what it serves, and more."""
        if not connection.info.get(_OURS):  # once there, the tables stay
            if not connection.exec_driver_sql(self._ready_sql).scalar():
                return None
            connection.info[_OURS] = True
        schema, *others = self._meta_of(connection, entity.name)
        return None if schema is None else (schema, *(one or "" for one in others))
