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
from polystore.relational.dialect import Bind, Dialect

_ORDERED: Mapping[str, Callable[[Any, Any], sa.ColumnElement[bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def condition(node: Checked, table: sa.FromClause, dialect: Dialect, bind: Bind) -> sa.ColumnElement[bool]:
    """The condition over the columns of `table`; `bind` is called once for each of `filters.values(node)`, in order."""
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
            return column.in_([bind(item) for item in value]) if value else sa.false()
        case "contains":
            return dialect.position(column, bind(value)) > 0
        case "startswith":
            return dialect.position(column, bind(value)) == 1
        case _:
            return _ORDERED[node.op](column, bind(value))
