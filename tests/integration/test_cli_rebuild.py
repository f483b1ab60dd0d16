"""`polystore rebuild STORE` beside its ways back, and Ctrl-C in the middle."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

from typer.testing import CliRunner

from polystore import HybridDataArchitecture
from polystore.cli.app import app
from tests.growing import Tree

PROGRAM = str(Path(sys.executable).with_name("polystore"))
TREES = 300


def prepared(folder: Path) -> None:
    (folder / "polystore.toml").write_text(
        'entities = ["tests.growing:Tree"]\n'
        '[stores.main]\nurl = "sqlite:main.db"\nroles = ["home"]\n'
        '[stores.words]\nurl = "sqlite:words.db"\nroles = ["full_text", "vector"]\n'
    )

    async def fill() -> None:
        async with HybridDataArchitecture.open(folder / "polystore.toml") as hda:
            await hda.collection(Tree).put_many([Tree(id=f"t{i}", text=f"나무 {i}") for i in range(TREES)])
            await hda.settle(60)

    asyncio.run(fill())


def answer(folder: Path, *arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["--config", str(folder / "polystore.toml"), *arguments])
    assert result.exit_code == code, result.output
    return result.stdout or result.stderr


def filled(folder: Path) -> int:
    try:
        with sqlite3.connect(f"file:{folder}/words.db~2?mode=ro", uri=True) as db:
            return int(db.execute("SELECT count(*) FROM tree").fetchone()[0])
    except sqlite3.OperationalError:
        return 0


def test_a_rebuild_that_was_interrupted_is_gone_on_with_and_there_is_a_way_back(tmp_path: Path) -> None:
    prepared(tmp_path)
    command = [PROGRAM, "--config", str(tmp_path / "polystore.toml"), "rebuild", "words", "--rate", "50"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as rebuilding:
        until = time.monotonic() + 60
        while not filled(tmp_path) and time.monotonic() < until:
            time.sleep(0.02)
        rebuilding.send_signal(signal.SIGINT)
        _, errors = rebuilding.communicate(timeout=60)
    assert rebuilding.returncode == 130, errors
    assert 0 < filled(tmp_path) < TREES
    moves = json.loads(answer(tmp_path, "status", "--json"))["moves"]
    assert {(one["facet"], one["serves"], one["to serve"]) for one in moves} == {
        ("full_text", "words", "words~2"),
        ("vector", "words", "words~2"),
    }
    assert "to words~2, when it is complete; words serves" in answer(tmp_path, "explain", "tree")
    assert "tree: words serves" in answer(tmp_path, "rebuild", "words", "--rollback")  # ends the one under way
    assert json.loads(answer(tmp_path, "rebuild", "words", "--json"))["words"] == {"serves": {"tree": "words~2"}}
    assert json.loads(answer(tmp_path, "verify", "--json"))["differences"] == 0
    assert "words emptied" in answer(tmp_path, "rebuild", "words", "--discard")
    assert "nothing to go back to" in answer(tmp_path, "rebuild", "words", "--rollback", code=2)
    assert "'main' serves no copy" in answer(tmp_path, "rebuild", "main", "--rollback", code=2)
