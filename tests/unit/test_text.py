"""One analysis of texts: what it makes of them, and SQLite's index and the reference index agreeing on every query."""

import re
import sqlite3
import unicodedata
from collections.abc import Sequence
from contextlib import closing

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from polystore.text import (
    FTS5_TOKENIZE,
    MARK_CLOSE,
    MARK_OPEN,
    WORD_MAX,
    Phrase,
    TermIndex,
    fts5_match,
    highlight,
    matches,
    query,
    terms,
)

# Few letters, so that random texts share pairs, and one word often holds another.
KOREAN_WORD = st.text("학교에서밥", min_size=1, max_size=5)
KOREAN = st.lists(KOREAN_WORD, max_size=6).map(" ".join)
MIXED_WORD = st.text("학교밥ㅋ가Aab12éß가कि' -\"*", min_size=1, max_size=6)
MIXED = st.lists(MIXED_WORD | KOREAN_WORD, max_size=6).map(" ".join)
ANYTHING = st.text(max_size=30)


def nfd(text: str) -> str:
    return unicodedata.normalize("NFD", text)


def found_by_fts5(texts: Sequence[str], phrases: Sequence[Phrase]) -> dict[int, float]:
    with closing(sqlite3.connect(":memory:")) as db:
        db.execute(f"CREATE VIRTUAL TABLE t USING fts5(line, tokenize = '{FTS5_TOKENIZE}')")
        rows = [(at, " ".join(terms(text))) for at, text in enumerate(texts)]
        db.executemany("INSERT INTO t (rowid, line) VALUES (?, ?)", rows)
        return {at: -rank for at, rank in db.execute("SELECT rowid, bm25(t) FROM t(?)", (fts5_match(phrases),))}


def found_by_reference(texts: Sequence[str], phrases: Sequence[Phrase]) -> dict[int, float]:
    index: TermIndex[int] = TermIndex()
    for at, text in enumerate(texts):
        index.add(at, terms(text))
    return dict(index.search(phrases))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("학교에서", "학교 교에 에서 서"),
        ("밥", "밥"),
        ("밥 먹자!", "밥 먹자 자"),
        ("3박4일", "3 박 4 일"),
        ("SQLite는", "sqlite 는"),
        ("Don't stop_me", "don t stop me"),
        ("東京タワー", "東京 京タ タワ ワー ー"),
        ("ㅋㅋㅠ", "ㅋㅋ ㅋㅠ ㅠ"),
        ("葛飾々𠮷", "葛飾 飾々 々𠮷 𠮷"),
        ("Straße ÉTÉ", "strasse été"),
        ("हिन्दी में", "हिन्दी में"),
        ("x2 ½ Ⅷ", "x2 ½ ⅷ"),
        ("🙂!?_\x00\n", ""),
        ("", ""),
    ],
)
def test_terms_of_known_texts(text: str, expected: str) -> None:
    assert terms(text) == expected.split()


@given(MIXED | ANYTHING)
def test_decomposed_text_has_the_same_terms_and_query(text: str) -> None:
    assert terms(nfd(text)) == terms(text)
    assert query(nfd(text)) == query(text)


@given(st.text(max_size=30, alphabet=st.characters(max_codepoint=127)))
def test_ascii_takes_the_same_way_alone_as_beside_other_letters(text: str) -> None:
    assert [*terms(text), "밥"] == terms(f"{text} 밥")


@given(ANYTHING)
def test_no_text_makes_a_term_that_could_split_or_quote(text: str) -> None:
    for term in terms(text):
        assert 0 < len(term) <= WORD_MAX
        assert not re.search(r"[^a-z0-9]", "".join(letter for letter in term if letter.isascii()))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("학교", [Phrase(("학교",))]),
        ("학교에서", [Phrase(("학교", "교에", "에서"))]),
        ("밥", [Phrase(("밥",), prefix=True)]),
        ("Memor", [Phrase(("memor",), prefix=True)]),
        ("학교 밥, 학교", [Phrase(("학교",)), Phrase(("밥",), prefix=True)]),
        ("3박4일", [Phrase(("3", "박", "4")), Phrase(("일",), prefix=True)]),
        ("3박사", [Phrase(("3", "박사"))]),
        ("학교a", [Phrase(("학교", "교")), Phrase(("a",), prefix=True)]),
        ("", []),
        (" ?!🙂\ud800\x00 ", []),
    ],
)
def test_phrases_of_known_queries(text: str, expected: list[Phrase]) -> None:
    assert query(text) == expected


@pytest.mark.parametrize(
    ("asked", "text", "found"),
    [
        ("학교", "초등학교에서", True),
        ("학교", "학 교", False),
        ("학교에", "학교 교에", False),
        ("학교에", "에학교에서", True),
        ("교", "학교", True),
        ("교", "교실", True),
        ("밥", "학교", False),
        ("memor", "My MEMORIES", True),
        ("memories", "memor", False),
        ("mory", "memory", False),
        ("3박4일", "여행은 3박4일간", True),
        ("3박4일", "4일 3박", False),
        ("학교 밥", "밥은 학교에서", True),
        ("학교 밥", "학교에서", False),
        ("", "학교", False),
        ("x" * WORD_MAX + "y" * 9, "x" * WORD_MAX + "y" * 10, True),
        ("x" * WORD_MAX + "y" * 9, "x" * WORD_MAX + "y" * 8, False),
    ],
)
def test_which_text_is_found_by_which_query(asked: str, text: str, found: bool) -> None:
    assert matches(text, query(asked)) is found
    assert (0 in found_by_fts5([text], query(asked))) is found
    assert (0 in found_by_reference([text], query(asked))) is found


@settings(max_examples=60)
@given(st.lists(KOREAN, min_size=1, max_size=6))
def test_two_syllables_find_exactly_the_texts_that_hold_them_in_one_word(texts: list[str]) -> None:
    pairs = {word[at : at + 2] for text in texts for word in text.split() for at in range(len(word) - 1)}
    for pair in pairs:
        holding = {at for at, text in enumerate(texts) if pair in text}
        assert set(found_by_reference(texts, query(pair))) == holding
        assert set(found_by_fts5(texts, query(pair))) == holding
        assert {at for at, text in enumerate(texts) if matches(text, query(pair))} == holding


@given(st.lists(KOREAN, min_size=1, max_size=6), KOREAN_WORD)
def test_a_korean_word_of_any_length_finds_exactly_the_texts_that_hold_it(texts: list[str], word: str) -> None:
    assert set(found_by_reference(texts, query(word))) == {at for at, text in enumerate(texts) if word in text}


@given(st.lists(MIXED, min_size=1, max_size=8), MIXED_WORD | MIXED)
@example(["ㅋㅋㅋㅋ", "ㅋㅋㅋ", "a", "b", "c", "d"], "ㅋㅋㅋ")
@example(["a b", "a a a", "c"], "a")
@example(["가", "", ""], "가")
def test_the_reference_finds_and_scores_as_fts5_does(texts: list[str], asked: str) -> None:
    by_reference = found_by_reference(texts, query(asked))
    assert by_reference == pytest.approx(found_by_fts5(texts, query(asked)), rel=1e-9)
    assert all(score > 0 for score in by_reference.values())
    assert set(by_reference) == {at for at, text in enumerate(texts) if matches(text, query(asked))}


@given(ANYTHING | MIXED)
@example('" OR * NEAR(a b) AND NOT -x:y ^z + {col}: \x00 🙂')
@example("AND OR NOT NEAR")
@example("각" * 3000)
@example(" ".join(f"w{n}" for n in range(2000)))
def test_no_query_is_a_syntax_error_and_each_finds_its_own_text(text: str) -> None:
    assert set(found_by_fts5([text, ""], query(text))) == ({0} if query(text) else set())


def test_terms_outlive_the_tokenizer_whatever_letters_they_have() -> None:
    # Letters younger than SQLite's Unicode tables (Adlam, 2016), marks, and cases without an ASCII form.
    text = "𞤀𞤣𞤤𞤢𞤥 हिन्दी Ⅷ ½ ß 𠮷野家 한글"
    found = terms(text)
    with closing(sqlite3.connect(":memory:")) as db:
        db.execute(f"CREATE VIRTUAL TABLE t USING fts5(line, tokenize = '{FTS5_TOKENIZE}')")
        db.execute("CREATE VIRTUAL TABLE v USING fts5vocab(t, 'instance')")
        db.execute("INSERT INTO t (line) VALUES (?)", (" ".join(found),))
        stored = [term for (term,) in db.execute("SELECT term FROM v ORDER BY offset")]
    assert stored == found


def test_the_index_ranks_the_best_first_and_stops_at_the_limit() -> None:
    index: TermIndex[str] = TermIndex()
    index.add("long", terms("학교 이야기를 아주 길게 늘어놓은 글"))
    index.add("often", terms("학교 학교 학교"))
    index.add("twin", terms("학교 학교 학교"))
    for other in range(5):
        index.add(f"other{other}", terms("다른 글"))
    assert [key for key, _ in index.search(query("학교"))] == ["often", "twin", "long"]
    assert [key for key, _ in index.search(query("학교"), limit=2)] == ["often", "twin"]


def test_a_key_has_the_terms_it_was_last_given_until_it_is_removed() -> None:
    index: TermIndex[int] = TermIndex()
    index.add(1, terms("학교"))
    index.add(1, terms("밥"))
    assert index.search(query("학교")) == []
    assert [key for key, _ in index.search(query("밥"))] == [1]
    index.remove(1)
    index.remove(1)
    assert index.search(query("밥")) == []
    assert len(index) == 0


@pytest.mark.parametrize(
    ("text", "asked", "expected"),
    [
        ("초등학교에서", "학교", ["초등<학교>에서"]),
        ("밥을 비빔밥과", "밥", ["<밥>을 비빔<밥>과"]),
        ("My Memories", "memor", ["My <Memor>ies"]),
        ("ㅋㅋㅋㅋ!", "ㅋㅋ", ["<ㅋㅋㅋㅋ>!"]),
        ("3박4일", "3박4일", ["<3박4일>"]),
        ("Die STRASSE, Straße", "straße", ["Die <STRASSE>, <Straße>"]),
        ("Straße", "stras", ["<Straß>e"]),
        (nfd("우리 학교 é"), "학교", [nfd("우리 <학교> é")]),
        (nfd("Un été"), "été", [nfd("Un <été>")]),
        ("a\u0315\u0301 b", "\u00e1\u0315", ["<a\u0315\u0301> b"]),
        ("밥", "학교", []),
        ("밥", "", []),
    ],
)
def test_highlights_mark_the_text_as_it_was_written(text: str, asked: str, expected: list[str]) -> None:
    assert highlight(text, query(asked), mark_open="<", mark_close=">") == expected


def test_a_long_text_is_shown_in_at_most_three_pieces_cut_between_words() -> None:
    text = ("그러던 어느 날이었다. " * 9 + "마침내 학교에 갔다. ") * 5
    pieces = highlight(text, query("학교"), width=18, mark_open="[", mark_close="]")
    assert pieces == ["마침내 [학교]에 갔다."] * 3
    assert len(highlight(text, query("학교"), width=18, limit=9)) == 5


def test_an_occurrence_is_not_cut_when_it_can_stand_in_the_next_piece() -> None:
    pieces = highlight("가나다학교라마바사학교아", query("학교"), width=10, mark_open="[", mark_close="]")
    assert pieces == ["가나다[학교]라마바사", "[학교]아"]


def test_an_occurrence_longer_than_the_width_is_shown_by_its_beginning() -> None:
    assert highlight("가나" + "ㅋ" * 30, query("ㅋㅋ"), width=10, mark_open="[", mark_close="]") == [f"[{'ㅋ' * 10}]"]


@given(st.lists(MIXED | ANYTHING, max_size=5).map(" ".join), MIXED_WORD, st.integers(1, 40), st.booleans())
def test_highlights_are_pieces_of_the_text_in_order_within_the_width(
    text: str, asked: str, width: int, decomposed: bool
) -> None:
    written = nfd(text) if decomposed else text
    pieces = highlight(written, query(asked), width=width, mark_open="\ue000", mark_close="\ue001")
    at = 0
    for piece in pieces:
        plain = piece.replace("\ue000", "").replace("\ue001", "")
        assert re.search("\ue000[^\ue000\ue001]+\ue001", piece)
        assert len(plain) <= width
        at = written.index(plain, at) + len(plain)
    assert bool(pieces) == any(matches(text, [phrase]) for phrase in query(asked))


@given(ANYTHING, st.text("가각갂ㄱ각𑄮ா̣́̕a", max_size=6))
def test_a_highlight_of_everything_is_the_text_whatever_its_composition(before: str, after: str) -> None:
    text = f"{before} 밥 {after}".replace("밥", "X밥X")
    pieces = highlight(text, [Phrase(("밥",), prefix=True)], width=1000)
    assert pieces == [text.replace("밥", f"{MARK_OPEN}밥{MARK_CLOSE}")]
