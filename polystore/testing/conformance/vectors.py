"""Vectors: the nearest by each metric, exactly those that a look at every vector finds."""

from __future__ import annotations

import math
import random
import struct
from collections.abc import Callable, Mapping, Sequence
from operator import mul
from typing import Any, Protocol

import pytest
from msgspec.structs import replace

from polystore.errors import DimensionMismatch
from polystore.filters import F
from polystore.model import EVERYTHING, Change, vector_digest
from polystore.protocols import Repository, SupportsVectorSearch
from polystore.testing.conformance.base import Conformance, change, key_of, removal
from polystore.testing.conformance.entities import DIMENSION, SPOT, Spot

METRICS = {"by_cosine": "cosine", "by_distance": "l2", "by_product": "ip"}
Vector = Sequence[float]


def pack(vector: Vector) -> bytes:
    return struct.pack(f"<{len(vector)}f", *vector)


def rounded(vector: Vector) -> Vector:
    """The components as 32-bit floats hold them."""
    return struct.unpack(f"<{len(vector)}f", pack(vector))


def product(a: Vector, b: Vector) -> float:
    return math.fsum(map(mul, a, b))


SCORES: Mapping[str, Callable[[Vector, Vector], float]] = {
    "by_cosine": lambda a, b: product(a, b) / (math.hypot(*a) * math.hypot(*b)),
    "by_distance": lambda a, b: -math.dist(a, b),
    "by_product": product,
}


class Comparable(Repository, SupportsVectorSearch, Protocol):
    pass


def spot(id: str, version: int, vector: Vector | None, *, tenant: str = "", **fields: Any) -> Change:
    """A record with this vector in all three fields."""
    components = None if vector is None else [float(x) for x in vector]
    value = Spot(id=id, by_cosine=components, by_distance=components, by_product=components, **fields)
    vectors = {} if vector is None else dict.fromkeys(METRICS, pack(vector))
    return change(SPOT, value, version, tenant=tenant, vectors=vectors)


def drawn(count: int, seed: int = 1) -> dict[str, Vector]:
    r = random.Random(seed)
    return {f"{i:03}": rounded([r.gauss(0, 1) for _ in range(DIMENSION)]) for i in range(count)}


class VectorConformance(Conformance):
    """`similar`. Each record of these tests has its vector in a field of each metric."""

    protocol = SupportsVectorSearch
    types = (SPOT,)

    async def ready(self, vectors: Mapping[str, Vector | None]) -> Comparable:
        """The store with these vectors. Every store that compares vectors knows the three metrics."""
        store: Comparable = await self.open()
        assert store.metrics == {"cosine", "l2", "ip"}
        spots = [spot(id, i, v, group=f"g{i % 4}", stars=i) for i, (id, v) in enumerate(vectors.items(), 1)]
        await self.write(store, spots)
        return store

    async def nearest(self, store: Comparable, field: str, to: Vector, **options: Any) -> list[str]:
        tenant, where, limit = options.get("tenant", ""), options.get("where"), options.get("limit", 1_000)
        return [m.id for m in await store.similar(SPOT.name, tenant, field, pack(to), where, limit)]

    async def every(self, store: Comparable, to: Vector, **options: Any) -> list[str]:
        """The ids, nearest first, where all metrics must agree."""
        answers = [await self.nearest(store, field, to, **options) for field in METRICS]
        assert answers.count(answers[0]) == len(METRICS), answers
        return answers[0]

    @pytest.mark.parametrize("field", METRICS)
    async def test_finds_what_a_look_at_every_vector_finds(self, field: str) -> None:
        vectors = drawn(120)
        store = await self.ready(vectors)
        for to in drawn(12, seed=2).values():
            scores = {id: SCORES[field](to, vector) for id, vector in vectors.items()}
            wanted = sorted(vectors, key=lambda id: (-scores[id], id))
            found = await store.similar(SPOT.name, "", field, pack(to), None, 1_000)
            assert [m.id for m in found] == wanted
            assert [m.score for m in found] == pytest.approx([scores[id] for id in wanted], abs=1e-5)
            assert await store.similar(SPOT.name, "", field, pack(to), None, 7) == found[:7]
            versions = [r and r.version for r in await store.get([key_of(SPOT, id) for id in wanted])]
            assert [m.version for m in found] == versions

    async def test_a_stored_vector_of_length_one_is_nearest_to_itself(self) -> None:
        vectors = {id: [x / math.hypot(*v) for x in v] for id, v in drawn(30).items()}
        store = await self.ready(vectors)
        for id, vector in vectors.items():
            for field in METRICS:
                (best,) = await store.similar(SPOT.name, "", field, pack(vector), None, 1)
                assert best.id == id
                assert best.score == pytest.approx(0 if field == "by_distance" else 1, abs=1e-3)

    async def test_equals_are_ordered_by_id(self) -> None:
        ids = [f"{(i * 7) % 30:02}" for i in range(30)]
        store = await self.ready({id: (1, 2, 3, 4) if id < "20" else (-1, 0, 0, 1) for id in ids})
        assert await self.every(store, (1, 2, 3, 4)) == sorted(ids)
        assert await self.every(store, (1, 2, 3, 4), limit=5) == sorted(ids)[:5]

    async def test_a_vector_of_no_length_has_a_score_like_any_other(self) -> None:
        """The cosine with it is 0."""
        store = await self.ready({"nothing": (0, 0, 0, 0), "near": (1, 0, 0, 0), "far": (-3, 0, 0, 0)})
        for field, scores in (("by_cosine", [1, 0, -1]), ("by_distance", [0, -1, -4]), ("by_product", [1, 0, -3])):
            found = await store.similar(SPOT.name, "", field, pack((1, 0, 0, 0)), None, 10)
            assert [(m.id, m.score) for m in found] == list(zip(("near", "nothing", "far"), scores, strict=True))
            everything = await store.similar(SPOT.name, "", field, pack((0, 0, 0, 0)), None, 10)
            assert sorted(m.id for m in everything) == ["far", "near", "nothing"]
            assert all(math.isfinite(m.score) for m in everything)

    async def test_a_condition_holds_before_the_limit(self) -> None:
        vectors = drawn(60)
        store = await self.ready(vectors)
        to = drawn(1, seed=9)["000"]
        numbers = {id: i for i, id in enumerate(vectors, 1)}
        where = SPOT.condition((F.group == "g1") & (F.stars > 20))
        for field in METRICS:
            everything = await self.nearest(store, field, to)
            wanted = [id for id in everything if numbers[id] % 4 == 1 and numbers[id] > 20]
            assert await self.nearest(store, field, to, where=where) == wanted
            assert await self.nearest(store, field, to, where=where, limit=3) == wanted[:3]
        assert await self.every(store, to, where=SPOT.condition(F.stars > 999)) == []

    async def test_what_overwrites_replaces_the_vector_at_the_same_version(self) -> None:
        store: Comparable = await self.open()
        east, north = (1, 0, 0, 0), (0, 1, 0, 0)
        await store.apply([spot("a", 1, north), spot("b", 2, east)])
        (outcome,) = await store.apply([replace(spot("a", 1, east), overwrites=True)])
        assert outcome.status == "applied"
        assert await self.every(store, east) == ["a", "b"]
        page = await store.scan(SPOT.name, "", EVERYTHING, None, 10)
        wrong = {stamp.id: (stamp.vectors, stamp.fault) for stamp in page.stamps}
        assert wrong["a"] == (dict.fromkeys(METRICS, vector_digest(pack(east))), "")

    async def test_the_index_follows_every_change(self) -> None:
        east = (1, 0, 0, 0)
        store = await self.ready({"a": east, "b": (0.9, 0.1, 0, 0), "c": (-1, 0, 0, 0), "none": None})
        assert await self.every(store, east) == ["a", "b", "c"]
        gone = removal(key_of(SPOT, "b"), 11)
        await self.write(store, [spot("a", 10, (-0.9, 0.1, 0, 0)), gone, spot("d", 12, east)])
        assert await self.every(store, east) == ["d", "a", "c"]
        await self.write(store, [spot("d", 13, None), spot("b", 14, east), spot("none", 15, (0.5, 0.1, 0, 0))])
        assert await self.every(store, east) == ["b", "none", "a", "c"]

    async def test_tenants_do_not_find_each_others_vectors(self) -> None:
        store = await self.ready({"a": (1, 0, 0, 0), "b": (0, 1, 0, 0)})
        await self.write(store, [spot("a", 5, (0, 1, 0, 0), tenant="acme")])
        assert await self.every(store, (1, 0, 0, 0)) == ["a", "b"]
        assert await self.every(store, (1, 0, 0, 0), tenant="acme") == ["a"]
        assert await self.every(store, (1, 0, 0, 0), tenant="nobody") == []

    async def test_scan_tells_which_vectors_are_stored(self) -> None:
        vectors = drawn(10)
        store = await self.ready({**vectors, "none": None})
        page = await store.scan(SPOT.name, "", EVERYTHING, None, 100)
        assert {stamp.id: dict(stamp.vectors) for stamp in page.stamps} == {
            **{id: dict.fromkeys(METRICS, vector_digest(pack(v))) for id, v in vectors.items()},
            "none": {},
        }

    async def test_vectors_of_another_dimension_are_refused(self) -> None:
        store = await self.ready({"a": (1, 0, 0, 0)})
        with pytest.raises(DimensionMismatch):
            await self.nearest(store, "by_cosine", (1, 0, 0))
        good, bad = spot("b", 5, (0, 1, 0, 0)), spot("c", 6, (0, 1, 0, 0))
        short = {**bad.vectors, "by_product": pack((1, 0, 0))}
        bad = Change(bad.key, 6, bad.h, bad.body, bad.hash, 6, short)
        if self.home:
            with pytest.raises(DimensionMismatch):
                await self.write(store, [bad, good])
        else:
            outcomes = await store.apply([bad, good])
            assert [o.status for o in outcomes] == ["rejected", "applied"]
            assert isinstance(outcomes[0].error, DimensionMismatch)
        assert await store.get([bad.key]) == [None]
