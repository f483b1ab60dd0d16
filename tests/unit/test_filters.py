"""Conditions: how they are written, what is refused before any I/O, and what they mean."""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from functools import reduce
from typing import Annotated, Any, Literal, cast
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polystore.conditions import COMPARISONS_MAX, DEPTH_MAX, VALUES_MAX
from polystore.entity import entity, entity_type
from polystore.errors import InvalidFilter
from polystore.facets import Relation
from polystore.filters import (
    All,
    AnyOf,
    Checked,
    Compare,
    Condition,
    Expr,
    F,
    Field,
    Not,
    Order,
    Sort,
    predicate,
    shape,
    values,
)

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
SEOUL = timezone(timedelta(hours=9))
SOME_UUID = UUID("0190b6a0-0000-7000-8000-000000000001")


class Mood(enum.Enum):
    GOOD = "good"
    BAD = "bad"


@dataclasses.dataclass
class Place:
    city: str
    seen: datetime
    price: Decimal
    stars: int | None = None
    tags: list[str] = dataclasses.field(default_factory=list[str])


@entity()
@dataclasses.dataclass
class Note:
    id: str
    text: str
    n: int
    x: float
    ok: bool
    raw: bytes
    at: datetime
    day: date
    price: Decimal
    ref: UUID
    mood: Mood
    size: Literal["s", "m"]
    nick: str | None
    tags: list[str]
    times: list[datetime]
    places: list[Place]
    place: Place
    extra: dict[str, Any]
    counts: dict[str, int]
    free: Any
    contains: str
    to: Annotated[str, Relation("TO", to="note")]


NOTE = entity_type(Note)


def checked(condition: Condition) -> Checked:
    out = NOTE.condition(condition)
    assert out is not None
    return out


def holds(condition: Condition, **body: Any) -> bool:
    return predicate(checked(condition))(body)


def refused(condition: Condition) -> str:
    with pytest.raises(InvalidFilter) as caught:
        NOTE.condition(condition)
    return str(caught.value)


# -- writing ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("condition", "text"),
    [
        (F.n == 1, "(F.n == 1)"),
        (F.n != 1, "(F.n != 1)"),
        (F.n < 1, "(F.n < 1)"),
        (F.n <= 1, "(F.n <= 1)"),
        (F.n > 1, "(F.n > 1)"),
        (F.n >= 1, "(F.n >= 1)"),
        (F.n.in_([1, 2]), "(F.n in (1, 2))"),
        (F.n.between(1, 9), "((F.n >= 1) & (F.n <= 9))"),
        (F.text.contains("a"), "(F.text contains 'a')"),
        (F.text.startswith("a"), "(F.text startswith 'a')"),
        (F.nick.is_null(), "(F.nick == None)"),
        (F.nick.is_null(False), "(F.nick != None)"),
        (~(F.n == 1), "~(F.n == 1)"),
        (~F.ok, "~(F.ok == True)"),
        (F.place.city == "a", "(F.place.city == 'a')"),
        (F["place.city"] == "a", "(F.place.city == 'a')"),
        (F.place["city"] == "a", "(F.place.city == 'a')"),
        (F["contains"] == "a", "(F.contains == 'a')"),
        (F.ok & (F.n == 1) & F.ok, "((F.ok == True) & (F.n == 1) & (F.ok == True))"),
        ((F.n == 1) | F.ok | F.ok, "((F.n == 1) | (F.ok == True) | (F.ok == True))"),
        (F.ok & (F.ok | F.ok), "((F.ok == True) & ((F.ok == True) | (F.ok == True)))"),
    ],
)
def test_a_condition_shows_what_was_written(condition: Expr, text: str) -> None:
    assert repr(condition) == text


@pytest.mark.parametrize("condition", [F.n == 1, F.ok, ~(F.n == 1), (F.n == 1) & F.ok])
def test_a_condition_has_no_truth_value_and_says_what_to_write(condition: Condition) -> None:
    with pytest.raises(InvalidFilter, match=r"combine with &, \| and ~ .* parentheses: \(F\.a == 1\) & \(F\.b > 2\)"):
        bool(condition)
    with pytest.raises(InvalidFilter):
        assert 1 < F.n < 3


@pytest.mark.parametrize("where", [True, False, 1, "n == 1", {"n": 1}])
def test_only_conditions_are_conditions(where: Any) -> None:
    message = "where= takes a condition such as F.name == 'x', not "
    with pytest.raises(InvalidFilter, match=message):
        NOTE.condition(where)
    with pytest.raises(InvalidFilter, match=message):
        _ = (F.n == 1) & where
    with pytest.raises(InvalidFilter, match=message):
        _ = F.ok | where


def test_no_condition_is_no_condition() -> None:
    assert NOTE.condition(None) is None


def test_special_attributes_are_not_fields() -> None:
    for of in (F, F.n):
        with pytest.raises(AttributeError):
            _ = of.__wrapped__


def test_one_text_is_no_list_of_values() -> None:
    with pytest.raises(InvalidFilter, match=r"F\.text\.in_\(\) takes a list of values, not one text"):
        F.text.in_("abc")


def test_a_field_is_no_collection_and_says_what_to_write() -> None:
    with pytest.raises(InvalidFilter, match=r"F\.tags\.contains\(\.\.\.\)"):
        _ = "x" in F.tags
    with pytest.raises(InvalidFilter, match=r"\[F\.place\.city\]"):
        iter(F.place.city)
    for wrong in (lambda: F.tags[cast(Any, 0)], lambda: F[cast(Any, 0)], lambda: [*cast(Any, F)]):
        with pytest.raises(InvalidFilter, match="the name of a field, not int"):
            wrong()


def test_a_field_is_no_member_of_sets_since_equality_builds_a_condition() -> None:
    with pytest.raises(TypeError, match="unhashable"):
        hash(F.n)


# -- checking -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (F.n == 3, Compare(("n",), "==", 3, "int")),
        (F.x >= 3, Compare(("x",), ">=", 3.0, "float")),
        (F.ok, Compare(("ok",), "==", True, "bool")),
        (F.at < NOON.astimezone(SEOUL), Compare(("at",), "<", NOON, "datetime")),
        (F.day == date(2026, 5, 1), Compare(("day",), "==", date(2026, 5, 1), "date")),
        (F.price > 7, Compare(("price",), ">", Decimal(7), "decimal")),
        (F.ref == SOME_UUID, Compare(("ref",), "==", SOME_UUID, "uuid")),
        (F.raw == b"a", Compare(("raw",), "==", b"a", "bytes")),
        (F.mood == Mood.GOOD, Compare(("mood",), "==", "good", "str")),
        (F.mood.in_([Mood.GOOD, "bad"]), Compare(("mood",), "in", ("good", "bad"), "str")),
        (F.mood.startswith("go"), Compare(("mood",), "startswith", "go", "str")),
        (F.size.contains("x"), Compare(("size",), "contains", "x", "str")),
        (F.n.in_([]), Compare(("n",), "in", (), "int")),
        (F.nick == None, Compare(("nick",), "==", None, "str")),  # noqa: E711
        (F.tags.is_null(), Compare(("tags",), "==", None, "json")),
        (F.tags.contains("a"), Compare(("tags",), "contains", "a", "json")),
        (F.times.contains(NOON), Compare(("times",), "contains", "2026-05-01T12:00:00+00:00", "json")),
        (F.free.contains(1), Compare(("free",), "contains", 1, "json")),
        (F.place.city == "a", Compare(("place", "city"), "==", "a", "json")),
        (F.place.city.contains("a"), Compare(("place", "city"), "contains", "a", "json")),
        (F.place.seen >= NOON, Compare(("place", "seen"), ">=", "2026-05-01T12:00:00+00:00", "json")),
        (F.place.stars < 3, Compare(("place", "stars"), "<", 3, "json")),
        (F.place.tags.contains("a"), Compare(("place", "tags"), "contains", "a", "json")),
        (F.place.price.is_null(), Compare(("place", "price"), "==", None, "json")),
        (F.counts.seoul > 3, Compare(("counts", "seoul"), ">", 3, "json")),
        (F.extra.a == "x", Compare(("extra", "a"), "==", "x", "json")),
        (F.extra.a > 1.5, Compare(("extra", "a"), ">", 1.5, "json")),
        (F.extra.a.b.startswith("x"), Compare(("extra", "a", "b"), "startswith", "x", "json")),
        (F.extra.a.in_([1, "x", True]), Compare(("extra", "a"), "in", (1, "x", True), "json")),
        (F.id == "\u1112\u1161\u11ab", Compare(("id",), "==", "\ud55c", "str")),
        (F.id > "", Compare(("id",), ">", "", "str")),
        (F.to == "\u1112\u1161\u11ab", Compare(("to",), "==", "\ud55c", "str")),
        (F["contains"] == "a", Compare(("contains",), "==", "a", "str")),
    ],
)
def test_a_condition_is_checked_into_plain_values(condition: Condition, expected: Compare) -> None:
    assert checked(condition) == expected


def test_the_tree_keeps_its_form() -> None:
    n, ok = Compare(("n",), "==", 1, "int"), Compare(("ok",), "==", True, "bool")
    assert checked(~((F.n == 1) & (F.ok | (F.n == 1)))) == Not(All((n, AnyOf((ok, n)))))


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        (F.nn == 1, "Note has no field 'nn', did you mean 'n'?"),
        (
            F.zzzzzz == 1,
            "Note has no field 'zzzzzz'; its fields are at, contains, counts, day, extra, free, id, mood, n, ",
        ),
        (F.place.town == "a", "Note.place has no field 'town'; its fields are city, price, seen, stars, tags"),
        (F.place.ctiy == "a", "Note.place has no field 'ctiy', did you mean 'city'?"),
        (F.text.length == 1, "Note.text: a str has no field 'length'"),
        (F.tags.first == "a", "Note.tags: a list has no field 'first'; it takes contains() and is_null()"),
        (F.place.tags.first == "a", "Note.place.tags: a list has no field 'first'; it takes contains() and is_null()"),
        (F.n == "1", "Note.n: an int is needed, not str"),
        (F.n.in_([1, "2"]), "Note.n: an int is needed, not str"),
        (F.n == True, "Note.n: an int is needed, not bool"),  # noqa: E712
        (F.text, "Note.text: a str is needed, not bool"),
        (F.n == F.x, "Note.n: an int is needed, not Field"),
        (F.x == math.inf, "Note.x: NaN and infinity cannot be stored; use None for a missing number"),
        (F.at > datetime(2026, 1, 1), "Note.at: a naive datetime has no instant; give it a time zone"),  # noqa: DTZ001
        (F.mood == "ugly", "Note.mood: the value is not a Mood"),
        (F.nick < None, "Note.nick: None can be compared with == and != only"),
        (F.text.contains(None), "Note.text: None can be compared with == and != only"),
        (F.nick.in_(["a", None]), "Note.nick: in_() takes no None; write F.x.in_([...]) | F.x.is_null()"),
        (F.ok < True, "Note.ok: a bool field has no order"),
        (F.raw > b"a", "Note.raw: a bytes field has no order"),
        (F.tags > "a", "Note.tags: a json field has no order"),
        (F.n.startswith("1"), "Note.n: startswith() needs a text field"),
        (F.text.startswith(1), "Note.text: a str is needed, not int"),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        (F.extra.a.startswith(1), "Note.extra.a: a str is needed, not int"),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        (F.n.contains(1), "Note.n: contains() needs a text or a list"),
        (F.place.contains("a"), "Note.place: contains() needs a text or a list"),
        (F.counts.contains(1), "Note.counts: contains() needs a text or a list"),
        (F.places.contains("a"), "Note.places: contains() compares single values, the items of this list are more"),
        (F.tags.contains(1), "Note.tags: a str is needed, not int"),
        (F.tags == ["a"], "Note.tags: a list or a nested value takes contains() and is_null() only"),
        (F.place == "a", "Note.place: a list or a nested value takes contains() and is_null() only"),
        (F.free == 1, "Note.free: a list or a nested value takes contains() and is_null() only"),
        (F.tags.in_([["a"]]), "Note.tags: a list or a nested value takes contains() and is_null() only"),
        (
            F.place.price == 1,
            "Note.place.price: a decimal inside a nested value is kept as text; only is_null() fits it",
        ),
        (F.place.stars == "a", "Note.place.stars: an int is needed, not str"),
        (F.extra.a == [1], "Note.extra.a: a text, number or bool is needed here, not list"),
        (F.extra.a == 2**64, "Note.extra.a: the integer does not fit 64 bits; keep larger numbers as Decimal or str"),
        (F.text == "a\0", "Note.text: the text holds a NUL character, which not every store can keep"),
        (~((F.n == 1) & (F.ok | (F.nn == 1))), "Note has no field 'nn', did you mean 'n'?"),
    ],
)
def test_a_condition_that_does_not_fit_is_refused_by_name(condition: Condition, message: str) -> None:
    assert refused(condition).startswith(message)


def test_a_refusal_never_shows_the_value() -> None:
    for field in (F.n, F.x, F.ok, F.at, F.day, F.price, F.ref, F.mood, F.size, F.tags, F.place.seen):
        assert "s3cret" not in refused(field == "s3cret")


def test_a_condition_made_in_a_loop_stays_shallow() -> None:
    numbers = range(COMPARISONS_MAX)
    wide = checked(reduce(lambda a, b: a | b, (F.n == i for i in numbers)))
    assert isinstance(wide, AnyOf)
    assert len(wide.parts) == len(numbers)
    assert predicate(wide)({"n": numbers[-1]})
    assert not predicate(wide)({"n": len(numbers)})
    assert len(values(wide)) == len(shape(wide)) - 1 == len(numbers)


def test_a_condition_larger_than_every_store_takes_is_refused() -> None:
    most = reduce(lambda a, b: a | b, (F.n == i for i in range(COMPARISONS_MAX)))
    assert f"more than {COMPARISONS_MAX} comparisons; write one in_([...])" in refused(most | F.ok)
    deep: Condition = F.ok
    for _ in range(DEPTH_MAX - 1):
        deep = ~deep
    checked(deep)
    assert f"nested deeper than {DEPTH_MAX} levels" in refused(~deep)
    for _ in range(20_000):
        deep = ~deep
    assert f"nested deeper than {DEPTH_MAX} levels" in refused(deep)
    checked(F.n.in_(range(VALUES_MAX)))
    assert f"{VALUES_MAX + 1} values in in_(), the limit is {VALUES_MAX}" in refused(
        F.n.in_(range(VALUES_MAX)) | F.n.in_([1])
    )


# -- orders -------------------------------------------------------------------------------------------------------


def test_orders_are_checked() -> None:
    assert NOTE.sort([F.at.desc(), F.text, F.ok.asc(), F.mood]) == (
        Sort(("at",), "datetime", True),
        Sort(("text",), "str"),
        Sort(("ok",), "bool"),
        Sort(("mood",), "str"),
    )
    assert NOTE.sort([]) == ()
    assert NOTE.sort(F.n) == (Sort(("n",), "int"),)
    assert NOTE.sort(F.n.desc()) == (Sort(("n",), "int", True),)


@pytest.mark.parametrize("order", ["n", ["n"], [None], [F.n == 1]])
def test_only_fields_are_orders(order: Any) -> None:
    with pytest.raises(InvalidFilter, match=r"F\.name\.desc\(\)"):
        NOTE.sort(order)


@pytest.mark.parametrize(
    ("order", "message"),
    [
        (F.att, "Note has no field 'att', did you mean 'at'?"),
        (F.place.city, "Note.place.city: results can be sorted by plain fields only"),
        (F.extra.a.desc(), "Note.extra.a: results can be sorted by plain fields only"),
        (F.tags, "Note.tags: results can be sorted by plain fields only"),
        (F.raw, "Note.raw: results can be sorted by plain fields only"),
    ],
)
def test_an_order_that_does_not_fit_is_refused(order: Field | Order, message: str) -> None:
    with pytest.raises(InvalidFilter) as caught:
        NOTE.sort([order])
    assert str(caught.value).startswith(message)


# -- meaning ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("condition", "matching", "others"),
    [
        (F.n == 2, [2], [1, 3, None]),
        (F.n != 2, [1, 3, None], [2]),
        (F.n < 2, [1], [2, 3, None]),
        (F.n <= 2, [1, 2], [3, None]),
        (F.n > 2, [3], [1, 2, None]),
        (F.n >= 2, [2, 3], [1, None]),
        (F.n.in_([1, 3]), [1, 3], [2, None]),
        (F.n.in_([]), [], [1, None]),
        (F.n.between(1, 2), [1, 2], [0, 3, None]),
        (F.n.is_null(), [None], [0, 1]),
        (F.n.is_null(False), [0, 1], [None]),
        (~(F.n == 2), [1, None], [2]),
        (~(F.n < 2), [2, 3, None], [1]),
        (~F.n.in_([1]), [2, None], [1]),
        ((F.n > 1) & (F.n < 4), [2, 3], [1, 4, None]),
        ((F.n < 1) | (F.n > 4), [0, 5], [1, 4, None]),
    ],
)
def test_comparisons_have_two_truth_values(condition: Condition, matching: list[Any], others: list[Any]) -> None:
    assert [n for n in [*matching, *others] if holds(condition, n=n)] == matching
    assert holds(condition) == holds(condition, n=None), "an absent field is a missing value"


@pytest.mark.parametrize(
    ("condition", "matching", "others"),
    [
        (F.text.contains("한글"), ["가한글나", "한글"], ["한 글", "", None]),
        (F.text.contains("a%_"), ["xa%_y"], ["xaby"]),
        (F.text.contains(""), ["", "a"], [None]),
        (F.text.startswith("Ab"), ["Abc"], ["abc", "xAb", None]),
    ],
)
def test_texts_are_compared_exactly_as_written(condition: Condition, matching: list[Any], others: list[Any]) -> None:
    assert [text for text in [*matching, *others] if holds(condition, text=text)] == matching


FREE: list[tuple[Expr, list[Any], list[Any]]] = [
    (F.extra.a == 1, [{"a": 1}, {"a": 1.0}], [{"a": True}, {"a": "1"}, {"a": None}, {}, None, {"a": [1]}]),
    (F.extra.a == True, [{"a": True}], [{"a": 1}, {"a": "true"}]),  # noqa: E712
    (F.extra.a != 1, [{"a": True}, {"a": "1"}, {}, None], [{"a": 1}, {"a": 1.0}]),
    (F.extra.a > 1, [{"a": 2}, {"a": 1.5}], [{"a": 1}, {"a": "2"}, {"a": True}, {}]),
    (F.extra.a < "b", [{"a": "a"}], [{"a": 0}, {"a": "b"}, {}]),
    (F.extra.a.in_([1, "x"]), [{"a": 1}, {"a": "x"}], [{"a": True}, {"a": None}, {}]),
    (F.extra.a.contains("x"), [{"a": "axb"}, {"a": ["x", 1]}], [{"a": ["ax"]}, {"a": 1}, {}]),
    (F.extra.a.contains(1), [{"a": [1]}, {"a": [1.0]}], [{"a": [True]}, {"a": "1"}, {"a": 1}]),
    (F.extra.a.startswith("x"), [{"a": "xy"}], [{"a": ["x"]}, {"a": 1}, {}]),
    (F.extra.a.b == 1, [{"a": {"b": 1}}], [{"a": {"b": 2}}, {"a": 1}, {"a": [{"b": 1}]}]),
    (F.extra.a.is_null(), [{}, {"a": None}, None], [{"a": 0}, {"a": []}]),
]


@pytest.mark.parametrize(("condition", "matching", "others"), FREE)
def test_free_form_values_compare_with_their_own_kind_only(
    condition: Condition, matching: list[Any], others: list[Any]
) -> None:
    assert [extra for extra in [*matching, *others] if holds(condition, extra=extra)] == matching


def test_a_list_contains_what_it_holds() -> None:
    assert holds(F.tags.contains("a"), tags=["b", "a"])
    assert not holds(F.tags.contains("a"), tags=["ab"])
    assert not holds(F.tags.contains("a"), tags=None)


SIMPLE: list[Callable[[int], Expr]] = [
    lambda i: F.n == i,
    lambda i: F.n != i,
    lambda i: F.n < i,
    lambda i: F.n.in_([i, i + 2]),
    lambda i: F.n.is_null(),
    lambda i: F.nick == str(i),
]


def simple(make: Callable[[int], Expr], i: int) -> Expr:
    return make(i)


def combined(inner: st.SearchStrategy[Expr]) -> st.SearchStrategy[Expr]:
    pairs = st.tuples(inner, inner)
    return pairs.map(lambda two: two[0] & two[1]) | pairs.map(lambda two: two[0] | two[1]) | inner.map(lambda one: ~one)


CONDITIONS: st.SearchStrategy[Expr] = st.recursive(
    st.builds(simple, st.sampled_from(SIMPLE), st.integers(-1, 3)), combined, max_leaves=8
)
BODIES = st.fixed_dictionaries({"n": st.none() | st.integers(-1, 3), "nick": st.none() | st.integers(-1, 3).map(str)})


@given(CONDITIONS, CONDITIONS, BODIES)
def test_and_or_not_obey_logic(a: Expr, b: Expr, body: dict[str, Any]) -> None:
    def of(condition: Expr) -> bool:
        return holds(condition, **body)

    assert of(a & b) == (of(a) and of(b))
    assert of(a | b) == (of(a) or of(b))
    assert of(~a) == (not of(a))


@given(CONDITIONS, CONDITIONS)
def test_equal_shapes_differ_in_values_only(a: Expr, b: Expr) -> None:
    one, two = checked(a), checked(b)
    hash(shape(one))
    if shape(one) == shape(two):
        assert [(c.path, c.op, c.kind) for c, _ in values(one)] == [(c.path, c.op, c.kind) for c, _ in values(two)]


@pytest.mark.parametrize(
    ("condition", "parameters"),
    [
        (F.n == 1, [1]),
        (F.n.is_null(), []),
        (F.n.in_([1, 2]), [1, 2]),
        (~((F.n == 1) & (F.text.contains("a") | (F.nick.is_null(False)) | (F.x > 2))), [1, "a", 2.0]),
    ],
)
def test_the_values_of_a_condition_are_its_parameters_from_left_to_right(
    condition: Condition, parameters: list[Any]
) -> None:
    assert [value for _, value in values(checked(condition))] == parameters


def test_the_shape_of_in_follows_the_number_of_values_and_of_equality_the_missing_one() -> None:
    assert shape(checked(F.n.in_([1, 2]))) == shape(checked(F.n.in_([3, 4])))
    assert shape(checked(F.n.in_([1]))) != shape(checked(F.n.in_([1, 2])))
    assert shape(checked(F.n == 1)) == shape(checked(F.n == 2))
    assert shape(checked(F.n == 1)) != shape(checked(F.n.is_null()))
