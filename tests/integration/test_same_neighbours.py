"""One question, one answer: the nearest records that satisfy generated conditions are the same from ChromaDB, pgvector,
SQLite and numpy, where all vectors are compared.

python -m tests.integration.test_same_neighbours 1000 [SEED] [STORE ...]   asks so many of each store, says how long
"""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest

from polystore import Collection, Embedding, HybridDataArchitecture, entity
from polystore.embedding import pack
from polystore.entity import EntityType, entity_types
from polystore.facets import Metric
from polystore.filters import Condition, predicate
from polystore.model import Body
from polystore.relational.scores import scores_by_numpy
from polystore.testing.conformance.entities import Thing
from polystore.testing.conformance.filters import Conditions, samples
from tests import chromadb, postgresql
from tests.stack import url_of

RECORDS, DIMENSION = 200, 8
SAME = 1e-6
"""Scores no further apart than this are equal: the records come in any order."""
METRICS: Mapping[str, Metric] = {"near": "cosine", "close": "l2", "strong": "ip"}
Settings = Mapping[str, Any]


@entity(name="neighbour")
@dataclass(kw_only=True)
class Neighbour(Thing):
    near: Annotated[list[float] | None, Embedding(dimension=DIMENSION, metric="cosine")] = None
    close: Annotated[list[float] | None, Embedding(dimension=DIMENSION, metric="l2")] = None
    strong: Annotated[list[float] | None, Embedding(dimension=DIMENSION, metric="ip")] = None


NEIGHBOUR: EntityType[Neighbour] = entity_types([Neighbour])["neighbour"]


class Question(msgspec.Struct, frozen=True):
    to: Sequence[float]
    field: str
    where: Condition | None
    limit: int

    def __repr__(self) -> str:
        return f"{self.field} near {self.to} where={self.where!r}, limit={self.limit}"


def vector(r: random.Random) -> list[float]:
    """Few values, so that many are as near as others."""
    return [float(r.choice((-2, -1, -0.5, 0, 0.25, 1, 3))) for _ in range(DIMENSION)]


def neighbours(seed: int) -> list[Neighbour]:
    """One in ten has no vector of a field."""
    r, found = random.Random(f"vectors {seed}"), list[Neighbour]()
    for thing in samples(seed, RECORDS):
        given: dict[str, Any] = {field: vector(r) for field in METRICS if r.random() < 0.9}
        found.append(Neighbour(**{one.name: getattr(thing, one.name) for one in fields(thing)}, **given))
    return found


def questions(count: int, seed: int) -> list[Question]:
    """Conditions up to three deep over every kind of field, one in ten absent."""
    r = random.Random(f"questions {seed}")
    conditions = Conditions(r)
    return [
        Question(
            vector(r),
            r.choice([*METRICS]),
            None if r.random() < 0.1 else conditions.any(r.randint(0, 3)),
            r.choice((1, 3, 10, 50, RECORDS)),
        )
        for _ in range(count)
    ]


def nearest(question: Question, bodies: Mapping[str, Body]) -> dict[str, float]:
    """Every record that is meant, with its score by numpy, the nearest first."""
    where = NEIGHBOUR.condition(question.where)
    holds: Callable[[Body], bool] = (lambda body: True) if where is None else predicate(where)
    meant = {id: body[question.field] for id, body in bodies.items() if body[question.field] and holds(body)}
    packed = [pack(one) for one in meant.values()]
    if not packed:
        return {}
    scores = scores_by_numpy(METRICS[question.field], pack(question.to), packed)
    return dict(sorted(zip(meant, scores, strict=True), key=lambda one: -one[1]))


async def asked(things: Collection[Neighbour], question: Question) -> list[tuple[str, float]]:
    found = await things.similar(question.to, field=question.field, where=question.where, limit=question.limit)
    return [(hit.value.id, hit.score) for hit in found]


async def compare(config: Settings, given: Sequence[Neighbour], asking: Sequence[Question]) -> int:
    """Every answer is that of numpy, so no two stores differ. Returns how many questions left some of the records."""
    bodies = {one.id: NEIGHBOUR.encode(one) for one in given}
    telling = 0
    async with HybridDataArchitecture.open(config, entities=[Neighbour]) as hda:
        things = hda.collection(Neighbour)
        await things.put_many(given)
        await hda.tenant("acme").collection(Neighbour).put_many(given[::3])
        await hda.settle(120)
        for question in asking:
            right = nearest(question, bodies)
            found = await asked(things, question)
            wanted = list(right.values())[: question.limit]
            assert [score for _, score in found] == pytest.approx(wanted, abs=SAME, rel=0), question
            assert len({id for id, _ in found}) == len(found), question
            assert all(abs(right.get(id, 2e9) - score) <= SAME for id, score in found), question
            telling += 0 < len(right) < RECORDS // 2
    return telling


@contextmanager
def sqlite(folder: Path) -> Generator[Settings]:
    yield {"stores": {"main": {"url": f"sqlite:{folder / 'main.db'}"}}}


@contextmanager
def pgvector(folder: Path) -> Generator[Settings]:
    with postgresql.fresh_schema() as path:
        main = postgresql.configured(path)
        yield {"stores": {"main": {**main, "options": {**main["options"], "vectors": "pgvector"}}}}


@contextmanager
def chroma(folder: Path) -> Generator[Settings]:
    url = url_of("chromadb")
    with chromadb.own_prefix(url) as prefix:
        home = {"url": f"sqlite:{folder / 'home.db'}", "roles": ["home", "journal"]}
        near = {"url": url, "roles": ["vector"], "options": {"prefix": prefix}}
        yield {"stores": {"home": home, "near": near}}


STORES: Mapping[str, Callable[[Path], AbstractContextManager[Settings]]] = {
    "sqlite": sqlite,
    "pgvector": pgvector,
    "chromadb": chroma,
}


@pytest.mark.parametrize("store", STORES)
def test_generated_questions_have_the_same_neighbours_in_every_store(store: str, tmp_path: Path) -> None:
    with STORES[store](tmp_path) as config:
        assert asyncio.run(compare(config, neighbours(1), questions(40, seed=1))) > 10


if __name__ == "__main__":
    count = int(sys.argv[1])
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    for name in sys.argv[3:] or STORES:
        with tempfile.TemporaryDirectory() as folder, STORES[name](Path(folder)) as config:
            began = time.monotonic()
            telling = asyncio.run(compare(config, neighbours(seed), questions(count, seed)))
            print(
                f"{name}: {count} questions, {telling} that leave less than half of the records, "
                f"{time.monotonic() - began:.1f} s",
                flush=True,
            )
