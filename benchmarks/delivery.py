"""Rows 16 and 17: from a commit to a copy. Needs the servers of `make up`.

The home is PostgreSQL with synchronous_commit=off, in a schema of its own, and each copy has a type and a home of its
own. InfluxDB and MinIO hold facts and contents of files, which are not propagated from records.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from polystore_adapters.postgresql.driver import asyncpg

from benchmarks.bulk import DRIVERS
from benchmarks.data import DIMENSION, Item, Linked, Listed, Placed
from benchmarks.measure import Ratio, at_least, below, interleaved
from benchmarks.servers import url_of
from polystore import HybridDataArchitecture, new_id
from polystore.config import Role
from polystore.consistency import Settings
from polystore.testing.places import places

ROUNDS = 3
RATE = 500
SECONDS = 2
WAIT_S = 60
COUNT = 2_000
TARGET = 0.8
QUICK, OTHER = (5, 25), (30, 120)
"""Milliseconds: p50 and p99."""

_RANDOM = random.Random(5)
_PLACES = [[_RANDOM.uniform(-1, 1) for _ in range(DIMENSION)] for _ in range(50)]


def _placed() -> Placed:
    return Placed(place=_RANDOM.choice(_PLACES))


_last: list[str] = []


def _linked() -> Linked:
    one = Linked(follows=[_last.pop()] if _last else [])
    _last.append(one.id)
    return one


class Copy:
    """A store as a copy: what it serves, of which type, and how late it may be."""

    def __init__(self, role: Role, make: Callable[[], Any], cls: type[Any], late: tuple[int, int]) -> None:
        self.role: Role = role
        self.make = make
        self.cls = cls
        self.late = late


COPIES: Mapping[str, Copy] = {
    "postgresql": Copy("full_text", Listed, Listed, QUICK),
    "redis": Copy("cache", lambda: Item(id=new_id()), Item, QUICK),
    "mongodb": Copy("full_text", Listed, Listed, QUICK),
    "mariadb": Copy("full_text", Listed, Listed, OTHER),
    "elasticsearch": Copy("full_text", Listed, Listed, OTHER),
    "neo4j": Copy("graph", _linked, Linked, OTHER),
    "chromadb": Copy("vector", _placed, Placed, OTHER),
}


@asynccontextmanager
async def _opened(name: str, copy: Copy) -> AsyncGenerator[HybridDataArchitecture]:
    url, schema = url_of("postgresql"), f"bench_{uuid.uuid4().hex[:12]}"
    async with AsyncExitStack() as own:
        made = places(url_of(name))()
        at = await asyncio.to_thread(made.__enter__)  # some of them run a loop of their own
        own.push_async_callback(asyncio.to_thread, made.__exit__, None, None, None)
        options: Mapping[str, Any] = {"schema": f"{schema}c"} if name == "postgresql" else at.options
        held = await asyncpg.connect(url)
        own.push_async_callback(held.close)
        await held.execute(f"CREATE SCHEMA {schema}; CREATE SCHEMA {schema}c")
        own.push_async_callback(held.execute, f"DROP SCHEMA {schema} CASCADE; DROP SCHEMA {schema}c CASCADE")
        lax = f"{url}{'&' if '?' in url else '?'}synchronous_commit=off"
        copied = lax if name == "postgresql" else at.url
        stores: dict[str, Any] = {
            "home": {"url": lax, "roles": ["home", "journal"], "options": {"schema": schema}},
            "copy": {"url": copied, "roles": [copy.role], "options": dict(options)},
        }
        etype = copy.cls.__name__.lower()
        config = {"stores": stores, "pins": {etype: {"home": "home", copy.role: "copy"}}}
        settings = Settings(queue_max=1 << 16, reconcile_s=0)
        yield await own.enter_async_context(HybridDataArchitecture.open(config, entities=[copy.cls], settings=settings))


async def until_applied(directory: Path) -> list[Ratio]:
    """Row 16: writes at a steady 500 a second; from the call of `put` until the copy has it, the commit with it."""
    found: list[Ratio] = []
    for name, copy in COPIES.items():
        p50s: list[float] = []
        p99s: list[float] = []
        async with _opened(name, copy) as hda:
            records = hda.collection(copy.cls)

            async def write(put: Callable[..., Awaitable[Any]] = records.put, make: Any = copy.make) -> float:
                value, started = make(), time.perf_counter()
                await put(value, ack=["copy"], ack_timeout_s=WAIT_S)
                return (time.perf_counter() - started) * 1e3

            for number in range(ROUNDS + 1):
                times = sorted(await _at_a_rate(write))
                if number:
                    p50s.append(times[len(times) // 2])
                    p99s.append(times[len(times) * 99 // 100])
        p50, p99 = copy.late
        found.append(below(16, f"put until applied, {RATE}/s, {name}, p50", "ms", p50, p50s))
        found.append(below(16, f"put until applied, {RATE}/s, {name}, p99", "ms", p99, p99s))
    return found


async def _at_a_rate(write: Callable[[], Awaitable[float]]) -> list[float]:
    """Each write begins when its time comes, whether those before have ended or not."""
    loop, tasks = asyncio.get_running_loop(), list[asyncio.Future[float]]()
    began = loop.time()
    for i in range(RATE * SECONDS):
        await asyncio.sleep(max(0.0, began + i / RATE - loop.time()))
        tasks.append(asyncio.ensure_future(write()))
    return await asyncio.gather(*tasks)


async def throughput(directory: Path) -> list[Ratio]:
    """Row 17: what was committed is delivered and settled, against the driver's own bulk call of as many values."""
    found: list[Ratio] = []
    for name, copy in COPIES.items():
        async with _opened(name, copy) as hda, DRIVERS[name](url_of(name)) as bulk:
            records = hda.collection(copy.cls)
            (line,) = hda.manager.lines.values()

            async def ours(
                line: Any = line, put: Any = records.put_many, make: Any = copy.make, settle: Any = hda.settle
            ) -> float:
                await line.lanes.stop()
                for _ in range(0, COUNT, 500):
                    await put([make() for _ in range(500)])
                await asyncio.sleep(0.01)
                assert len(line.in_hand) == COUNT
                started = time.perf_counter()
                line.lanes.start()
                while line.in_hand:  # noqa: ASYNC110
                    await asyncio.sleep(0.001)
                await settle()  # what a slow store was left behind with
                return (time.perf_counter() - started) / COUNT

            async def theirs(bulk: Any = bulk, make: Any = copy.make) -> float:
                rows = [msgspec.to_builtins(make()) for _ in range(COUNT)]
                started = time.perf_counter()
                await bulk(rows)
                return (time.perf_counter() - started) / COUNT

            times = await interleaved({"ours": ours, "theirs": theirs}, ROUNDS)
        found.append(at_least(17, f"propagated to {name}", "its bulk call", TARGET, times["ours"], times["theirs"]))
    return found
