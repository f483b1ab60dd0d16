"""Field types: from a type hint to the kind that stores know and the function that checks and flattens a value.

Kinds at the top of a record: str, int, float, bool, bytes, datetime, date, decimal, uuid, json. Enums and literals have
the kind of their values. Lists, dicts and nested classes are `json`: inside them everything is JSON-like (times,
decimals and UUIDs as text, bytes as base64), which `msgspec.convert` reads back.
"""

from __future__ import annotations

import base64
import enum
import math
import types
import typing
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin
from uuid import UUID

import msgspec

from polystore.classes import UnsupportedType, check_class, defaults_of, mapped_class, members_of
from polystore.errors import InvalidData, ValueTooLarge
from polystore.model import KEY_BYTES_MAX, VALUE_BYTES_MAX

Encode = Callable[[Any], Any]

INT_MIN, INT_MAX = -(1 << 63), (1 << 63) - 1
WHOLE = 2.0**53
"""From here on every float is an integer, and not every integer is a float."""
DECIMAL_DIGITS_MAX = 34
"""Significant digits of IEEE 754 decimal128, the smallest exact decimal of the stores (MongoDB)."""
JSON_DEPTH_MAX = 64
"""Levels inside a free-form value; the stores end between 100 (MongoDB) and 1,000 (SQLite), Python at its stack."""

SUPPORTED = (
    "str, int, float, bool, bytes, datetime, date, Decimal, UUID, Enum, Literal, X | None, list[X], dict[str, X], "
    "dataclasses, msgspec.Struct and pydantic models"
)


Shape = Literal["value", "list", "dict", "object", "any"]


class Kind(msgspec.Struct, frozen=True):
    """What a hint means. `encode` raises InvalidData; `nested_encode` flattens a value inside a json field.

    `shape` says what a json kind is: a list or dict of `item`s, an object with `members` (of which `required` have no
    default), or anything. All other kinds are values.
    """

    name: str
    optional: bool
    encode: Encode
    nested_encode: Encode
    item: Kind | None = None
    members: Mapping[str, Kind] | None = None
    shape: Shape = "value"
    required: frozenset[str] = frozenset()


def encode_str(value: Any) -> str:
    if not isinstance(value, str):
        raise InvalidData(f"a str is needed, not {type(value).__name__}")
    if not value.isascii():
        try:
            size = len(value.encode())
        except UnicodeEncodeError:
            raise InvalidData("the text holds a lone surrogate, which is no valid Unicode") from None
    else:
        size = len(value)
    if size > VALUE_BYTES_MAX:
        raise ValueTooLarge(f"the text has {size} bytes, the limit is {VALUE_BYTES_MAX}; save it as a file instead")
    if "\0" in value:
        raise InvalidData("the text holds a NUL character, which not every store can keep")
    return value


def encode_id(value: Any) -> str:
    """A key as text in NFC, so that the same word is the same key however it was typed."""
    text = encode_str(value)
    if text.isascii():
        size = len(text)
    else:
        text = unicodedata.normalize("NFC", text)
        size = len(text.encode())
    if size > KEY_BYTES_MAX:
        raise ValueTooLarge(f"the key has {size} bytes of UTF-8, the limit is {KEY_BYTES_MAX}")
    return text


def encode_reference(value: Any) -> str:
    """A key that must name a record."""
    if text := encode_id(value):
        return text
    raise InvalidData("the key is empty")


def encode_int(value: Any) -> int:
    if type(value) is not int:
        raise InvalidData(f"an int is needed, not {type(value).__name__}")
    if not INT_MIN <= value <= INT_MAX:
        raise InvalidData("the integer does not fit 64 bits; keep larger numbers as Decimal or str")
    return value


def encode_float(value: Any) -> float:
    if type(value) is not float:
        if type(value) is not int:
            raise InvalidData(f"a float is needed, not {type(value).__name__}")
        value = float(encode_int(value))
    if not math.isfinite(value):
        raise InvalidData("NaN and infinity cannot be stored; use None for a missing number")
    number: float = value
    return number + 0.0  # -0.0 becomes 0.0: not every store keeps the sign of zero


def encode_bool(value: Any) -> bool:
    if type(value) is not bool:
        raise InvalidData(f"a bool is needed, not {type(value).__name__}")
    return value


def encode_bytes(value: Any) -> bytes:
    if not isinstance(value, (bytes, bytearray)):
        raise InvalidData(f"bytes are needed, not {type(value).__name__}")
    if len(value) > VALUE_BYTES_MAX:
        raise ValueTooLarge(f"the value has {len(value)} bytes, the limit is {VALUE_BYTES_MAX}; save it as a file")
    return bytes(value)


def encode_datetime(value: Any) -> datetime:
    if not isinstance(value, datetime):
        raise InvalidData(f"a datetime is needed, not {type(value).__name__}")
    if value.utcoffset() is None:
        raise InvalidData("a naive datetime has no instant; give it a time zone, for example datetime.now(UTC)")
    return value if value.tzinfo is UTC else value.astimezone(UTC)


def encode_date(value: Any) -> date:
    if not isinstance(value, date) or isinstance(value, datetime):
        raise InvalidData(f"a date is needed, not {type(value).__name__}")
    return value


def encode_decimal(value: Any) -> Decimal:
    if type(value) is int:
        value = Decimal(value)
    if not isinstance(value, Decimal):
        raise InvalidData(f"a Decimal is needed, not {type(value).__name__}")
    _, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int):
        raise InvalidData("a decimal that is not a finite number cannot be stored")
    if len(digits) > DECIMAL_DIGITS_MAX or not -6000 < exponent < 6000:
        raise InvalidData(
            f"the decimal has more than {DECIMAL_DIGITS_MAX} significant digits, or too large an exponent"
        )
    return value


def encode_uuid(value: Any) -> UUID:
    if not isinstance(value, UUID):
        raise InvalidData(f"a UUID is needed, not {type(value).__name__}")
    return value


def encode_json(value: Any, depth: int = 0) -> Any:
    """A value of a free-form field: JSON-like, checked to the bottom."""
    if depth > JSON_DEPTH_MAX:
        raise InvalidData(f"the value is nested deeper than {JSON_DEPTH_MAX} levels, or holds itself")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return encode_str(value)
    if isinstance(value, int):
        return encode_int(value)
    if isinstance(value, float):
        return encode_float(value)
    if isinstance(value, dict):
        return {encode_str(k): encode_json(v, depth + 1) for k, v in typing.cast(dict[Any, Any], value).items()}
    if isinstance(value, (list, tuple)):
        return [encode_json(v, depth + 1) for v in typing.cast(Sequence[Any], value)]
    raise InvalidData(f"a JSON-like value is needed (text, number, bool, None, list, dict), not {type(value).__name__}")


def _text_of(encode: Encode, text: Callable[[Any], str]) -> Encode:
    def encode_text(value: Any) -> str:
        return text(encode(value))

    return encode_text


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


_SCALARS: Mapping[type, Kind] = {
    str: Kind("str", False, encode_str, encode_str),
    int: Kind("int", False, encode_int, encode_int),
    float: Kind("float", False, encode_float, encode_float),
    bool: Kind("bool", False, encode_bool, encode_bool),
    bytes: Kind("bytes", False, encode_bytes, _text_of(encode_bytes, _base64)),
    datetime: Kind("datetime", False, encode_datetime, _text_of(encode_datetime, datetime.isoformat)),
    date: Kind("date", False, encode_date, _text_of(encode_date, date.isoformat)),
    Decimal: Kind("decimal", False, encode_decimal, _text_of(encode_decimal, str)),
    UUID: Kind("uuid", False, encode_uuid, _text_of(encode_uuid, str)),
}
TYPES: Mapping[str, type[Any]] = {kind.name: cls for cls, kind in _SCALARS.items()}
"""Name of a kind -> the type of its values; not of json, whose values have many."""


def kind_of(hint: Any) -> Kind:
    """The kind of a type hint. Raises UnsupportedType."""
    origin = get_origin(hint)
    if origin is Annotated:
        given = next((one for one in hint.__metadata__ if isinstance(one, Kind)), None)  # of a column
        return given or kind_of(get_args(hint)[0])
    if origin in (Union, types.UnionType):
        return _optional(hint)
    if origin is Literal:
        return _one_of(list(get_args(hint)), f"one of {', '.join(map(repr, get_args(hint)))}")
    if hint is Any or isinstance(hint, TypeVar):
        return Kind("json", False, encode_json, encode_json, shape="any")
    if hint in _SCALARS:
        return _SCALARS[hint]
    alias = getattr(hint, "__supertype__", None) or getattr(hint, "__value__", None)
    if alias is not None and not isinstance(hint, type):  # NewType, or `type X = ...`
        return kind_of(alias)
    base: Any = origin or hint
    if base is list:
        return _list(hint)
    if base is dict:
        return _dict(hint)
    if isinstance(base, type) and issubclass(base, enum.Enum):
        return _enum(base)
    members = None if mapped_class(base) else members_of(hint)
    if members is not None:
        cls = typing.cast(type[Any], base)
        check_class(cls)
        return _nested(cls, members)
    raise UnsupportedType(f"the type {getattr(hint, '__name__', hint)} is not supported; use {SUPPORTED}")


def _optional(hint: Any) -> Kind:
    args = [a for a in get_args(hint) if a is not type(None)]
    if len(args) != 1 or len(args) == len(get_args(hint)):
        raise UnsupportedType(f"the union {hint} is not supported; only X | None is")
    return optional(kind_of(args[0]))


def optional(kind: Kind) -> Kind:
    """The kind whose value may be missing."""
    encode, nested_encode = kind.encode, kind.nested_encode

    def encode_optional(value: Any) -> Any:
        return None if value is None else encode(value)

    def nested_encode_optional(value: Any) -> Any:
        return None if value is None else nested_encode(value)

    return msgspec.structs.replace(kind, optional=True, encode=encode_optional, nested_encode=nested_encode_optional)


def _one_of(allowed: Sequence[Any], words: str) -> Kind:
    found: set[type] = {type(v) for v in allowed}
    if len(found) != 1 or not found <= {str, int, bool}:
        raise UnsupportedType(f"{words}: the values must be all str, all int or all bool")
    choice = frozenset(allowed)
    value_type = found.pop()

    def encode(value: Any) -> Any:
        if type(value) is not value_type or value not in choice:
            raise InvalidData(f"the value is not {words}")
        return value

    return Kind(value_type.__name__, False, encode, encode)


def _enum(cls: type[enum.Enum]) -> Kind:
    kind = _one_of([member.value for member in cls], f"a {cls.__name__}")
    plain = kind.encode

    def encode(value: Any) -> Any:
        return value.value if isinstance(value, cls) else plain(value)

    return msgspec.structs.replace(kind, encode=encode, nested_encode=encode)


def _list(hint: Any) -> Kind:
    return list_of(kind_of((get_args(hint) or (Any,))[0]))


def list_of(item: Kind) -> Kind:
    """The kind of lists of `item`s."""
    encode_item = item.nested_encode

    def encode(value: Any) -> list[Any]:
        if not isinstance(value, list):
            raise InvalidData(f"a list is needed, not {type(value).__name__}")
        out: list[Any] = []
        for i, one in enumerate(typing.cast(list[Any], value)):
            try:
                out.append(encode_item(one))
            except InvalidData as e:
                raise type(e)(f"item {i}: {e}") from None
        return out

    return Kind("json", False, encode, encode, item=item, shape="list")


def _dict(hint: Any) -> Kind:
    key, item = get_args(hint) or (str, Any)
    if key is not str:
        raise UnsupportedType(f"{hint}: the keys of a dict must be str")
    kind = kind_of(item)
    encode_item = kind.nested_encode

    def encode(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise InvalidData(f"a dict is needed, not {type(value).__name__}")
        return {encode_str(k): encode_item(v) for k, v in typing.cast(dict[Any, Any], value).items()}

    return Kind("json", False, encode, encode, item=kind, shape="dict")


def _nested(cls: type[Any], members: Mapping[str, Any]) -> Kind:
    kinds = {name: kind_of(hint) for name, hint in members.items()}
    encoders = [(name, kind.nested_encode) for name, kind in kinds.items()]

    def encode(value: Any) -> dict[str, Any]:
        if not isinstance(value, cls):
            raise InvalidData(f"a {cls.__name__} is needed, not {type(value).__name__}")
        out: dict[str, Any] = {}
        for name, encode_member in encoders:
            try:
                out[name] = encode_member(getattr(value, name))
            except InvalidData as e:
                raise type(e)(f"{name}: {e}") from None
            except AttributeError:
                raise InvalidData(f"{name}: the field has no value") from None
        return out

    required = frozenset(kinds).difference(defaults_of(cls))
    return Kind("json", False, encode, encode, members=kinds, shape="object", required=required)
