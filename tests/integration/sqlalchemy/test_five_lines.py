"""An application written without a thought of polystore: with five lines more, its writes appear in full text and
vectors, whoever dies."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Generator
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from polystore import HybridDataArchitecture
from tests.integration.sqlalchemy.application import (
    DIFF,
    PLACES,
    SOURCE,
    Place,
    child,
    differences,
    load,
    placed,
    with_five_lines,
    write_application,
)

WORDS = ["학교", "바다", "기차", "시장", "겨울"]


def test_it_is_an_application_of_300_lines_and_five_are_added() -> None:
    assert 290 <= len(SOURCE.splitlines()) <= 310
    assert "polystore" not in SOURCE
    assert len(with_five_lines().splitlines()) == len(SOURCE.splitlines()) + 5
    assert not [line for line in DIFF.splitlines()[2:] if line.startswith("-")]


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[Place]:
    with placed(tmp_path, request.param) as one:
        yield one


LIVES = ["as it was", "with five lines", "with five lines and an open architecture"]


@pytest.mark.parametrize("life", LIVES)
@pytest.mark.parametrize("place", ["SQLite", "PostgreSQL"], indirect=True)
def test_the_application_does_what_it_did(place: Place, life: str) -> None:
    """In each of its lives; in the last one polystore's tables are in its database."""
    source = SOURCE if life == "as it was" else with_five_lines()
    (place.directory / "blog.py").write_text(source, encoding="utf-8")
    blog: Any = load(place.directory / "blog.py")
    blog.connect(place.database)
    if "open" in life:

        async def open_once() -> None:
            async with HybridDataArchitecture.open(place.config, entities=[blog.Article, blog.Comment]):
                pass

        asyncio.run(open_once())
    desk(blog)


def desk(blog: Any) -> None:
    first = blog.write("첫 글", "학교에 갔다", author="지민", tags=["일상", "학교"], fee=Decimal("12.50"))
    second = blog.write("둘째 글", "바다에 갔다", author="지민", tags=["일상"])
    blog.comment(first.id, "좋아요", by="민수")
    blog.publish(first.id)
    blog.edit(second.id, title=" 둘째 ")
    assert [one.title for one in blog.articles(tag="일상")] == ["첫 글", "둘째"]
    assert blog.statistics() == {"authors": 1, "articles": 2, "comments": 1, "tags": 2, "fees": 12}
    assert blog.hide_comments("민수") == 1
    assert blog.purge_drafts("지민") == 1
    assert blog.archive_before(date(2200, 1, 1)) == 1
    with pytest.raises(ValueError, match="archived"):
        blog.comment(first.id, "늦은 글", by="민수")
    blog.remove(first.id)
    assert blog.statistics()["articles"] == blog.statistics()["comments"] == 0
    with pytest.raises(blog.NoSuchArticle):
        blog.edit(first.id, title="x")


def test_all_that_its_services_write_is_found(place: Place) -> None:
    """Sessions, cascades, updates and deletes of many rows: nobody tells polystore anything."""
    asyncio.run(services(place))


async def services(place: Place) -> None:
    blog: Any = load(write_application(place.directory))
    blog.connect(place.database)
    older = blog.write("먼저 있던 글", "기차를 탔다", author="지민")
    async with HybridDataArchitecture.open(place.config, entities=[blog.Article, blog.Comment]) as hda:
        found, said = hda.collection(blog.Article), hda.collection(blog.Comment)
        new = blog.write("새 글", "시장에서 사과를 샀다", author="지민", fee=Decimal("3.20"))
        blog.comment(new.id, "맛있었나요", by="민수")
        blog.edit(older.id, body="비행기를 탔다")
        assert await differences(hda) == []
        assert [hit.value.id for hit in await found.search("사과")] == [new.id]
        assert [hit.value.id for hit in await found.search("비행기")] == [older.id]
        assert not await found.search("기차를")
        assert [hit.value.id for hit in await found.similar("시장에서 사과를 샀다", limit=1)] == [new.id]
        assert [hit.value.article_id for hit in await said.search("맛있었나요")] == [new.id]
        value = await found.get(new.id)
        assert value is not None
        assert (value.fee, value.status) == (Decimal("3.20"), blog.Status.DRAFT)

        blog.hide_comments("민수")
        blog.archive_before(date(2200, 1, 1))
        assert await differences(hda) == []
        assert not await said.search("맛있었나요")
        value = await found.get(new.id)
        assert value is not None
        assert value.status is blog.Status.ARCHIVED

        blog.remove(new.id)
        assert await differences(hda) == []
        assert not await found.search("사과")
        assert await said.count() == 0


def rows(writer: int, count: int) -> str:
    """What one writer imports: each article has a word that no other has."""
    lines = [
        {
            "title": f"글 {writer}-{i}",
            "body": f"{WORDS[i % 5]}에서 만난 이름 고유{writer}번{i}호",
            "author": f"작가 {writer}",
            "tags": [f"{WORDS[i % 5]} {writer}"],
            "comments": [f"댓글 {writer}-{i}"],
        }
        for i in range(count)
    ]
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


@pytest.mark.parametrize("place", ["SQLite, copies in other files", "PostgreSQL"], indirect=True)
def test_three_writers_one_killed_nothing_lost(place: Place) -> None:
    """Three processes of the application, of which none knows of an architecture, and one that only delivers."""
    directory = place.directory
    write_application(directory)
    count = 40
    for writer in range(3):
        (directory / f"{writer}.jsonl").write_text(rows(writer, count), encoding="utf-8")
    with child(place, "init") as init:
        assert init.wait(30) == 0
    settings = {**place.config, "entities": ["blog"], "import_paths": ["."]}
    (directory / "polystore.toml").write_text(toml(settings), encoding="utf-8")
    with subprocess.Popen(
        [sys.executable, "-c", "from polystore.cli import main; main()", "worker"],
        cwd=directory,
        stdout=subprocess.PIPE,
        text=True,
    ) as worker:
        try:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "delivering article, comment\n"
            printed = three_writers(place)
        finally:
            worker.send_signal(signal.SIGTERM)
        assert worker.wait(30) == 0
    assert [len(lines) for lines in printed[:2]] == [count, count]
    assert 5 <= len(printed[2]) < count
    asyncio.run(nothing_is_lost(place, [line for lines in printed for line in lines]))


def three_writers(place: Place) -> list[list[str]]:
    """What each printed: articles whose transactions were over. The third is killed after a few."""
    writers = [child(place, "import", f"{i}.jsonl") for i in range(3)]
    victim = writers[2].stdout
    assert victim is not None
    seen = [victim.readline() for _ in range(5)]
    writers[2].kill()
    printed = [one.communicate(timeout=120) for one in writers]
    assert [writers[0].returncode, writers[1].returncode] == [0, 0], [errors for _, errors in printed]
    return [(out if i < 2 else "".join(seen) + out).splitlines() for i, (out, _) in enumerate(printed)]


async def nothing_is_lost(place: Place, printed: list[str]) -> None:
    blog: Any = load(place.directory / "blog.py")
    blog.connect(place.database)
    standing = blog.articles()
    assert {int(line.split()[0]) for line in printed} <= {one.id for one in standing}
    async with HybridDataArchitecture.open(place.config, entities=[blog.Article, blog.Comment]) as hda:
        assert await differences(hda) == []
        articles = hda.collection(blog.Article)
        assert await articles.count() == len(standing)
        for one in standing:
            word = one.body.split()[-1]
            assert [hit.value.id for hit in await articles.search(word)] == [one.id]
        for one in standing[::10]:
            best = await articles.similar(one.body, limit=1)
            assert best[0].value.body == one.body
        comments = blog.statistics()["comments"]
        assert len(await hda.collection(blog.Comment).search("댓글", limit=1000)) == comments


def toml(settings: dict[str, Any]) -> str:
    """A configuration file; JSON's texts and lists are TOML's, too."""
    stores = settings.pop("stores", {})
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
    for name, one in stores.items():
        options = one.get("options", {})
        lines += [f"[stores.{name}]", *(f"{key} = {json.dumps(one[key])}" for key in one if key != "options")]
        lines += [f"[stores.{name}.options]", *(f"{key} = {json.dumps(value)}" for key, value in options.items())]
    return "\n".join(lines) + "\n"


def test_the_how_to_shows_these_five_lines() -> None:
    page = Path(__file__).parents[3] / "docs/how-to/sqlalchemy.md"
    assert DIFF in page.read_text(encoding="utf-8")
