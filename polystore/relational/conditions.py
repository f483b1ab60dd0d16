"""A checked condition as SQL, true exactly where `polystore.filters.predicate` is.

SQL knows a third truth value. Every part made here is true where its condition is, and false or NULL elsewhere; `and`
and `or` keep that, and a negation first turns NULL into false.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sa

from polystore.filters import All, AnyOf, Checked, Compare, Not
from polystore.relational.dialect import Bind, Dialect, Packing

_ORDERED: Mapping[str, Callable[[Any, Any], sa.ColumnElement[bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def condition(node: Checked, table: sa.FromClause, dialect: Dialect, bind: Bind) -> sa.ColumnElement[bool]:
    """The condition over the columns of `table`; `bind` is called for each of `arguments(node)`, in order."""
    match node:
        case All(parts):
            return sa.and_(sa.true(), *(condition(part, table, dialect, bind) for part in parts))
        case AnyOf(parts):
            return sa.or_(sa.false(), *(condition(part, table, dialect, bind) for part in parts))
        case Not(part):
            return negation(condition(part, table, dialect, bind))
        case Compare(path, kind=kind):
            column = table.c[path[0]]
            return dialect.json(column, node, bind) if kind == "json" else _compare(column, node, dialect, bind)


def arguments(node: Checked, dialect: Dialect) -> list[Any]:
    """The parameters of a condition, as the driver takes them."""
    match node:
        case All(parts) | AnyOf(parts):
            return [one for part in parts for one in arguments(part, dialect)]
        case Not(part):
            return arguments(part, dialect)
        case Compare(path, op, value, kind):
            if value is None:
                return []
            encode = dialect.encoder(path[0], kind) if kind != "json" else None
            if op != "in":
                return [value if encode is None else encode(value)]
            encoded = [item if encode is None else encode(item) for item in value]
            packing = _packing(dialect, kind)
            return [packing.pack(encoded)] if packing is not None and encoded else encoded


def _packing(dialect: Dialect, kind: str) -> Packing | None:
    """How the store takes a list of values of this kind as one parameter."""
    packing = dialect.packing
    return packing if packing is not None and kind in packing.listed else None


def negation(inner: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    """True where `inner` is false or NULL."""
    return sa.not_(sa.func.coalesce(inner, sa.false()))


def _compare(column: sa.ColumnElement[Any], node: Compare, dialect: Dialect, bind: Bind) -> sa.ColumnElement[bool]:
    value = node.value
    match node.op:
        case "==":
            return column.is_(None) if value is None else column == bind(value)
        case "!=":
            return column.is_not(None) if value is None else column.is_distinct_from(bind(value))
        case "in":
            if not value:
                return sa.false()
            packing = _packing(dialect, node.kind)
            return packing.among(column, bind(value)) if packing else column.in_([bind(item) for item in value])
        case "contains":
            return dialect.position(column, bind(value)) > 0
        case "startswith":
            return dialect.position(column, bind(value)) == 1
        case _:
            return _ORDERED[node.op](column, bind(value))
