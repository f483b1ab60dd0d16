"""Measures and logs on the command line, and what `status` says of facts that a journal keeps."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from polystore import HybridDataArchitecture
from polystore.cli.app import app
from polystore.model import Spill
from polystore.protocols import SupportsSpill
from tests.integration.facade.facts import PROMPT, Event, Person, at

Cli = Callable[..., Result]


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """`polystore` on a directory with some points and lines."""
    url = f"embedded:{tmp_path}/data"

    async def fill() -> None:
        async with HybridDataArchitecture.open(url, entities=[Person, Event], settings=PROMPT) as hda:
            people = hda.collection(Person)
            await people.append_many(Person.steps, [("p", at(20 * i), i) for i in range(6)])
            await hda.log(Event).append_many(
                [
                    Event(id=f"e{i}", at=at(i), text=text, level=i)
                    for i, text in enumerate(("학교에서", "공원", "학교 앞"))
                ]
            )
            spill = Spill("elsewhere", "points", "person", "", "", 7, b"...")
            await hda.stores["home"].call(SupportsSpill.spill, [spill], 1_000)

    asyncio.run(fill())
    entities = [f"tests.integration.facade.facts:{name}" for name in ("Person", "Event")]

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, ["-c", url, "-e", entities[0], "-e", entities[1], *arguments])

    return run


def answer(result: Result) -> Any:
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_series_shows_points_and_windows(cli: Cli) -> None:
    day = ("--start", "2026-03-01", "--json")
    points = answer(cli("series", "person", "p", "steps", *day, "--limit", "2"))
    assert points == [{"at": "2026-03-01T00:00:00+00:00", "value": 0}, {"at": "2026-03-01T00:20:00+00:00", "value": 1}]
    hours = answer(cli("series", "person", "p", "steps", *day, "--every", "1h", "--aggregate", "sum"))
    assert [row["value"] for row in hours] == [3, 12]
    seoul = answer(cli("series", "person", "p", "steps", *day, "--every", "1d", "--tz", "Asia/Seoul"))
    assert seoul == [{"at": "2026-03-01T00:00:00+09:00", "value": 2.5}]
    assert answer(cli("series", "person", "p", "steps", "--json")) == [], "without a start: the last day"


def test_log_shows_lines_newest_first(cli: Cli) -> None:
    assert [row["id"] for row in answer(cli("log", "event", "--json"))] == ["e2", "e1", "e0"]
    assert [row["id"] for row in answer(cli("log", "event", "학교", "--json"))] == ["e2", "e0"]
    late = ("--start", "2026-03-01T00:01", "--where", "level < 2")
    assert [row["id"] for row in answer(cli("log", "event", *late, "--json"))] == ["e1"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("series", "person", "p", "stepz"), "no measure 'stepz'; its measures: mood, steps"),
        (("series", "person", "p", "steps", "--every", "soon"), "every='soon'"),
        (("series", "person", "p", "steps", "--start", "soon"), "--start 'soon'"),
        (("series", "person", "p", "steps", "--tz", "Moon"), "tz='Moon'"),
        (("series", "event", "p", "steps"), "Event"),
        (("log", "person"), "Person is no log"),
    ],
)
def test_what_cannot_be_shown_is_said_in_words(cli: Cli, arguments: tuple[str, ...], said: str) -> None:
    result = cli(*arguments)
    assert result.exit_code != 0
    assert said in result.stderr.replace("\n", " ")
    assert "Traceback" not in result.stderr


def test_status_counts_what_is_kept_for_a_store_that_is_not_there(cli: Cli) -> None:
    (row,) = answer(cli("status", "--json"))["kept"]
    assert row.pop("oldest_s") >= 0
    assert row == {"journal": "home", "kept for": "elsewhere", "facts": 7, "bytes": 3, "refused": 0, "error": ""}
    assert "elsewhere" in cli("status").stdout
