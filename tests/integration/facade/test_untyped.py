"""Writes and reads as plain mappings."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast
from uuid import uuid4

import pytest

from polystore import (
    ConfigurationError,
    DimensionMismatch,
    Edge,
    F,
    HybridDataArchitecture,
    InvalidData,
    InvalidFilter,
    NotFound,
    Query,
    Unavailable,
    UnsupportedOperation,
    VersionConflict,
)
from tests.integration.facade.world import (
    About,
    Memory,
    Person,
    Reading,
    and_on_postgresql,
    down,
    everywhere,
    remember,
    split,
)


@everywhere
async def test_parts_make_one_record_in_every_store(hda: HybridDataArchitecture) -> None:
    await hda.collection(Person).put(Person(id="minji", name="민지"))
    size = hda.manager.embedders.dimension(hda.types["memory"], "text")
    mine = [0.0] * (size - 1) + [1.0]
    result = await hda.write_operation(
        {
            "core": {"importance": 0.7, "happened": "2026-05-05T12:00:00Z"},
            "searchable": {"text": "민지와 한강에서 연을 날렸다"},
            "embeddings": {"text": mine},
            "relationships": {"about": [{"to": "minji", "properties": {"weight": 0.9}}]},
        },
        entity="memory",
        key="m1",
        ack="applied",
    )
    assert result.key == "m1"
    memories = hda.collection(Memory)
    assert await memories.get("m1") == Memory(
        id="m1",
        text="민지와 한강에서 연을 날렸다",
        importance=0.7,
        happened=datetime(2026, 5, 5, 12, tzinfo=UTC),
        about=[Edge("minji", About(0.9))],
    )
    assert [hit.value.id for hit in await memories.search("한강")] == ["m1"]
    assert (await memories.similar(mine, limit=1))[0].score == pytest.approx(1.0)
    assert [r.value.id for r in await memories.related("m1", "ABOUT", into=Person)] == ["minji"]


@everywhere
async def test_parts_without_core_change_a_standing_record(hda: HybridDataArchitecture) -> None:
    memories = hda.collection(Memory)
    with pytest.raises(NotFound):
        await hda.write_operation({"searchable": {"title": "제목"}}, entity=Memory, key="m1")
    await memories.put(Memory(id="m1", text="그대로", importance=0.2))
    await hda.write_operation({"searchable": {"title": "새 제목"}}, entity=Memory, key="m1", ack="applied")
    assert await memories.get("m1") == Memory(id="m1", text="그대로", importance=0.2, title="새 제목")
    assert [hit.value.id for hit in await memories.search("제목")] == ["m1"]


@everywhere
async def test_edges_written_as_mappings_change_a_standing_record_too(hda: HybridDataArchitecture) -> None:
    memories = hda.collection(Memory)
    await memories.put(Memory(id="m1", text="그대로"))
    edges: list[object] = [{"to": "minji", "properties": {"weight": 0.9}}, Edge("jun", About(0.1))]
    await hda.write_operation({"relationships": {"about": edges}}, entity=Memory, key="m1")
    wanted = Memory(id="m1", text="그대로", about=[Edge("minji", About(0.9)), Edge("jun", About(0.1))])
    assert await memories.get("m1") == wanted
    for broken in ([{"to": "minji", "properties": {"weight": "secret"}}], [{"properties": {"weight": 0.9}}]):
        with pytest.raises(InvalidData, match=r"Memory\.about") as caught:
            await hda.write_operation({"relationships": {"about": broken}}, entity=Memory, key="m1")
        assert "secret" not in str(caught.value)
    assert await memories.get("m1") == wanted


@everywhere
async def test_a_vector_field_is_an_embedding_too(hda: HybridDataArchitecture) -> None:
    await hda.write_operation(
        {"core": {}, "embeddings": {"shape": [1.0, 0.0, 0.0]}}, entity="reading", key=7, ack="applied"
    )
    assert cast(Reading, await hda.collection(Reading).get(7)).shape == [1.0, 0.0, 0.0]


@everywhere
async def test_versions_and_operation_ids_count_here_too(hda: HybridDataArchitecture) -> None:
    op = uuid4()
    first = await hda.write_operation({"core": {"name": "하나"}}, entity="person", key="p", op_id=op)
    again = await hda.write_operation({"core": {"name": "하나"}}, entity="person", key="p", op_id=op)
    assert (again.version, again.changed) == (first.version, False)
    await hda.write_operation({"core": {"name": "둘"}}, entity="person", key="p", expect_version=first.version)
    with pytest.raises(VersionConflict):
        await hda.write_operation({"core": {"name": "셋"}}, entity="person", key="p", expect_version=first.version)


@split
async def test_bad_parts_are_named_and_nothing_is_written(hda: HybridDataArchitecture) -> None:
    cases: list[tuple[type[Exception], str, dict[str, Any]]] = [
        (InvalidData, "cache_keys", {"core": {"text": "x"}, "cache_keys": "k"}),
        (InvalidData, "cache_keys", {"core": {"text": "x"}, "cache_keys": [1]}),
        (InvalidData, "points", {"core": {"text": "x"}, "points": []}),
        (UnsupportedOperation, "documents", {"core": {"text": "x"}, "documents": []}),
        (InvalidData, "files", {"core": {"text": "x"}, "files": []}),
        (InvalidData, "'cores'", {"cores": {"text": "x"}}),
        (InvalidData, "'txt'", {"core": {"txt": "x"}}),
        (InvalidData, "text", {"core": {"text": 7}}),
        (InvalidData, "Memory", {"core": {}}),
        (InvalidData, "searchable.*agent.*title, text", {"core": {"text": "x"}, "searchable": {"agent": "x"}}),
        (InvalidData, "relationships.*text.*about", {"core": {"text": "x"}, "relationships": {"text": "x"}}),
        (InvalidData, "another part", {"core": {"text": "x"}, "searchable": {"text": "y"}}),
        (InvalidData, "no text in this write", {"searchable": {"title": "x"}, "embeddings": {"text": [1.0]}}),
        (DimensionMismatch, "text", {"core": {"text": "x"}, "embeddings": {"text": [1.0]}}),
        (InvalidData, "no field to change", {}),
        (InvalidData, r"Memory\.id in the parts is another key than key=", {"core": {"id": "m2", "text": "x"}}),
    ]
    for error, match, data in cases:
        with pytest.raises(error, match=match):
            await hda.write_operation(cast(Any, data), entity="memory", key="m1")
    with pytest.raises(ConfigurationError, match="memory, person, reading"):
        await hda.write_operation({"core": {}}, entity="memo", key="m1")
    assert not await hda.collection(Memory).exists("m1")


@split
async def test_parts_may_repeat_the_key(hda: HybridDataArchitecture) -> None:
    await hda.write_operation({"core": {"id": "e\u0301", "text": "x"}}, entity="memory", key="é")
    assert await hda.collection(Memory).exists("é")
    await hda.write_operation({"core": {"id": 7}}, entity="reading", key=7)
    for other in (8, True, "7x"):
        with pytest.raises(InvalidData, match="another key"):
            await hda.write_operation({"core": {"id": other}}, entity="reading", key=7)


@and_on_postgresql
async def test_each_kind_of_query_is_answered_by_the_store_made_for_it(hda: HybridDataArchitecture) -> None:
    await remember(hda)
    people, memories = hda.collection(Person), hda.collection(Memory)
    await people.put(Person(id="minji", name="민지"))
    await memories.update("m1", {"about": [Edge("minji", About(1.0))]}, ack="applied")
    placement = hda.remembered["memory"].placement
    queries: list[tuple[Query, str, list[str]]] = [
        ({"kind": "key", "entity": "memory", "key": "m4"}, placement.home, ["m4"]),
        ({"kind": "key", "entity": "memory", "key": "none"}, placement.home, []),
        ({"kind": "filter", "entity": Memory, "where": F.id >= "m4"}, placement.home, ["m4", "m5"]),
        ({"kind": "full_text", "entity": "memory", "text": "브레이크"}, placement.facets["full_text"], ["m3"]),
        (
            {"kind": "similarity", "entity": "memory", "to": "비가 오는 날에는 파전", "limit": 1},
            placement.facets["vector"],
            ["m5"],
        ),
        (
            {"kind": "hybrid", "entity": "memory", "text": "밤마다 산책", "limit": 1},
            placement.facets["full_text"],
            ["m2"],
        ),
        (
            {"kind": "relationship", "entity": "person", "key": "minji", "type": "ABOUT", "direction": "in"},
            placement.facets["graph"],
            ["m1"],
        ),
        (
            {"kind": "relationship", "entity": "memory", "key": "m1", "type": "ABOUT", "into": "person"},
            placement.facets["graph"],
            ["minji"],
        ),
    ]
    for query, source, ids in queries:
        result = await hda.read_operation(query)
        assert [getattr(item, "value", item).id for item in result.items] == ids, query
        assert (result.source, result.cache, result.degraded) == (source, "off", False), query
        assert source in [step.store for step in result.steps], query


@everywhere
async def test_pages_go_on_by_cursor(hda: HybridDataArchitecture) -> None:
    await remember(hda)
    for base in (
        Query(kind="filter", entity="memory", limit=2, order_by=[F.text.desc()]),
        Query(kind="full_text", entity="memory", limit=1, text="자전거"),
    ):
        first = await hda.read_operation(base)
        assert first.cursor is not None
        second = await hda.read_operation({**base, "cursor": first.cursor})
        ids = [[getattr(i, "value", i).id for i in page.items] for page in (first, second)]
        assert ids[1]
        assert not set(ids[0]) & set(ids[1])


@split
async def test_hybrid_goes_on_without_a_store_that_is_down_and_says_so(hda: HybridDataArchitecture) -> None:
    await remember(hda)
    query: Query = {"kind": "hybrid", "entity": "memory", "text": "자전거", "limit": 2}
    for name, verb in (("words", "search"), ("shapes", "similar")):
        with down(hda.stores[name], verb):
            result = await hda.read_operation(query)
        assert {item.value.id for item in result.items} == {"m1", "m3"}
        assert result.degraded
    with down(hda.stores["words"], "search"), down(hda.stores["shapes"], "similar"), pytest.raises(Unavailable):
        await hda.read_operation(query)


@split
async def test_impossible_queries_are_refused(hda: HybridDataArchitecture) -> None:
    cases: list[tuple[str, dict[str, Any]]] = [
        ("kinds: key, filter", {"kind": "sql", "entity": "memory"}),
        ("kinds: key, filter", {"entity": "memory"}),
        ("needs 'key'", {"kind": "key", "entity": "memory"}),
        ("needs 'entity'", {"kind": "filter"}),
        ("takes no 'text'", {"kind": "similarity", "entity": "memory", "to": "글", "text": "글"}),
        ("takes no 'cursor'", {"kind": "hybrid", "entity": "memory", "text": "글", "cursor": "x"}),
    ]
    for match, query in cases:
        with pytest.raises(InvalidFilter, match=match):
            await hda.read_operation(cast(Any, query))
    with pytest.raises(ConfigurationError, match="memo"):
        await hda.read_operation({"kind": "key", "entity": "memo", "key": "m"})


@split
async def test_steps_reach_whoever_traces_around_the_read(hda: HybridDataArchitecture) -> None:
    await remember(hda)
    with hda.trace() as trace:
        result = await hda.read_operation({"kind": "full_text", "entity": "memory", "text": "자전거"})
    assert list(result.steps) == trace.steps
    assert [(step.store, step.verb) for step in trace.steps] == [("words", "search"), ("home", "get")]
    assert all(step.ms >= 0 for step in trace.steps)
