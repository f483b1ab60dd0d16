"""How MariaDB and MySQL keep and compare values.

str        LONGTEXT, the key VARCHAR(512): compared by code point, see `flavour.py`
int        BIGINT
float      DOUBLE
bool       TINYINT(1)
bytes      LONGBLOB
datetime   DATETIME(6) in UTC
date       DATE
decimal    a text that sorts by value, since DECIMAL has 65 digits only; the exact digits stand in `ps_exact` beside,
           where they are not those of the shortest form
uuid       CHAR(36)
json       JSON, which is text
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, cast
from uuid import UUID

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import mysql
from sqlalchemy.dialects.mysql.base import MySQLCompiler
from sqlalchemy.types import TypeEngine

from polystore.errors import InvalidFilter
from polystore.filters import Compare
from polystore.kinds import INT_MAX, INT_MIN
from polystore.relational.codec import ExactCodec
from polystore.relational.dialect import Bind

_EXPONENT_ZERO = 10**18
_NINES = str.maketrans("0123456789", "9876543210")
_SORTED = re.compile(r"(?P<less>0)?(?(less)|2)(?P<exponent>[0-9]{19})(?P<digits>[0-9]+)~?")
ID_CHARACTERS = 512
NAME_MAX = 64
"""Characters of a name."""


def sort_key(value: Decimal) -> str:
    """A text of digits that sorts as the decimal does; equal values have the same.

    0 less than zero, 1 zero, 2 more; the exponent of the first digit above `_EXPONENT_ZERO`; the digits without zeros
    at the end. Below zero every digit is its complement, and `~` makes the shorter one the larger.
    """
    if not value.is_finite():
        raise ValueError("not a number")
    if not value:
        return "1"
    sign, digits, _ = value.as_tuple()
    text = f"{value.adjusted() + _EXPONENT_ZERO:019d}" + "".join(map(str, digits)).rstrip("0")
    return f"0{text.translate(_NINES)}~" if sign else f"2{text}"


def from_sort_key(text: str) -> Decimal:
    """The value in its shortest form. Raises ValueError."""
    if text == "1":
        return Decimal(0)
    found = _SORTED.fullmatch(text)
    if found is None:
        raise ValueError("not a decimal")
    exponent, digits = found["exponent"], found["digits"]
    if found["less"]:
        exponent, digits = exponent.translate(_NINES), digits.translate(_NINES)
    power = int(exponent) - _EXPONENT_ZERO - len(digits) + 1
    if 0 < power <= 30:
        digits, power = digits + "0" * power, 0
    return Decimal((1 if found["less"] else 0, tuple(map(int, digits)), power))


def encode_json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


decode_json: Callable[[Any], Any] = msgspec.json.Decoder().decode


def _encode_int(value: int) -> int:
    if not INT_MIN <= value <= INT_MAX:
        raise OverflowError
    return int(value)


def encode_float(value: float) -> float | str:
    return value if value or math.copysign(1, value) > 0 else "-0.0"  # the literal -0.0 is 0


def encode_datetime(value: datetime) -> str:
    return value.astimezone(UTC).isoformat(" ", "microseconds").removesuffix("+00:00")


def _decode_datetime(value: datetime) -> datetime:
    return value.replace(tzinfo=UTC)


_ENCODERS: Mapping[str, Callable[[Any], Any]] = {
    "int": _encode_int,
    "float": encode_float,
    "datetime": encode_datetime,
    "decimal": sort_key,
    "uuid": str,
    "json": encode_json,
}
DECODERS: Mapping[str, Callable[[Any], Any]] = {
    "bool": bool,
    "datetime": _decode_datetime,
    "decimal": from_sort_key,
    "uuid": UUID,
    "json": decode_json,
}


class _Compiler(MySQLCompiler):
    def visit_nulls_last_op_unary_modifier(self, element: Any, operator: Any, **kw: Any) -> str:
        """`x DESC NULLS LAST` is said with another sort before."""
        inner = element.element
        bare: Any = getattr(inner, "element", inner)
        return f"{self.process(bare, **kw)} IS NULL, {self.process(inner, **kw)}"


def _compiler() -> sa.Dialect:
    dialect: Any = mysql.dialect(paramstyle="format")
    dialect.statement_compiler = _Compiler
    return cast(sa.Dialect, dialect)


class MysqlDialect:
    """The `Dialect` of MariaDB and MySQL."""

    compiler: sa.Dialect = _compiler()
    encoders: Mapping[str, Callable[[Any], Any]] = _ENCODERS
    types: Mapping[str, TypeEngine[Any]] = {
        "str": mysql.LONGTEXT(),
        "int": mysql.BIGINT(),
        "float": mysql.DOUBLE(),
        "bool": mysql.TINYINT(display_width=1),
        "bytes": mysql.LONGBLOB(),
        "datetime": mysql.DATETIME(fsp=6),
        "date": mysql.DATE(),
        "decimal": mysql.LONGTEXT(),
        "uuid": mysql.CHAR(36),
        "json": mysql.LONGTEXT(),
    }
    packing = None  # values are in the statement's text, of which the server keeps no plan

    def encoder(self, field: str, kind: str) -> Callable[[Any], Any] | None:
        return self.encoders.get(kind)

    def position(self, text: sa.ColumnElement[Any], part: sa.ColumnElement[Any]) -> sa.ColumnElement[int]:
        return sa.func.locate(part, text, type_=sa.Integer)

    def json(self, column: sa.ColumnElement[Any], node: Compare, bind: Bind) -> sa.ColumnElement[bool]:
        wanted = node.value
        place = sa.func.json_extract(column, _path(node.path)) if node.path[1:] else column
        kind = sa.func.json_type(place)
        match node.op:
            case "==":
                if wanted is None:
                    return sa.or_(place.is_(None), kind == _word("NULL"))
                return _compared(place, kind, "=", wanted, bind(wanted))
            case "!=":
                if wanted is None:
                    return sa.and_(place.is_not(None), kind != _word("NULL"))
                return sa.not_(sa.func.coalesce(_compared(place, kind, "=", wanted, bind(wanted)), sa.false()))
            case "in":
                return sa.or_(sa.false(), *(_compared(place, kind, "=", item, bind(item)) for item in wanted))
            case "contains":
                return self._contains(place, kind, wanted, bind(wanted))
            case "startswith":
                return sa.and_(kind == _word("STRING"), self.position(_text(place), bind(wanted)) == 1)
            case _:
                return _compared(place, kind, node.op, wanted, bind(wanted))

    def _contains(
        self, place: sa.ColumnElement[Any], kind: sa.ColumnElement[Any], wanted: Any, value: sa.ColumnElement[Any]
    ) -> sa.ColumnElement[bool]:
        elements: sa.ColumnElement[Any] = sa.literal_column("'$[*]' COLUMNS (v JSON PATH '$')")
        # Of a bare column of a query in FROM, MySQL 9.7 says that JSON_TABLE cannot take it.
        items = sa.func.json_table(sa.func.json_extract(place, _literal("$")), elements).table_valued("v", name="items")
        equal = _compared(items.c.v, sa.func.json_type(items.c.v), "=", wanted, value)
        # Counted: of an EXISTS, MySQL 9.7 takes the list of one record for that of all (semijoin, materialized).
        found = sa.select(sa.func.count()).select_from(items).where(equal).scalar_subquery()
        in_list = sa.and_(kind == _word("ARRAY"), found > 0)
        if not isinstance(wanted, str):
            return in_list
        return sa.or_(sa.and_(kind == _word("STRING"), self.position(_text(place), value) > 0), in_list)


_DIGITS = mysql.DECIMAL(40, 20)
_NUMBERS = ("INTEGER", "DOUBLE", "UNSIGNED INTEGER", "DECIMAL")  # the last two are MySQL's


def _compared(
    place: sa.ColumnElement[Any], kind: sa.ColumnElement[Any], op: str, wanted: object, value: sa.ColumnElement[Any]
) -> sa.ColumnElement[bool]:
    """The JSON at the place is of the wanted value's type, and compares so."""
    match wanted:
        case bool():
            return sa.and_(kind == _word("BOOLEAN"), (_text(place) == _word("true")).bool_op(op)(value))
        case str():
            return sa.and_(kind == _word("STRING"), _text(place).bool_op(op)(value))
        case _:
            number = place.op("+")(sa.literal_column("0e0"))
            same: sa.ColumnElement[bool] = number.bool_op(op)(value)
            # Integers that a double does not tell apart. What JSON_TYPE calls an integer may be 1e300.
            large = sa.func.abs(number).between(sa.literal_column("9e15"), sa.literal_column("1e19"))
            given = value if isinstance(wanted, int) else sa.cast(value, _DIGITS)
            exact = sa.case((_whole(kind, number), sa.cast(number, mysql.INTEGER())), else_=sa.cast(place, _DIGITS))
            same = sa.case((large, exact.bool_op(op)(given)), else_=same)
            return sa.and_(kind.in_([_word(one) for one in _NUMBERS]), same)


def _whole(kind: sa.ColumnElement[Any], number: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
    """A large float that is a 64-bit integer, whose digits a DECIMAL rounds."""
    limit = "9223372036854775808e0"
    return sa.and_(kind == _word("DOUBLE"), number >= sa.literal_column(f"-{limit}"), number < sa.literal_column(limit))


def _text(place: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    return _exactly(sa.func.json_unquote(place, type_=sa.Text))


def _exactly(text: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """What comes out of JSON has a collation of its own. The bytes of UTF-8 sort as the code points do."""
    return sa.cast(text, sa.LargeBinary)


def _path(path: tuple[str, ...]) -> sa.ColumnElement[Any]:
    """The place inside the column, https://mariadb.com/kb/en/jsonpath-expressions/ ."""
    for name in path[1:]:
        if '"' in name or "\\" in name or not name.isprintable():
            raise InvalidFilter(
                f"{'.'.join(path)}: the server cannot look under a name with quotes or control characters"
            )
    return _literal("$" + "".join(f'."{name}"' for name in path[1:]))


def _word(text: str) -> sa.ColumnElement[Any]:
    """A word to compare with one that comes out of JSON, of whatever collation that is."""
    return sa.literal_column(f"_binary'{text}'")


def _literal(text: str) -> sa.ColumnElement[Any]:
    return sa.literal_column("'" + text.replace("'", "''") + "'")


def ident(*parts: str) -> str:
    """A name in quotes, of parts joined by _, as it stands in a statement with %s; one that is too long ends in a hash
    instead."""
    return "`" + name_of(*parts).replace("`", "``").replace("%", "%%") + "`"


def name_of(*parts: str) -> str:
    """The bare name."""
    name = "_".join(parts)
    if len(name) > NAME_MAX:
        digest = f"_{zlib.crc32(name.encode()):08x}"
        name = name[: NAME_MAX - len(digest)] + digest
    return name


class Codec(ExactCodec):
    encoders = _ENCODERS
    decoders = DECODERS

    @staticmethod
    def given_back(value: Decimal) -> bool:
        """What is of the shortest form."""
        return str(from_sort_key(sort_key(value))) == str(value)
