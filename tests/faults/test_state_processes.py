"""Several processes on one file of live state: counts are exact, limits hold for all together."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

from polystore import HybridDataArchitecture
from tests.faults.state_child import PER_S, Hits

SCRIPT = Path(__file__).with_name("state_child.py")
LIMIT = 7


def start(directory: Path, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, str(SCRIPT), str(directory), str(count), str(LIMIT)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


async def counted(directory: Path) -> int:
    async with HybridDataArchitecture.open(f"embedded:{directory}", entities=[Hits]) as hda:
        hits = await hda.state(Hits).get("shared")
        assert hits is not None
        return hits.number


def test_counts_are_exact_and_a_limit_holds_across_processes(tmp_path: Path) -> None:
    children = [start(tmp_path / "data", 150) for _ in range(2)]
    lines: list[list[str]] = []
    for child in children:
        out, err = child.communicate(timeout=120)
        assert child.returncode == 0, err
        lines += [line.split() for line in out.splitlines()]
    sums = [int(one[1]) for one in lines if one[0] == "sum"]
    assert sorted(sums) == list(range(1, 301))
    assert asyncio.run(counted(tmp_path / "data")) == 300
    allowed = sorted((int(one[1]), int(one[2])) for one in lines if one[0] == "allowed")
    assert allowed
    for _, after_us in allowed:
        inside = [before for before, until in allowed if before > after_us - PER_S * 1e6 and until <= after_us]
        assert len(inside) <= LIMIT


def test_a_killed_process_loses_no_count_that_it_was_told(tmp_path: Path) -> None:
    child = start(tmp_path / "data", 100_000)
    assert child.stdout is not None
    for line in child.stdout:
        if line.split() == ["sum", "50"]:
            break
    child.send_signal(signal.SIGKILL)
    rest, _ = child.communicate()
    told = [50, *(int(line.split()[1]) for line in rest.splitlines() if line.startswith("sum") and len(line) > 4)]
    # the last line may be torn, and the last count may have been made without an answer
    assert max(told[:-1] or told) <= asyncio.run(counted(tmp_path / "data"))
