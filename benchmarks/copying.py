"""Row 24, row 6 on a server: `import_many` into PostgreSQL, every record owed to a copy, against COPY by hand.

Needs the PostgreSQL of `make up`. Nobody delivers meanwhile, on any side."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.data import Listed
from benchmarks.imports import LARGE, compared
from benchmarks.measure import Ratio
from benchmarks.postgresql import asyncpg
from benchmarks.servers import url_of
from polystore import HybridDataArchitecture
from polystore.collection.importing import CHUNK_MAX
from polystore.consistency import Settings
from polystore.model import key_hash

_RECORD = (
    "CREATE TABLE {name} (ps_tenant text NOT NULL, ps_h bigint NOT NULL, ps_version bigint NOT NULL, ps_hash bytea "
    "NOT NULL, ps_updated_at bigint NOT NULL, ps_expires_at bigint, id text NOT NULL, owner text, title text, body "
    "text, stars bigint, ratio double precision, ps_exact jsonb, PRIMARY KEY (ps_tenant, id))"
)
_OUTBOX = (
    "CREATE TABLE {name} (version bigint PRIMARY KEY, tenant text NOT NULL, etype text NOT NULL, id text NOT NULL, "
    "h bigint NOT NULL, targets bigint NOT NULL, owner text, claimed_at bigint, claims integer NOT NULL, "
    "created_at bigint NOT NULL)"
)


class ByCopy:
    """The same columns and the same durability, one transaction for each `size` values: nothing read before, nothing
    checked, no hash of the content computed, versions counted here. `hashes`: with the index that `verify` walks."""

    def __init__(self, db: Any, name: str, size: int = LARGE) -> None:
        self._db = db
        self._name = name
        self._size = size
        self._version = 0

    async def prepare(self, *, hashes: bool = False) -> None:
        await self._db.execute(_RECORD.format(name=self._name))
        await self._db.execute(_OUTBOX.format(name=f"{self._name}_outbox"))
        if hashes:
            await self._db.execute(f"CREATE INDEX ON {self._name} (ps_tenant, ps_h)")

    async def import_many(self, values: Sequence[Listed]) -> None:
        rest = iter(values)
        while part := list(islice(rest, self._size)):
            now_us = time.time_ns() // 1000
            rows = [
                (version, key_hash("", "listed", one.id), one)
                for version, one in enumerate(part, start=self._version + 1)
            ]
            records = [
                (
                    *("", h, version, bytes(16), now_us, None),
                    *(one.id, one.owner, one.title, one.body, one.stars, one.ratio, None),
                )
                for version, h, one in rows
            ]
            owed = [(version, "", "listed", one.id, h, 1, None, None, 0, now_us) for version, h, one in rows]
            async with self._db.transaction():
                await self._db.copy_records_to_table(self._name, records=records)
                await self._db.copy_records_to_table(f"{self._name}_outbox", records=owed)
            self._version += len(part)


async def ten_thousand(directory: Path) -> list[Ratio]:
    return await _measured(directory, "import_many of 10,000 into PostgreSQL", 10_000, 7)


async def million(directory: Path) -> list[Ratio]:
    """Into tables that grow to a million."""
    return await _measured(directory, "import_many of 1,000,000 into PostgreSQL in ten parts", 100_000, 9)


async def _measured(directory: Path, name: str, count: int, rounds: int) -> list[Ratio]:
    url, schema = url_of("postgresql"), f"bench_{uuid.uuid4().hex[:12]}"
    db = await asyncpg.connect(url, server_settings={"search_path": schema, "synchronous_commit": "on"})
    try:
        await db.execute(f"CREATE SCHEMA {schema}")
        by_hand = {one: ByCopy(db, one, CHUNK_MAX if one == "small" else LARGE) for one in ("bare", "small", "indexed")}
        for one, contender in by_hand.items():
            await contender.prepare(hashes=one == "indexed")
        durable = f"{url}{'&' if '?' in url else '?'}synchronous_commit=on"
        stores = {
            "home": {"url": durable, "roles": ["home", "journal"], "options": {"schema": schema}},
            "search": {"url": f"sqlite:{directory}/{schema}.db", "roles": ["full_text"]},
        }
        settings = Settings(queue_max=CHUNK_MAX - 1, backlog_soft=1 << 40, backlog_hard=1 << 40)
        async with HybridDataArchitecture.open({"stores": stores}, entities=[Listed], settings=settings) as hda:
            for line in hda.manager.lines.values():
                await line.stop()
            return await compared(24, name, "COPY + COPY of the outbox", hda.collection(Listed), by_hand, count, rounds)
    finally:
        await db.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
        await db.close()
