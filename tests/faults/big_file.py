"""A large file streamed in and out, measured in a process of its own, and killed half way.

    python -m tests.faults.big_file [MIB [FOLDER]]

does so with 2048 MiB on `file:` and `sqlite:` and prints what it saw. `tests/faults/test_big_file.py` does it small.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polystore import FileRef, HybridDataArchitecture, entity
from polystore.env import Env

CHUNK = 1 << 20
LIMIT_MB = 60.0
"""What a stream may need above the idle process."""
DAY_US = 86_400_000_000


@entity()
@dataclass
class Film:
    id: str
    content: FileRef | None = None


class Later(Env):
    """A clock that is two days ahead."""

    def now_us(self) -> int:
        return super().now_us() + 2 * DAY_US


def config_of(kind: str, folder: Path) -> Mapping[str, Any]:
    """Films in SQLite; their content in the same file, or in a directory."""
    home = {"url": f"sqlite:{folder}/films.db"}
    if kind == "sqlite":
        return {"stores": {"home": home}}
    files = {"url": f"file:{folder}/files", "roles": ["file"]}
    return {"stores": {"home": {**home, "roles": ["home"]}, "files": files}}


async def content(mib: int) -> AsyncIterator[bytes]:
    """Bytes that differ from chunk to chunk, and cost little to make. Says when half of them were taken."""
    chunk = bytearray(os.urandom(CHUNK))
    for i in range(mib):
        if i * 2 == mib:
            say(half=True)
        chunk[:8] = i.to_bytes(8, "big")
        yield bytes(chunk)


# -- in the child -------------------------------------------------------------------------------------------------


def resident_mb() -> float:
    """What the process has in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


class Peak:
    """The most memory that the process had since this was made: the system's own mark, reset."""

    def __init__(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")

    def mb(self) -> float:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024 / 1e6


async def child(kind: str, folder: Path, mib: int) -> None:
    """Save, read back, and say what it took, as lines of JSON."""
    async with HybridDataArchitecture.open(config_of(kind, folder), entities=[Film]) as hda:
        small = await hda.files.save(b"warm")
        await hda.files.read(small)
        idle, peak = resident_mb(), Peak()
        say(idle_mb=round(idle, 1))
        started = time.monotonic()
        ref = await hda.files.save(content(mib))
        saved_s, saved_mb = time.monotonic() - started, peak.mb() - idle
        await hda.collection(Film).put(Film("film", ref))
        started, digest = time.monotonic(), hashlib.sha256()
        peak = Peak()
        async with hda.files.open(ref) as chunks:
            async for chunk in chunks:
                digest.update(chunk)
        read_s, read_mb = time.monotonic() - started, peak.mb() - idle
        assert digest.hexdigest() == ref.sha256
        assert ref.size == mib << 20
        say(in_mb=round(saved_mb, 1), in_s=round(saved_s, 2), out_mb=round(read_mb, 1), out_s=round(read_s, 2))


def say(**what: object) -> None:
    print(json.dumps(what), flush=True)


# -- from outside -------------------------------------------------------------------------------------------------


def start(kind: str, folder: Path, mib: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.faults.big_file", "child", kind, str(folder), str(mib)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])


def said(process: subprocess.Popen[str]) -> Iterator[dict[str, Any]]:
    assert process.stdout is not None
    for line in process.stdout:
        yield json.loads(line)


def measured(kind: str, folder: Path, mib: int) -> dict[str, Any]:
    """What a child said of a file that it streamed in and out."""
    with start(kind, folder, mib) as process:
        found = {name: value for line in said(process) for name, value in line.items()}
    assert process.returncode == 0
    return found


def killed_half_way(kind: str, folder: Path, mib: int) -> None:
    """End a child by SIGKILL when half of the content is saved."""
    with start(kind, folder, mib) as process:
        for line in said(process):
            if "half" in line:
                process.kill()
    assert process.returncode == -signal.SIGKILL


async def swept(kind: str, folder: Path) -> dict[str, Any]:
    """What stands there after the sweep of two days later: how many films, and bytes of content."""
    async with HybridDataArchitecture.open(config_of(kind, folder), entities=[Film], env=Later()) as hda:
        before = held(folder, kind)
        started = time.monotonic()
        report = await hda.sweep_files()
        took_s = time.monotonic() - started
        films = await hda.collection(Film).count()
        return {
            "films": films,
            "removed": report.removed,
            "before": before,
            "after": held(folder, kind),
            "sweep_s": round(took_s, 2),
        }


def held(folder: Path, kind: str) -> int:
    """Bytes of content in the store, seen or not: of the files, or of the rows that are not free."""
    if kind == "file":
        return sum(path.stat().st_size for path in (folder / "files").rglob("content"))
    with contextlib.closing(sqlite3.connect(folder / "films.db")) as db:
        return int(db.execute("SELECT coalesce(sum(length(data)), 0) FROM ps_part").fetchone()[0])


def main(mib: int, folder: Path) -> None:
    for kind in ("file", "sqlite"):
        with tempfile.TemporaryDirectory(dir=folder) as name:
            print(f"{kind}: {mib} MiB", measured(kind, Path(name), mib), flush=True)
        with tempfile.TemporaryDirectory(dir=folder) as name:
            killed_half_way(kind, Path(name), mib)
            print(f"{kind}: killed half way", asyncio.run(swept(kind, Path(name))), flush=True)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["child", kind, folder, mib]:
            asyncio.run(child(kind, Path(folder), int(mib)))
        case given:
            main(int(given[0]) if given else 2048, Path(given[1]) if len(given) > 1 else Path(tempfile.gettempdir()))
