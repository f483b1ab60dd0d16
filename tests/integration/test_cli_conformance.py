"""`polystore conformance`: the kit on the store behind a URL."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from polystore.testing.kit import main
from tests.docs.pages import ROOT, blocks
from tests.stack import url_of


def conformance(*arguments: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment: Mapping[str, str] = os.environ
    if path is not None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(path), os.environ.get("PYTHONPATH", "")])}
    command: list[str | Path] = [Path(sys.executable).with_name("polystore"), "conformance", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("server", ["postgresql", "mariadb", "mongodb", "redis"])
def test_a_server_is_asked_in_a_place_of_its_own(server: str) -> None:
    done = conformance(url_of(server), "--json", "--only", "claims_a_protocol", "--only", "expire")
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["version"]
    assert "SupportsSchema" in report["claims"]
    assert sum(row["passed"] for row in report["rows"]) >= 1
    assert report["failures"] == []


def test_a_table_says_what_passed() -> None:
    done = conformance("memory:{}", "--only", "tombstone", "--layers")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "memory: memory 1" in done.stdout
    for way in ("bare", "under all layers", "as a home"):
        assert way in done.stdout
    assert " 0 failed in " in done.stdout


def test_an_adapter_of_somebody_else_and_what_it_does_not_do(tmp_path: Path) -> None:
    """The one that the documents show; they say what it leaves out."""
    (shelf,) = [one for one in blocks(ROOT / "docs/how-to/write-an-adapter.md") if one.text.startswith("# shelf.py")]
    (tmp_path / "shelf.py").write_text(shelf.text, encoding="utf-8")
    info = tmp_path / "shelf-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shelf\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[polystore.adapters]\nshelf = shelf:connect\n")
    done = conformance("shelf:{}", path=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    (at,) = [i for i, line in enumerate(lines) if line.endswith(", bare")]
    assert lines[at] == "RecordsConformance.test_scan_computes_the_hash_from_what_is_stored, bare"
    assert re.match(r"  records.py:\d+: assert stamp.hash == given.hash", lines[at + 2]), "says where it failed"


@pytest.mark.parametrize(
    ("url", "code", "why"),
    [
        ("memory:one", 2, "write {} into the URL"),
        ("nothing:{}", 2, "the URL scheme 'nothing' is not known"),
        ("redis://127.0.0.1:1/0", 3, "Unavailable: no connection to the server"),
    ],
)
def test_what_cannot_be_asked(url: str, code: int, why: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([url]) == code
    assert why in capsys.readouterr().err
