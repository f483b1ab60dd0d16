"""Real SIGKILL while facts are appended, kept, delivered and erased: nothing acknowledged is lost or comes back."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from tests import children
from tests.faults.fact_worker import LIVES, POINTS

CRASHPOINTS = (
    "write.committed",
    "fact.spilled",
    "spill.taken",
    "spill.delivered",
    "erase.done",
    "sqlite.points.before",
    "sqlite.points.after",
    "sqlite.spill.before",
    "sqlite.spill.after",
    "sqlite.erase.before",
    "sqlite.erase.after",
    "sqlite.unspill.before",
    "sqlite.unspill.after",
)


def run(*arguments: str) -> tuple[int, list[dict[str, Any]]]:
    child = children.run("tests.faults.fact_worker", *arguments)
    if child.returncode not in (0, -signal.SIGKILL):
        raise AssertionError(child.stderr)
    return child.returncode, [json.loads(line) for line in child.stdout.splitlines()]


def said(lines: list[dict[str, Any]], what: str) -> list[int]:
    return [line[what] for line in lines if what in line]


def check(directory: Path, lines: list[dict[str, Any]]) -> None:
    _, (held,) = run("check", str(directory))
    acked = said(lines, "acked")
    assert held["weights"] in (acked, [*acked, len(acked)]), "all that was acknowledged, once, and perhaps the next"
    born, dying, dead = (set(said(lines, what)) for what in ("born", "dying", "dead"))
    assert set(held["secrets"]).isdisjoint(dead), "the points of a record that was deleted"
    assert set(held["secrets"]) >= born - dying, "the points of the record that lives"
    assert len(held["secrets"]) <= 1


def test_a_run_that_is_not_killed_passes_every_crashpoint(tmp_path: Path) -> None:
    code, lines = run("work", str(tmp_path))
    assert code == 0
    assert set(CRASHPOINTS) <= set(lines[-1]["passed"])
    assert said(lines, "acked") == list(range(POINTS))
    assert said(lines, "dead") == list(LIVES.values())[:3]
    check(tmp_path, lines)


@pytest.mark.parametrize(
    ("crashpoint", "hit"), [*((name, 1) for name in CRASHPOINTS), ("spill.delivered", 2), ("erase.done", 2)]
)
def test_killed_at(crashpoint: str, hit: int, tmp_path: Path) -> None:
    code, lines = run("work", str(tmp_path), crashpoint, str(hit))
    assert code == -signal.SIGKILL, f"{crashpoint} was not passed {hit} times"
    check(tmp_path, lines)
