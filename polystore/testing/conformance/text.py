"""Full text: exactly the records that hold the query, the better ones first, page by page without a gap."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Sequence
from typing import Protocol

from polystore.filters import Checked, F
from polystore.model import Change, Match
from polystore.protocols import Repository, SupportsRefresh, SupportsTextSearch
from polystore.testing.conformance.base import Conformance, change, chunks, key_of, removal
from polystore.testing.conformance.entities import ARTICLE, NFC, NFD, Article
from polystore.text import matches, query

KOREAN = """\
오늘 학교에서 친구를 만났어요
학교 앞 분식집에서 떡볶이를 먹었다
친구가 어제 이사를 갔어요
비가 와서 우산을 샀다
커피를 마시며 책을 읽는 아침
아침마다 강아지와 공원을 걷는다
공원에서 만난 강아지가 귀여웠다
책상 위에 커피가 쏟아졌어요
회의가 길어져서 저녁을 못 먹었다
저녁에는 친구와 영화를 볼 거예요
영화관에서 팝콘을 먹으며 웃었다
이별은 언제나 갑자기 찾아온다
3박4일 제주도 여행을 다녀왔다
SQLite를 배우는 중이에요
데이터베이스 강의를 들었다
여행 가방을 어디에 두었더라""".splitlines()
OTHER = """\
The quick brown fox jumps over the lazy dog
A dog and a fox met in the park
SQLite stores a database in one file
Café au lait, naïve façade
日本語の文章も見つかる
Ça va très bien
Привет, как дела
don't stop; re-run v2.0 now!
NEAR the end AND or NOT
100% of 'quotes' "double" and *stars*
👍 thumbs up 👍
ﬁsh and chips""".splitlines()
QUERIES = """\
DOG
dog fox
fox dog
dogs
do
og
CAFÉ
FISH
학교 친구
친구 학교
박4일
를
AND
NOT
NEAR
"
*
do*
title:dog
-dog
a OR b
(
'
^
{}
👍""".splitlines()

AT_ONCE = 16


class Searchable(Repository, SupportsTextSearch, Protocol):
    pass


def article(id: str, version: int, title: str, body: str | None = None, *, tenant: str = "", stars: int = 0) -> Change:
    value = Article(id=id, title=title, body=body, topic=f"t{version % 3}", stars=stars)
    return change(ARTICLE, value, version, tenant=tenant)


class TextConformance(Conformance):
    """`search`."""

    protocol = SupportsTextSearch
    types = (ARTICLE,)

    async def search(
        self, store: Searchable, text: str, *, where: Checked | None = None, limit: int = 1_000, tenant: str = ""
    ) -> list[Match]:
        return list(await store.search(ARTICLE.name, tenant, query(text), where, limit, None))

    async def ids(self, store: Searchable, text: str, *, tenant: str = "") -> list[str]:
        return sorted(m.id for m in await self.search(store, text, tenant=tenant))

    async def answers(self, store: Searchable, asked: Sequence[str]) -> dict[str, list[str]]:
        """What each text finds; some are asked at once."""
        found: dict[str, list[str]] = {}
        for some in chunks(asked, AT_ONCE):
            found.update(zip(some, await asyncio.gather(*(self.ids(store, one) for one in some)), strict=True))
        return found

    async def filled(self, texts: Sequence[str] = (*KOREAN, *OTHER)) -> tuple[Searchable, dict[str, str]]:
        store: Searchable = await self.open()
        await self.write(store, [article(f"{i:02}", i + 1, text) for i, text in enumerate(texts)])
        return store, {f"{i:02}": text for i, text in enumerate(texts)}

    # -- recall -----------------------------------------------------------------------------------------------

    async def test_every_two_syllables_find_exactly_the_texts_that_hold_them(self) -> None:
        store, texts = await self.filled()
        words = {word for text in KOREAN for word in re.findall("[가-힣]+", text)}
        pairs = {word[i : i + 2] for word in words for i in range(len(word) - 1)}
        assert len(pairs) > 100
        for pair, found in (await self.answers(store, sorted(pairs))).items():
            assert found == sorted(id for id, text in texts.items() if pair in text), pair

    async def test_words_phrases_and_single_letters_find_what_the_reference_finds(self) -> None:
        store, texts = await self.filled()
        parts = ((0, 1), (0, 6), (3, 5), (2, 12), (0, 99))
        queries = [*QUERIES, "  ", "cafe\u0301", *(text[i : i + n] for text in texts.values() for i, n in parts)]
        for one, found in (await self.answers(store, queries)).items():
            phrases = query(one)
            assert found == sorted(id for id, text in texts.items() if matches(text, phrases)), one

    async def test_a_phrase_needs_its_parts_next_to_each_other(self) -> None:
        store: Searchable = await self.open()
        texts = ("가나다라", "가나 다라", "나다 가나 다라", "다라가나")
        await self.write(store, [article(f"{i}", i + 1, text) for i, text in enumerate(texts)])
        assert await self.ids(store, "가나다") == ["0"]
        assert await self.ids(store, "나다") == ["0", "2"]
        assert await self.ids(store, "가나 다라") == ["0", "1", "2", "3"]

    async def test_all_fields_are_searched_together(self) -> None:
        store: Searchable = await self.open()
        await self.write(
            store,
            [
                article("both", 1, "학교 이야기", "친구를 만났다"),
                article("title", 2, "학교에서 만난 친구"),
                article("body", 3, "", "친구네 학교"),
                article("half", 4, "친구", "이야기"),
                article("empty", 5, ""),
            ],
        )
        assert await self.ids(store, "학교 친구") == ["body", "both", "title"]
        assert await self.ids(store, "이야기") == ["both", "half"]

    async def test_a_query_without_letters_finds_nothing(self) -> None:
        store, _ = await self.filled()
        assert await store.search(ARTICLE.name, "", [], None, 10, None) == []

    async def test_composed_and_decomposed_letters_find_each_other(self) -> None:
        jamo = "\u1112\u1161\u11ab\u1100\u1173\u11af"
        store, _ = await self.filled((f"caf{NFC}", f"caf{NFD}", f"{jamo} 이야기", "한글 이야기"))
        assert await self.ids(store, f"caf{NFD}") == await self.ids(store, f"CAF{NFC}") == ["00", "01"]
        assert await self.ids(store, "한글") == ["02", "03"]

    # -- what is current --------------------------------------------------------------------------------------

    async def test_the_index_follows_every_change(self) -> None:
        store: Searchable = await self.open()
        versions = await self.write(store, [article("a", 1, "학교"), article("b", 2, "학교"), article("c", 3, "공원")])
        (first, second) = await self.search(store, "학교")
        assert [(m.id, m.version) for m in (first, second)] == [
            ("a", versions[key_of(ARTICLE, "a")]),
            ("b", versions[key_of(ARTICLE, "b")]),
        ]
        await self.write(store, [article("a", 4, "공원"), removal(key_of(ARTICLE, "b"), 5)])
        assert await self.ids(store, "학교") == []
        assert await self.ids(store, "공원") == ["a", "c"]
        await self.write(store, [article("b", 6, "학교"), article("c", 7, "집", "학교")])
        assert await self.ids(store, "학교") == ["b", "c"]
        assert await self.ids(store, "공원") == ["a"]

    async def test_tenants_do_not_find_each_others_texts(self) -> None:
        store: Searchable = await self.open()
        await self.write(store, [article("a", 1, "학교"), article("b", 2, "공원")])
        await self.write(store, [article("a", 3, "공원", tenant="acme")])
        assert (await self.ids(store, "학교"), await self.ids(store, "학교", tenant="acme")) == (["a"], [])
        assert (await self.ids(store, "공원"), await self.ids(store, "공원", tenant="acme")) == (["b"], ["a"])

    # -- order and pages --------------------------------------------------------------------------------------

    async def test_more_and_rarer_and_denser_ranks_higher(self) -> None:
        store: Searchable = await self.open()
        filler = [article(f"filler-{i}", i + 1, f"무엇이든 {i} 번째 글 common") for i in range(20)]
        await self.write(
            store,
            [
                *filler,
                article("once", 50, "학교 이야기 하나 둘"),
                article("twice", 51, "학교 이야기 학교 둘"),
                article("long", 52, "학교 이야기 하나 둘 셋 넷 다섯 여섯 일곱 여덟 아홉 열 열하나 열둘 열셋"),
                article("rare", 53, "고래 common"),
            ],
        )
        found = await self.search(store, "학교")
        assert [m.id for m in found] == ["twice", "once", "long"]
        assert found[0].score > found[1].score > found[2].score
        assert (await self.search(store, "고래"))[0].score > (await self.search(store, "common"))[0].score

    async def test_equal_scores_are_ordered_by_id_and_the_limit_takes_the_best(self) -> None:
        store: Searchable = await self.open()
        ids = [f"{(i * 7) % 20:02}" for i in range(20)]
        await self.write(store, [article(id, i + 1, "같은 글") for i, id in enumerate(ids)])
        found = await self.search(store, "같은")
        assert [m.id for m in found] == sorted(ids)
        assert len({m.score for m in found}) == 1
        assert await self.search(store, "같은", limit=5) == found[:5]

    async def test_pages_are_complete_and_without_repeats_among_equals_too(self) -> None:
        store: Searchable = await self.open()
        r = random.Random(3)
        texts = ["학교 " * r.randint(1, 3) + "끝 " * r.randint(0, 2) for _ in range(30)]
        await self.write(store, [article(f"{i:02}", i + 1, text) for i, text in enumerate(texts)])
        whole = await self.search(store, "학교")
        assert [m.score for m in whole] == sorted((m.score for m in whole), reverse=True)
        assert len(whole) == 30
        for size in (1, 3, 7):
            paged: list[Match] = []
            after: tuple[float, str] | None = None
            while page := await store.search(ARTICLE.name, "", query("학교"), None, size, after):
                paged += page
                after = (page[-1].score, page[-1].id)
                assert len(paged) <= 30, "the pages repeat"
            assert [m.id for m in paged] == [m.id for m in whole]

    async def test_a_condition_holds_before_the_limit(self) -> None:
        store: Searchable = await self.open()
        await self.write(store, [article(f"{i:02}", i + 1, "학교 이야기", stars=i % 10) for i in range(50)])
        where = ARTICLE.condition((F.stars == 3) & (F.topic != "t1"))
        wanted = [f"{i:02}" for i in range(50) if i % 10 == 3 and (i + 1) % 3 != 1]
        found = await self.search(store, "학교", where=where)
        assert [m.id for m in found] == wanted
        assert await self.search(store, "학교", where=where, limit=2) == found[:2]
        after = (found[0].score, found[0].id)
        rest = await store.search(ARTICLE.name, "", query("학교"), where, 100, after)
        assert list(rest) == found[1:]
        assert await self.search(store, "학교", where=ARTICLE.condition(F.stars > 99)) == []


class RefreshConformance(Conformance):
    """`refresh`, of a store that is searched."""

    protocol = SupportsRefresh
    types = (ARTICLE,)

    async def test_a_search_shows_what_this_connection_wrote_and_after_a_refresh_what_any_wrote(self) -> None:
        store: Searchable = await self.open()
        other: Searchable = await self.open()
        wrote: list[str] = []
        for i in range(8):
            here, there = (store, other) if i % 2 else (other, store)
            wrote.append(f"{i}")
            await self.write(here, [article(f"{i}", i + 1, "학교")])
            assert f"{i}" in [m.id for m in await here.search(ARTICLE.name, "", query("학교"), None, 99, None)]
            await self.seen(there, ARTICLE.name)
            assert [m.id for m in await there.search(ARTICLE.name, "", query("학교"), None, 99, None)] == wrote

    async def test_by_key_all_is_read_at_once(self) -> None:
        store: Searchable = await self.open()
        other: Searchable = await self.open()
        await self.write(store, [article("a", 1, "학교")])
        (record,) = await other.get([key_of(ARTICLE, "a")])
        assert record is not None
        assert record.version == 1
