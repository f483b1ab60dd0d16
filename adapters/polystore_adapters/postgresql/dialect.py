"""How PostgreSQL keeps and compares values.

str        TEXT COLLATE "C": compared by code point
int        BIGINT
float      DOUBLE PRECISION
bool, bytes, date, uuid, datetime (TIMESTAMPTZ): PostgreSQL's own
decimal    NUMERIC, compared by value; the few texts that it would not give back as they were, such as 1E+2, stand
           in `ps_exact` beside
json       JSONB, whose numbers are decimals: a float is written with its point, so that it comes back as one
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, cast
from uuid import UUID

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.types import TypeEngine

from polystore.filters import Compare
from polystore.kinds import INT_MAX, INT_MIN
from polystore.relational.codec import ExactCodec
from polystore.relational.dialect import Bind, Packing

_POWER = re.compile(rb"\de\+?\d")
"""A float with a positive exponent, which JSONB would keep as an integer; or text that looks like one."""
_JSON_TYPES: Mapping[type, str] = {bool: "boolean", int: "number", float: "number", str: "string"}
_BIND_TYPES: Mapping[type, str] = {bool: "boolean", int: "bigint", float: "double precision", str: "text"}
NUMBERS_MAX = 4_000
"""Digits before the point up to which a decimal is kept."""


def encode_json(value: Any) -> str:
    """JSON that JSONB gives back with the same types."""
    text = msgspec.json.encode(value)
    return (msgspec.json.encode(_with_points(value)) if _POWER.search(text) else text).decode()


def _with_points(value: Any) -> Any:
    match value:
        case float():
            text = repr(value)
            if "e+" not in text:
                return value
            among_integers = INT_MIN <= value <= INT_MAX  # with which it is compared; else as `to_jsonb` writes it
            return msgspec.Raw((f"{value:.1f}" if among_integers else f"{Decimal(text):f}.0").encode())
        case list():
            return [_with_points(one) for one in cast(list[Any], value)]
        case dict():
            return {name: _with_points(one) for name, one in cast(dict[str, Any], value).items()}
        case _:
            return value


decode_json: Callable[[Any], Any] = msgspec.json.Decoder().decode


def _encode_int(value: int) -> int:
    if not INT_MIN <= value <= INT_MAX:
        raise OverflowError
    return value


def _plain_uuid(value: UUID) -> UUID:
    return UUID(bytes=value.bytes)  # asyncpg has a class of its own


def _aware(value: datetime) -> datetime:
    return value if value.tzinfo is not None else value.replace(tzinfo=UTC)  # the first instant, asyncpg's -infinity


_ENCODERS: Mapping[str, Callable[[Any], Any]] = {"int": _encode_int, "json": encode_json}
_DECODERS: Mapping[str, Callable[[Any], Any]] = {"datetime": _aware, "uuid": _plain_uuid, "json": decode_json}


_made: Callable[..., sa.Dialect] = PGDialect


class PostgresDialect:
    """The `Dialect` of PostgreSQL."""

    compiler: sa.Dialect = _made(paramstyle="numeric_dollar")
    encoders: Mapping[str, Callable[[Any], Any]] = _ENCODERS
    types: Mapping[str, TypeEngine[Any]] = {
        "str": sa.Text(collation="C"),
        "int": sa.BigInteger(),
        "float": sa.Double(),
        "bool": sa.Boolean(),
        "bytes": sa.LargeBinary(),
        "datetime": sa.DateTime(timezone=True),
        "date": sa.Date(),
        "decimal": sa.Numeric(),
        "uuid": sa.Uuid(),
        "json": postgresql.JSONB(),
    }
    listed: frozenset[str] = frozenset(types) - {"json"}

    def encoder(self, field: str, kind: str) -> Callable[[Any], Any] | None:
        return self.encoders.get(kind)

    @property
    def packing(self) -> Packing:
        return self

    def pack(self, values: Sequence[Any]) -> list[Any]:
        return list(values)

    def among(self, column: sa.ColumnElement[Any], packed: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
        return column == sa.func.any(packed)

    def position(self, text: sa.ColumnElement[Any], part: sa.ColumnElement[Any]) -> sa.ColumnElement[int]:
        return sa.func.strpos(text, part, type_=sa.Integer)

    def json(self, column: sa.ColumnElement[Any], node: Compare, bind: Bind) -> sa.ColumnElement[bool]:
        wanted, place = node.value, column
        for name in node.path[1:]:
            place = place.op("->")(sa.literal_column(_quoted(name)))  # of an object only: of a list it is nothing
        kind = sa.func.jsonb_typeof(place)

        def value(item: Any) -> sa.ColumnElement[Any]:
            return sa.func.to_jsonb(_cast(bind(item), item))

        match node.op:
            case "==":
                missing = sa.or_(place.is_(None), kind == sa.literal_column("'null'"))
                return missing if wanted is None else place == value(wanted)
            case "!=":
                if wanted is None:
                    return sa.and_(place.is_not(None), kind != sa.literal_column("'null'"))
                return place.is_distinct_from(value(wanted))
            case "in":
                return place.in_([value(item) for item in wanted]) if wanted else sa.false()
            case "contains":
                return self._contains(place, kind, wanted, bind)
            case "startswith":
                return sa.and_(_is(kind, "string"), self.position(_text(place), _cast(bind(wanted), wanted)) == 1)
            case _:
                given = _cast(bind(wanted), wanted)
                if isinstance(wanted, str):
                    return sa.and_(_is(kind, "string"), _text(place).bool_op(node.op)(given))
                same = _is(kind, _JSON_TYPES[type(wanted)])
                return sa.and_(same, place.bool_op(node.op)(sa.func.to_jsonb(given)))

    def _contains(
        self, place: sa.ColumnElement[Any], kind: sa.ColumnElement[Any], wanted: Any, bind: Bind
    ) -> sa.ColumnElement[bool]:
        value = _cast(bind(wanted), wanted)
        in_list = sa.and_(_is(kind, "array"), place.bool_op("@>")(sa.func.jsonb_build_array(value)))
        if not isinstance(wanted, str):
            return in_list
        return sa.or_(in_list, sa.and_(_is(kind, "string"), self.position(_text(place), value) > 0))


def _text(place: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    return sa.collate(place.op("#>>", return_type=sa.Text())(sa.literal_column("'{}'")), "C")


def _is(kind: sa.ColumnElement[Any], name: str) -> sa.ColumnElement[bool]:
    return kind == sa.literal_column(f"'{name}'")


def _cast(bound: sa.ColumnElement[Any], value: object) -> sa.ColumnElement[Any]:
    return bound.op("::")(sa.literal_column(_BIND_TYPES[type(value)]))


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def ident(*parts: str) -> str:
    """A name in quotes, of parts joined by _; one that PostgreSQL would cut at 63 bytes ends in a hash instead."""
    name = "_".join(parts)
    if len(name.encode()) > 63:
        digest = str(zlib.crc32(name.encode()))
        name = name.encode()[: 62 - len(digest)].decode(errors="ignore") + "_" + digest
    return '"' + name.replace('"', '""') + '"'


class Codec(ExactCodec):
    encoders = _ENCODERS
    decoders = _DECODERS

    @staticmethod
    def given_back(value: Decimal) -> bool:
        """NUMERIC has no positive exponents and no negative zero."""
        sign, digits, exponent = value.as_tuple()
        return cast(int, exponent) <= 0 and not (sign and digits == (0,))
