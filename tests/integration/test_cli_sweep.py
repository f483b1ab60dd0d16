"""`polystore sweep` on a real directory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from polystore import FileRef, HybridDataArchitecture
from polystore.cli.app import app
from polystore.model import StoredObject
from polystore.protocols import SupportsObjects
from tests.faults.big_file import Film

Call = Callable[..., str]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    monkeypatch.chdir(Path(__file__).parents[2])

    def invoke(*arguments: str, code: int = 0) -> str:
        start = ["-c", f"embedded:{tmp_path}/data", "-e", "tests.faults.big_file:Film"]
        result = CliRunner().invoke(app, [*start, *arguments])
        assert result.exit_code == code, result.output + result.stderr
        return result.stdout + result.stderr

    return invoke


async def saved(directory: Path) -> tuple[FileRef, FileRef]:
    """A file that a record names, and one that none does."""
    async with HybridDataArchitecture.open(f"embedded:{directory}", entities=[Film]) as hda:
        named, orphan = await hda.files.save(b"named"), await hda.tenant("t").files.save(b"orphan")
        await hda.collection(Film).put(Film("f", named))
        return named, orphan


async def stand(directory: Path, *refs: FileRef) -> list[bool]:
    async with HybridDataArchitecture.open(f"embedded:{directory}", entities=[Film]) as hda:
        keys = [ref.key for ref in refs]
        found: list[StoredObject | None] = await hda.stores["files"].call(SupportsObjects.stat_objects, keys)
        return [one is not None for one in found]


def test_sweep_says_what_it_would_remove_and_then_removes_it(call: Call, tmp_path: Path) -> None:
    named, orphan = asyncio.run(saved(tmp_path / "data"))
    assert call("sweep", "--dry-run") == "0 files looked at, 0 would be removed (0 bytes)\n"
    old = ("sweep", "--older-than", "0")
    assert call(*old, "--dry-run") == "2 files looked at, 1 would be removed (6 bytes)\n"
    assert asyncio.run(stand(tmp_path / "data", named, orphan)) == [True, True]
    assert call(*old) == "2 files looked at, 1 removed (6 bytes)\n"
    assert asyncio.run(stand(tmp_path / "data", named, orphan)) == [True, False]
    assert json.loads(call("--json", *old)) == {"examined": 1, "removed": 0, "bytes": 0, "dry_run": False}


def test_sweep_refuses_the_files_of_a_home_that_is_lost_until_it_is_told(call: Call, tmp_path: Path) -> None:
    named, _ = asyncio.run(saved(tmp_path / "data"))
    for lost in (tmp_path / "data").glob("home.db*"):
        if lost.is_file():
            lost.unlink()
    said = call("sweep", "--older-than", "0", code=2)
    assert "belong to the records of another home" in said
    assert "--adopt" in said
    assert asyncio.run(stand(tmp_path / "data", named)) == [True]
    assert "2 removed" in call("sweep", "--older-than", "0", "--adopt")
