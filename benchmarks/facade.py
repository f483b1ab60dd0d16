"""Rows 14 and 15: what the facade itself costs, and its import."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from unittest.mock import patch

from polystore_adapters.memory import MemoryRepository

from benchmarks.data import Item
from benchmarks.measure import Ratio, below
from polystore import HybridDataArchitecture
from polystore.collection import Collection
from polystore.model import Key, Record
from polystore.protocols import SupportsInlineGet

TASKS = 32
COUNT = 200


async def cpu_per_operation(_: Path) -> list[Ratio]:
    """Row 14: a repository that answers at once, without I/O, so that what is left is ours."""
    body = {"id": "k", "owner": "o", "title": "t", "body": "x" * 900, "stars": 3, "ratio": 0.5}

    async def get(self: MemoryRepository, keys: Sequence[Key]) -> list[Record | None]:
        return [Record(key, 1, body) for key in keys]

    elsewhere = MemoryRepository.capabilities - {SupportsInlineGet}  # the way of a store behind a network
    with patch.multiple(MemoryRepository, get=get, capabilities=elsewhere):
        async with HybridDataArchitecture.open("memory:", entities=[Item]) as hda:
            items = hda.collection(Item)
            out: list[Ratio] = []
            for name, limit, traced in (("with metrics", 10.0, False), ("with a recording span", 15.0, True)):
                for tasks in (1, TASKS):
                    values = [await _round(hda, items, tasks, traced) for _ in range(8)][1:]
                    out.append(below(14, f"CPU of get on a null adapter, {tasks} tasks, {name}", "us", limit, values))
            return out


async def _round(hda: HybridDataArchitecture, items: Collection[Item], tasks: int, traced: bool) -> float:
    async def task() -> None:
        for i in range(COUNT):
            if traced:
                with hda.trace():
                    await items.get(f"k{i}")
            else:
                await items.get(f"k{i}")

    started = time.process_time()
    await asyncio.gather(*(task() for _ in range(tasks)))
    return (time.process_time() - started) / (tasks * COUNT) * 1e6


def import_time(_: Path) -> list[Ratio]:
    """Row 15: `import polystore` in a fresh interpreter, over one that imports nothing."""

    def run(code: str) -> float:
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return (time.perf_counter() - started) * 1000

    run("import polystore")
    values: list[float] = []
    for _round_number in range(9):
        bare = run("pass")
        values.append(run("import polystore") - bare)
    listing = [sys.executable, "-c", "import sys, polystore; print(*sys.modules)"]
    loaded = subprocess.run(listing, check=True, capture_output=True, text=True).stdout.split()
    drivers = [name for name in ("sqlite3", "sqlalchemy", "numpy", "polystore_adapters") if name in loaded]
    return [
        below(15, "import polystore over bare python", "ms", 80, values),
        below(15, "driver modules that it loads", "modules", 0, [float(len(drivers))]),
    ]
