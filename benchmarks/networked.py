"""Row 7: a read that a cache behind a network answers. Needs the Redis of `make up`."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from benchmarks.data import Item
from benchmarks.measure import Ratio, at_least, at_most, at_once, interleaved, p50
from benchmarks.servers import url_of
from polystore import HybridDataArchitecture

COUNT = 2_000
TASKS = 32
IDS = [f"k{i}" for i in range(100)]


async def get_by_id(directory: Path) -> list[Ratio]:
    """Against GET of the same entry by the driver, which is not decoded there."""
    url = url_of("redis")
    prefix = f"bench-{uuid.uuid4().hex[:8]}"
    stores = {
        "home": {"url": f"sqlite:{directory}/app.db", "roles": ["home", "journal"]},
        "cache": {"url": url, "roles": ["cache"], "options": {"prefix": prefix}},
    }
    config = {"stores": stores, "pins": {"item": {"cache": "cache"}}}
    async with HybridDataArchitecture.open(config, entities=[Item]) as hda:
        items = hda.collection(Item)
        await items.put_many([Item(id=id) for id in IDS], ack="applied")
        await hda.settle()
        await items.get_many(IDS)
        await hda.settle()
        drivers: Any = Redis  # it does not say all its types
        async with drivers.from_url(url) as client:

            async def ours(i: int) -> object:
                return await items.get(IDS[i % len(IDS)])

            async def theirs(i: int) -> object:
                return await client.get(f"{prefix}:v:{{/item/{IDS[i % len(IDS)]}}}")

            alone = await interleaved({"ours": lambda: p50(ours, COUNT), "theirs": lambda: p50(theirs, COUNT)})
            together = await interleaved(
                {
                    "ours": lambda: at_once(ours, TASKS, COUNT // 4),
                    "theirs": lambda: at_once(theirs, TASKS, COUNT // 4),
                }
            )
            assert hda.caches["item"].counts.bypassed == 0
            await client.unlink(*[key async for key in client.scan_iter(match=f"{prefix}:*")])
    return [
        at_most(7, "cached get, Redis, 1 task, p50", "redis-py GET", 1.2, alone["ours"], alone["theirs"]),
        at_least(7, f"cached get, Redis, {TASKS} tasks", "redis-py GET", 2.5, together["ours"], together["theirs"]),
    ]
