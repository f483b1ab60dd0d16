"""Real SIGKILL at every crashpoint of the embedded profile: nothing acknowledged is lost, every copy ends equal."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from tests import children
from tests.faults.worker import POISON, WRITES, operation

CRASHPOINTS = (
    "write.committed",
    "lane.taken",
    "lane.settled",
    "delivery.applied",
    "delivery.applied.full_text",
    "delivery.applied.graph",
    "delivery.applied.vector",
    "delivery.park",
    "relay.claimed",
    "retry.loaded",
    "retry.settled",
    "embed.stored",
    "drain",
    "sqlite.commit.before",
    "sqlite.commit.after",
    "sqlite.apply.before",
    "sqlite.apply.after",
    "sqlite.settle.before",
    "sqlite.settle.inside",
    "sqlite.settle.after",
)
"""Those that a run of the worker passes."""
RECOVERY = ("sqlite.claim", "relay.claimed", "relay.loaded", "lane.taken", "delivery.applied", "sqlite.settle.inside")
"""Those that only a process passes which finds what a dead one left behind, and the way on from there."""


def run(*arguments: str) -> tuple[int, list[dict[str, Any]]]:
    child = children.run("tests.faults.worker", *arguments)
    if child.returncode not in (0, -signal.SIGKILL):
        raise AssertionError(child.stderr)
    return child.returncode, [json.loads(line) for line in child.stdout.splitlines()]


def allowed(acked: int) -> dict[str, set[str | None]]:
    """Record -> the texts it may have when the operations up to `acked` were acknowledged, and one more was perhaps
    carried out without an answer."""
    state: dict[str, str | None] = {}
    for i in range(acked + 1):
        verb, id, text = operation(i)
        state[id] = None if verb == "delete" else text
    out: dict[str, set[str | None]] = {id: {text} for id, text in state.items()}
    if acked + 1 < WRITES:
        verb, id, text = operation(acked + 1)
        out.setdefault(id, {None}).add(None if verb == "delete" else text)
    return out


def check(directory: Path, acked: int) -> None:
    _, ((answer),) = run("check", str(directory))
    assert answer["differences"] == []
    held = {note["id"]: note["text"] for note in answer["notes"]}
    wanted = allowed(acked)
    assert {id for id, texts in wanted.items() if texts == {None}}.isdisjoint(held)
    for id, texts in wanted.items():
        assert held.get(id) in texts, (id, held.get(id), texts)
    assert set(held) <= set(wanted)
    assert answer["found"] == sorted(held)


def test_the_list_of_crashpoints_is_complete(tmp_path: Path) -> None:
    code, lines = run("work", str(tmp_path / "data"))
    assert code == 0
    passed = set(lines[-1]["passed"])
    assert set(CRASHPOINTS) <= passed
    assert passed <= {*CRASHPOINTS, *RECOVERY}  # on a slow machine the sweep finds rows that are only late
    assert sum("acked" in line for line in lines) == WRITES
    assert any(operation(i)[1] == POISON for i in range(WRITES))
    assert next(line["redriven"] for line in lines if "redriven" in line) >= 1
    check(tmp_path / "data", WRITES - 1)


@pytest.mark.parametrize("crashpoint", CRASHPOINTS)
def test_killed_at(crashpoint: str, tmp_path: Path) -> None:
    directory = tmp_path / "data"
    hit = 1 if crashpoint in ("drain", "delivery.park") else 3
    code, lines = run("work", str(directory), crashpoint, str(hit))
    assert code == -signal.SIGKILL, f"{crashpoint} was not passed {hit} times"
    check(directory, max((line["acked"] for line in lines if "acked" in line), default=-1))


@pytest.mark.parametrize("crashpoint", RECOVERY)
def test_killed_again_while_recovering_at(crashpoint: str, tmp_path: Path) -> None:
    directory = tmp_path / "data"
    code, lines = run("work", str(directory), "write.committed", "20")
    assert code == -signal.SIGKILL
    code, _ = run("recover", str(directory), crashpoint, "1")
    assert code == -signal.SIGKILL, f"{crashpoint} was not passed"
    check(directory, max(line["acked"] for line in lines if "acked" in line))
