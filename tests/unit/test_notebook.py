"""What notebooks show: small tables in which nothing of the data is HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html.parser import HTMLParser

import msgspec
import pydantic
import pytest

from polystore import Found, Hit, Related, Stored, Token, WriteResult, notebook
from polystore.model import Considered, Placement
from polystore.selection import Remembered

EVIL = "<script>alert('x')</script><img src=x onerror=\"y\">&amp;"


@dataclass(slots=True)
class Plain:
    id: str
    text: str
    more: list[str]


class Struct(msgspec.Struct):
    id: str
    text: str


class Model(pydantic.BaseModel):
    id: str
    text: str


class Page(HTMLParser):
    """The texts of the cells, row by row, and all tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.caption = ""
        self.tags: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: Sequence[object]) -> None:
        assert not attrs
        self.tags.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        if self.rows:
            self.rows[-1][-1] += data
        else:
            self.caption += data


def page(value: object) -> Page:
    return Page(notebook.html_of(value))


def hit(value: object, *pieces: str) -> Hit[object]:
    return Hit(value=value, version=3, score=0.123456, match_version=3, highlights={"text": pieces})


RESULTS = [
    WriteResult(EVIL, 7, False, Token(EVIL), {EVIL: "committed", "b": "pending"}),
    Stored(Struct(EVIL, EVIL), 7, datetime(2026, 1, 1, tzinfo=UTC)),
    hit(Plain(EVIL, EVIL, [EVIL]), EVIL),
    Related(Model(id=EVIL, text=EVIL), 1, [(EVIL, EVIL, EVIL)], {EVIL: EVIL}),
    Found([hit(Struct(EVIL, EVIL), EVIL)], EVIL),
    Found([EVIL]),
    Placement(EVIL, EVIL, {EVIL: EVIL}, rule=EVIL, considered=[Considered("home", EVIL, True, EVIL)]),
    Remembered(Placement(EVIL, "a", {}), EVIL, False, advice=(EVIL,)),
]


@pytest.mark.parametrize("value", RESULTS, ids=lambda value: type(value).__name__)
def test_nothing_of_the_data_becomes_html(value: object) -> None:
    found = page(value)
    assert set(found.tags) <= {"table", "caption", "thead", "tbody", "tr", "th", "td"}
    assert EVIL in found.caption + str(found.rows).replace("\\'", "'")


def test_a_page_of_hits_has_score_fields_and_marked_matches() -> None:
    found = page(Found([hit(Struct("a", "x < y"), "<mark>x</mark> < y", "z"), hit(Struct("b", "y"))], "cursor"))
    assert found.rows == [
        ["score", "id", "text", "highlights"],
        ["0.1235", "a", "x < y", "x < y … z"],
        ["0.1235", "b", "y", ""],
    ]
    assert found.tags.count("mark") == 1
    assert found.caption == "2 found, and more behind the cursor"


def test_records_of_every_kind_of_class_are_rows() -> None:
    values = [Plain("p", "x", ["a", "b"]), Struct("s", "y"), Model(id="m", text="z")]
    assert page(Found(values)).rows == [["id", "text", "more"], ["p", "x", "a, b"], ["s", "y", ""], ["m", "z", ""]]


def test_what_is_large_is_cut_and_says_so() -> None:
    found = page(Found([Plain(str(i), "x" * 5_000, [str(n) for n in range(1_000)]) for i in range(200)]))
    assert len(found.rows) == 1 + notebook.ROWS_MAX
    assert found.caption == "200 found; the first 50 of 200 are shown"
    assert found.rows[1] == ["0", "x" * notebook.CELL_CHARS_MAX + " …", "0, 1, 2, 3, 4, 5, 6, 7, … (1000)"]
    assert page(Found([Struct("a", "")])).rows[1] == ["a", ""]
    assert notebook.table([{"raw": b"12", "none": None}]).count("2 bytes") == 1


def test_writes_relations_and_placements_say_what_counts() -> None:
    written = page(WriteResult("a", 7, False, Token(""), {"home": "committed", "words": "pending"}))
    assert written.caption == "a: version 7"
    assert written.rows[1:] == [["home", "committed"], ["words", "pending"]]
    assert page(WriteResult("a", None, False, Token(""), {}, changed=False)).caption == "a: nothing to change"
    related = page(Related(Struct("c", "x"), 2, [("a", "KNOWS", "b"), ("b", "KNOWS", "c")], {"since": 2020}))
    assert related.caption == "a –KNOWS→ b –KNOWS→ c"
    assert related.rows == [["depth", "id", "text", "since"], ["2", "c", "x", "2020"]]
    chosen = [Considered("home", "main", True, "it commits"), Considered("home", "other", False, "slow")]
    placed = page(Placement("note", "main", {"full_text": "words"}, rule="small", considered=chosen))
    assert placed.rows[1:] == [["home", "main", "it commits"], ["full_text", "words", ""]]
