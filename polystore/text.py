"""Full text: one analysis of texts and queries, so that every store finds the same records.

Korean, Chinese and Japanese are written without reliable spaces between words, and Korean words carry endings, so an
index of whole words misses most of what a reader sees. Here every run of such letters is indexed as its overlapping
pairs, and closed by its last letter alone:

    학교에서 -> 학교 교에 에서 서

A query run is the phrase of its pairs. Because each run is closed by a single letter, neighbouring pairs in the index
come from neighbouring letters of one run, so the phrase finds exactly the texts that hold the query's letters. One
letter alone is the prefix of some term wherever it occurs. Other scripts are indexed by words, and a query word
finds the words that begin with it.

An index holds `" ".join(terms(text))` and must keep the order of the terms; nothing else about the text is needed.
Scripts that write no spaces and are none of the above (Thai, Lao, Khmer) are found from the beginning of a run only.
"""

from __future__ import annotations

import math
import re
import unicodedata
from bisect import bisect_right
from collections.abc import Hashable, Iterator, Sequence
from functools import cache
from itertools import groupby, pairwise
from typing import Generic, NamedTuple, TypeVar

K = TypeVar("K", bound=Hashable)

WORD_MAX = 64
"""Letters in one term. A longer word is indexed in pieces of this length: stores limit a term, MariaDB to 84 letters,
PostgreSQL to 2 KB, and would otherwise drop or refuse it without a word."""

FTS5_TOKENIZE = "ascii"
"""The FTS5 `tokenize` option that leaves joined terms as they are: this tokenizer splits at ASCII characters that are
neither letter nor digit, here only the spaces, and takes every other character as part of a token
(https://sqlite.org/fts5.html#ascii_tokenizer). `unicode61` would split at combining marks and at letters newer than its
tables."""

BM25_K1 = 1.2
BM25_B = 0.75

MARK_OPEN = "<mark>"
MARK_CLOSE = "</mark>"

# Hangul jamo, syllables and compatibility jamo; Han with its iteration mark, zero and compatibility forms; kana with
# the marks that voice them; the half-width forms of kana and jamo; the planes of supplementary kana and Han.
_CJK = (
    "\u1100-\u11ff\ua960-\ua97c\uac00-\ud7fb\u3131-\u318e\uffa0-\uffdc"
    "\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003fffd"
    "\u3041-\u3096\u3099\u309a\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9f\U0001b000-\U0001b16f"
)
# Where Unicode has combining marks, but for the variation selectors of plane 14, which only pick a glyph.
_MARK_BLOCKS = (range(0x300, 0x3100), range(0xA66F, 0xABF0), range(0xFB1E, 0x1E950))

_ASCII_TERM = re.compile(f"([0-9a-z]{{1,{WORD_MAX}}})")


class Phrase(NamedTuple):
    """One condition of a query: these terms next to each other, or, with `prefix`, a term that begins with this one.

    `query` makes two kinds only, which every store with phrase queries can answer: any number of whole terms, and one
    term as a prefix.
    """

    terms: tuple[str, ...]
    prefix: bool = False

    @property
    def needle(self) -> str:
        """What a `_line` contains where this phrase occurs."""
        return f" {' '.join(self.terms)}" if self.prefix else f" {' '.join(self.terms)} "


@cache
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Two patterns over folded text. The first matches a term as group 1 and consumes what the next term does not
    share: one CJK letter, or the whole word. The second matches what a query keeps together: a CJK run, or a word.

    Made at the first text that is not ASCII, because collecting the combining marks takes some milliseconds. Python's
    `\\w` has no marks, without which the words of Hindi, Tamil or vocalised Hebrew would fall apart.
    """
    marks = [code for block in _MARK_BLOCKS for code in block if unicodedata.category(chr(code))[0] == "M"]
    runs = [[code for _, code in run] for _, run in groupby(enumerate(marks), lambda pair: pair[1] - pair[0])]
    mark = "".join(f"{chr(run[0])}-{chr(run[-1])}" for run in runs)
    word = f"[^\\W_{_CJK}](?:[^\\W_{_CJK}]|[{mark}]){{0,{WORD_MAX - 1}}}"
    return re.compile(f"(?=([{_CJK}]{{1,2}}|{word}))(?:[{_CJK}]|{word})"), re.compile(f"[{_CJK}]+|{word}")


def _fold(text: str) -> str:
    return text.lower() if text.isascii() else unicodedata.normalize("NFC", text).casefold()


def terms(text: str) -> list[str]:
    """The index terms of a text, in order: letters and digits of any script, case folded, composed (NFC).

    Symbols, punctuation and white space separate and leave no trace. Terms hold no space and no ASCII but a-z and 0-9.
    """
    if text.isascii():
        return _ASCII_TERM.findall(text.lower())
    return _patterns()[0].findall(_fold(text))


def query(text: str) -> list[Phrase]:
    """What a text must hold to be found by this query: all of the phrases. Empty when the query has no letter or digit;
    such a query finds nothing.

    Runs that touch ("3박4일", "SQLite를") are looked for as one phrase, all but a last single letter or word, which is
    a prefix of its own. An index knows no distance between runs, so "3박" finds "3 박" too; no text that holds the
    query, beginning where one of its runs begins, is missed.
    """
    term_pattern, run_pattern = _patterns()
    touching: list[list[str]] = []
    end = -1
    for run in run_pattern.finditer(_fold(text)):
        if run.start() != end:
            touching.append([])
        touching[-1].append(run.group())
        end = run.end()
    phrases: list[Phrase] = []
    for *closed, last in touching:
        whole = [term for run in closed for term in term_pattern.findall(run)]
        *pairs, final = term_pattern.findall(last)
        if whole or pairs:
            phrases.append(Phrase((*whole, *pairs)))
        if not pairs:
            phrases.append(Phrase((final,), prefix=True))
    return list(dict.fromkeys(phrases))


def fts5_match(phrases: Sequence[Phrase]) -> str:
    """The phrases as the right side of SQLite's FTS5 `MATCH`, to be bound as a parameter. Without phrases it is an
    expression that finds nothing. The syntax is https://sqlite.org/fts5.html#full_text_query_syntax ; every term stands
    in quotes, so no text can become an operator."""
    quoted = ((f'"{" ".join(phrase.terms)}"', phrase.prefix) for phrase in phrases)
    return " AND ".join(f"{terms} *" if prefix else terms for terms, prefix in quoted) or '""'


def matches(text: str, phrases: Sequence[Phrase]) -> bool:
    """Whether an index of `terms` finds this text: it holds every phrase, and there is one."""
    line = _line(terms(text))
    return bool(phrases) and all(phrase.needle in line for phrase in phrases)


def _line(of: Sequence[str]) -> str:
    """Terms as one string with a space on both sides of each, in which a phrase is a substring."""
    return f" {' '.join(of)} "


def _occurrences(line: str, needle: str) -> Iterator[int]:
    """Where the needle begins, overlapping ones too: two neighbouring phrases share the space between them."""
    at = line.find(needle)
    while at >= 0:
        yield at
        at = line.find(needle, at + 1)


def highlight(
    text: str,
    phrases: Sequence[Phrase],
    *,
    width: int = 120,
    limit: int = 3,
    mark_open: str = MARK_OPEN,
    mark_close: str = MARK_CLOSE,
) -> list[str]:
    """At most `limit` pieces of the text, in order, around occurrences of the phrases, each occurrence between marks.
    Empty when there is none.

    A piece is at most `width` characters of the text as it was written, marks not counted, and is cut between words
    where it can be. The text is not escaped: whoever shows it as HTML chooses marks that no text holds, escapes, and
    replaces them.
    """
    spans = _spans(text, phrases)
    pieces: list[str] = []
    begin = 0
    while spans and len(pieces) < limit:
        start, end = _window(text, spans, begin, width)
        inside = [(first, min(last, end)) for first, last in spans if first < end]
        piece, at = "", start
        for first, last in inside:
            piece += f"{text[at:first]}{mark_open}{text[first:last]}{mark_close}"
            at = last
        pieces.append(piece + text[at:end])
        spans, begin = spans[len(inside) :], end
    return pieces


def _window(text: str, spans: Sequence[tuple[int, int]], begin: int, width: int) -> tuple[int, int]:
    """The piece that shows the first span in its middle, as far as `begin` and the end of the text allow."""
    first, last = spans[0]
    start = max(begin, min(first - (width - (last - first)) // 2, len(text) - width, first))
    end = min(len(text), start + width)
    end = min([end, *(other for other, closing in spans[1:] if other < end < closing)])
    if start > begin and not text[start - 1].isspace() and (gap := re.search(r"\s+", text[start:first])):
        start += gap.end()
    if end < len(text) and not text[end].isspace() and (gap := re.search(r"\s+\S*\Z", text[last:end])):
        end = last + gap.start()
    return start, end


def _spans(text: str, phrases: Sequence[Phrase]) -> list[tuple[int, int]]:
    """Where the phrases occur in the text as it was written, in order, overlapping and touching ones joined."""
    folded, origin = _traced(text)
    found = [match.span(1) for match in _patterns()[0].finditer(folded)]
    line = _line([folded[start:end] for start, end in found])
    term_at = dict(zip((at for at, letter in enumerate(line) if letter == " "), range(len(found)), strict=False))
    spans: list[tuple[int, int]] = []
    for phrase in phrases:
        for at in _occurrences(line, phrase.needle):
            start, end = found[term_at[at]][0], found[term_at[at] + len(phrase.terms) - 1][1]
            if phrase.prefix:
                end = start + len(phrase.terms[0])
            # A written letter may fold to several: the span ends where the next written letter begins.
            spans.append((origin[start], origin[bisect_right(origin, origin[end - 1])]))
    joined: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


def _traced(text: str) -> tuple[str, Sequence[int]]:
    """The folded text, and for each of its characters where the characters that it was made of begin in the text; one
    more entry stands for the end."""
    if text.isascii():
        return text.lower(), range(len(text) + 1)
    starts = list(range(len(text)) if unicodedata.is_normalized("NFC", text) else _composed_starts(text))
    parts = [_fold(text[start:end]) for start, end in pairwise([*starts, len(text)])]
    origin = [start for start, part in zip(starts, parts, strict=True) for _ in part]
    return "".join(parts), [*origin, len(text)]


def _composed_starts(text: str) -> Iterator[int]:
    """Where the pieces of the text begin that normalisation treats each alone: no mark moves or composes across."""
    start = 0
    for at, letter in enumerate(text):
        if not at or not (unicodedata.combining(letter) or _composes(text[start:at], letter)):
            yield at
            start = at


def _composes(piece: str, letter: str) -> bool:
    """Whether the letter changes with what stands before it, as the second and third jamo of a Hangul syllable do."""
    alone = unicodedata.normalize("NFC", piece) + unicodedata.normalize("NFC", letter)
    return unicodedata.normalize("NFC", piece + letter) != alone


class TermIndex(Generic[K]):
    """Texts by key, searched and ranked as an FTS5 table of one column does it, by looking at every text.

    This is the reference that other indexes are compared with, and the full text of stores in memory.
    """

    def __init__(self) -> None:
        self._lines: dict[K, str] = {}
        self._lengths: dict[K, int] = {}

    def __len__(self) -> int:
        return len(self._lines)

    def add(self, key: K, of: Sequence[str]) -> None:
        """Index these terms under the key, in place of what it had."""
        self._lines[key] = _line(of)
        self._lengths[key] = len(of)

    def remove(self, key: K) -> None:
        """Forget the key; nothing happens when it is unknown."""
        self._lines.pop(key, None)
        self._lengths.pop(key, None)

    def search(self, phrases: Sequence[Phrase], limit: int | None = None) -> list[tuple[K, float]]:
        """Keys whose terms hold every phrase, with their score: best first, equals in order of their first `add`.

        The score is Okapi BM25 as FTS5 computes it (https://sqlite.org/fts5.html#the_bm25_function): a phrase held by
        half of the texts or more counts a millionth instead of nothing or less. FTS5 returns it negated; here larger is
        better. Scores of different indexes are not comparable.
        """
        if not phrases:
            return []
        counts = [self._count(phrase.needle) for phrase in phrases]
        mean_length = sum(self._lengths.values()) / max(1, len(self._lengths))
        weights = [self._weight(len(count)) for count in counts]
        scores: dict[K, float] = {}
        for key in counts[0]:
            if all(key in count for count in counts):
                norm = BM25_K1 * (1 - BM25_B + BM25_B * self._lengths[key] / mean_length)
                often = [(weight, count[key]) for weight, count in zip(weights, counts, strict=True)]
                scores[key] = sum(weight * n * (BM25_K1 + 1) / (n + norm) for weight, n in often)
        return sorted(scores.items(), key=lambda item: -item[1])[:limit]

    def _count(self, needle: str) -> dict[K, int]:
        return {key: sum(1 for _ in _occurrences(line, needle)) for key, line in self._lines.items() if needle in line}

    def _weight(self, found: int) -> float:
        weight = math.log((len(self._lines) - found + 0.5) / (found + 0.5))
        return weight if weight > 0 else 1e-6
