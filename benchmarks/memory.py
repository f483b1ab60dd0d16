"""Row 18: what a comparison of all records with their copy needs in memory, and a copy that is filled anew.

Both are done by processes of their own, `python -m benchmarks.memory DIRECTORY STEP`. Idle is the open architecture
before it begins; what is told is the highest that the process came to above that. Linux only.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from benchmarks.measure import Ratio, below
from benchmarks.servers import LeftOutError
from polystore import FullText, HybridDataArchitecture, entity
from polystore.consistency.verify import Verifier

LIMIT_MB = 200
STEPS = ("verify", "fill")
_STATUS, _PEAK = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@entity()
@dataclass(kw_only=True)
class Entry:
    id: str
    title: Annotated[str, FullText()]
    body: str


def _entries(count: int) -> Iterator[Entry]:
    for i in range(count):
        yield Entry(id=f"{i:08d}", title=f"바다 나무 {i % 1000}", body=f"{i} " * 20)


def _config(directory: Path, copy: str) -> Mapping[str, Any]:
    home = {"url": f"sqlite:{directory}/home.db", "roles": ["home", "journal"]}
    return {"stores": {"home": home, copy: {"url": f"sqlite:{directory}/{copy}.db", "roles": ["full_text"]}}}


async def of_a_comparison(directory: Path) -> list[Ratio]:
    return await _measured(directory, 100_000)


async def of_a_comparison_of_a_million(directory: Path) -> list[Ratio]:
    return await _measured(directory, 1_000_000)


async def _measured(directory: Path, count: int) -> list[Ratio]:
    if sys.platform != "linux":
        raise LeftOutError("the highest that a process came to is read from /proc")
    async with HybridDataArchitecture.open(_config(directory, "search"), entities=[Entry]) as hda:
        await hda.collection(Entry).import_many(_entries(count))
        await hda.settle(3600)
    found: list[Ratio] = []
    for step, name in zip(STEPS, ("verify", "a new copy filled"), strict=True):
        command = [sys.executable, "-m", "benchmarks.memory", str(directory), step]
        done = await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True, text=True)
        above, took = map(float, done.stdout.split())
        row = below(18, f"{name}, {count:,} records, above idle ({took:.0f} s)", "MB", LIMIT_MB, [above])
        found.append(row)
    return found


def _forget_peak() -> None:
    """https://www.kernel.org/doc/html/latest/filesystems/proc.html: 5 resets VmHWM."""
    _PEAK.write_text("5")


def _resident_mb(what: str) -> float:
    (line,) = [line for line in _STATUS.read_text().splitlines() if line.startswith(f"{what}:")]
    return int(line.split()[1]) / 1024


async def _step(directory: Path, step: str) -> None:
    copy = "search" if step == "verify" else "second"
    config = _config(directory, "search")
    async with HybridDataArchitecture.open(config, entities=[Entry]) as hda:
        idle = _resident_mb("VmRSS")
        if step == "verify":
            _forget_peak()
            started = time.monotonic()
            verifier = Verifier(hda.stores, hda.manager.placements, hda.manager.embedders)
            assert not [one async for one in verifier.differences("entry")]
            print(_resident_mb("VmHWM") - idle, time.monotonic() - started)
            return
    async with HybridDataArchitecture.open(_config(directory, copy), entities=[Entry]) as hda:
        _forget_peak()
        started = time.monotonic()
        await hda.settle(3600)
        print(_resident_mb("VmHWM") - idle, time.monotonic() - started)


if __name__ == "__main__":
    asyncio.run(_step(Path(sys.argv[1]), sys.argv[2]))
