"""Vectors in a SQLite file: exact results, a memory of the file that never lags behind it, bounded memory, damage."""

from __future__ import annotations

import math
import random
import sqlite3
import sys
import tracemalloc
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from threading import Thread
from typing import Annotated

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polystore_adapters.sqlite.facets.vector import VectorFacet
from polystore_adapters.sqlite.options import CACHE_BYTES

from polystore.embedding import pack
from polystore.entity import entity, entity_type
from polystore.errors import DimensionMismatch, StoreCorrupt
from polystore.facets import Embedding, Metric
from polystore.model import Match, vector_digest
from polystore.protocols import VectorSpec
from tests.integration.sqlite.facet_file import FacetFile, connect, facet_file


@entity(name="select")  # a word of SQL
@dataclass
class Note:
    id: str
    text: Annotated[str, Embedding()] = ""
    title: Annotated[str, Embedding()] = ""
    author: str = ""


@entity()
@dataclass
class Numbered:
    id: int
    text: Annotated[str, Embedding()] = ""


NOTE = entity_type(Note)
METRICS: list[Metric] = ["cosine", "l2", "ip"]


def specs(metric: Metric = "cosine", dimension: int = 2) -> dict[str, VectorSpec]:
    spec = VectorSpec(dimension, metric, "test")
    return {"text": spec, "title": spec}


def facet(metric: Metric = "cosine", dimension: int = 2, cache_bytes: int = CACHE_BYTES) -> VectorFacet:
    return VectorFacet(NOTE, specs(metric, dimension), cache_bytes)


def hide_numpy(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(sys.modules, "numpy", None)
    patch.delitem(sys.modules, "polystore_adapters.sqlite.facets.matrix", raising=False)


@pytest.fixture(params=["with numpy", "without numpy"])
def either(request: pytest.FixtureRequest) -> Generator[None, None, None]:
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "without numpy":
            hide_numpy(patch)
        yield


@pytest.fixture
def notes(either: None) -> Generator[FacetFile[VectorFacet], None, None]:
    with facet_file(NOTE, facet()) as file:
        yield file


def put(
    file: FacetFile[VectorFacet],
    vectors: Mapping[str, Sequence[float]],
    *,
    tenant: str = "",
    version: int = 1,
    author: str = "",
) -> None:
    packed = {id: {"text": pack(vector)} for id, vector in vectors.items()}
    file.put([{"id": id, "author": author} for id in vectors], tenant=tenant, version=version, vectors=packed)


def similar(
    file: FacetFile[VectorFacet],
    vector: Sequence[float],
    limit: int = 100,
    *,
    of: VectorFacet | None = None,
    db: sqlite3.Connection | None = None,
    tenant: str = "",
    where: tuple[str, Sequence[object]] | None = None,
) -> list[Match]:
    return (of or file.facet).similar(db or file.db, tenant, "text", pack(vector), where, limit)


def ids(matches: Iterable[Match]) -> list[str]:
    return [match.id for match in matches]


# -- results ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("either")
@pytest.mark.parametrize(
    ("metric", "scores"),
    [
        ("cosine", {"same": 1.0, "long": 1.0, "slant": 7 / math.sqrt(50), "none": 0.0, "back": -1.0}),
        ("l2", {"same": 0.0, "slant": -3.0, "none": -5.0, "back": -10.0, "long": -45.0}),
        ("ip", {"long": 250.0, "slant": 25.0 + 12 - 2, "same": 25.0, "none": 0.0, "back": -25.0}),
    ],
)
def test_the_metrics_and_their_order(metric: Metric, scores: dict[str, float]) -> None:
    vectors = {"same": [3, 4], "long": [30, 40], "back": [-3, -4], "none": [0, 0], "slant": [3, 4]}
    if metric == "cosine":
        vectors["slant"] = [1, 1]
    elif metric == "l2":
        vectors["slant"] = [3, 7]
    else:
        vectors["slant"] = [5, 5]
    with facet_file(NOTE, facet(metric)) as file:
        put(file, vectors, version=5)
        matches = similar(file, [3, 4])
        assert {match.id: match.score for match in matches} == pytest.approx(scores)
        assert ids(matches) == sorted(scores, key=lambda id: (-scores[id], id))
        assert {match.version for match in matches} == {5}
        assert similar(file, [3, 4], 2) == matches[:2]
        assert similar(file, [3, 4], 0) == []


def test_equal_vectors_are_sorted_by_id_wherever_they_lie(notes: FacetFile[VectorFacet]) -> None:
    with facet_file(NOTE, facet("cosine", 33)) as file:
        chosen = random.Random(1)
        twin = [chosen.gauss(0, 1) for _ in range(33)]
        names = [f"{i:03}" for i in range(200)]
        chosen.shuffle(names)
        put(file, {name: [chosen.gauss(0, 1) for _ in range(33)] if int(name) % 2 else twin for name in names})
        twins = similar(file, twin, 50)
        assert ids(twins) == [f"{i:03}" for i in range(0, 100, 2)]
        assert len({match.score for match in twins}) == 1


def test_near_vectors_far_from_zero_are_told_apart(notes: FacetFile[VectorFacet]) -> None:
    with facet_file(NOTE, facet("l2", 3)) as file:
        put(file, {f"{i:02}": [10_000, 20_000, 30_000 + i / 128] for i in range(60)})
        assert ids(similar(file, [10_000, 20_000, 30_000 + 30.25 / 128], 4)) == ["30", "31", "29", "32"]


@pytest.mark.usefixtures("either")
@pytest.mark.parametrize("size", [3e38, 1e-42])
@pytest.mark.parametrize("metric", METRICS)
def test_the_largest_and_the_smallest_components_are_compared(metric: Metric, size: float) -> None:
    with facet_file(NOTE, facet(metric, 2)) as file:
        put(file, {"a": [size, 0], "b": [size, size], "c": [0, size], "d": [-size, 0]})
        assert ids(similar(file, [size, 0], 3)) == ["a", "b", "c"]


@pytest.mark.usefixtures("either")
def test_products_too_small_for_32_bits_are_compared() -> None:
    with facet_file(NOTE, facet("ip", 2)) as file:
        scaled = {"a": [1.45, 1.45], "b": [1.55, 1.30], "c": [0.1, 0.1]}  # in units of the smallest 32-bit product
        put(file, {id: [part * 2**-74 for part in vector] for id, vector in scaled.items()})
        assert ids(similar(file, [2**-75, 2**-75], 1)) == ["a"]


def test_the_condition_holds_before_the_limit(notes: FacetFile[VectorFacet]) -> None:
    put(notes, {f"{i:02}": [1, i / 10] for i in range(40)}, author="you")
    put(notes, {f"{i:02}": [1, i / 10] for i in range(9, 40, 10)}, author="me")
    where = ("t.author = ? OR t.author = ?", ["nobody", "me"])
    assert ids(similar(notes, [1, 0], 3, where=where)) == ["09", "19", "29"]
    assert similar(notes, [1, 0], where=("t.author = ?", ["nobody"])) == []
    assert ids(similar(notes, [1, 0], 3, of=facet(cache_bytes=0), where=where)) == ["09", "19", "29"]
    put(notes, {"you": [1, 0]}, tenant="other", author="you")
    for cache_bytes in (CACHE_BYTES, 0):
        assert similar(notes, [1, 0], of=facet(cache_bytes=cache_bytes), where=where, tenant="other") == []


@pytest.mark.usefixtures("either")
@pytest.mark.parametrize("metric", METRICS)
def test_a_condition_that_few_or_many_satisfy_leaves_out_the_others(metric: Metric) -> None:
    with facet_file(NOTE, facet(metric)) as file:
        for author, ids_of in (("few", range(0, 40, 13)), ("many", set(range(40)) - set(range(0, 40, 13)))):
            put(file, {f"{i:02}": [math.cos(i * 7), i % 11] for i in ids_of}, author=author)
        ranked = ids(similar(file, [0.3, 1]))
        for author in ("few", "many"):
            wanted = [id for id in ranked if (int(id) % 13 == 0) == (author == "few")]
            assert ids(similar(file, [0.3, 1], 3, where=("t.author = ?", [author]))) == wanted[:3]


def test_number_keys_are_matched_as_text() -> None:
    numbered = entity_type(Numbered)
    with facet_file(numbered, VectorFacet(numbered, {"text": VectorSpec(1, "ip", "test")}, CACHE_BYTES)) as file:
        file.put([{"id": i} for i in (9, 10)], vectors={str(i): {"text": pack([1])} for i in (9, 10)})
        assert ids(file.facet.similar(file.db, "", "text", pack([1]), None, 5)) == ["10", "9"]


def test_a_query_of_another_dimension_is_refused(notes: FacetFile[VectorFacet]) -> None:
    with pytest.raises(DimensionMismatch, match=r"select\.text: the vector has 3 components, the field has 2"):
        similar(notes, [1, 2, 3])


# -- what is stored ---------------------------------------------------------------------------------------------------


def test_a_put_replaces_all_vectors_but_those_to_keep(notes: FacetFile[VectorFacet]) -> None:
    one, two = pack([1, 0]), pack([0, 1])
    notes.put([{"id": "1"}], vectors={"1": {"text": one, "title": one}})
    notes.put([{"id": "1"}], vectors={"1": {"text": two}}, keep=frozenset({"title"}))
    (row,) = notes.rows.values()
    digests = {"text": vector_digest(two), "title": vector_digest(one)}
    assert notes.facet.digests(notes.db, [row]) == {row.rid: digests}
    assert [match.score for match in similar(notes, [1, 0])] == [0.0]
    notes.put([{"id": "1"}], vectors={"1": {"title": two}})
    assert notes.facet.digests(notes.db, [row]) == {row.rid: {"title": vector_digest(two)}}
    assert similar(notes, [1, 0]) == []
    notes.remove(["1"])
    assert notes.facet.digests(notes.db, [row]) == {}


def test_a_damaged_vector_is_named_and_stops_the_search(notes: FacetFile[VectorFacet]) -> None:
    put(notes, {"a": [1, 0], "b": [0, 1], "c": [1, 1]})
    assert notes.faults() == {}
    short, moved = notes.rows["", "a"].rid, notes.rows["", "c"].rid
    notes.db.execute("UPDATE ps_vec_select SET vec = x'0000803f' WHERE rid = ?", (short,))
    notes.db.execute("UPDATE ps_vec_select SET tenant = 'x' WHERE rid = ?", (moved,))
    faults = notes.faults()
    assert faults.keys() == {short, moved}
    assert "text: it has 4 bytes instead of 8" in faults[short]
    assert "another tenant" in faults[moved]
    for cache_bytes in (CACHE_BYTES, 0):
        with pytest.raises(StoreCorrupt, match=r"select\.text: 1 stored vectors have another dimension"):
            similar(notes, [1, 0], of=facet(cache_bytes=cache_bytes))


# -- the matrix in memory follows the file ----------------------------------------------------------------------------


def test_what_another_process_writes_is_seen_at_once(notes: FacetFile[VectorFacet]) -> None:
    reader = facet()
    with closing(connect(notes.path)) as db:
        put(notes, {"a": [1, 0], "b": [0, 1]})
        assert ids(similar(notes, [1, 0], of=reader, db=db)) == ["a", "b"]
        put(notes, {"b": [1, 0], "c": [1, 1], "a": [-1, 0]}, version=2)
        assert [(m.id, m.version) for m in similar(notes, [1, 0], of=reader, db=db)] == [("b", 2), ("c", 2), ("a", 2)]
        notes.remove(["a"])
        assert ids(similar(notes, [1, 0], of=reader, db=db)) == ["b", "c"]
        put(notes, {"c": [1, 0], "d": [0, 1]}, author="me")
        assert [m.score for m in similar(notes, [1, 0], of=reader, db=db)] == [1.0, 1.0, 0.0]
        assert ids(similar(notes, [1, 0], 1, of=reader, db=db, where=("t.author = 'me'", []))) == ["c"]
        notes.remove(["b", "c", "d"])
        assert similar(notes, [1, 0], of=reader, db=db) == []


def test_a_write_during_a_query_is_not_seen_in_half(notes: FacetFile[VectorFacet]) -> None:
    put(notes, {"a": [1, 0], "b": [1, 1], "c": [0, 1]})

    def interfere(sql: str) -> None:
        if "AS near" in sql:
            reader.set_trace_callback(None)
            notes.remove(["a"])
            put(notes, {"b": [0, 1]}, version=2)

    with closing(connect(notes.path)) as reader:
        reader.set_trace_callback(interfere)
        assert [(m.id, m.version) for m in similar(notes, [1, 0], 2, db=reader)] == [("a", 1), ("b", 1)]
        assert [(m.id, m.version) for m in similar(notes, [1, 0], 2, db=reader)] == [("b", 2), ("c", 1)]


def test_a_rid_that_went_to_another_tenant_takes_nothing_along(notes: FacetFile[VectorFacet]) -> None:
    put(notes, {"a": [1, 1], "b": [1, 0]}, tenant="one")
    reader = facet()
    assert ids(similar(notes, [1, 0], of=reader, tenant="one")) == ["b", "a"]
    freed = notes.rows["one", "b"].rid
    notes.remove(["b"], "one")
    put(notes, {"c": [1, 0]}, tenant="two")
    assert notes.rows["two", "c"].rid == freed
    assert ids(similar(notes, [1, 0], 1, of=reader, tenant="one")) == ["a"]
    assert ids(similar(notes, [1, 0], of=reader, tenant="one")) == ["a"]
    assert ids(similar(notes, [1, 0], of=reader, tenant="two")) == ["c"]


def test_removed_rows_are_cleared_away_and_an_older_matrix_sees_their_removal(notes: FacetFile[VectorFacet]) -> None:
    reader = facet()
    put(notes, {f"{i:04}": [1, i / 3000] for i in range(2500)})
    assert len(similar(notes, [1, 0], 3000, of=reader)) == 2500
    notes.remove([f"{i:04}" for i in range(2490)])
    assert notes.db.execute("SELECT count(*) FROM ps_vec_select").fetchone()[0] < 20
    assert ids(similar(notes, [1, 0], of=reader)) == [f"{i:04}" for i in range(2490, 2500)]
    put(notes, {"new": [1, 0]})
    assert ids(similar(notes, [1, 0], 2, of=reader)) == ["new", "2490"]


def test_a_transaction_that_began_earlier_sees_its_own_state(notes: FacetFile[VectorFacet]) -> None:
    put(notes, {"old": [1, 1]})
    with closing(connect(notes.path)) as early:
        early.execute("BEGIN")
        assert ids(similar(notes, [1, 0], db=early)) == ["old"]
        put(notes, {"new": [1, 0]})
        assert ids(similar(notes, [1, 0])) == ["new", "old"]
        assert ids(similar(notes, [1, 0], 1, db=early)) == ["old"]
        early.execute("COMMIT")
        assert ids(similar(notes, [1, 0], db=early)) == ["new", "old"]


def test_readers_in_threads_see_whole_commits_only(notes: FacetFile[VectorFacet]) -> None:
    put(notes, {str(i): [1, 0] if i == 0 else [0, 1] for i in range(20)}, version=1)
    wrong: list[list[Match]] = []
    done = False

    def read() -> None:
        with closing(connect(notes.path)) as db:
            while not done:
                best = similar(notes, [1, 0], 2, db=db)
                if [match.score for match in best] != [1.0, 0.0] or best[0].version != int(best[0].id) + 1:
                    wrong.append(best)

    threads = [Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for turn in range(1, 300):
        # In one commit the vector goes on to the next record; its version says which one has it.
        last, now = str((turn - 1) % 20), str(turn % 20)
        packed = {last: {"text": pack([0, 1])}, now: {"text": pack([1, 0])}}
        notes.put([{"id": last}, {"id": now}], version=int(now) + 1, vectors=packed)
    done = True
    for thread in threads:
        thread.join()
    assert wrong == []


# -- memory -----------------------------------------------------------------------------------------------------------


def test_only_what_changed_is_read_and_the_matrix_asked_least_recently_goes_first(either: None) -> None:
    read: list[str] = []

    def trace(sql: str) -> None:
        if sql.startswith("SELECT rid, vec"):
            read.append(sql)

    two_tenants = 2 * 10 * (4 * 2 + 120)
    with facet_file(NOTE, facet(cache_bytes=two_tenants + 100)) as file:
        for tenant in "abc":
            put(file, {str(i): [1, i] for i in range(10)}, tenant=tenant)
        file.db.set_trace_callback(trace)

        def reads(tenant: str) -> int:
            read.clear()
            assert len(similar(file, [1, 0], tenant=tenant)) == 10
            return len(read)

        assert [reads(tenant) for tenant in "abab"] == [1, 1, 0, 0]
        assert [reads(tenant) for tenant in "acab"] == [0, 1, 0, 1]


def test_more_vectors_than_the_limit_are_searched_in_bounded_memory() -> None:
    chosen = random.Random(2)
    dimension, count = 1024, 5000  # 20 MB
    with facet_file(NOTE, facet("cosine", dimension, cache_bytes=10 << 20)) as file:
        base = [chosen.gauss(0, 1) for _ in range(dimension)]
        for start in range(0, count, 500):
            turned = {f"{i:04}": [*base[i % 1000 :], *base[: i % 1000]] for i in range(start, start + 500)}
            put(file, turned, author="even" if start % 1000 else "odd")
        whole = facet("cosine", dimension)
        for where in (None, ("t.author = ?", ["odd"])):
            tracemalloc.start()
            matches = similar(file, base, 7, where=where)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert peak < 14 << 20
            assert matches == similar(file, base, 7, of=whole, where=where)
            assert ids(matches)[:2] == ["0000", "1000"]


# -- against a plain search ---------------------------------------------------------------------------------------

numbers = st.integers(-3, 3)
vectors = st.tuples(numbers, numbers, numbers)


def score(metric: Metric, a: Sequence[int], b: Sequence[int]) -> float:
    if metric == "l2":
        return -math.dist(a, b)
    product = sum(x * y for x, y in zip(a, b, strict=True))
    if metric == "ip":
        return product
    return product / (math.sqrt(sum(x * x for x in a) * sum(y * y for y in b)) or 1)


@settings(max_examples=80)
@given(
    st.sampled_from(METRICS),
    st.booleans(),
    st.sampled_from([CACHE_BYTES, 700, 0]),
    st.lists(st.tuples(st.integers(0, 13), st.none() | vectors, st.booleans()), max_size=40),
    vectors,
    st.integers(1, 8),
)
def test_after_any_history_the_results_are_those_of_a_plain_search(
    metric: Metric,
    numpy: bool,
    cache_bytes: int,
    history: list[tuple[int, tuple[int, ...] | None, bool]],
    query: tuple[int, ...],
    limit: int,
) -> None:
    with pytest.MonkeyPatch.context() as patch, facet_file(NOTE, facet(metric, 3, cache_bytes)) as file:
        if not numpy:
            hide_numpy(patch)
        held: dict[tuple[str, str], tuple[int, ...]] = {}
        for number, vector, ask in history:
            tenant, id = str(number % 2), str(number // 2)
            if vector is not None:
                put(file, {id: vector}, tenant=tenant, author=str(sum(vector) % 2))
                held[tenant, id] = vector
            elif (tenant, id) in held:
                file.remove([id], tenant)
                del held[tenant, id]
            if not ask:
                continue
            for condition, parity in ((None, None), (("t.author = ?", ["1"]), 1)):
                expected = sorted(
                    (-score(metric, query, other), id)
                    for (of, id), other in held.items()
                    if of == tenant and parity in (None, sum(other) % 2)
                )[:limit]
                matches = similar(file, query, limit, tenant=tenant, where=condition)
                assert ids(matches) == [id for _, id in expected]
                assert [match.score for match in matches] == pytest.approx([-one for one, _ in expected])
        assert file.faults() == {}


def test_with_and_without_numpy_the_results_are_the_same() -> None:
    chosen = random.Random(3)
    for metric in METRICS:
        with facet_file(NOTE, facet(metric, 64)) as file:
            put(file, {f"{i:03}": [chosen.gauss(0, 1) for _ in range(64)] for i in range(500)})
            queries = [[chosen.gauss(0, 1) for _ in range(64)] for _ in range(10)]
            fast = [similar(file, query, 20) for query in queries]
            with pytest.MonkeyPatch.context() as patch:
                hide_numpy(patch)
                plain = facet(metric, 64)
                for query, matches in zip(queries, fast, strict=True):
                    slow = similar(file, query, 20, of=plain)
                    assert ids(slow) == ids(matches)
                    assert [one.score for one in slow] == pytest.approx([one.score for one in matches])
