"""Row 20: against LangGraph's AsyncPostgresStore. Needs the PostgreSQL of `make up`, and in the environment
`langgraph-checkpoint-postgres` and `psycopg[binary,pool]`, which polystore itself never uses.

The same content of about 1 KB under keys of one namespace, synchronous_commit=off on both sides, a schema for each.
Ours has no copy, theirs no index: both hold the values and find them by their keys.
"""

from __future__ import annotations

import asyncio
import importlib
import uuid
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
from polystore_adapters.postgresql.driver import asyncpg

from benchmarks.data import Item
from benchmarks.measure import Ratio, Round, at_least, interleaved, per_operation
from benchmarks.servers import LeftOutError, url_of
from polystore import HybridDataArchitecture

TARGET = 1.5
COUNT = 500
NAMESPACE = ("items",)


def _store() -> Any:
    try:
        return importlib.import_module("langgraph.store.postgres.aio").AsyncPostgresStore
    except ImportError as error:
        raise LeftOutError(f"langgraph-checkpoint-postgres and psycopg[binary,pool] are needed ({error})") from None


def _alone(operation: Callable[[int], Awaitable[object]]) -> Round:
    return lambda: per_operation(operation, COUNT)


def _together(operation: Callable[[int], Awaitable[object]]) -> Round:

    async def run() -> float:
        loop = asyncio.get_running_loop()
        started = loop.time()
        await asyncio.gather(*(operation(i) for i in range(COUNT)))
        return (loop.time() - started) / COUNT

    return run


async def put_and_get(directory: Path) -> list[Ratio]:
    cls, url, schema = _store(), url_of("postgresql"), f"bench_{uuid.uuid4().hex[:12]}"
    joined = f"{url}{'&' if '?' in url else '?'}"
    async with AsyncExitStack() as own:
        held = await asyncpg.connect(url)
        own.push_async_callback(held.close)
        await held.execute(f"CREATE SCHEMA {schema}o; CREATE SCHEMA {schema}t")
        own.push_async_callback(held.execute, f"DROP SCHEMA {schema}o CASCADE; DROP SCHEMA {schema}t CASCADE")
        home = {"url": f"{joined}synchronous_commit=off", "options": {"schema": f"{schema}o"}}
        hda = await own.enter_async_context(HybridDataArchitecture.open({"stores": {"home": home}}, entities=[Item]))
        settings = f"options=-csearch_path%3D{schema}t%20-csynchronous_commit%3Doff"
        store = await own.enter_async_context(
            cls.from_conn_string(f"{joined}{settings}", pool_config={"min_size": 10, "max_size": 10})
        )
        await store.setup()
        items = hda.collection(Item)

        async def our_put(i: int) -> None:
            await items.put(Item(id=f"k{i}"))

        async def our_get(i: int) -> None:
            assert await items.get(f"k{i}") is not None

        async def their_put(i: int) -> None:
            await store.aput(NAMESPACE, f"k{i}", msgspec.to_builtins(Item(id=f"k{i}")))

        async def their_get(i: int) -> None:
            assert await store.aget(NAMESPACE, f"k{i}") is not None

        found: list[Ratio] = []
        for name, ours, theirs in (("put", our_put, their_put), ("get", our_get, their_get)):
            alone = await interleaved({"ours": _alone(ours), "theirs": _alone(theirs)})
            together = await interleaved({"ours": _together(ours), "theirs": _together(theirs)})
            against = "AsyncPostgresStore"
            found.append(at_least(20, f"{name}, 1 task", against, TARGET, alone["ours"], alone["theirs"]))
            found.append(
                at_least(20, f"{name}, gather({COUNT})", against, TARGET, together["ours"], together["theirs"])
            )
    return found
