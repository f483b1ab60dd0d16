"""Records in files: what an export says, an import understands, in every format and for every type of a field."""

from __future__ import annotations

import asyncio
import enum
import gzip
import json
import subprocess
import sys
import tracemalloc
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import UUID

import pydantic
import pytest
from typer.testing import CliRunner

from polystore import ConfigurationError, Edge, FullText, HybridDataArchitecture, InvalidData, Relation, entity
from polystore.cli.app import app
from polystore.errors import PolystoreError
from polystore.sources import FORMATS, FileSource, Format, export


class Mood(enum.Enum):
    GLAD = "glad"
    SAD = "sad"


@dataclass
class Place:
    name: str
    at: datetime | None = None


@entity()
@dataclass(kw_only=True)
class Paper:
    """A field of every kind, and the texts that files have trouble with."""

    id: int
    text: Annotated[str, FullText()]
    note: str | None = None
    rating: float | None = None
    good: bool = False
    raw: bytes | None = None
    at: datetime | None = None
    day: date | None = None
    price: Decimal | None = None
    code: UUID | None = None
    mood: Mood = Mood.GLAD
    size: Literal["s", "m"] = "m"
    tags: list[str] = field(default_factory=list[str])
    place: Place | None = None
    free: Any = None
    next: Annotated[list[Edge[dict[str, int]]], Relation("NEXT", to="Paper")] = field(
        default_factory=list[Edge[dict[str, int]]]
    )


@entity()
class Model(pydantic.BaseModel):
    id: str
    raw: bytes
    at: datetime
    amount: Decimal


AT = datetime(2026, 5, 1, 12, 30, 0, 123456, tzinfo=UTC)
PAPERS = [
    Paper(id=1, text="학교, \"이야기\"\r\n둘째 줄\n\ttab ; 'x' "),
    Paper(id=2, text="", note="null", rating=0.1, good=True, raw=b"\x00\xff", at=AT, day=date(1, 1, 1)),
    Paper(id=3, text=" =1+1 ", price=Decimal("1.10"), code=UUID(int=7), mood=Mood.SAD, size="s"),
    Paper(id=4, text="true", tags=["a,b", '"', ""], place=Place("서울", AT), free={"a": [1, None, "x"]}),
    Paper(id=5, text="[1]", free="a text", next=[Edge("1", {"n": 1})]),
    Paper(id=-(1 << 63), text="\u2028\ufeff\x1f", free=[], rating=-1e300),
]
MODELS = [Model(id="a", raw=b"\xff\x01", at=AT, amount=Decimal("12.50"))]

Way = Callable[[type[Any], list[Any], Path], Coroutine[Any, Any, list[Any]]]


async def stored(cls: type[Any], values: list[Any]) -> AsyncIterator[Any]:
    async with HybridDataArchitecture.open("memory:", entities=[cls]) as hda:
        await hda.collection(cls).put_many(values)
        async for value in hda.collection(cls).stream():
            yield value


async def there_and_back(cls: type[Any], values: list[Any], path: Path, said: Format | None = None) -> list[Any]:
    """What an architecture holds into which was imported what another one had exported."""
    assert await export(stored(cls, values), cls, path, format=said) == len(values)
    async with HybridDataArchitecture.open("memory:", entities=[cls]) as hda:
        report = await hda.collection(cls).import_many(FileSource(cls, path, format=said))
        assert (report.read, report.written) == (len(values), len(values))
        return [value async for value in hda.collection(cls).stream()]


@pytest.mark.parametrize("name", ["x.jsonl", "x.csv", "x.parquet", "x.jsonl.gz", "x.csv.gz"])
def test_what_is_exported_comes_back_equal(tmp_path: Path, name: str) -> None:
    for cls, values in ((Paper, PAPERS), (Model, MODELS), (Paper, [])):
        back = asyncio.run(there_and_back(cls, list(values), tmp_path / name))
        assert back == sorted(values, key=lambda one: one.id)
    assert [one.name for one in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("format", FORMATS)
def test_the_format_may_be_said(tmp_path: Path, format: Format) -> None:  # noqa: A002
    assert asyncio.run(there_and_back(Model, list(MODELS), tmp_path / "data", format)) == MODELS


def read(path: Path, text: str | bytes, **options: Any) -> list[Any]:
    """What a file with this content yields; errors as their text."""
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    source: FileSource[Any] = FileSource(Book, path, **options)
    return [str(one) if isinstance(one, InvalidData) else one for one in source]


@entity()
@dataclass(kw_only=True)
class Book:
    id: str
    title: str
    stars: int = 3
    by: str | None = None
    note: str = "none"


def test_an_empty_cell_is_the_default_else_nothing(tmp_path: Path) -> None:
    assert read(tmp_path / "x.csv", "id,title,stars,by,note\na,,,,\n") == [Book(id="a", title="")]
    with pytest.raises(InvalidData, match=r"book 'a': CSV cannot say that note is empty.* export as jsonl"):
        asyncio.run(export(stored(Book, [Book(id="a", title="", note="")]), Book, tmp_path / "y.csv"))
    assert not (tmp_path / "y.csv").exists()


def test_what_does_not_fit_is_named_with_its_line(tmp_path: Path) -> None:
    lines = ["id,title,stars", 'a,"two', 'lines",1', "", "b,x,many", "c,x", "d,x,1,2", "e,x,5"]
    assert read(tmp_path / "x.csv", "\r\n".join(lines)) == [
        Book(id="a", title="two\r\nlines", stars=1),
        "x.csv, line 5: stars: this is no int",
        "x.csv, line 6: it has fewer cells than the header has columns",
        "x.csv, line 7: it has more cells than the header has columns",
        Book(id="e", title="x", stars=5),
    ]
    lines = ['{"id": "a"}', "", "[]", '{"id": "b", "title": 1}', '{"id": "c", "title": "x", "star": 1}']
    found = read(tmp_path / "x.jsonl", "\n".join(lines))
    assert found[:3] == [
        "x.jsonl, line 1: Object missing required field `title`",
        "x.jsonl, line 3: this is no JSON object",
        "x.jsonl, line 4: Expected `str`, got `int` - at `$.title`",
    ]
    assert found[3].startswith("x.jsonl, line 5: Book has no field 'star', did you mean 'stars'?; mend the file, or ")


def test_columns_are_renamed_and_unknown_ones_left_out_when_asked(tmp_path: Path) -> None:
    text = "번호,제목,기타\na,가을,x\n".encode("cp949")
    renamed = {"번호": "id", "제목": "title"}
    assert read(tmp_path / "x.csv", text, encoding="cp949", renamed=renamed, ignore_unknown=True) == [
        Book(id="a", title="가을")
    ]
    (refused,) = read(tmp_path / "y.csv", "id,title,제목\na,x,y\n", renamed=renamed)
    assert refused == "y.csv, line 2: two columns are the field 'title'; leave one of them out"
    with pytest.raises(ConfigurationError, match="renamed: Book has no field 'titel', did you mean 'title'"):
        FileSource(Book, tmp_path / "x.csv", renamed={"제목": "titel"})


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.csv", "id,title\na,학교\n".encode("cp949"), "x.csv, behind line 0: this is no utf-8 .*say the encoding"),
        ("x.jsonl", '{"id": "학교"}'.encode("utf-16"), "this is no utf-8"),
        ("x.csv", b"id,title,id\na,b,c\n", "two columns have the same name"),
        ("x.csv", b'id,title\na,"b"c"\n', "x.csv, line 2: this is no CSV"),
        ("x.csv", b'id,title\na,"never closed\n', "this is no CSV"),
        ("x.jsonl.gz", gzip.compress(b'{"id": "a", "title": "x"}\n' * 1000)[:-20], "the compressed file is damaged"),
        ("x.csv.gz", b"id,title\n", "the compressed file is damaged"),
        ("x.parquet", b"PAR1 and nothing else", "x.parquet: this Parquet file cannot be read"),
    ],
)
def test_a_file_that_cannot_be_read_is_an_error_also_when_errors_are_collected(
    tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(content)

    async def main() -> None:
        async with HybridDataArchitecture.open("memory:", entities=[Book]) as hda:
            with pytest.raises(InvalidData, match=words):
                await hda.collection(Book).import_many(FileSource(Book, tmp_path / name), on_error="collect")

    asyncio.run(main())


def test_a_line_without_end_does_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("polystore.sources.reading.LINE_CHARS_MAX", 50)
    for name in ("x.csv", "x.jsonl"):
        with pytest.raises(InvalidData, match="line 1: it has more than 50 characters"):
            read(tmp_path / name, "x" * 51)


def test_an_import_of_a_file_goes_on_where_it_stopped(tmp_path: Path) -> None:
    path = tmp_path / "many.csv"
    rows = [f"b{i},title {i}" for i in range(2000)]
    rows[1500] = "b1500"
    path.write_text("\n".join(["id,title", *rows]), encoding="utf-8")

    async def main() -> None:
        async with HybridDataArchitecture.open(f"sqlite:{tmp_path}/x.db", entities=[Book]) as hda:
            books = hda.collection(Book)
            with pytest.raises(InvalidData, match=r"many\.csv, line 1502: it has fewer"):
                await books.import_many(FileSource(Book, path), resume="many")
            assert await books.count() == 1500
            rows[1500] = "b1500,mended"
            path.write_text("\n".join(["id,title", *rows]), encoding="utf-8")
            source = FileSource(Book, path)
            report = await books.import_many(source, resume="many")
            assert (report.skipped, report.written, source.done) == (1500, 500, 1.0)

    asyncio.run(main())


def test_the_name_of_a_source_follows_its_content_and_how_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("id,title\n", encoding="utf-8")
    same = FileSource(Book, path).name()
    assert FileSource(Book, path).name() == same
    assert same.startswith("x.csv-")
    assert (
        len({same, FileSource(Book, path, encoding="cp949").name(), FileSource(Book, path, format="jsonl").name()}) == 3
    )
    path.write_text("id,title\na,b\n", encoding="utf-8")
    assert FileSource(Book, path).name() != same


@pytest.mark.parametrize("name", ["x.jsonl", "x.csv", "x.parquet"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, name: str) -> None:
    async def many(count: int) -> AsyncIterator[Book]:
        for i in range(count):
            yield Book(id=f"{i:06}", title=f"{i} " * 20)

    def peak(count: int) -> int:
        tracemalloc.start()
        assert asyncio.run(export(many(count), Book, tmp_path / name)) == count
        assert sum(isinstance(one, Book) for one in FileSource(Book, tmp_path / name)) == count
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    peak(2_000)
    small, large = peak(2_000), peak(20_000)
    assert (tmp_path / name).stat().st_size > 1_000_000 or name == "x.parquet"
    assert large < 1.5 * small + 200_000


def test_a_failed_export_leaves_the_older_file(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text("older", encoding="utf-8")

    async def breaks() -> AsyncIterator[Book]:
        yield Book(id="a", title="x")
        raise PolystoreError("the store went away")

    with pytest.raises(PolystoreError):
        asyncio.run(export(breaks(), Book, path))
    assert path.read_text(encoding="utf-8") == "older"
    assert [one.name for one in tmp_path.iterdir()] == ["x.jsonl"]


def test_a_name_that_says_no_format_is_refused_and_a_missing_pyarrow_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigurationError, match=r"x\.txt: its ending names no format"):
        FileSource(Book, tmp_path / "x.txt")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for failing in (
        lambda: FileSource(Book, tmp_path / "x.parquet"),
        lambda: asyncio.run(export(stored(Book, []), Book, tmp_path / "x.parquet")),
    ):
        with pytest.raises(ConfigurationError, match=r'pip install "polystore-hybrid\[parquet\]"'):
            failing()
    script = "import sys, polystore.sources; sys.exit('pyarrow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=60).returncode == 0


def test_the_command_line_exports_and_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runner = CliRunner()

    def cli(*arguments: str, code: int = 0) -> str:
        done = runner.invoke(app, ["-c", "embedded:data", "-e", f"{__name__}:Paper", *arguments])
        assert done.exit_code == code, done.output + done.stderr
        return done.stdout + done.stderr

    def other(*arguments: str) -> str:
        done = runner.invoke(app, ["-c", "sqlite:other.db", "-e", f"{__name__}:Paper", *arguments])
        assert done.exit_code == 0, done.output + done.stderr
        return done.stdout

    (tmp_path / "papers.csv").write_bytes("id,내용,good\n1,가을,true\n2,겨울,false\n3,봄,maybe\n".encode("cp949"))
    imported = cli(
        "import", "paper", "papers.csv", "--encoding", "cp949", "--rename", "내용=text", "--on-error", "collect", code=1
    )
    assert "3 read, 2 written, 0 skipped" in imported
    assert "rejected, record 3: papers.csv, line 4: good: this is no bool" in imported
    assert cli("export", "paper", "-", "--format", "jsonl", "--where", "text=가을").count("\n") == 1
    assert json.loads(cli("export", "paper", "out.parquet", "--json")) == {"file": "out.parquet", "records": 2}
    other("import", "paper", "out.parquet", "--resume", "mine")
    other("export", "paper", "there.jsonl")
    cli("export", "paper", "here.jsonl")
    assert (tmp_path / "there.jsonl").read_text(encoding="utf-8") == (tmp_path / "here.jsonl").read_text(
        encoding="utf-8"
    )
    assert "2 records in here.jsonl" in cli("export", "paper", "here.jsonl")
    assert "--rename 'x': write COLUMN=FIELD" in cli("import", "paper", "here.jsonl", "--rename", "x", code=2)
    assert "the format 'xml' is not known" in cli("export", "paper", "-", "--format", "xml", code=2)
    assert "names no format" in cli("export", "paper", "-", code=2)
    assert "cannot be written" in cli("export", "paper", "no/such/place.csv", code=2)
