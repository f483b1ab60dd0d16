"""`polystore related` and `polystore path`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from polystore.cli.app import app

MODELS = """
from dataclasses import dataclass, field
from typing import Annotated

from polystore import Edge, Relation, entity

@entity()
@dataclass(kw_only=True)
class Place:
    id: str
    name: str = ""

@dataclass
class Ride:
    hours: float

@entity(key="number")
@dataclass(kw_only=True)
class Stop:
    number: int
    at: Annotated[str | None, Relation("AT", to=Place)] = None
    rides: Annotated[list[Edge[Ride]], Relation("RIDE", to="Stop")] = field(default_factory=list)
"""
RECORDS: Mapping[str, Sequence[Mapping[str, Any]]] = {
    "place": [{"id": "seoul", "name": "서울"}, {"id": "busan", "name": "부산"}],
    "stop": [
        {"number": 1, "at": "seoul", "rides": [{"to": "2", "properties": {"hours": 1}}]},
        {"number": 2, "rides": [{"to": "3", "properties": {"hours": 2.5}}]},
        {"number": 3, "at": "busan"},
    ],
}
Cli = Callable[..., Result]


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    monkeypatch.chdir(tmp_path)
    module = f"stops_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{module}.py").write_text(MODELS, encoding="utf-8")
    runner = CliRunner()

    def call(*arguments: str, code: int = 0) -> Result:
        result = runner.invoke(app, ["-c", "sqlite:stops.db", "-e", module, *arguments])
        assert result.exit_code == code, result.output + result.stderr
        return result

    for name, records in RECORDS.items():
        lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        (tmp_path / f"{name}.jsonl").write_text(lines, encoding="utf-8")
        call("import", name, f"{name}.jsonl")
    return call


def answer(result: Result) -> Any:
    return json.loads(result.stdout)


def test_related_shows_records_with_the_way_to_them(cli: Cli) -> None:
    near = answer(cli("--json", "related", "stop", "1", "RIDE", "AT", "--depth", "3"))
    assert [(row["depth"], row["entity"]) for row in near] == [(1, "place"), (1, "stop"), (2, "stop"), (3, "place")]
    assert near[2]["record"] == {"number": 3, "at": "busan", "rides": []}
    assert near[2]["properties"] == {"hours": 2.5}
    assert near[2]["path"] == [["1", "RIDE", "2"], ["2", "RIDE", "3"]]
    walk = ("--json", "related", "stop", "1", "RIDE", "AT", "--depth", "9")
    named = answer(cli(*walk, "--into", "place", "-w", "name=부산"))
    assert [row["record"]["id"] for row in named] == ["busan"]
    back = answer(cli("--json", "related", "place", "busan", "AT", "--direction", "in"))
    assert [row["record"]["number"] for row in back] == [3]
    shown = cli("related", "stop", "1", "RIDE").stdout
    assert "1 -RIDE-> 2" in shown
    assert cli("related", "stop", "3", "RIDE").stdout == "nothing found\n"


def test_path_shows_how_relations_lead_there(cli: Cli) -> None:
    assert answer(cli("--json", "path", "stop", "1", "3", "RIDE")) == [[["1", "RIDE", "2"], ["2", "RIDE", "3"]]]
    assert answer(cli("--json", "path", "stop", "3", "1", "RIDE", code=1)) == []
    assert len(answer(cli("--json", "path", "stop", "3", "1", "RIDE", "--direction", "both"))) == 1
    to_place = answer(cli("--json", "path", "stop", "1", "busan", "RIDE", "AT", "--into", "place", "--limit", "5"))
    assert [len(path) for path in to_place] == [3]
    assert "1 -RIDE-> 2, 2 -RIDE-> 3" in cli("path", "stop", "1", "3", "RIDE").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("related", "stop", "1", "RDIE"), "no entity declares a relation 'RDIE'"),
        (("related", "stop", "1", "RIDE", "--direction", "up"), "--direction 'up': one of out, in, both"),
        (("related", "stop", "1", "RIDE", "-w", "number=1"), "say --into, too"),
        (("related", "stop", "one", "RIDE"), "a key is a int, which 'one' is not"),
        (("path", "stop", "1", "busan", "RIDE"), "a key is a int, which 'busan' is not"),
        (("path", "stop", "1", "3", "RIDE", "--depth-max", "99"), "depth_max=99: an int from 1 to 30"),
    ],
)
def test_what_cannot_be_asked_is_said(cli: Cli, arguments: tuple[str, ...], message: str) -> None:
    assert message in cli(*arguments, code=2).stderr
