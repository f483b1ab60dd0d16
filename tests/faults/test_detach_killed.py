"""Real SIGKILL while references to a deleted record are taken away: whoever comes next takes away the rest."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from tests import children
from tests.faults.letting_go import SOURCES


def run(*arguments: str) -> tuple[int, Any]:
    child = children.run("tests.faults.letting_go", *arguments)
    assert child.returncode in (0, -signal.SIGKILL), child.stderr
    return child.returncode, json.loads(child.stdout) if child.stdout else None


@pytest.mark.parametrize(
    ("crashpoint", "hit"),
    [
        ("retry.loaded", 1),
        ("detach.batch", 1),
        ("detach.batch", 4),
        ("retry.settled", 1),
    ],
)
def test_a_kill_delays_the_work_and_loses_nothing_of_it(crashpoint: str, hit: int, tmp_path: Path) -> None:
    code, _ = run("delete", str(tmp_path), crashpoint, str(hit))
    assert code == -signal.SIGKILL, "the crashpoint was not passed"
    code, answer = run("check", str(tmp_path))
    assert code == 0
    assert answer == {"differences": [], "over": [["stays"]] * SOURCES}


def test_a_kill_between_the_delete_and_its_delivery_loses_nothing_either(tmp_path: Path) -> None:
    """The third commit of the child is the delete."""
    code, _ = run("delete", str(tmp_path), "write.committed", "3")
    assert code == -signal.SIGKILL
    _, answer = run("check", str(tmp_path))
    assert answer == {"differences": [], "over": [["stays"]] * SOURCES}
