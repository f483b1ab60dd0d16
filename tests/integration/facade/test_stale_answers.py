"""`stale_ok`: an old answer of a copy, where the home does not answer."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from polystore import Edge, F, HybridDataArchitecture, InvalidData, NotFound, Unavailable
from polystore.protocols import SupportsJournal
from tests.integration.facade.world import About, Memory, Person, behind, down, remember, split


@split
async def test_a_copy_answers_while_the_home_is_down(hda: HybridDataArchitecture) -> None:
    await remember(hda)
    memories = hda.collection(Memory)
    here = await memories.load("m1")
    with down(hda.stores["home"], "get"):
        for ask in (memories.get("m1"), memories.load("m1"), memories.exists("m1"), memories.search("자전거")):
            with pytest.raises(Unavailable):
                await ask
        assert (await memories.load("m1", stale_ok=True)).value == here.value
        assert (await memories.load("m1", stale_ok=True)).version == here.version
        assert await memories.get("nobody", stale_ok=True) is None
        with pytest.raises(NotFound):
            await memories.load("nobody", stale_ok=True)
        assert [await memories.exists(id, stale_ok=True) for id in ("m1", "nobody")] == [True, False]
        found = await memories.get_many(["m3", "nobody", "m2"], stale_ok=True)
        assert [one and one.id for one in found] == ["m3", None, "m2"]
        assert {hit.value.id for hit in await memories.search("자전거", stale_ok=True)} == {"m1", "m3"}
        assert "m3" in [hit.value.id for hit in await memories.similar("새로 산 자전거", stale_ok=True)]
        fused = await memories.hybrid("자전거", where=F.agent == "a1", stale_ok=True)
        assert {"m1", "m3"} <= {hit.value.id for hit in fused}


@split
async def test_the_answer_is_the_homes_while_the_home_answers(hda: HybridDataArchitecture) -> None:
    await remember(hda, m1="자전거를 타다가")
    memories = hda.collection(Memory)
    with behind(hda.stores["words"]), behind(hda.stores["shapes"]), behind(hda.stores["ties"]):
        await memories.put(Memory(id="m1", text="자전거를 팔았다"))
        value = await memories.get("m1", stale_ok=True)
        assert value is not None
        assert value.text == "자전거를 팔았다"
        (hit,) = await memories.search("자전거", stale_ok=True)
        assert hit.value.text == "자전거를 팔았다"
        with down(hda.stores["home"], "get"):
            value = await memories.get("m1", stale_ok=True)
            assert value is not None
            assert value.text == "자전거를 타다가"
            (hit,) = await memories.search("자전거", stale_ok=True)
            assert (hit.value.text, hit.version) == ("자전거를 타다가", hit.match_version)


@split
async def test_related_records_come_from_copies_of_their_own_types(hda: HybridDataArchitecture) -> None:
    await hda.collection(Memory).put_many([Memory(id="m1", text="x", about=[Edge("p1", About(1))])])
    await hda.collection(Person).put(Person(id="p1", name="민지"))
    await hda.settle(10)
    (one,) = await hda.collection(Memory).related("m1", "ABOUT", stale_ok=True)
    assert one.value == Person(id="p1", name="민지")
    with down(hda.stores["home"], "get"), pytest.raises(Unavailable):
        # A person has no copy that could answer, and an outage is no empty answer.
        await hda.collection(Memory).related("m1", "ABOUT", stale_ok=True)
    with down(hda.stores["home"], "get"):
        (one,) = await hda.collection(Person).related("p1", "ABOUT", direction="in", stale_ok=True)
        assert one.value == Memory(id="m1", text="x", about=[Edge("p1", About(1))])


@split
async def test_a_copy_that_is_being_filled_is_searched_and_gives_no_records(hda: HybridDataArchitecture) -> None:
    await remember(hda)
    memories, home = hda.collection(Memory), hda.stores["home"]
    with behind(hda.stores["words"]), behind(hda.stores["shapes"]), behind(hda.stores["ties"]):
        for row in await home.call(SupportsJournal.targets):
            await home.call(SupportsJournal.set_target, replace(row, status="backfilling", cursor=None))
        await hda.manager.line("memory").targets.refresh()
        with pytest.raises(Unavailable, match="still being filled"):
            await memories.search("자전거")
        assert {hit.value.id for hit in await memories.search("자전거", stale_ok=True)} == {"m1", "m3"}
        with down(home, "get"), pytest.raises(Unavailable):
            await memories.get("m1", stale_ok=True)


@split
async def test_what_may_be_old_and_may_not_is_refused(hda: HybridDataArchitecture) -> None:
    memories = hda.collection(Memory)
    token = (await memories.put(Memory(id="m1", text="x"))).token
    for ask in (
        memories.get("m1", after=token, stale_ok=True),
        memories.load("m1", after=token, stale_ok=True),
        memories.search("x", after=token, stale_ok=True),
        memories.related("m1", "ABOUT", after=token, stale_ok=True),
    ):
        with pytest.raises(InvalidData, match="one of the two"):
            await ask
