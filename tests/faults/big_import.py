"""A large import, measured in a process of its own that is killed half way, and gone on with in another.

    python -m tests.faults.big_import [RECORDS [FOLDER]]

does so with a million records and prints what it saw. `tests/faults/test_big_import.py` does it small.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from polystore import FullText, HybridDataArchitecture, entity
from polystore.consistency.verify import Verifier
from polystore.results import ImportReport
from tests.faults.big_file import Peak, resident_mb, said, say

LIMIT_MB = 80.0
"""What an import may need above the idle process, with all that it brings to the copy meanwhile."""
_WORDS = ("바다", "나무", "기차", "편지", "sea", "tree", "train", "letter")


@entity()
@dataclass(kw_only=True)
class Entry:
    id: str
    title: Annotated[str, FullText()]
    body: str
    number: int


def entries(count: int) -> Iterator[Entry]:
    """The same in every process."""
    for i in range(count):
        words = f"{_WORDS[i % 8]} {_WORDS[i // 8 % 8]} {i % 1000}"
        yield Entry(id=f"{i:08d}", title=words, body=f"{i} " * 30, number=i)


def config_of(folder: Path) -> Mapping[str, Any]:
    home = {"url": f"sqlite:{folder}/home.db", "roles": ["home", "journal"]}
    return {"stores": {"home": home, "search": {"url": f"sqlite:{folder}/search.db", "roles": ["full_text"]}}}


# -- in the child -------------------------------------------------------------------------------------------------


async def child(folder: Path, count: int) -> None:
    """Import, and say how far it is and what it took, as lines of JSON. Idle is a process that has imported before, for
    another tenant. A record that is there already would be an error: the position is exactly what was committed."""
    async with HybridDataArchitecture.open(config_of(folder), entities=[Entry]) as hda:
        records = hda.collection(Entry)
        await hda.tenant("idle").collection(Entry).import_many(entries(2000))
        await hda.settle()
        idle, peak, started = resident_mb(), Peak(), time.monotonic()
        say(idle_mb=round(idle, 1))
        told = 0

        def progress(report: ImportReport) -> None:
            nonlocal told
            done = report.written + report.skipped
            if done - told >= count // 100:
                told = done
                say(done=told, above_mb=round(resident_mb() - idle, 1))

        report = await records.import_many(entries(count), on_conflict="error", resume="entries", progress=progress)
        took_s = time.monotonic() - started
        await hda.settle(timeout_s=600)
        applied_s = time.monotonic() - started
        say(written=report.written, skipped=report.skipped)
        say(peak_mb=round(peak.mb() - idle, 1), import_s=round(took_s, 1), applied_s=round(applied_s, 1))


# -- from outside -------------------------------------------------------------------------------------------------


def start(folder: Path, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.faults.big_import", "child", str(folder), str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])


def killed_half_way(folder: Path, count: int) -> dict[str, Any]:
    """End a child by SIGKILL when half of the source is committed; the last that it said."""
    found: dict[str, Any] = {}
    with start(folder, count) as process:
        for line in said(process):
            found |= line
            if line.get("done", 0) * 2 >= count:
                process.kill()
    assert process.returncode == -signal.SIGKILL
    return found


def gone_on_with(folder: Path, count: int) -> dict[str, Any]:
    """What a second child said, which was let finish."""
    with start(folder, count) as process:
        found = {name: value for line in said(process) for name, value in line.items()}
    assert process.returncode == 0
    return found


async def compared(folder: Path, count: int) -> dict[str, int]:
    """How many records there are, how many differ from the source, and how many differences copies have."""
    async with HybridDataArchitecture.open(config_of(folder), entities=[Entry]) as hda:
        await hda.settle(timeout_s=600)
        stored: AsyncIterator[Entry] = hda.collection(Entry).stream()
        wanted = entries(count)
        seen = other = 0
        async for one in stored:
            seen += 1
            other += one != next(wanted, None)
        verifier = Verifier(hda.stores, hda.manager.placements, hda.manager.embedders)
        differences = sum([1 async for _ in verifier.differences("entry")])
        return {"records": seen, "other": other, "differences": differences}


def main(count: int, folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as name:
        print("killed half way", killed_half_way(Path(name), count), flush=True)
        print("gone on with", gone_on_with(Path(name), count), flush=True)
        print("compared with its source", asyncio.run(compared(Path(name), count)), flush=True)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["child", folder, count]:
            asyncio.run(child(Path(folder), int(count)))
        case given:
            place = Path(given[1]) if len(given) > 1 else Path(tempfile.gettempdir())
            main(int(given[0]) if given else 1_000_000, place)
