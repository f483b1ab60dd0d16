"""Walks along relations: in one statement as level by level."""

from __future__ import annotations

import asyncio
import itertools
import random

import pytest
from polystore_adapters.postgresql import connect, graph
from polystore_adapters.postgresql.repository import PostgresRepository

from polystore import Edge, F
from polystore.env import Env
from polystore.model import Direction, Reached
from polystore.protocols import Layout
from polystore.testing.conformance.base import change
from polystore.testing.conformance.entities import PERSON, TOPIC, Person, Since, Topic
from tests.postgresql import fresh_schema
from tests.stack import url_of

PEOPLE, TOPICS = 60, 12


async def filled(path: str) -> PostgresRepository:
    """People who know one another and like topics, which are under one another; some edges come back, some end where
    no record is."""
    r = random.Random(3)
    store = await connect(url_of("postgresql"), {"schema": path}, Env())
    await store.prepare([Layout(one, False, frozenset({"graph"})) for one in (PERSON, TOPIC)], create=True)
    people = [
        Person(
            id=f"{i:02}",
            likes=sorted({f"t{r.randrange(TOPICS + 3)}" for _ in range(2)}),
            knows=[Edge(f"{to:02}", Since(r.randrange(2000, 2010))) for to in {r.randrange(PEOPLE) for _ in range(3)}],
        )
        for i in range(PEOPLE)
    ]
    await store.apply([change(PERSON, one, i) for i, one in enumerate(people, 1)])
    topics = [Topic(id=f"t{i}", under=f"t{r.randrange(TOPICS)}") for i in range(TOPICS)]
    await store.apply([change(TOPIC, one, i) for i, one in enumerate(topics, 100)])
    return store


def test_one_statement_reaches_what_a_walk_level_by_level_reaches(monkeypatch: pytest.MonkeyPatch) -> None:
    where = PERSON.edge_condition("knows", F.year >= 2003)

    async def reached(store: PostgresRepository, direction: Direction, depth: int, limit: int) -> list[list[Reached]]:
        every = ["KNOWS", "LIKES", "UNDER"]
        return [
            await store.traverse("kit_person", "", "07", every, direction, depth, None, limit),
            await store.traverse("kit_person", "", "07", ["KNOWS"], direction, depth, where, limit),
            await store.traverse("kit_topic", "", "t3", every, direction, depth, None, limit),
        ]

    async def main(path: str) -> None:
        store = await filled(path)
        directions: tuple[Direction, ...] = ("out", "in", "both")
        for direction, depth, limit in itertools.product(directions, (1, 2, 4), (1, 7, 500)):
            monkeypatch.setattr(graph, "CHAIN_MAX", 24)
            together = await reached(store, direction, depth, limit)
            monkeypatch.setattr(graph, "CHAIN_MAX", 0)
            assert await reached(store, direction, depth, limit) == together
            assert depth < 2 or limit < 500 or sum(map(len, together)) > 15
        await store.aclose()

    with fresh_schema() as path:
        asyncio.run(main(path))
