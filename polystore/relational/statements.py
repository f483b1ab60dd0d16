"""Statements of one table, compiled once per shape: what SQLAlchemy takes 300 us for happens once."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, cast

import sqlalchemy as sa

from polystore.errors import InvalidFilter
from polystore.filters import Checked, Sort, shape, values
from polystore.relational.conditions import arguments, condition
from polystore.relational.dialect import Dialect

SHAPES_MAX = 512
"""Compiled statements kept per table; a program has a few dozen, only `in` with ever new lengths makes more."""
VALUES_MAX = 30_000
"""Values in one condition: SQLite takes 32,766 parameters in a statement, PostgreSQL 32,767."""


class Statement:
    """Compiled SQL, and where its positional parameters come from."""

    __slots__ = ("_constants", "_names", "sql")

    def __init__(self, sql: str, names: Sequence[str], constants: Mapping[str, Any]) -> None:
        self.sql = sql
        self._names = names
        self._constants = constants

    def parameters(self, given: Mapping[str, Any]) -> list[Any]:
        """The parameters in their positions; constants of the statement itself are filled in."""
        return [given[name] if name in given else self._constants[name] for name in self._names]


def compiled(clause: sa.ClauseElement, dialect: Dialect) -> Statement:
    """Compile a clause for a driver with positional parameters."""
    out = clause.compile(dialect=dialect.compiler)
    names: Sequence[str] = getattr(out, "positiontup", None) or ()
    return Statement(str(out), names, getattr(out, "params", {}))


class Statements:
    """Queries over one entity's table, given under its alias `t`, for one tenant. All raise InvalidFilter for too many
    values.

    `now_us` leaves out what has expired by then; None: nothing in the table ever expires.
    """

    def __init__(self, table: sa.FromClause, columns: Sequence[str], key: str, dialect: Dialect) -> None:
        self._table = table
        self._columns = [self._table.c[name] for name in columns]
        self._key = key
        self._dialect = dialect
        self._cache: dict[Hashable, Statement] = {}

    def find(
        self, tenant: str, where: Checked | None, order: Sequence[Sort], limit: int, now_us: int | None = None
    ) -> tuple[str, Sequence[Any]]:
        """SELECT of the columns, sorted, missing values last."""

        def build(clause: sa.ColumnElement[bool]) -> sa.ClauseElement:
            sorts = [self._sort(one) for one in order]
            rows = sa.select(*self._columns).where(clause).order_by(*sorts)
            return rows.limit(sa.bindparam("limit", type_=sa.Integer))

        key = tuple((one.path, one.descending) for one in order)
        return self._run(("find", key), build, where, {"tenant": tenant, "limit": limit}, now_us)

    def count(self, tenant: str, where: Checked | None, now_us: int | None = None) -> tuple[str, Sequence[Any]]:
        """SELECT of the number of rows."""

        def build(clause: sa.ColumnElement[bool]) -> sa.ClauseElement:
            return sa.select(sa.func.count()).select_from(self._table).where(clause)

        return self._run(("count",), build, where, {"tenant": tenant}, now_us)

    def condition(self, where: Checked | None, now_us: int | None = None) -> tuple[str, Sequence[Any]]:
        """The bare condition over alias `t`, to stand in another statement; it says nothing of the tenant."""
        return self._run(None, lambda clause: clause, where, {}, now_us)

    def _sort(self, one: Sort) -> sa.ColumnElement[Any]:
        column = self._table.c[one.path[0]]
        ordered = column.desc() if one.descending else column.asc()
        return ordered if one.path == (self._key,) else ordered.nulls_last()  # the key is never missing

    def _run(
        self,
        name: Hashable,
        build: Callable[[sa.ColumnElement[bool]], sa.ClauseElement],
        where: Checked | None,
        given: dict[str, Any],
        now_us: int | None,
    ) -> tuple[str, Sequence[Any]]:
        asked = arguments(where, self._dialect) if where is not None else []
        if len(asked) > VALUES_MAX:
            raise InvalidFilter(f"the condition has {len(asked)} values, the limit is {VALUES_MAX}; ask in parts")
        key = (name, now_us is None, None if where is None else (shape(where), _types(where)))
        statement = self._cache.get(key)
        if statement is None:
            if len(self._cache) >= SHAPES_MAX:
                self._cache.clear()
            clause = self._where(where, tenant=name is not None, expiry=now_us is not None)
            statement = self._cache[key] = compiled(build(clause), self._dialect)
        given["now"] = now_us
        given.update((f"v{i}", one) for i, one in enumerate(asked))
        return statement.sql, statement.parameters(given)

    def _where(self, where: Checked | None, *, tenant: bool, expiry: bool) -> sa.ColumnElement[bool]:
        numbers = itertools.count()

        def bind(_: Any) -> sa.ColumnElement[Any]:
            return sa.bindparam(f"v{next(numbers)}", type_=sa.types.NullType())

        parts = [condition(where, self._table, self._dialect, bind)] if where is not None else []
        if tenant:
            parts.insert(0, self._table.c.ps_tenant == sa.bindparam("tenant", type_=sa.Text))
        if expiry:
            expires = self._table.c.ps_expires_at
            parts.append(sa.or_(expires.is_(None), expires > sa.bindparam("now", type_=sa.BigInteger)))
        return sa.and_(*parts) if len(parts) != 1 else parts[0]


def _types(where: Checked) -> tuple[type[object], ...]:
    """Inside JSON what SQL compares depends on the value's type, too."""
    return tuple(type(cast(object, value)) for compare, value in values(where) if compare.kind == "json")
