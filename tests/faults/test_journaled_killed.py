"""Real SIGKILL where the home cannot commit: what was acknowledged is there, at the home, and no body stays behind."""

from __future__ import annotations

import dataclasses
import json
import signal
from pathlib import Path
from typing import Any

import pytest

from tests import children
from tests.faults.journaled_worker import WRITES, State, after

CRASHPOINTS = (
    "write.committed",
    "lane.taken",
    "delivery.applied.docs",
    "sqlite.commit.after",
    "sqlite.apply.after",
    "sqlite.settle.before",
    "sqlite.settle.inside",
    "sqlite.settle.after",
)
"""From the commit at the journal to the body's end there."""


def run(*arguments: str) -> tuple[int, list[dict[str, Any]]]:
    child = children.run("tests.faults.journaled_worker", *arguments)
    if child.returncode not in (0, -signal.SIGKILL):
        raise AssertionError(child.stderr)
    return child.returncode, [json.loads(line) for line in child.stdout.splitlines()]


def state(acked: int) -> list[dict[str, Any]]:
    records: State = {}
    for i in range(acked + 1):
        records = after(i, records)
    return sorted((dataclasses.asdict(one) for one in records.values()), key=lambda one: one["id"])


def check(directory: Path, acked: int) -> None:
    """One operation more may have been carried out without an answer."""
    _, (found,) = run("check", str(directory))
    assert found["differences"] == []
    assert found["kept"] == []
    assert found["talks"] == found["read"]
    assert found["talks"] in (state(acked), state(min(acked + 1, WRITES - 1)))


@pytest.mark.parametrize("crashpoint", CRASHPOINTS)
def test_killed_at(crashpoint: str, tmp_path: Path) -> None:
    code, lines = run("work", str(tmp_path), crashpoint, "17")
    assert code == -signal.SIGKILL, f"{crashpoint} was not passed 17 times"
    check(tmp_path, max((line["acked"] for line in lines if "acked" in line), default=-1))


@pytest.mark.parametrize("crashpoint", ["relay.loaded", "sqlite.settle.inside"])
def test_killed_again_while_recovering_at(crashpoint: str, tmp_path: Path) -> None:
    code, lines = run("work", str(tmp_path), "write.committed", "20")
    assert code == -signal.SIGKILL
    code, _ = run("recover", str(tmp_path), crashpoint, "1")
    assert code == -signal.SIGKILL, f"{crashpoint} was not passed"
    check(tmp_path, max(line["acked"] for line in lines if "acked" in line))
