"""One question, one answer: generated queries find the same records in the same order on every kind of home.

python -m tests.integration.test_same_answers 1000 [SEED] [HOME ...]   asks so many of each home and says how long
"""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from polystore import Collection, F, HybridDataArchitecture
from polystore.filters import Condition, Order, as_expr, predicate
from polystore.model import Body
from polystore.testing.conformance.base import same
from polystore.testing.conformance.entities import THING, Thing
from polystore.testing.conformance.filters import (
    CHOICES,
    FLAGS,
    ORDERED,
    ORDERED_MAYBE,
    Conditions,
    in_order,
    samples,
)
from tests.homes import HOMES, Stores
from tests.sockets import forgotten_connections

RECORDS, GONE = 120, 10
PAGES_MAX = 6
OPERATORS = {"==", "!=", "<", "<=", ">", ">=", "in", "contains", "startswith", "and", "or", "not"}


class Question(msgspec.Struct, frozen=True):
    """A condition or none, an order by field and direction, and how many records make a page."""

    where: Condition | None
    order: Sequence[tuple[str, bool]]
    limit: int

    def __repr__(self) -> str:
        return f"where={self.where!r}, order_by={self.order}, limit={self.limit}"


def questions(count: int, seed: int) -> list[Question]:
    """Conditions up to five deep over every kind of field, one in twenty absent; up to three fields to sort by."""
    r = random.Random(seed)
    conditions = Conditions(r)
    sortable = (*ORDERED, *ORDERED_MAYBE, *CHOICES, *FLAGS, "id")
    out: list[Question] = []
    for _ in range(count):
        where = None if r.random() < 0.05 else conditions.any(r.randint(0, 5))
        order = [(field, r.random() < 0.5) for field in r.sample(sortable, r.choice((0, 1, 1, 2, 3)))]
        out.append(Question(where, order, r.choice((1, 3, 7, 20, 50, 1_000))))
    return out


def answer(question: Question, bodies: Mapping[str, Body]) -> list[str]:
    """The ids that the reference finds, in order."""
    where = THING.condition(question.where)
    holds: Callable[[Body], bool] = (lambda body: True) if where is None else predicate(where)
    left = {id: body for id, body in bodies.items() if holds(body)}
    return in_order(left, *question.order, ("id", False))


async def ask(things: Collection[Thing], question: Question) -> tuple[int, list[list[str]]]:
    """The number of records that the store counts, and the ids on its pages, of which it gives PAGES_MAX at most."""
    order: list[Order] = [F[field].desc() if descending else F[field].asc() for field, descending in question.order]
    pages: list[list[str]] = []
    cursor: str | None = None
    while len(pages) < PAGES_MAX:
        page = await things.find(question.where, order_by=order, limit=question.limit, cursor=cursor)
        pages.append([one.id for one in page])
        cursor = page.cursor
        if cursor is None:
            break
    return await things.count(question.where), pages


async def compare(config: Mapping[str, Any], asked: Sequence[Question], seed: int) -> int:
    """Every answer is the reference's, so no two homes differ; of what was written over or deleted none tells. Returns
    how many questions told records apart."""
    before, given = samples(seed + 1, RECORDS + GONE), samples(seed, RECORDS)
    bodies = {one.id: THING.encode(one) for one in given}
    telling = 0
    async with HybridDataArchitecture.open(config, entities=[Thing]) as hda:
        things = hda.collection(Thing)
        await things.put_many(before)
        await things.put_many(given)
        for gone in {one.id for one in before} - bodies.keys():
            await things.delete(gone)
        await hda.tenant("acme").collection(Thing).put_many(given[::3])
        await hda.settle(30)
        for found, wanted in zip(await things.find(limit=1_000), sorted(given, key=lambda one: one.id), strict=True):
            assert same(THING.encode(found), THING.encode(wanted)), wanted.id
        for question in asked:
            ids = answer(question, bodies)
            wanted_pages = [ids[i : i + question.limit] for i in range(0, len(ids), question.limit)] or [[]]
            assert await ask(things, question) == (len(ids), wanted_pages[:PAGES_MAX]), question
            telling += 0 < len(ids) < RECORDS
    return telling


def homed(stores: Stores) -> Mapping[str, Any]:
    """A configuration that keeps things in the last of the stores."""
    return {"stores": stores, "pins": {THING.name: {"home": [*stores][-1]}}}


def operators(condition: Condition) -> Iterator[str]:
    expr = as_expr(condition)
    yield expr.op
    if expr.op in ("and", "or", "not"):
        for part in expr.args:
            yield from operators(part)


def test_the_questions_use_every_operator_nested_and_every_field_to_sort_by() -> None:
    asked = questions(150, seed=1)
    used = Counter(op for one in asked if one.where is not None for op in operators(one.where))
    assert used.keys() == OPERATORS
    assert min(used.values()) >= 10
    assert {field for one in asked for field, _ in one.order} == {*ORDERED, *ORDERED_MAYBE, *CHOICES, *FLAGS, "id"}


@pytest.mark.parametrize("home", HOMES)
def test_generated_questions_have_the_same_answers_on_every_home(home: str, tmp_path: Path) -> None:
    with forgotten_connections():  # PyMongo's
        asked = questions(150, seed=1)
        with HOMES[home](tmp_path) as stores:
            assert asyncio.run(compare(homed(stores), asked, seed=1)) > 75


if __name__ == "__main__":
    count = int(sys.argv[1])
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    for home in sys.argv[3:] or HOMES:
        with tempfile.TemporaryDirectory() as folder, HOMES[home](Path(folder)) as stores:
            began = time.monotonic()
            telling = asyncio.run(compare(homed(stores), questions(count, seed), seed))
            print(
                f"{home}: {count} questions, {telling} tell records apart, {time.monotonic() - began:.1f} s", flush=True
            )
