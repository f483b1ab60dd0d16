"""Full text in a SQLite file: what is found, in which order, and what is told about damage."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Annotated

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polystore_adapters.sqlite.facets.full_text import FullTextFacet

from polystore import text
from polystore.entity import entity, entity_type
from polystore.facets import FullText
from tests.integration.sqlite.facet_file import FacetFile, connect, facet_file


@entity(name="order")  # a word of SQL
@dataclass
class Note:
    id: str
    text: Annotated[str, FullText()] = ""
    rank: Annotated[str | None, FullText()] = None  # a name that FTS5 keeps for itself
    author: str = ""


@entity()
@dataclass
class Numbered:
    id: int
    text: Annotated[str, FullText()]


NOTE = entity_type(Note)

SENTENCES = [
    "이별은 언제나 갑자기 찾아와요",
    "어제 학교에서 친구를 만났다",
    "친구가 이별했다고 하네요",
    "3박4일 여행을 다녀왔어요, 행복했어요!",
    "학교 앞 식당이 문을 닫았다",
    "이 별은 무슨 별인가요",
    "여자친구와 다투고 화해했어",
    "카톡 프로필 사진을 바꿨더라",
]


@pytest.fixture
def notes() -> Generator[FacetFile[FullTextFacet], None, None]:
    with facet_file(NOTE, FullTextFacet(NOTE)) as file:
        yield file


def found(
    file: FacetFile[FullTextFacet],
    query: str,
    *,
    tenant: str = "",
    where: tuple[str, Sequence[object]] | None = None,
    limit: int = 1000,
    after: tuple[float, str] | None = None,
) -> list[str]:
    matches = file.facet.search(file.db, tenant, text.query(query), where, limit, after)
    return [match.id for match in matches]


def test_every_two_syllables_of_a_word_find_exactly_the_notes_that_hold_them(notes: FacetFile[FullTextFacet]) -> None:
    notes.put({"id": str(i), "text": sentence} for i, sentence in enumerate(SENTENCES))
    pairs = {word[i : i + 2] for one in SENTENCES for word in one.split() for i in range(len(word) - 1)}
    syllables = {pair for pair in pairs if all("가" <= letter <= "힣" for letter in pair)}
    assert len(syllables) > 50
    for pair in syllables:
        assert sorted(found(notes, pair)) == [str(i) for i, one in enumerate(SENTENCES) if pair in one], pair


def test_phrases_may_lie_in_different_fields_but_none_across_two(notes: FacetFile[FullTextFacet]) -> None:
    notes.put(
        [{"id": "both", "text": "red apple", "rank": "green pear"}, {"id": "one", "text": "red", "rank": "apple"}]
    )
    assert found(notes, "red pear") == ["both"]
    assert sorted(found(notes, "red apple")) == ["both", "one"]
    notes.put([{"id": "cut", "text": "이", "rank": "별"}])
    assert found(notes, "이별") == []


def test_scores_are_positive_and_those_of_bm25(notes: FacetFile[FullTextFacet]) -> None:
    texts = {str(i): one for i, one in enumerate([*SENTENCES, "학교 학교 학교", "친구", "친구와 학교"])}
    notes.put({"id": id, "text": one} for id, one in texts.items())
    reference: text.TermIndex[str] = text.TermIndex()
    for id, one in texts.items():
        reference.add(id, text.terms(one))
    for query in ("학교", "친구 학교", "이", "별"):
        phrases = text.query(query)
        matches = notes.facet.search(notes.db, "", phrases, None, 100, None)
        scores = dict(reference.search(phrases))
        assert {match.id: match.score for match in matches} == pytest.approx(scores)
        assert all(match.score > 0 for match in matches)


def test_equal_scores_are_sorted_by_id_and_pages_hold_every_match_once(notes: FacetFile[FullTextFacet]) -> None:
    notes.put({"id": f"{i:02}", "text": "같은 말 " + "더 " * (i % 3)} for i in reversed(range(90)))
    whole = notes.facet.search(notes.db, "", text.query("같은"), None, 100, None)
    assert [match.id for match in whole] == [f"{i:02}" for rest in range(3) for i in range(rest, 90, 3)]
    pages: list[str] = []
    after: tuple[float, str] | None = None
    for size in (8,) * 11 + (2,):
        page = notes.facet.search(notes.db, "", text.query("같은"), None, 8, after)
        assert len(page) == size
        pages += [match.id for match in page]
        after = (page[-1].score, page[-1].id)
    assert pages == [match.id for match in whole]
    assert found(notes, "같은", after=after) == []


def test_the_condition_holds_before_the_limit(notes: FacetFile[FullTextFacet]) -> None:
    notes.put({"id": f"{i:02}", "text": "학교", "author": "me" if i % 10 == 9 else "you"} for i in range(40))
    where = ("t.author = ? OR t.author = ?", ["nobody", "me"])
    assert found(notes, "학교", where=where, limit=3) == ["09", "19", "29"]
    assert found(notes, "학교", where=where, limit=1, after=(1e6, "")) == ["09"]
    assert found(notes, "학교", where=where, tenant="other") == []


def test_tenants_do_not_see_each_other(notes: FacetFile[FullTextFacet]) -> None:
    notes.put([{"id": "1", "text": "비밀 이야기"}], tenant="a")
    notes.put([{"id": "1", "text": "비밀 편지"}], tenant="b")
    assert found(notes, "비밀 이야기", tenant="a") == ["1"]
    assert found(notes, "비밀 이야기", tenant="b") == []
    assert found(notes, "비밀", tenant="") == []


def test_a_match_tells_the_version_of_the_row(notes: FacetFile[FullTextFacet]) -> None:
    notes.put([{"id": "1", "text": "first"}], version=7)
    notes.put([{"id": "1", "text": "second"}], version=9)
    assert found(notes, "first") == []
    (match,) = notes.facet.search(notes.db, "", text.query("second"), None, 10, None)
    assert (match.id, match.version) == ("1", 9)


def test_a_write_during_a_search_is_not_seen_in_half(notes: FacetFile[FullTextFacet]) -> None:
    notes.put({"id": str(i), "text": "학교 " + "가 " * i} for i in range(3))

    def interfere(sql: str) -> None:
        if "json_each" in sql:
            reader.set_trace_callback(None)
            notes.remove(["0"])
            notes.put([{"id": "1", "text": "다른 말"}], version=2)

    with closing(connect(notes.path)) as reader:
        reader.set_trace_callback(interfere)
        matches = notes.facet.search(reader, "", text.query("학교"), None, 10, None)
        assert [(match.id, match.version) for match in matches] == [("0", 1), ("1", 1), ("2", 1)]
        assert [match.id for match in notes.facet.search(reader, "", text.query("학교"), None, 10, None)] == ["2"]


def test_number_keys_are_matched_as_text() -> None:
    numbered = entity_type(Numbered)
    with facet_file(numbered, FullTextFacet(numbered)) as file:
        file.put({"id": i, "text": "same"} for i in (9, 10, -1))
        matches = file.facet.search(file.db, "", text.query("same"), None, 10, None)
        assert [match.id for match in matches] == ["-1", "10", "9"]
        assert found(file, "same", after=(matches[0].score, "10")) == ["9"]


def test_a_query_without_a_letter_finds_nothing(notes: FacetFile[FullTextFacet]) -> None:
    notes.put([{"id": "1", "text": "?! ... ☕"}, {"id": "2", "text": "", "rank": None}])
    assert found(notes, "?! ...") == []
    assert notes.faults() == {}


def test_damage_is_named_and_the_rest_is_not(notes: FacetFile[FullTextFacet]) -> None:
    notes.put({"id": str(i), "text": one, "rank": "title"} for i, one in enumerate(SENTENCES))
    assert notes.faults() == {}
    gone, changed = notes.rows["", "2"].rid, notes.rows["", "5"].rid
    notes.db.execute("DELETE FROM ps_text_order WHERE rowid = ?", (gone,))
    notes.db.execute("UPDATE ps_text_order SET f_rank = 'other' WHERE rowid = ?", (changed,))
    faults = notes.faults()
    assert faults.keys() == {gone, changed}
    assert "not in the index" in faults[gone]
    assert "terms of rank " in faults[changed]
    notes.facet.put(notes.db, list(notes.rows.values()))
    assert notes.faults() == {}


def test_another_declaration_makes_the_index_anew(notes: FacetFile[FullTextFacet]) -> None:
    assert notes.made
    assert not notes.facet.create(notes.db)

    @entity(name="order")
    @dataclass
    class Changed:
        id: str
        author: Annotated[str, FullText()] = ""
        text: Annotated[str, FullText()] = ""

    notes.put([{"id": "1", "text": "hello"}])
    facet = FullTextFacet(entity_type(Changed))
    assert facet.create(notes.db)
    assert facet.faults(notes.db, list(notes.rows.values())).keys() == {notes.rows["", "1"].rid}


words = st.text(alphabet="가나다 이별abAB1 .ﬁé\u0301漢", max_size=12)


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 7), st.one_of(st.none(), st.tuples(words, words)))), st.lists(words, max_size=5)
)
def test_after_any_history_exactly_the_notes_that_hold_the_query_are_found(
    history: list[tuple[int, tuple[str, str] | None]], queries: list[str]
) -> None:
    with facet_file(NOTE, FullTextFacet(NOTE)) as notes:
        for number, texts in history:
            id, tenant = str(number // 2), str(number % 2)
            if texts is not None:
                notes.put([{"id": id, "text": texts[0], "rank": texts[1]}], tenant=tenant)
            elif (tenant, id) in notes.rows:
                notes.remove([id], tenant)
        assert notes.faults() == {}
        for query in queries:
            phrases = text.query(query)
            for tenant in "01":
                holders = [
                    id
                    for (of, id), row in notes.rows.items()
                    if of == tenant
                    and phrases
                    and all(
                        text.matches(row.body["text"], [phrase]) or text.matches(row.body["rank"], [phrase])
                        for phrase in phrases
                    )
                ]
                assert sorted(found(notes, query, tenant=tenant)) == sorted(holders)
