"""Row 22: MariaDB and MySQL against a bare upsert by asyncmy. Needs the servers of `make up`.

The upsert is a statement of its own on a table of the same fields with the bare key: no version, no hash, no duty to
deliver; on a connection kept for the run, or, of many tasks, on ten of them, which is what ours has. What is durable is
the server's own setting, the same on both sides. Writes are of new records, each owed to one copy; nobody delivers
meanwhile.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa
from polystore_adapters.mysql.driver import connect

from benchmarks.data import Item, Listed
from benchmarks.measure import Ratio, at_least, at_once, interleaved, per_operation
from benchmarks.servers import url_of
from polystore import HybridDataArchitecture
from polystore.consistency import Settings

SERVERS = ("MariaDB", "MySQL")
TASKS = 32
POOL = 10
_TABLE = (
    "CREATE TABLE raw_item (id VARCHAR(512) PRIMARY KEY, owner LONGTEXT, title LONGTEXT, body LONGTEXT, stars BIGINT, "
    "ratio DOUBLE) CHARSET=utf8mb4"
)
_UPSERT = (
    "INSERT INTO raw_item (id, owner, title, body, stars, ratio) VALUES (%s, %s, %s, %s, %s, %s) ON DUPLICATE KEY "
    "UPDATE owner = VALUES(owner), title = VALUES(title), body = VALUES(body), stars = VALUES(stars), "
    "ratio = VALUES(ratio)"
)


class Raw:
    def __init__(self, connections: list[Any]) -> None:
        self._held = connections[0]
        self._idle = asyncio.LifoQueue[Any]()
        for connection in connections:
            self._idle.put_nowait(connection)

    async def upsert(self, i: int) -> None:
        await self._upsert(self._held)

    async def upsert_by_pool(self, i: int) -> None:
        connection = await self._idle.get()
        try:
            await self._upsert(connection)
        finally:
            self._idle.put_nowait(connection)

    @staticmethod
    async def _upsert(connection: Any) -> None:
        one = Listed()
        cursor = connection.cursor()
        await cursor.execute(_UPSERT, (one.id, one.owner, one.title, one.body, one.stars, one.ratio))


@asynccontextmanager
async def _raw(url: sa.URL) -> AsyncGenerator[Raw]:
    where = {"host": url.host, "port": url.port, "user": url.username, "password": url.password}
    connections = [
        await connect(**where, database=url.database, charset="utf8mb4", autocommit=True) for _ in range(POOL)
    ]
    try:
        await connections[0].cursor().execute(_TABLE)
        yield Raw(connections)
    finally:
        for connection in connections:
            await connection.ensure_closed()


@asynccontextmanager
async def _database(url: str) -> AsyncGenerator[sa.URL]:
    given, name = sa.make_url(url), f"bench_{uuid.uuid4().hex[:12]}"
    connection = await connect(host=given.host, port=given.port, user=given.username, password=given.password)
    try:
        await connection.cursor().execute(f"CREATE DATABASE {name}")
        yield given.set(database=name)
    finally:
        await connection.cursor().execute(f"DROP DATABASE IF EXISTS {name}")
        await connection.ensure_closed()


async def write_and_outbox(directory: Path) -> list[Ratio]:
    found: list[Ratio] = []
    for server in SERVERS:
        async with _database(url_of(server.lower())) as url, _raw(url) as raw:
            found += await _measured(server, url.render_as_string(hide_password=False), directory, raw)
    return found


async def _measured(server: str, url: str, directory: Path, raw: Raw) -> list[Ratio]:
    stores = {
        "home": {"url": url, "roles": ["home", "journal"], "options": {"pool_size": POOL}},
        "search": {"url": f"sqlite:{directory}/{server}.db", "roles": ["full_text"]},
    }
    quiet = Settings(queue_max=1 << 20, backlog_soft=1 << 40, backlog_hard=1 << 40)
    async with HybridDataArchitecture.open({"stores": stores}, entities=[Item, Listed], settings=quiet) as hda:
        for line in hda.manager.lines.values():
            await line.stop()
        listed = hda.collection(Listed)

        async def put(i: int) -> None:
            await listed.put(Listed())

        alone = await interleaved(
            {"ours": lambda: per_operation(put, 200), "theirs": lambda: per_operation(raw.upsert, 200)}
        )
        together = await interleaved(
            {"ours": lambda: at_once(put, TASKS, 20), "theirs": lambda: at_once(raw.upsert_by_pool, TASKS, 20)}
        )
    name = f"write + outbox, {server}"
    found = [
        at_least(22, f"{name}, 1 task", "bare upsert, held", 0, alone["ours"], alone["theirs"]),
        at_least(22, f"{name}, {TASKS} tasks", "bare upsert, 10 held", 0, together["ours"], together["theirs"]),
    ]
    return [msgspec.structs.replace(one, target="-", met=None) for one in found]
