"""The embedder without a model finds texts by their form, the same everywhere; vectors are packed without loss."""

import asyncio
import hashlib
import math
import random
import struct
import unicodedata
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polystore.embedding import HashedEmbedder, InlineEmbedder, pack, unpack
from polystore.errors import ConfigurationError

SENTENCES: Sequence[str] = """
오늘 점심에 뭘 먹을까
어제는 비가 와서 집에만 있었어
내일 아침 일찍 일어나야 해
친구랑 바다를 보러 가기로 했다
바다를 보고 싶다
요즘 잠을 잘 못 자서 피곤해요
커피를 세 잔이나 마셨더니 잠이 안 온다
커피를 두 잔 마셨다
고양이가 창가에서 졸고 있다
고양이 사료를 사야 한다
강아지와 산책을 다녀왔어요
시험이 다음 주로 미뤄졌대
시험 공부를 하나도 안 했어
괜찮아요, 천천히 하세요.
괜찮아질 거예요.
조심하세요.
계단 조심하세요.
감기 조심하세요.
버스를 놓쳐서 회의에 늦었다
회의는 세 시에 시작합니다
할머니가 김치를 보내 주셨다
김치찌개 끓이는 법 알려줘
생일 선물로 책을 받았다
그 책은 아직 다 못 읽었어
봄이 오면 자전거를 타고 싶다
I left my umbrella on the train
The train was late again today
She remembers every birthday
Memories of the sea
""".strip().split("\n")


def inner(one: bytes, other: bytes) -> float:
    return sum(map(lambda a, b: a * b, unpack(one), unpack(other)))


def nearest(text: str) -> list[str]:
    """All sentences, the most similar first."""
    embedder = HashedEmbedder()
    (asked,) = embedder.embed_now([text])
    scores = dict(zip(SENTENCES, (inner(asked, stored) for stored in embedder.embed_now(SENTENCES)), strict=True))
    return sorted(scores, key=lambda sentence: -scores[sentence])


def test_every_sentence_is_most_similar_to_itself() -> None:
    assert [nearest(sentence)[0] for sentence in SENTENCES] == SENTENCES


@pytest.mark.parametrize("sentence", SENTENCES)
def test_a_sentence_is_found_with_one_letter_changed(sentence: str) -> None:
    chance = random.Random(sentence)
    for at in (at for at, letter in enumerate(sentence) if letter.isalpha()):
        changed = sentence[:at] + chance.choice("뷁쀍꿿궯") + sentence[at + 1 :]
        assert sentence in nearest(changed)[:3], changed


def test_form_counts_and_not_meaning() -> None:
    assert nearest("기억의 바다")[0] != "Memories of the sea"


def test_vectors_are_the_same_in_every_process_and_on_every_machine() -> None:
    (vector,) = HashedEmbedder().embed_now(["오늘 점심에 뭘 먹을까?"])
    assert hashlib.sha256(vector).hexdigest() == "2518925f738c9c4e742018992774c529484b39bc028f48ef519d3574695c4e47"


@given(st.text(max_size=40))
def test_every_text_has_a_vector_of_length_one_whatever_its_composition_and_case(text: str) -> None:
    embedder = HashedEmbedder(dimension=64)
    composed, decomposed = embedder.embed_now([unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text)])
    assert composed == decomposed
    assert len(composed) == 4 * embedder.dimension
    assert math.isclose(inner(composed, composed), 1, abs_tol=1e-6)


def test_a_text_that_no_record_can_hold_is_compared_without_an_error() -> None:
    (vector,) = HashedEmbedder().embed_now(["\ud800 바다"])
    assert math.isclose(inner(vector, vector), 1, abs_tol=1e-6)


def test_spaces_and_case_make_no_difference_but_word_boundaries_do() -> None:
    embedder = HashedEmbedder()
    one, same, other = embedder.embed_now(["Hello, my  sea\n", " hello, MY sea", "hello, mys ea"])
    assert one == same
    assert one != other


def test_only_the_first_characters_of_a_very_long_text_take_part() -> None:
    embedder = HashedEmbedder()
    start = "가나" * (embedder.chars_max // 2)
    long, longer, shorter = embedder.embed_now([start, start + "다", start[:-1]])
    assert long == longer
    assert long != shorter


def test_the_asynchronous_way_gives_the_same_vectors_for_both_purposes() -> None:
    embedder: InlineEmbedder = HashedEmbedder()
    stored = asyncio.run(embedder.embed(["바다", ""], purpose="document"))
    asked = asyncio.run(embedder.embed(["바다", ""], purpose="query"))
    assert [pack(vector) for vector in stored] == [pack(vector) for vector in asked] == embedder.embed_now(["바다", ""])
    assert isinstance(embedder, InlineEmbedder)


def test_a_dimension_below_one_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="dimension is 0"):
        HashedEmbedder(dimension=0)


def test_packed_vectors_are_little_endian_floats() -> None:
    assert pack([1.0, -2.5]) == struct.pack("<2f", 1.0, -2.5)
    assert list(unpack(struct.pack("<2f", 0.5, 3.0))) == [0.5, 3.0]


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_unpacking_gives_back_what_was_packed(vector: list[float]) -> None:
    assert list(unpack(pack(vector))) == vector


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e39, -1e39])
def test_no_vector_with_a_number_that_is_not_finite_is_packed(bad: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        pack([0.0, bad, -bad])


def test_bytes_that_are_no_vector_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple"):
        unpack(b"12345")


def test_what_is_remembered_of_features_is_bounded_and_changes_no_vector(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"문장 {i} 이야기" for i in range(20)]
    wanted = HashedEmbedder().embed_now(texts)
    monkeypatch.setattr("polystore.embedding._MEMO_MAX", 3)
    assert HashedEmbedder().embed_now([*texts, *texts]) == [*wanted, *wanted]
