"""What a field's type means: which values pass, in which plain form, and which are refused in which words."""

from __future__ import annotations

import dataclasses
import enum
import math
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, NewType, Optional, TypeVar
from uuid import UUID

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polystore.classes import UnsupportedType
from polystore.errors import InvalidData, ValueTooLarge
from polystore.kinds import INT_MAX, INT_MIN, JSON_DEPTH_MAX, encode_id, encode_reference, kind_of
from polystore.model import KEY_BYTES_MAX, VALUE_BYTES_MAX

P = TypeVar("P")
UserId = NewType("UserId", str)
SEOUL = timezone(timedelta(hours=9))
NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
SOME_UUID = UUID("0190b6a0-0000-7000-8000-000000000001")


class Mood(enum.Enum):
    GOOD = "good"
    BAD = "bad"


class Level(enum.IntEnum):
    LOW = 1


@dataclasses.dataclass
class Point:
    x: int
    label: str | None = None


class Box(msgspec.Struct, Generic[P]):
    items: list[P]
    first: P


class Tagged(pydantic.BaseModel):
    tag: str
    at: datetime


def encoded(hint: Any, value: object) -> Any:
    return kind_of(hint).encode(value)


def why(hint: Any, value: object) -> str:
    with pytest.raises(InvalidData) as caught:
        encoded(hint, value)
    return str(caught.value)


# -- values that pass ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hint", "name", "value", "plain"),
    [
        (str, "str", "안녕 hello", "안녕 hello"),
        (str, "str", "", ""),
        (int, "int", -(2**63), INT_MIN),
        (int, "int", 2**63 - 1, INT_MAX),
        (float, "float", 0.1, 0.1),
        (float, "float", 3, 3.0),
        (bool, "bool", True, True),
        (bytes, "bytes", b"\x00\xff", b"\x00\xff"),
        (bytes, "bytes", bytearray(b"ab"), b"ab"),
        (datetime, "datetime", datetime(2026, 5, 1, 21, tzinfo=SEOUL), NOON),
        (date, "date", date(2026, 5, 1), date(2026, 5, 1)),
        (Decimal, "decimal", Decimal("1.50"), Decimal("1.50")),
        (Decimal, "decimal", 7, Decimal(7)),
        (Decimal, "decimal", Decimal("1E+5999"), Decimal("1E+5999")),
        (Decimal, "decimal", Decimal("1E-5999"), Decimal("1E-5999")),
        (Decimal, "decimal", Decimal("1" * 34), Decimal("1" * 34)),
        (UUID, "uuid", SOME_UUID, SOME_UUID),
        (Mood, "str", Mood.GOOD, "good"),
        (Mood, "str", "good", "good"),
        (Level, "int", Level.LOW, 1),
        (Literal["a", "b"], "str", "b", "b"),
        (Literal[1, 2], "int", 2, 2),
        (Literal[True], "bool", True, True),
        (UserId, "str", "u1", "u1"),
        (Annotated[int, "anything"], "int", 4, 4),
        (str | None, "str", None, None),
        (Optional[int], "int", 4, 4),  # noqa: UP045
        (list[str], "json", ["a"], ["a"]),
        (list[str | None], "json", ["a", None], ["a", None]),
        (list[list[int]], "json", [[1], []], [[1], []]),
        (list, "json", [1, "a", None, {"b": [2.5]}], [1, "a", None, {"b": [2.5]}]),
        (dict[str, int], "json", {"a": 1}, {"a": 1}),
        (dict, "json", {"a": [True]}, {"a": [True]}),
        (Any, "json", (1, 2), [1, 2]),
        (Point, "json", Point(1), {"x": 1, "label": None}),
        (list[Point], "json", [Point(1, "a")], [{"x": 1, "label": "a"}]),
        (
            Box[Point],
            "json",
            Box([Point(1)], Point(2)),
            {"items": [{"x": 1, "label": None}], "first": {"x": 2, "label": None}},
        ),
        (Box, "json", Box([1], 2), {"items": [1], "first": 2}),
        (Tagged, "json", Tagged(tag="t", at=NOON), {"tag": "t", "at": "2026-05-01T12:00:00+00:00"}),
    ],
)
def test_a_value_of_the_type_has_one_plain_form(hint: Any, name: str, value: object, plain: object) -> None:
    kind = kind_of(hint)
    assert kind.name == name
    assert kind.optional == (hint in (str | None, int | None))
    out = kind.encode(value)
    assert out == plain
    assert type(out) is type(plain)


@pytest.mark.parametrize(
    ("item", "value", "text"),
    [
        (datetime, datetime(2026, 5, 1, 21, tzinfo=SEOUL), "2026-05-01T12:00:00+00:00"),
        (date, date(2026, 5, 1), "2026-05-01"),
        (Decimal, Decimal("1.50"), "1.50"),
        (UUID, SOME_UUID, str(SOME_UUID)),
        (bytes, b"ab", "YWI="),
        (Mood, Mood.BAD, "bad"),
    ],
)
def test_inside_lists_everything_is_json_and_reads_back(item: Any, value: object, text: str) -> None:
    plain = encoded(list[item], [value])
    assert plain == [text]
    assert msgspec.convert(plain, list[item]) == [value]


def test_a_time_is_an_instant_whatever_zone_it_came_in() -> None:
    out = encoded(datetime, NOON.astimezone(SEOUL))
    assert (out, out.tzinfo) == (NOON, UTC)


def test_negative_zero_becomes_zero() -> None:
    assert math.copysign(1, encoded(float, -0.0)) == 1


def test_what_is_given_is_neither_kept_nor_changed() -> None:
    given_list, given_dict = [1, 2], {"a": [1]}
    out_list, out_dict = encoded(list[int], given_list), encoded(dict, given_dict)
    out_list.append(3)
    out_dict["a"].append(2)
    assert (given_list, given_dict) == ([1, 2], {"a": [1]})


# -- values that are refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hint", "value", "message"),
    [
        (str, 1, "a str is needed, not int"),
        (str, b"a", "a str is needed, not bytes"),
        (str, None, "a str is needed, not NoneType"),
        (str, "a\ud800", "the text holds a lone surrogate, which is no valid Unicode"),
        (str, "a\0", "the text holds a NUL character, which not every store can keep"),
        (int, True, "an int is needed, not bool"),
        (int, 1.0, "an int is needed, not float"),
        (int, 2**63, "the integer does not fit 64 bits; keep larger numbers as Decimal or str"),
        (int, -(2**63) - 1, "the integer does not fit 64 bits; keep larger numbers as Decimal or str"),
        (float, math.nan, "NaN and infinity cannot be stored; use None for a missing number"),
        (float, -math.inf, "NaN and infinity cannot be stored; use None for a missing number"),
        (float, "1", "a float is needed, not str"),
        (float, True, "a float is needed, not bool"),
        (float, 10**30, "the integer does not fit 64 bits; keep larger numbers as Decimal or str"),
        (bool, 1, "a bool is needed, not int"),
        (bytes, "a", "bytes are needed, not str"),
        (datetime, date(2026, 1, 1), "a datetime is needed, not date"),
        (
            datetime,
            datetime(2026, 1, 1),  # noqa: DTZ001
            "a naive datetime has no instant; give it a time zone, for example datetime.now(UTC)",
        ),
        (date, NOON, "a date is needed, not datetime"),
        (Decimal, 1.5, "a Decimal is needed, not float"),
        (Decimal, Decimal("NaN"), "a decimal that is not a finite number cannot be stored"),
        (Decimal, Decimal("Infinity"), "a decimal that is not a finite number cannot be stored"),
        (Decimal, Decimal("1" * 35), "the decimal has more than 34 significant digits, or too large an exponent"),
        (Decimal, Decimal("1E-6000"), "the decimal has more than 34 significant digits, or too large an exponent"),
        (Decimal, Decimal("1E+6000"), "the decimal has more than 34 significant digits, or too large an exponent"),
        (UUID, str(SOME_UUID), "a UUID is needed, not str"),
        (Mood, "ugly", "the value is not a Mood"),
        (Mood, Level.LOW, "the value is not a Mood"),
        (Literal["a", "b"], "c", "the value is not one of 'a', 'b'"),
        (Literal[1], True, "the value is not one of 1"),
        (list[int], (1,), "a list is needed, not tuple"),
        (list[int], [1, "2"], "item 1: an int is needed, not str"),
        (list[list[int]], [[1], [2, None]], "item 1: item 1: an int is needed, not NoneType"),
        (dict[str, int], [1], "a dict is needed, not list"),
        (dict[str, int], {1: 1}, "a str is needed, not int"),
        (dict[str, int], {"a": "b"}, "an int is needed, not str"),
        (Point, {"x": 1}, "a Point is needed, not dict"),
        (Point, Point("1"), "x: an int is needed, not str"),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        (Tagged, Tagged.model_construct(tag="t"), "at: the field has no value"),
        (Any, {1}, "a JSON-like value is needed (text, number, bool, None, list, dict), not set"),
        (Any, [b"a"], "a JSON-like value is needed (text, number, bool, None, list, dict), not bytes"),
        (dict, {"a": {"b": math.nan}}, "NaN and infinity cannot be stored; use None for a missing number"),
        (dict, {"a": 2**64}, "the integer does not fit 64 bits; keep larger numbers as Decimal or str"),
        (Any, ["a\0"], "the text holds a NUL character, which not every store can keep"),
    ],
)
def test_a_value_that_must_not_be_written_is_refused(hint: Any, value: object, message: str) -> None:
    assert why(hint, value) == message


def test_a_free_form_value_has_a_depth() -> None:
    encode = kind_of(dict[str, Any]).encode
    levels: Any = "the bottom"
    for _ in range(JSON_DEPTH_MAX):
        levels = [levels]
    assert encode({"it": levels}) == {"it": levels}
    itself: dict[str, Any] = {}
    itself["me"] = itself
    for too_deep in ({"it": [levels]}, itself):
        with pytest.raises(InvalidData, match="nested deeper than 64 levels, or holds itself"):
            encode(too_deep)


def test_a_refusal_never_shows_the_value() -> None:
    for hint in (int, float, bool, bytes, datetime, date, Decimal, UUID, Mood, Literal["a"], list[int], Point):
        assert "s3cret" not in why(hint, "s3cret")


@pytest.mark.parametrize(
    "value", ["x" * (VALUE_BYTES_MAX + 1), "한" * (VALUE_BYTES_MAX // 3 + 1)], ids=["ascii", "korean"]
)
def test_a_text_over_the_limit_in_utf8_is_too_large(value: str) -> None:
    with pytest.raises(ValueTooLarge, match="save it as a file"):
        encoded(str, value)
    assert len(encoded(str, value[:-1])) == len(value) - 1


def test_bytes_over_the_limit_are_too_large() -> None:
    with pytest.raises(ValueTooLarge, match="save it as a file"):
        encoded(bytes, bytes(VALUE_BYTES_MAX + 1))
    assert len(encoded(bytes, bytes(VALUE_BYTES_MAX))) == VALUE_BYTES_MAX


@pytest.mark.parametrize("error", [InvalidData, ValueTooLarge])
def test_the_kind_of_error_survives_nesting(error: type[InvalidData]) -> None:
    text = "x" * (VALUE_BYTES_MAX + 1) if error is ValueTooLarge else "\0"
    with pytest.raises(error) as caught:
        encoded(list[Tagged], [Tagged(tag=text, at=NOON)])
    assert type(caught.value) is error
    assert str(caught.value).startswith("item 0: tag: the text ")


# -- types that are refused ---------------------------------------------------------------------------------------


class Foreign:
    pass


@dataclasses.dataclass
class Init:
    x: int
    scale: dataclasses.InitVar[int] = 1


class Camel(msgspec.Struct, rename="camel"):
    a_b: int


class Row(msgspec.Struct, array_like=True):
    a: int


class Open(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")


class Mixed(enum.Enum):
    A = 1
    B = "b"


class Floats(enum.Enum):
    A = 1.5


@pytest.mark.parametrize(
    ("hint", "message"),
    [
        (set[str], "the type set is not supported; use str, int, "),
        (tuple[int, int], "the type tuple is not supported; use str, int, "),
        (complex, "the type complex is not supported; use str, int, "),
        (Foreign, "the type Foreign is not supported; use str, int, "),
        (int | str, "the union int | str is not supported; only X | None is"),
        (int | str | None, "the union int | str | None is not supported; only X | None is"),
        (list[set[int]], "the type set is not supported"),
        (dict[int, str], "dict[int, str]: the keys of a dict must be str"),
        (Literal["a", 1], "one of 'a', 1: the values must be all str, all int or all bool"),
        (Mixed, "a Mixed: the values must be all str, all int or all bool"),
        (Floats, "a Floats: the values must be all str, all int or all bool"),
        (Init, "Init has an InitVar, which is not kept; make it a field"),
        (Camel, "Camel uses array_like= or rename=; records are kept by field name, drop it"),
        (list[Row], "Row uses array_like= or rename=; records are kept by field name, drop it"),
        (Open, "Open has extra='allow'; fields that are not declared are not kept, drop it"),
    ],
)
def test_a_type_that_stores_cannot_keep_is_refused(hint: Any, message: str) -> None:
    with pytest.raises(UnsupportedType) as caught:
        kind_of(hint)
    assert str(caught.value).startswith(message)


# -- what a kind says of itself -----------------------------------------------------------------------------------


def test_a_kind_says_what_is_optional_inside_and_required() -> None:
    kind = kind_of(list[Point] | None)
    assert (kind.optional, kind.shape) == (True, "list")
    assert kind.item is not None
    assert (kind.item.optional, kind.item.shape, kind.item.required) == (False, "object", frozenset({"x"}))
    assert kind.item.members is not None
    assert kind.item.members["label"].optional
    assert (kind_of(dict[str, int]).shape, kind_of(Any).shape, kind_of(str).shape) == ("dict", "any", "value")


# -- keys ---------------------------------------------------------------------------------------------------------


def test_the_same_word_is_the_same_key_however_it_was_typed() -> None:
    composed, decomposed = "\ud55c\uae00", "\u1112\u1161\u11ab\u1100\u1173\u11af"
    assert composed != decomposed
    assert encode_id(decomposed) == encode_id(composed) == composed


def test_a_key_has_its_limit_in_bytes_of_utf8() -> None:
    assert encode_id("k" * KEY_BYTES_MAX)
    assert encode_id("한" * (KEY_BYTES_MAX // 3))
    for text in ("k" * (KEY_BYTES_MAX + 1), "한" * (KEY_BYTES_MAX // 3 + 1)):
        with pytest.raises(ValueTooLarge, match=f"the key has 51[0-9] bytes of UTF-8, the limit is {KEY_BYTES_MAX}"):
            encode_id(text)


def test_a_reference_is_a_key_that_is_not_empty() -> None:
    assert encode_reference("a") == "a"
    with pytest.raises(InvalidData, match="the key is empty"):
        encode_reference("")


# -- properties ---------------------------------------------------------------------------------------------------


@given(st.text())
def test_every_text_passes_unchanged_or_is_refused(text: str) -> None:
    bad = "\0" in text or any(0xD800 <= ord(c) <= 0xDFFF for c in text)
    if bad:
        assert why(str, text)
    else:
        assert encoded(str, text) == text


@given(st.floats())
def test_every_float_passes_unchanged_or_is_refused(number: float) -> None:
    if math.isfinite(number):
        assert encoded(float, number) == number
    else:
        assert why(float, number)


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**40), max_value=10**40))
def test_every_decimal_passes_with_its_digits_or_is_refused(number: Decimal) -> None:
    if len(number.as_tuple().digits) <= 34:
        assert str(encoded(Decimal, number)) == str(number)
    else:
        assert why(Decimal, number)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(INT_MIN, INT_MAX) | st.text("한a1 ", max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("ab", max_size=3), inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_every_json_value_passes_a_free_form_field_unchanged(value: object) -> None:
    assert encoded(Any, value) == value
