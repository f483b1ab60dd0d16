"""A search that goes on along relations."""

from __future__ import annotations

import pytest

from polystore import Edge, F, HybridDataArchitecture, InvalidFilter, UnsupportedOperation
from tests.integration.facade.world import About, Memory, Person, behind, everywhere, split

SEA = "밤바다 파도 소리가 들린다"


def memory(id: str, text: str, *about: str, agent: str = "a1") -> Memory:
    return Memory(id=id, agent=agent, text=text, about=[Edge(to, About(1)) for to in about])


async def tell(hda: HybridDataArchitecture) -> None:
    """Three memories of the sea lead to b, one of them to a as well; what leads to c and d is of something else."""
    await hda.collection(Person).put_many([Person(id=id, name=id.upper()) for id in "abcd"])
    memories = [
        memory("m1", SEA, "a", "b"),
        memory("m2", f"{SEA} 오늘", "b"),
        memory("m3", f"{SEA} 어제 그리고 오늘", "b", agent="a2"),
        memory("m4", "새로 산 자전거 브레이크", "c", "d"),
    ]
    await hda.collection(Memory).put_many(memories)
    await hda.settle(10)


@everywhere
async def test_what_several_seeds_lead_to_comes_first(hda: HybridDataArchitecture) -> None:
    await tell(hda)
    memories = hda.collection(Memory)
    found = await memories.explore(SEA, "ABOUT", seeds=3, into=Person)
    assert [one.value.id for one in found] == ["b", "a"]
    b, a = found
    assert b.score == pytest.approx((1 / 61 + 1 / 62 + 1 / 63) / 2)
    assert a.score == pytest.approx(1 / 61 / 2)
    assert (b.seed, b.depth, list(b.path)) == ("m1", 1, [("m1", "ABOUT", "b")])
    assert list(a.path) == [("m1", "ABOUT", "a")]


@split
async def test_the_seeds_are_results_themselves_and_farther_records_count_less(hda: HybridDataArchitecture) -> None:
    await tell(hda)
    memories = hda.collection(Memory)
    found = await memories.explore(SEA, "ABOUT", seeds=1, direction="both", depth=2, limit=20)
    # m1, its people, and the memories of the same people; nothing leads to m4.
    assert [(one.value.id, one.depth) for one in found] == [("m1", 0), ("a", 1), ("b", 1), ("m2", 2), ("m3", 2)]
    assert [one.score for one in found] == pytest.approx([1 / 61 / 2**depth for depth in (0, 1, 1, 2, 2)])
    only = await memories.explore(SEA, "ABOUT", seeds=1, direction="both", depth=2, into=Memory, where=F.agent == "a2")
    assert [one.value.id for one in only] == ["m3"]


@split
async def test_conditions_hold_on_seeds_and_on_results(hda: HybridDataArchitecture) -> None:
    await tell(hda)
    memories = hda.collection(Memory)
    found = await memories.explore(SEA, "ABOUT", seed_where=F.agent == "a2", into=Person)
    assert [(one.value.id, one.seed) for one in found] == [("b", "m3")]
    assert await memories.explore(SEA, "ABOUT", seeds=3, into=Person, where=F.name == "C") == []
    (best,) = await memories.explore(SEA, "ABOUT", seeds=3, into=Person, limit=1)
    assert best.value.id == "b"


@split
async def test_results_are_of_today_though_the_copies_are_behind(hda: HybridDataArchitecture) -> None:
    await tell(hda)
    with behind(hda.stores["shapes"]), behind(hda.stores["ties"]):
        await hda.collection(Person).delete("a")
        await hda.collection(Person).put(Person(id="b", name="now"))
        await hda.collection(Memory).delete("m1")
        found = await hda.collection(Memory).explore(SEA, "ABOUT", seeds=2, into=Person)
        assert [(one.value, one.seed) for one in found] == [(Person(id="b", name="now"), "m2")]


@split
async def test_what_cannot_be_asked_is_refused_before_anything_is(hda: HybridDataArchitecture) -> None:
    memories = hda.collection(Memory)
    with pytest.raises(InvalidFilter):
        await memories.explore(SEA, "ABOUT", seeds=0)
    with pytest.raises(InvalidFilter):
        await memories.explore(SEA, "ABOUT", depth=0)
    with pytest.raises(UnsupportedOperation):
        await memories.explore(SEA, "LIKES")
    with pytest.raises(UnsupportedOperation):
        await hda.collection(Person).explore(SEA, "ABOUT")
