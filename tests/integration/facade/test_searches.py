"""Full text, vectors, both, and relations: current records, whatever the copies hold."""

from __future__ import annotations

from typing import Any, cast

import pytest

from polystore import (
    ConfigurationError,
    DimensionMismatch,
    Edge,
    F,
    HybridDataArchitecture,
    InvalidData,
    InvalidFilter,
    StalenessTimeout,
    Unavailable,
    UnsupportedOperation,
)
from tests.integration.facade.world import (
    KOREAN,
    About,
    Memory,
    Person,
    Reading,
    and_on_postgresql,
    behind,
    down,
    everywhere,
    remember,
    split,
)

# -- full text --------------------------------------------------------------------------------------------------------


@and_on_postgresql
async def test_search_finds_korean_inside_words_and_english_by_prefix(hda: HybridDataArchitecture) -> None:
    await remember(hda)
    memories = hda.collection(Memory)
    for text, ids in (
        ("자전거", {"m1", "m3"}),
        ("전거", {"m1", "m3"}),
        ("민지 산책", {"m2"}),
        ("파전을", {"m5"}),
        ("bicycle", {"m4"}),
        ("HAN RIVER", {"m4"}),
        ("우주선", set[str]()),
        ("?!", set[str]()),
        ("", set[str]()),
    ):
        assert {hit.value.id for hit in await memories.search(text)} == ids, text


@everywhere
async def test_highlights_show_the_original_text_of_each_field(hda: HybridDataArchitecture) -> None:
    memories = hda.collection(Memory)
    await memories.put(Memory(id="m", title="River 일기", text="한강에서 the RIVER를 보았다"), ack="applied")
    (hit,) = await memories.search("river")
    assert hit.highlights == {
        "title": ["<mark>River</mark> 일기"],
        "text": ["한강에서 the <mark>RIVER</mark>를 보았다"],
    }
    (hit,) = await memories.search("일기 한강")
    assert hit.highlights == {
        "title": ["River <mark>일기</mark>"],
        "text": ["<mark>한강</mark>에서 the RIVER를 보았다"],
    }


@and_on_postgresql
async def test_search_pages_hold_every_match_once_best_first(hda: HybridDataArchitecture) -> None:
    await remember(hda, **{f"t{i:02}": "산책 " * (i % 4 + 1) + "길" * (i % 3) for i in range(25)})
    memories = hda.collection(Memory)
    whole = await memories.search("산책", limit=25)
    assert len(whole) == 25
    assert whole.cursor is None
    assert [hit.score for hit in whole] == sorted((hit.score for hit in whole), reverse=True)
    found: list[str] = []
    cursor: str | None = None
    while True:
        page = await memories.search("산책", limit=7, cursor=cursor)
        found += [hit.value.id for hit in page]
        cursor = page.cursor
        if cursor is None:
            break
    assert found == [hit.value.id for hit in whole]


@everywhere
async def test_conditions_narrow_searches(hda: HybridDataArchitecture) -> None:
    memories = hda.collection(Memory)
    await memories.put_many(
        [Memory(id=f"{agent}{i}", agent=agent, text=f"자전거 {i}번") for agent in "ab" for i in range(10)]
    )
    await hda.settle(10)
    mine = F.agent == "b"
    assert {hit.value.id for hit in await memories.search("자전거", where=mine)} == {f"b{i}" for i in range(10)}
    for hits in (
        await memories.similar("자전거 3번", where=mine, limit=5),
        await memories.hybrid("자전거 3번", where=mine, limit=5),
    ):
        assert len(hits) == 5
        assert hits[0].value.id == "b3"
        assert {hit.value.agent for hit in hits} == {"b"}


@split
async def test_results_are_current_though_the_copy_is_behind(hda: HybridDataArchitecture) -> None:
    await remember(hda, **{f"m{i}": f"자전거를 탄 날 {i}" for i in range(8)})
    memories = hda.collection(Memory)
    before = {hit.value.id: hit.match_version for hit in await memories.search("자전거", limit=20)}
    with behind(hda.stores["words"]), behind(hda.stores["shapes"]):
        await memories.delete("m0")
        await memories.delete("m1")
        await memories.update("m2", {"agent": "other"})
        changed = await memories.update("m3", {"text": "수영장에 갔다"})
        for page in (
            await memories.search("자전거", where=F.agent == "a1", limit=4),
            await memories.similar("자전거를 탄 날 0", where=F.agent == "a1", limit=4),
            await memories.hybrid("자전거를 탄 날 0", where=F.agent == "a1", limit=4),
        ):
            hits = {hit.value.id: hit for hit in page}
            assert len(hits) == 4, "the copy is asked for more in place of what is dropped"
            assert not hits.keys() & {"m0", "m1", "m2"}
            if "m3" in hits:
                assert hits["m3"].value.text == "수영장에 갔다"
                assert (hits["m3"].version, hits["m3"].match_version) == (changed.version, before["m3"])
                assert not hits["m3"].highlights
        rest = await memories.search("자전거", where=F.agent == "a1", limit=20)
        assert len(rest) == 5
        assert rest.cursor is None
        assert len(await memories.similar("자전거", where=F.agent == "a1", limit=20)) == 5
        assert {hit.value.id for hit in await memories.search("자전거", hydrate=False, limit=20)} == before.keys()
        (gone,) = await memories.similar("자전거를 탄 날 0", hydrate=False, limit=1)
        assert gone.value.text == "자전거를 탄 날 0"


@split
async def test_a_read_after_a_token_waits_for_the_copy_or_says_that_it_cannot(hda: HybridDataArchitecture) -> None:
    memories = hda.collection(Memory)
    with down(hda.stores["words"], "apply"):
        token = (await memories.put(Memory(id="m", text="자전거"))).token
        with pytest.raises(StalenessTimeout, match="words"):
            await memories.search("자전거", after=token)
        assert (await memories.similar("자전거", after=token))[0].value.id == "m"
    await hda.settle(20)
    assert (await memories.search("자전거", after=token))[0].value.id == "m"


# -- vectors ----------------------------------------------------------------------------------------------------------


@everywhere
async def test_a_stored_sentence_is_nearest_to_itself(hda: HybridDataArchitecture) -> None:
    await remember(hda)
    memories = hda.collection(Memory)
    for id, text in KOREAN.items():
        hits = await memories.similar(text, limit=3)
        assert hits[0].value.id == id
        assert hits[0].score == pytest.approx(1.0, abs=1e-5)
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


@and_on_postgresql
async def test_vectors_of_the_application_are_compared_by_their_metric(hda: HybridDataArchitecture) -> None:
    readings = hda.collection(Reading)
    await readings.put_many(
        [Reading(id=1, shape=[0, 0, 1]), Reading(id=2, shape=[0, 3, 4]), Reading(id=3), Reading(id=4, shape=[9, 9, 9])]
    )
    await hda.settle(10)
    hits = await readings.similar([0.0, 0.0, 0.0], limit=2)
    assert [(hit.value.id, hit.score) for hit in hits] == [(1, -1.0), (2, -5.0)]
    assert [hit.value.id for hit in await readings.similar([9.0, 9.0, 8.0], where=F.id != 4, limit=9)] == [2, 1]


@split
async def test_impossible_comparisons_are_refused(hda: HybridDataArchitecture) -> None:
    memories, readings, people = hda.collection(Memory), hda.collection(Reading), hda.collection(Person)
    with down(hda.stores["shapes"], "similar"), down(hda.stores["words"], "search"):
        with pytest.raises(DimensionMismatch, match=r"Reading\.shape.*2.*3"):
            await readings.similar([1.0, 2.0])
        with pytest.raises(InvalidData, match="NaN"):
            await readings.similar([float("nan"), 0.0, 0.0])
        with pytest.raises(InvalidData):
            await readings.similar(cast(Any, ["a", "b", "c"]))
        with pytest.raises(UnsupportedOperation, match=r"Reading\.shape.*vector"):
            await readings.similar("원")
        with pytest.raises(InvalidData, match="a vector of 3 numbers is needed, not NoneType"):
            await readings.similar(cast(Any, None))
        with pytest.raises(InvalidFilter, match=r"title.*text"):
            await memories.similar("글", field="title")
        with pytest.raises(UnsupportedOperation, match="Embedding"):
            await people.similar("글")
        with pytest.raises(UnsupportedOperation, match="FullText"):
            await people.search("글")
        with pytest.raises(UnsupportedOperation, match="FullText"):
            await readings.hybrid("글")
        with pytest.raises(InvalidData, match="text"):
            await memories.search(cast(Any, 7))


# -- both -------------------------------------------------------------------------------------------------------------


@and_on_postgresql
async def test_hybrid_puts_first_what_is_good_in_both(hda: HybridDataArchitecture) -> None:
    await remember(
        hda,
        both="자전거 여행을 떠났다",
        words="오래전 창고에 두었던 낡은 물건들 사이에서 우연히 자전거 여행 사진첩을 꺼내 보았던 어느 조용한 오후",
        shape="자전거 여향을 떠났다",
        neither="김치찌개를 끓였다",
    )
    memories = hda.collection(Memory)
    hits = await memories.hybrid("자전거 여행")
    assert hits[0].value.id == "both"
    assert hits[0].score == pytest.approx(2 / 61)
    assert {hit.value.id for hit in hits[:3]} == {"both", "words", "shape"}
    assert hits[0].highlights == {"text": ["<mark>자전거</mark> <mark>여행</mark>을 떠났다"]}
    assert [hit.value.id for hit in await memories.hybrid("자전거 여행", limit=1)] == ["both"]


@split
async def test_hybrid_raises_when_one_side_is_down(hda: HybridDataArchitecture) -> None:
    await remember(hda)
    for name, verb in (("words", "search"), ("shapes", "similar")):
        with down(hda.stores[name], verb), pytest.raises(Unavailable, match=name):
            await hda.collection(Memory).hybrid("자전거")


# -- relations --------------------------------------------------------------------------------------------------------


async def tell(hda: HybridDataArchitecture) -> None:
    people, memories = hda.collection(Person), hda.collection(Memory)
    await people.put_many(
        [Person(id="minji", name="민지"), Person(id="jun", name="준"), Person(id="sora", name="소라")]
    )
    await memories.put_many(
        [
            Memory(id="m1", text="민지와 준", about=[Edge("minji", About(0.9)), Edge("jun", About(0.2))]),
            Memory(id="m2", text="준과 소라", about=[Edge("jun", About(0.5)), Edge("sora", About(0.7))]),
            Memory(id="m3", text="모르는 사람", about=[Edge("stranger", About(0.1))], importance=0.9),
        ]
    )
    await hda.settle(10)


@everywhere
async def test_related_follows_edges_out_and_in(hda: HybridDataArchitecture) -> None:
    await tell(hda)
    people, memories = hda.collection(Person), hda.collection(Memory)
    out = await memories.related("m1", "ABOUT", into=Person)
    assert [(r.value.name, r.depth, list(r.path), r.properties) for r in out] == [
        ("준", 1, [("m1", "ABOUT", "jun")], {"weight": 0.2}),
        ("민지", 1, [("m1", "ABOUT", "minji")], {"weight": 0.9}),
    ]
    back = await people.related("jun", "ABOUT", into=Memory, direction="in")
    assert [r.value.id for r in back] == ["m1", "m2"]
    assert [cast(Memory, r.value).id for r in await people.related("jun", "ABOUT", direction="in")] == ["m1", "m2"]


@and_on_postgresql
async def test_related_walks_several_steps_and_keeps_what_is_asked_for(hda: HybridDataArchitecture) -> None:
    await tell(hda)
    people = hda.collection(Person)
    near = await people.related("minji", "ABOUT", direction="both", depth=4)
    assert [(type(r.value), cast(Any, r.value).id, r.depth) for r in near] == [
        (Memory, "m1", 1),
        (Person, "jun", 2),
        (Memory, "m2", 3),
        (Person, "sora", 4),
    ]
    friends = await people.related("minji", "ABOUT", into=Person, direction="both", depth=4)
    assert [r.value.id for r in friends] == ["jun", "sora"]
    assert list(friends[0].path) == [("m1", "ABOUT", "minji"), ("m1", "ABOUT", "jun")]
    first = await people.related("minji", "ABOUT", into=Person, direction="both", depth=4, limit=1)
    assert [r.value.id for r in first] == ["jun"]
    only = await people.related("minji", "ABOUT", into=Person, direction="both", depth=4, where=F.name == "소라")
    assert [r.value.id for r in only] == ["sora"]


@everywhere
async def test_related_leaves_out_what_is_not_there(hda: HybridDataArchitecture) -> None:
    await tell(hda)
    memories = hda.collection(Memory)
    assert await memories.related("m3", "ABOUT") == []
    assert await memories.related("nothing", "ABOUT") == []
    await hda.collection(Person).delete("jun")
    assert [cast(Person, r.value).id for r in await memories.related("m1", "ABOUT")] == ["minji"]


@everywhere
async def test_edges_are_replaced_with_their_record(hda: HybridDataArchitecture) -> None:
    await tell(hda)
    memories = hda.collection(Memory)
    token = (await memories.update("m1", {"about": [Edge("sora", About(1.0))]})).token
    found = await memories.related("m1", "ABOUT", into=Person, after=token)
    assert [(r.value.id, r.properties) for r in found] == [("sora", {"weight": 1.0})]
    token = (await memories.delete("m2")).token
    back = await hda.collection(Person).related("sora", "ABOUT", into=Memory, direction="in", after=token)
    assert [r.value.id for r in back] == ["m1"]


@split
async def test_a_condition_without_into_is_about_the_only_end(hda: HybridDataArchitecture) -> None:
    await tell(hda)
    people, memories = hda.collection(Person), hda.collection(Memory)
    assert [cast(Person, r.value).id for r in await memories.related("m1", "ABOUT", where=F.name == "준")] == ["jun"]
    weighty = await people.related("jun", "ABOUT", direction="in", where=F.text.contains("소라"))
    assert [cast(Memory, r.value).id for r in weighty] == ["m2"]
    with pytest.raises(InvalidFilter, match="into="):
        await people.related("jun", "ABOUT", direction="both", where=F.name == "준")


@split
async def test_impossible_walks_are_refused(hda: HybridDataArchitecture) -> None:
    memories = hda.collection(Memory)
    with down(hda.stores["ties"], "traverse"):
        with pytest.raises(UnsupportedOperation, match=r"'KNOWS'.*ABOUT"):
            await memories.related("m1", "KNOWS")
        for depth in (0, 11):
            with pytest.raises(InvalidFilter, match="depth"):
                await memories.related("m1", "ABOUT", depth=depth)
        with pytest.raises(InvalidFilter, match="direction"):
            await memories.related("m1", "ABOUT", direction=cast(Any, "up"))
        with pytest.raises(InvalidData):
            await memories.related("", "ABOUT")
        with pytest.raises(ConfigurationError, match="About"):
            await memories.related("m1", "ABOUT", into=About)
