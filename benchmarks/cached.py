"""Row 8: a read that the cache inside the process answers."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median

from benchmarks.data import Item
from benchmarks.measure import ROUNDS, Ratio, below
from polystore import HybridDataArchitecture

COUNT = 5_000


async def get_by_id(directory: Path) -> list[Ratio]:
    """The median of single reads, in microseconds: name, look-up, decoding into the class, and what counts them."""
    stores = {
        "home": {"url": f"sqlite:{directory}/app.db", "roles": ["home", "journal"]},
        "cache": {"url": "memory:", "roles": ["cache"]},
    }
    ids = [f"k{i}" for i in range(100)]
    config = {"stores": stores, "pins": {"item": {"cache": "cache"}}}
    async with HybridDataArchitecture.open(config, entities=[Item]) as hda:
        records = hda.collection(Item)
        await records.put_many([Item(id=id) for id in ids], ack="applied")
        await records.get_many(ids)
        await hda.settle()
        await records.get_many(ids)
        medians: list[float] = []
        for _ in range(ROUNDS):
            times: list[float] = []
            for i in range(COUNT):
                id = ids[i % len(ids)]
                started = time.perf_counter()
                await records.get(id)
                times.append(time.perf_counter() - started)
            medians.append(median(times) * 1e6)
        assert hda.caches["item"].counts.hits >= ROUNDS * COUNT
        return [below(8, "cached get, in the process, p50", "us", 4.0, medians)]
