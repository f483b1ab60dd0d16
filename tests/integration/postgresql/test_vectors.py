"""Vectors in pgvector's columns: how they get there, what is found by looking at each and by an index, and what is told
where the database cannot keep them so."""

from __future__ import annotations

import asyncio
import random
import struct
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any

import msgspec
import pytest
from polystore_adapters.postgresql import connect
from polystore_adapters.postgresql.repository import PostgresRepository

from benchmarks.recall import measured
from polystore import Embedding, F, Index, entity
from polystore.entity import EntityType, entity_types
from polystore.env import Env
from polystore.errors import ConfigurationError, SchemaMismatch, Unavailable, WorkLimitExceeded
from polystore.facets import Metric
from polystore.model import EVERYTHING, Change
from polystore.protocols import Layout, VectorSpec
from polystore.relational.scores import scores_by_numpy
from polystore.testing.conformance.base import change
from tests.postgresql import fresh_database, fresh_schema, server
from tests.stack import url_of

LONG = 2_100
"""More components than an index of whole floats takes."""
FIELDS: Mapping[str, tuple[Metric, int]] = {
    "by_cosine": ("cosine", 24),
    "by_distance": ("l2", 24),
    "by_product": ("ip", 24),
    "long": ("cosine", LONG),
}


@entity()
@dataclass(kw_only=True)
class Shape:
    id: str
    by_cosine: Annotated[list[float] | None, Embedding(dimension=24)] = None
    by_distance: Annotated[list[float] | None, Embedding(dimension=24, metric="l2")] = None
    by_product: Annotated[list[float] | None, Embedding(dimension=24, metric="ip")] = None
    long: Annotated[list[float] | None, Embedding(dimension=LONG)] = None
    group: Annotated[str, Index()] = ""
    note: list[str] = field(default_factory=list[str])


SHAPE: EntityType[Shape] = entity_types([Shape])["shape"]


def layout(*fields: str, home: bool = False) -> Layout:
    specs = {one: VectorSpec(FIELDS[one][1], FIELDS[one][0], "caller") for one in fields}
    return Layout(SHAPE, home, frozenset({"vector"}), specs)


def packed(vector: Sequence[float]) -> bytes:
    return struct.pack(f"<{len(vector)}f", *vector)


def shapes(vectors: Mapping[str, bytes], *fields: str, groups: int = 1) -> list[Change]:
    return [
        change(SHAPE, Shape(id=id, group=f"g{i % groups}"), i, vectors=dict.fromkeys(fields, vector))
        for i, (id, vector) in enumerate(vectors.items(), 1)
    ]


@asynccontextmanager
async def opened(
    path: str | None, *fields: str, url: str = "", create: bool = True, **options: Any
) -> AsyncGenerator[PostgresRepository]:
    given = options if path is None else {"schema": path, **options}
    store = await connect(url or url_of("postgresql"), given, Env())
    try:
        await store.prepare([layout(*fields)], create=create)
        yield store
    finally:
        await store.aclose()


def column_types(path: str) -> dict[str, str]:
    sql = (
        "SELECT string_agg(attname || '=' || format_type(atttypid, atttypmod), ',') FROM pg_attribute "
        "WHERE attrelid = ($1 || '.shape')::regclass AND attname LIKE 'ps\\_vec%'"
    )
    found: str = server().value(sql, path.partition(",")[0])
    return dict(one.split("=") for one in found.split(","))


def test_what_is_found_exactly_is_what_numpy_finds_also_among_vectors_that_32_bits_cannot_tell_apart() -> None:
    r = random.Random(5)
    middle = [r.gauss(0, 1) for _ in range(24)]
    near = {f"n{i:03}": packed([x * (1 + r.choice((-1, 1)) * 2e-7 * r.random()) for x in middle]) for i in range(300)}
    far = {f"f{i:03}": packed([r.gauss(0, 1) for _ in middle]) for i in range(300)}
    vectors = {**near, **far}
    asked = packed(middle)
    names = list(FIELDS)[:3]

    async def main(path: str) -> None:
        async with opened(path, *names) as store:
            await store.apply(shapes(vectors, *names))
            assert column_types(path)["ps_vec_by_cosine"].endswith("vector(24)")
            for name in names:
                scores = scores_by_numpy(FIELDS[name][0], asked, list(vectors.values()))
                best = sorted(zip(vectors, scores, strict=True), key=lambda one: (-one[1], one[0]))
                for limit in (1, 10, 290, 450):
                    found = await store.similar("shape", "", name, asked, None, limit)
                    assert [(one.id, one.score) for one in found] == best[:limit]

    with fresh_schema() as path:
        asyncio.run(main(path))


def test_an_index_answers_with_as_many_as_satisfy_the_condition_however_few_are_near() -> None:
    r = random.Random(6)
    vectors = {f"{i:04}": packed([r.gauss(0, 1) + (i % 40 == 39) * 9 for _ in range(24)]) for i in range(2_000)}
    asked = packed([-1.0] * 24)  # those of the group g0 are the farthest
    options: dict[str, Any] = {"vector_index": "hnsw", "approximate_min": 20, "hnsw_ef_search": 10}
    condition = SHAPE.condition(F.group == "g0")
    used = "SELECT sum(idx_scan) FROM pg_stat_user_indexes WHERE schemaname = $1 AND indexrelname LIKE 'ps\\_near%'"

    async def main(path: str) -> None:
        async with opened(path, "by_distance") as store:
            await store.apply(shapes(vectors, "by_distance", groups=40))
        async with opened(path, "by_distance", **options) as store:
            found = await store.similar("shape", "", "by_distance", asked, condition, 30)
            assert len({one.id for one in found}) == 30
            assert all(int(one.id) % 40 == 39 for one in found)
            assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
            nearest = await store.similar("shape", "", "by_distance", asked, None, 10)
        async with opened(path, "by_distance", vector_index="hnsw", approximate_min=5_000) as store:
            every = await store.similar("shape", "", "by_distance", asked, None, 40)
            assert {one.id for one in nearest} < {one.id for one in every}
        for _ in range(300):  # the server tells what was used some time after
            if server().value(used, path.partition(",")[0]):
                return
            await asyncio.sleep(0.05)
        raise AssertionError("the index was never asked")

    with fresh_schema() as path:
        asyncio.run(main(path))


def test_vectors_move_into_pgvectors_columns_and_back_when_that_is_asked_for_and_never_by_themselves() -> None:
    r = random.Random(7)
    vectors = {f"{i:04}": packed([r.gauss(0, 1) for _ in range(24)]) for i in range(1_100)}
    asked = packed([1.0] * 24)

    async def state(store: PostgresRepository) -> object:
        page = await store.scan("shape", "", EVERYTHING, None, 2_000)
        assert len(page.stamps) == 1_100
        return page.stamps, await store.similar("shape", "", "by_product", asked, None, 20)

    async def main(path: str) -> None:
        plain = {"by_product": "bytea"}
        async with opened(path, "by_product", vectors="bytes") as store:
            await store.apply(shapes(vectors, "by_product"))
            before = await state(store)
        async with opened(path, "by_product") as store:  # the extension is there, and nothing happens
            assert await state(store) == before
        assert column_types(path) == {f"ps_vec_{one}": kind for one, kind in plain.items()}
        with pytest.raises(SchemaMismatch, match=r"plain bytes, to be kept in pgvector's columns.*`polystore init`"):
            async with opened(path, "by_product", vectors="pgvector", create=False):
                pass
        async with opened(path, "by_product", vectors="pgvector", vector_index="hnsw") as store:
            assert await state(store) == before
        assert column_types(path)["ps_vec_by_product"].endswith("vector(24)")
        with pytest.raises(SchemaMismatch, match=r"index hnsw m=16 .* index hnsw m=8"):
            async with opened(path, "by_product", vector_index="hnsw", hnsw_m=8, create=False):
                pass
        async with opened(path, "by_product", vectors="bytes") as store:
            assert await state(store) == before
        assert column_types(path) == {f"ps_vec_{one}": kind for one, kind in plain.items()}

    with fresh_schema() as path:
        asyncio.run(main(path))


def test_whoever_opened_before_the_columns_moved_is_told_to_open_again() -> None:
    one = {"a": packed([1.0] * 24)}

    async def main(path: str) -> None:
        async with opened(path, "by_cosine", vectors="bytes") as before:
            await before.apply(shapes(one, "by_cosine"))
            async with opened(path, "by_cosine", vectors="pgvector") as after:
                with pytest.raises((SchemaMismatch, Unavailable)):  # its plan is not valid, or its types are not
                    await before.apply([msgspec.structs.replace(shapes(one, "by_cosine")[0], version=9)])
                with pytest.raises(SchemaMismatch, match="open the store again"):
                    await before.apply([msgspec.structs.replace(shapes(one, "by_cosine")[0], version=10)])
                assert [
                    found.version for found in await after.similar("shape", "", "by_cosine", one["a"], None, 1)
                ] == [1]

    with fresh_schema() as path:
        asyncio.run(main(path))


def test_a_database_without_the_extension_keeps_bytes_or_says_what_is_missing() -> None:
    async def main(url: str) -> None:
        with pytest.raises(SchemaMismatch, match="CREATE EXTENSION vector"):
            async with opened(None, "by_cosine", url=url, vectors="pgvector", create=False):
                pass
        async with opened(None, "by_cosine", url=url, exact_vectors_max=2) as store:
            vectors = {f"{i}": packed([float(i)] * 24) for i in range(3)}
            await store.apply(shapes(vectors, "by_cosine"))
            with pytest.raises(WorkLimitExceeded, match="more than 2 vectors"):
                await store.similar("shape", "", "by_cosine", vectors["1"], None, 1)
        async with opened(None, "by_cosine", url=url, vectors="pgvector") as store:  # makes the extension, moves them
            found = await store.similar("shape", "", "by_cosine", vectors["2"], None, 3)
            assert [one.id for one in found] == ["1", "2", "0"]

    with fresh_database() as database:
        asyncio.run(main(f"{url_of('postgresql').rpartition('/')[0]}/{database}"))


def test_a_server_without_pgvector_says_so() -> None:
    async def main() -> None:
        with pytest.raises(SchemaMismatch, match="the server has no pgvector"):
            async with opened(None, "by_cosine", url=url_of("postgresql-old"), vectors="pgvector"):
                pass

    asyncio.run(main())


def test_vectors_too_long_for_an_index_of_whole_floats_get_one_of_half_floats_and_exact_scores() -> None:
    r = random.Random(8)
    vectors = {f"{i:03}": packed([r.gauss(0, 1) for _ in range(LONG)]) for i in range(60)}
    sql = "SELECT indexdef FROM pg_indexes WHERE schemaname = $1 AND indexname LIKE 'ps\\_near%'"

    async def main(path: str) -> None:
        async with opened(path, "long", vector_index="hnsw", approximate_min=0) as store:
            await store.apply(shapes(vectors, "long"))
            assert f"halfvec({LONG})" in server().value(sql, path.partition(",")[0])
            (best,) = await store.similar("shape", "", "long", vectors["007"], None, 1)
            assert best.id == "007"
            assert best.score == pytest.approx(1, abs=1e-12)

    with fresh_schema() as path:
        asyncio.run(main(path))


def test_an_index_finds_what_it_should_through_a_pooler_in_transaction_mode() -> None:
    async def main(url: str) -> None:
        figures = await measured(
            url, 1_500, {"pooler": "transaction", "vectors": "pgvector", "hnsw_ef_search": 100}, 20
        )
        assert figures.recall >= 0.98

    with fresh_database() as database:
        asyncio.run(main(f"{url_of('pgbouncer').rpartition('/')[0]}/{database}"))


@pytest.mark.parametrize("wrong", [{"hnsw_m": 1}, {"hnsw_ef_construction": 20}, {"hnsw_ef_search": 2_000}])
def test_settings_that_pgvector_refuses_are_refused_at_once(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        asyncio.run(connect("postgresql://nowhere/x", wrong, Env()))
