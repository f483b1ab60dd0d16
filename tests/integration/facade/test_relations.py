"""Walks along relations: conditions on edges, paths, and what is left of them when records go."""

from __future__ import annotations

from typing import Any, cast

import pytest

from polystore import Edge, F, HybridDataArchitecture, InvalidData, InvalidFilter, UnsupportedOperation
from polystore.collection import relations
from polystore.errors import WorkLimitExceeded
from polystore.results import Path
from tests.integration.facade.world import About, Memory, Person, and_on_postgresql, behind, down, everywhere, split


def memory(id: str, **about: float) -> Memory:
    return Memory(id=id, text=id, about=[Edge(to, About(weight)) for to, weight in about.items()])


async def tell(hda: HybridDataArchitecture) -> None:
    """a - m1 - b - m2 - c, a - m3 - c, and d, whom nobody mentions."""
    await hda.collection(Person).put_many([Person(id=id, name=id.upper()) for id in "abcd"])
    memories = [memory("m1", a=0.9, b=0.1), memory("m2", b=0.5, c=0.5), memory("m3", a=0.2, c=0.8)]
    await hda.collection(Memory).put_many(memories)
    await hda.settle(10)


def nodes(path: Path, start: str) -> str:
    """The ids along a path."""
    out = [start]
    for source, _, end in path:
        out.append(end if source == out[-1] else source)
    return " ".join(out)


# -- conditions on edges ----------------------------------------------------------------------------------------------


@everywhere
async def test_only_edges_that_satisfy_the_condition_are_followed(hda: HybridDataArchitecture) -> None:
    await tell(hda)
    people, memories = hda.collection(Person), hda.collection(Memory)
    strong = await people.related("a", "ABOUT", into=Memory, direction="in", edges=F.weight > 0.5)
    assert [(r.value.id, r.properties) for r in strong] == [("m1", {"weight": 0.9})]
    near = await people.related("a", "ABOUT", into=Person, direction="both", depth=4, edges=F.weight < 0.9)
    assert [(r.value.id, r.depth, nodes(r.path, "a")) for r in near] == [("c", 2, "a m3 c"), ("b", 4, "a m3 c m2 b")]
    both = await memories.related("m1", "ABOUT", edges=F.weight > 0.5, where=F.name == "B")
    assert both == []


@split
async def test_a_condition_on_edges_is_checked_before_any_io(hda: HybridDataArchitecture) -> None:
    memories = hda.collection(Memory)
    with down(hda.stores["ties"], "traverse", "paths"):
        with pytest.raises(InvalidFilter, match=r"has no field 'wieght', did you mean 'weight'\?"):
            await memories.related("m1", "ABOUT", edges=F.wieght > 0.5)
        with pytest.raises(InvalidFilter, match=r"Memory\.about\.properties\.weight"):
            await memories.path("m1", "a", "ABOUT", edges=F.weight == "heavy")
        with pytest.raises(InvalidFilter):
            await memories.paths("m1", "a", "ABOUT", edges=cast(Any, True))


@split
async def test_the_limit_counts_what_is_left_after_all_conditions(hda: HybridDataArchitecture) -> None:
    people = hda.collection(Person)
    await people.put_many([Person(id=f"p{i:03}", name="odd" if i % 50 else "even") for i in range(300)])
    await hda.collection(Memory).put(memory("all", **{f"p{i:03}": i / 300 for i in range(300)}))
    await hda.settle(10)
    found = await hda.collection(Memory).related("all", "ABOUT", where=F.name == "even", limit=4)
    assert [cast(Person, r.value).id for r in found] == ["p000", "p050", "p100", "p150"]


@split
async def test_a_search_that_finds_too_little_says_so(hda: HybridDataArchitecture) -> None:
    people, memories = hda.collection(Person), hda.collection(Memory)
    await people.put_many([Person(id=f"p{i:03}", name="x") for i in range(200)])
    await memories.put(memory("all", **{f"p{i:03}": 1.0 for i in range(200)}))
    await hda.settle(10)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(relations, "NODES_MAX", 100)
        with pytest.raises(WorkLimitExceeded, match="fewer than 30 of the first 60 nodes"):
            await memories.related("all", "ABOUT", where=F.name == "y", limit=30)
        assert len(await memories.related("all", "ABOUT", limit=90)) == 90
    assert await memories.related("all", "ABOUT", where=F.name == "y", limit=30) == []


# -- paths ------------------------------------------------------------------------------------------------------------


@everywhere
async def test_a_path_is_a_shortest_one_with_its_edges_as_they_stand(hda: HybridDataArchitecture) -> None:
    await tell(hda)
    people, memories = hda.collection(Person), hda.collection(Memory)
    found = await people.path("a", "c", "ABOUT", into=Person, direction="both")
    assert list(found) == [("m3", "ABOUT", "a"), ("m3", "ABOUT", "c")]
    assert list(await memories.path("m1", "b", "ABOUT")) == [("m1", "ABOUT", "b")]
    assert list(await people.path("b", "m1", "ABOUT", direction="in")) == [("m1", "ABOUT", "b")]
    assert list(await people.path("a", "d", "ABOUT", into=Person, direction="both")) == []
    assert list(await people.path("a", "a", "ABOUT", into=Person, direction="both")) == []
    assert list(await people.path("a", "c", "ABOUT", into=Person, direction="both", depth_max=1)) == []


@and_on_postgresql
async def test_all_paths_come_shortest_first_within_depth_and_limit(hda: HybridDataArchitecture) -> None:
    await tell(hda)
    people = hda.collection(Person)

    async def paths(**options: Any) -> list[str]:
        found = await people.paths("a", "c", "ABOUT", into=Person, direction="both", **options)
        return [nodes(path, "a") for path in found]

    assert await paths() == ["a m3 c", "a m1 b m2 c"]
    assert await paths(where=F.name == "B") == ["a m3 c", "a m1 b m2 c"], "the ends are the caller's own choice"
    assert await paths(where=F.name != "B") == ["a m3 c"]
    assert await paths(where=F.name != "B", edges=F.weight != 0.2) == []
    assert await paths(depth_max=3) == await paths(limit=1) == ["a m3 c"]
    assert await paths(edges=F.weight != 0.2) == ["a m1 b m2 c"]
    assert await paths(edges=F.weight == 0.2) == []


@split
async def test_paths_lead_over_what_is_there_at_the_homes_now(hda: HybridDataArchitecture) -> None:
    """The store of the edges is behind: what it still has is left out, and longer ways are found."""
    await tell(hda)
    people, memories = hda.collection(Person), hda.collection(Memory)

    async def paths(limit: int) -> list[str]:
        found = await people.paths("a", "c", "ABOUT", into=Person, direction="both", limit=limit)
        return [nodes(path, "a") for path in found]

    with behind(hda.stores["ties"]):
        await memories.update("m3", {"about": [Edge("c", About(0.8))]})
        assert await paths(1) == await paths(9) == ["a m1 b m2 c"]
        await people.delete("b")
        assert await paths(9) == []
        await people.put(Person(id="b", name="B"))
        assert await paths(9) == ["a m1 b m2 c"]
        await memories.update("m2", {"about": [Edge("b", About(0.5)), Edge("c", About(0.01))]})
        found = await people.paths(
            "a", "c", "ABOUT", into=Person, direction="both", edges=F.weight.between(0.05, 1), limit=9
        )
        assert found == []


@everywhere
async def test_a_path_sees_the_write_that_after_names(hda: HybridDataArchitecture) -> None:
    await tell(hda)
    token = (await hda.collection(Memory).put(memory("m9", a=0.5, d=0.5))).token
    found = await hda.collection(Person).path("a", "d", "ABOUT", into=Person, direction="both", after=token)
    assert nodes(found, "a") == "a m9 d"


@split
async def test_impossible_paths_are_refused(hda: HybridDataArchitecture) -> None:
    people = hda.collection(Person)
    with down(hda.stores["ties"], "traverse", "paths"):
        with pytest.raises(UnsupportedOperation, match=r"'KNOWS'.*ABOUT"):
            await people.path("a", "b", ["ABOUT", "KNOWS"], into=Person)
        with pytest.raises(InvalidFilter, match="into="):
            await people.path("a", "b", "ABOUT", direction="both")
        for depth in (0, 31, True):
            with pytest.raises(InvalidFilter, match="depth_max"):
                await people.path("a", "b", "ABOUT", into=Person, depth_max=depth)
        with pytest.raises(InvalidFilter, match="limit"):
            await people.paths("a", "b", "ABOUT", into=Person, limit=0)
        with pytest.raises(InvalidFilter, match="direction"):
            await people.path("a", "b", "ABOUT", into=Person, direction=cast(Any, "up"))
        with pytest.raises(InvalidFilter, match="not empty"):
            await people.path("a", "b", [], into=Person)
        with pytest.raises(InvalidData):
            await people.path("a", "", "ABOUT", into=Person)


@everywhere
async def test_tenants_have_paths_of_their_own(hda: HybridDataArchitecture) -> None:
    await tell(hda)
    acme = hda.tenant("acme")
    assert await acme.collection(Person).paths("a", "c", "ABOUT", into=Person, direction="both") == []


# -- ends that go -----------------------------------------------------------------------------------------------------


@everywhere
async def test_a_reference_that_is_kept_leads_nowhere_until_its_end_is_written_again(
    hda: HybridDataArchitecture,
) -> None:
    await tell(hda)
    people, memories = hda.collection(Person), hda.collection(Memory)
    before = await memories.load("m1")
    await people.delete("b", ack="applied")
    await hda.settle(10)
    assert [cast(Person, r.value).id for r in await memories.related("m1", "ABOUT")] == ["a"]
    assert list(await memories.path("m1", "b", "ABOUT")) == []
    assert await people.path("b", "m1", "ABOUT", direction="in") == []
    assert await memories.load("m1") == before
    await people.put(Person(id="b", name="new"), ack="applied")
    assert [cast(Person, r.value).name for r in await memories.related("m1", "ABOUT")] == ["A", "new"]
    assert list(await memories.path("m1", "b", "ABOUT")) == [("m1", "ABOUT", "b")]


@split
async def test_the_untyped_read_takes_a_condition_on_edges_and_several_types(hda: HybridDataArchitecture) -> None:
    await tell(hda)
    found = await hda.read_operation(
        {"kind": "relationship", "entity": "memory", "key": "m1", "type": ["ABOUT"], "edges": F.weight > 0.5}
    )
    assert [r.value.id for r in found.items] == ["a"]
    assert found.source == "ties"
