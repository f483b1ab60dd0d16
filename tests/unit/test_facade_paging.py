"""Cursors and the condition "behind the last row", against plain sorting."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import cmp_to_key
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polystore import F, InvalidFilter, entity
from polystore.collection.paging import (
    after,
    both,
    fingerprint,
    position,
    position_types,
    read_cursor,
    total_order,
    write_cursor,
)
from polystore.entity import entity_type
from polystore.filters import Sort, predicate


@entity()
@dataclass
class Row:
    id: int
    a: int | None = None
    b: str | None = None
    c: float = 0.0


ROW = entity_type(Row)
FIELDS = [F.a, F.b, F.c, F.id]

rows = st.lists(
    st.builds(
        dict[str, Any],
        id=st.integers(-5, 30),
        a=st.none() | st.integers(-2, 2),
        b=st.none() | st.sampled_from(["", "a", "가", "나", "\U0001f600"]),
        c=st.sampled_from([0.0, 0.5, -1.25]),
    ),
    max_size=12,
    unique_by=lambda row: row["id"],
)
orders = st.lists(
    st.sampled_from([order for field in FIELDS for order in (field.asc(), field.desc())]),
    max_size=4,
    unique_by=lambda order: order.path,
)


def compare(order: tuple[Sort, ...], x: dict[str, Any], y: dict[str, Any]) -> int:
    for sort in order:
        a, b = x[sort.path[0]], y[sort.path[0]]
        if a != b:
            if a is None or b is None:
                return 1 if a is None else -1
            return -1 if (a < b) != sort.descending else 1
    return 0


@given(rows, orders)
def test_behind_a_row_is_exactly_what_sorts_after_it(table: list[dict[str, Any]], order_by: list[Any]) -> None:
    order = total_order(ROW, ROW.sort(order_by))
    table.sort(key=cmp_to_key(lambda x, y: compare(order, x, y)))
    for i, row in enumerate(table):
        cursor = write_cursor(b"of", position(order, row))
        behind = predicate(after(ROW, order, read_cursor(cursor, b"of", position_types(ROW, order))))
        assert [other for other in table if behind(other)] == table[i + 1 :]


def test_the_key_ends_every_order() -> None:
    assert [sort.path for sort in total_order(ROW, ROW.sort([F.c.desc(), F.a]))] == [("c",), ("a",), ("id",)]
    assert [sort.path for sort in total_order(ROW, ROW.sort([F.c, F.id.desc(), F.a]))] == [("c",), ("id",)]
    assert total_order(ROW, ())[0] == Sort(("id",), "int")


VALUES = [
    (1 << 62, int),
    (0.1, float),
    (True, bool),
    ("가나다\n", str),
    (datetime(2026, 2, 3, 4, 5, 6, 789_012, tzinfo=UTC), datetime),
    (Decimal("1.50"), Decimal),
    (UUID(int=7), UUID),
    (None, str | None),
]


def test_a_cursor_keeps_values_of_every_kind() -> None:
    of = fingerprint("find", "row")
    cursor = write_cursor(of, [value for value, _ in VALUES])
    assert cursor.replace("-", "").replace("_", "").isalnum(), "fit for a URL"
    found = read_cursor(cursor, of, [hint for _, hint in VALUES])
    assert found == [value for value, _ in VALUES]
    assert [type(value) for value in found] == [type(value) for value, _ in VALUES]


def test_a_cursor_of_another_query_or_none_at_all_is_refused() -> None:
    cursor = write_cursor(fingerprint("find", "row", ROW.condition(F.a == 1)), [1])
    for other in (ROW.condition(F.a == 2), ROW.condition(F.a >= 1), ROW.condition((F.a == 1) & (F.c > 0.0)), None):
        with pytest.raises(InvalidFilter, match="another query"):
            read_cursor(cursor, fingerprint("find", "row", other), [int])
    same = fingerprint("find", "row", ROW.condition(F.a == 1))
    for broken in (
        "",
        "x",
        "가",
        cursor[:-1] + "!",
        cursor + "AAAA",
        write_cursor(same, ["text"]),
        write_cursor(same, []),
    ):
        with pytest.raises(InvalidFilter, match="cursor"):
            read_cursor(broken, same, [int])


def test_conditions_with_the_same_parts_but_another_meaning_do_not_share_a_cursor() -> None:
    conditions = [(F.a == 1) & (F.c > 0.0), (F.a == 1) | (F.c > 0.0), ~((F.a == 1) & (F.c > 0.0)), F.a == 1]
    prints = {fingerprint(ROW.condition(one)) for one in conditions}
    assert len(prints) == len(conditions)


def test_both_joins_what_is_there() -> None:
    one, two = ROW.condition(F.a == 1), ROW.condition(F.c > 0.0)
    assert both(None, None) is None
    assert both(one, None) == one
    assert both(None, two) == two
    joined = both(one, two)
    assert joined is not None
    test = predicate(joined)
    assert test({"a": 1, "c": 1.0})
    assert not test({"a": 1, "c": 0.0})
    assert not test({"a": 2, "c": 1.0})
