"""Conditions on the properties of edges, checked against the class of the properties."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any

import pytest

from polystore import Edge, F, InvalidFilter, Relation, entity
from polystore.entity import entity_type
from polystore.filters import All, Compare, Condition, predicate


@dataclass
class Met:
    year: int
    where: str | None = None
    at: datetime | None = None
    tags: list[str] = field(default_factory=list[str])


@entity()
@dataclass(kw_only=True)
class Person:
    id: str
    knows: Annotated[list[Edge[Met]], Relation("KNOWS", to="person")] = field(default_factory=list[Edge[Met]])
    maybe: Annotated[list[Edge[Met]] | None, Relation("MAYBE", to="person")] = None
    free: Annotated[list[Edge[dict[str, Any]]], Relation("FREE", to="person")] = field(
        default_factory=list[Edge[dict[str, Any]]]
    )
    likes: Annotated[list[str], Relation("LIKES", to="person")] = field(default_factory=list[str])
    boss: Annotated[str | None, Relation("BOSS", to="person")] = None


PERSON = entity_type(Person)


def test_a_condition_is_about_the_properties_as_they_are_stored() -> None:
    at = datetime(2024, 1, 2, tzinfo=UTC)
    assert PERSON.edge_condition("knows", (F.year > 2000) & (F.at == at)) == All(
        (
            Compare(("properties", "year"), ">", 2000, "json"),
            Compare(("properties", "at"), "==", at.isoformat(), "json"),
        )
    )
    assert PERSON.edge_condition("knows", None) is None


@pytest.mark.parametrize(
    ("edges", "holds"),
    [
        (F.year == 1999, True),
        (F.year > 1999, False),
        (F.where.is_null(), True),
        (F.where == "Seoul", False),
        (F.tags.contains("work"), True),
        (~(F.year == 1999) | F.tags.contains("home"), False),
    ],
)
def test_it_holds_of_the_edges_of_a_record(edges: Condition, holds: bool) -> None:
    body = PERSON.encode(Person(id="a", knows=[Edge("b", Met(1999, tags=["work"]))], maybe=[Edge("b", Met(1999))]))
    (edge, _) = PERSON.edges(body)
    condition = PERSON.edge_condition("knows", edges)
    assert condition is not None
    assert predicate(condition)({"properties": edge.properties}) is holds
    assert PERSON.edge_condition("maybe", edges) == condition


def test_free_properties_may_be_anything() -> None:
    assert PERSON.edge_condition("free", F.whatever == 1) == Compare(("properties", "whatever"), "==", 1, "json")


@pytest.mark.parametrize(
    ("field_name", "edges", "message"),
    [
        ("knows", lambda: F.yaer == 1, r"^Person\.knows\.properties has no field 'yaer', did you mean 'year'\?"),
        ("knows", lambda: F.year == "1999", r"^Person\.knows\.properties\.year: an int is needed, not str"),
        ("knows", lambda: F.tags > 1, r"^Person\.knows\.properties\.tags: a json field has no order"),
        ("likes", lambda: F.year == 1, r"^edges=: the edges of Person\.likes have no properties; make it list\[Edge"),
        ("boss", lambda: F.year == 1, r"^edges=: the edges of Person\.boss have no properties"),
    ],
)
def test_what_does_not_fit_is_refused(field_name: str, edges: Callable[[], Condition], message: str) -> None:
    with pytest.raises(InvalidFilter, match=message):
        PERSON.edge_condition(field_name, edges())
