"""How SQLite keeps and compares values.

    bool       INTEGER 0 or 1
    datetime   TEXT, ISO 8601 in UTC with microseconds, of one width: order of text is order of time
    date       TEXT, ISO 8601
    decimal    TEXT with the collation `ps_decimal`: exact digits, compared by value
    uuid       TEXT in lower case
    json       TEXT; inside it the JSON functions of SQLite compare

The collation is a Python function of each connection: other programs can read such columns, but not compare them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any
from uuid import UUID

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import sqlite
from sqlalchemy.types import TypeEngine

from polystore.errors import InvalidFilter
from polystore.filters import Compare
from polystore.relational import codec
from polystore.relational.dialect import Bind, Packing

DECIMAL_COLLATION = "ps_decimal"
_CLASSES: Mapping[type, tuple[str, ...]] = {
    bool: ("true", "false"),
    int: ("integer", "real"),
    float: ("integer", "real"),
    str: ("text",),
}
"""Type of a value -> SQLite's names of the JSON types that it can equal."""


@lru_cache(4096)
def _decimal(text: str) -> Decimal:
    return Decimal(text)


def compare_decimals(a: str, b: str) -> int:
    """The collation: -1, 0 or 1 by value. Texts that are no decimals come after those that are, by themselves."""
    try:
        x, y = _decimal(a), _decimal(b)
    except ArithmeticError:
        return (a > b) - (a < b)
    return (x > y) - (x < y)


def _encode_datetime(value: datetime) -> str:
    return value.isoformat(timespec="microseconds")


def _encode_json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


_ENCODERS: Mapping[str, Callable[[Any], Any]] = {
    "datetime": _encode_datetime,
    "date": date.isoformat,
    "decimal": str,
    "uuid": str,
    "json": _encode_json,
}
_DECODERS: Mapping[str, Callable[[Any], Any]] = {
    "bool": bool,
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
    "decimal": Decimal,
    "uuid": UUID,
    "json": msgspec.json.Decoder().decode,
}


class SqliteDialect:
    """The `Dialect` of SQLite."""

    compiler: sa.Dialect = sqlite.dialect(paramstyle="qmark")
    encoders = _ENCODERS
    types: Mapping[str, TypeEngine[Any]] = {
        "str": sa.Text(),
        "int": sa.Integer(),
        "float": sa.REAL(),
        "bool": sa.Integer(),
        "bytes": sa.LargeBinary(),
        "datetime": sa.Text(),
        "date": sa.Text(),
        "decimal": sa.Text(collation=DECIMAL_COLLATION),
        "uuid": sa.Text(),
        "json": sa.Text(),
    }

    # Neither bytes, which JSON has not, nor floats, which would be read from their text.
    listed: frozenset[str] = frozenset({"str", "int", "bool", "datetime", "date", "decimal", "uuid"})

    def encoder(self, field: str, kind: str) -> Callable[[Any], Any] | None:
        return self.encoders.get(kind)

    @property
    def packing(self) -> Packing:
        return self

    def pack(self, values: Sequence[Any]) -> str:
        return _encode_json(values)

    def among(self, column: sa.ColumnElement[Any], packed: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
        return column.in_(sa.select(sa.func.json_each(packed).table_valued("value").c.value))

    def position(self, text: sa.ColumnElement[Any], part: sa.ColumnElement[Any]) -> sa.ColumnElement[int]:
        return sa.func.instr(text, part, type_=sa.Integer)

    def json(self, column: sa.ColumnElement[Any], node: Compare, bind: Bind) -> sa.ColumnElement[bool]:
        place = _json_path(node.path)
        found = sa.func.json_extract(column, place)
        kind = sa.func.json_type(column, place)

        def equal(type_: sa.ColumnElement[Any], value: sa.ColumnElement[Any], wanted: Any) -> sa.ColumnElement[bool]:
            return sa.and_(_one_of(type_, wanted), value == bind(wanted))

        wanted = node.value
        match node.op:
            case "==":
                return found.is_(None) if wanted is None else equal(kind, found, wanted)
            case "!=":
                if wanted is None:
                    return found.is_not(None)
                return sa.not_(sa.func.coalesce(equal(kind, found, wanted), sa.false()))
            case "in":
                return _among(kind, found, [(item, bind(item)) for item in wanted])
            case "contains":
                return self._contains(column, place, wanted, bind)
            case "startswith":
                return sa.and_(kind == "text", self.position(found, bind(wanted)) == 1)
            case _:
                return sa.and_(_one_of(kind, wanted), found.bool_op(node.op)(bind(wanted)))

    def _contains(
        self, column: sa.ColumnElement[Any], place: sa.ColumnElement[str], wanted: Any, bind: Bind
    ) -> sa.ColumnElement[bool]:
        value = bind(wanted)
        kind = sa.func.json_type(column, place)
        items = sa.func.json_each(column, place).table_valued("type", "value")
        item = sa.and_(_one_of(items.c.type, wanted), items.c.value == value)
        in_list = sa.and_(kind == "array", sa.exists(sa.select(1).select_from(items).where(item)))
        if not isinstance(wanted, str):
            return in_list
        in_text = sa.and_(kind == "text", self.position(sa.func.json_extract(column, place), value) > 0)
        return sa.or_(in_text, in_list)


def _among(
    kind: sa.ColumnElement[Any], found: sa.ColumnElement[Any], wanted: Sequence[tuple[object, sa.ColumnElement[Any]]]
) -> sa.ColumnElement[bool]:
    """One list per type: thousands of alternatives would be an expression deeper than SQLite takes."""
    lists: dict[type[object], list[sa.ColumnElement[Any]]] = {}
    for item, bound in wanted:
        lists.setdefault(type(item), []).append(bound)
    return sa.or_(sa.false(), *(sa.and_(kind.in_(_types(one)), found.in_(items)) for one, items in lists.items()))


def _one_of(kind: sa.ColumnElement[Any], wanted: object) -> sa.ColumnElement[bool]:
    """The JSON type `kind` is one that the wanted value can equal."""
    return kind.in_(_types(type(wanted)))


def _types(wanted: type[object]) -> list[sa.ColumnElement[Any]]:
    return [sa.literal_column(f"'{name}'") for name in _CLASSES[wanted]]


def _json_path(path: tuple[str, ...]) -> sa.ColumnElement[str]:
    """The place inside the column as SQLite's JSON path, https://sqlite.org/json1.html#path_arguments ."""
    for name in path[1:]:
        if '"' in name or "\\" in name or not name.isprintable():
            raise InvalidFilter(f"{'.'.join(path)}: SQLite cannot look under a name with quotes or control characters")
    text = "$" + "".join(f'."{name}"' for name in path[1:])
    return sa.literal_column("'" + text.replace("'", "''") + "'", sa.Text)


class Codec(codec.Codec):
    encoders = _ENCODERS
    decoders = _DECODERS
