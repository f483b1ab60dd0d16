"""`polystore rebuild`, and what the other commands say of embedders."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from polystore.cli.app import app
from tests.integration.embedders.server import KEY, Embeddings, error

MODELS = """
from dataclasses import dataclass
from typing import Annotated
from polystore import Embedding, FullText, entity

@entity(name="story")
@dataclass(kw_only=True)
class Story:
    id: str
    text: Annotated[str, FullText(), Embedding()]
"""
COUNT = 12


@pytest.fixture
def server() -> Iterator[Embeddings]:
    one = Embeddings()
    yield one
    one.stop()


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLM_KEY", KEY)
    module = f"stories_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{module}.py").write_text(MODELS, encoding="utf-8")
    (tmp_path / "entities").write_text(module)
    stories = [{"id": f"s{i}", "text": f"{i}번째 이야기"} for i in range(COUNT)]
    (tmp_path / "stories.jsonl").write_text("\n".join(map(json.dumps, stories)))
    return lambda *arguments: CliRunner().invoke(app, arguments)


def configure(server: Embeddings, model: str) -> None:
    dimension = server.config(model)["dimension"]
    Path("polystore.toml").write_text(
        f'entities = ["{Path("entities").read_text()}"]\nimport_paths = ["."]\nurl = "embedded:data"\n'
        f'[embedders.default]\nurl = "{server.url}"\nmodel = "{model}"\n'
        f'dimension = {dimension}\napi_key = "${{LLM_KEY}}"\n'
    )


def answer(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_rebuild_changes_over_and_every_command_says_who_made_the_vectors(
    cli: Callable[..., Result], server: Embeddings
) -> None:
    configure(server, "m-1")
    assert cli("import", "story", "stories.jsonl").exit_code == 0
    configure(server, "m-2")
    assert answer(cli("--json", "status"))["vectors"] == [
        {"entity": "story", "field": "text", "made by": "m-1:8 cosine", "configured": "m-2:12 cosine"}
    ]
    explained = cli("explain", "story").output
    assert "polystore rebuild story" in explained
    assert "text: made by m-1:8 cosine" in explained
    assert {row["store"] for row in answer(cli("--json", "check"))} > {"embed:m-1:8", "embed:m-2:12"}
    assert answer(cli("--json", "rebuild", "story")) == {"story": {"embedded": COUNT, "models": {"text": "m-2:12"}}}
    assert "story: 0 texts embedded here; text by m-2:12" in cli("rebuild").output
    assert answer(cli("--json", "status"))["vectors"][0]["configured"] == ""
    assert len(answer(cli("--json", "similar", "story", "3번째 이야기"))) == 10
    assert cli("--json", "verify").exit_code == 0


def test_what_cannot_be_rebuilt_ends_as_other_commands_do(cli: Callable[..., Result], server: Embeddings) -> None:
    configure(server, "m-1")
    assert cli("rebuild", "storry").exit_code == 2
    cli("import", "story", "stories.jsonl")
    configure(server, "m-2")
    server.trouble = error(503)
    result = cli("rebuild")
    assert result.exit_code == 3
    assert KEY not in result.output
    checked = cli("--json", "check")
    assert checked.exit_code == 1
    assert "HTTP 503" in checked.output
    assert KEY not in checked.output
