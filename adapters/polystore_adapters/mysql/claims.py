"""Which record of a database names which content: read and written with the commits, under locks of the contents."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from polystore.model import Key, check_object_key, key_hash
from polystore_adapters.mysql.locks import lock
from polystore_adapters.mysql.pool import Pool, Session
from polystore_adapters.mysql.schema import BUCKETS

CONDEMNED_US = 86_400_000_000
"""How long a condemned key is remembered: longer than a write whose files were checked before can be under way."""
_PUT_SQL = "REPLACE INTO ps_file (name, tenant, etype, id, state, since)"


def file_bucket(file: str) -> int:
    """The lock of a content."""
    return key_hash("", "ps_file", file) % BUCKETS


async def files_of(db: Session, keys: Collection[Key]) -> dict[Key, frozenset[str]]:
    """What these records name."""
    found: dict[Key, set[str]] = {key: set() for key in keys}
    if keys:
        sql = "SELECT name, tenant, etype, id FROM ps_file WHERE state = 'named' AND (tenant, etype, id) IN %s"
        places = tuple(sorted((key.tenant, key.etype, key.id) for key in keys))
        for file, *key in await db.fetch(sql, places):
            found[Key(*key)].add(file)
    return {key: frozenset(named) for key, named in found.items()}


async def states(db: Session, files: Collection[str]) -> dict[str, tuple[str, Key | None, int]]:
    """State, holder and since when, of the files of which something is known."""
    if not files:
        return {}
    rows = await db.fetch(
        "SELECT name, state, tenant, etype, id, since FROM ps_file WHERE name IN %s", tuple(sorted(files))
    )
    return {file: (state, Key(*key) if key[0] is not None else None, since) for file, state, *key, since in rows}


async def write(db: Session, holders: Mapping[str, Key | None], now_us: int) -> None:
    await db.insert(
        _PUT_SQL,
        [
            (file, None, None, None, "released", now_us)
            if key is None
            else (file, key.tenant, key.etype, key.id, "named", now_us)
            for file, key in sorted(holders.items())
        ],
    )


async def condemn(pool: Pool, keys: Sequence[str], released_us: int, *, only_ask: bool) -> list[bool]:
    """See `SupportsFileClaims.condemn`."""
    files = [check_object_key(key) for key in keys]
    async with pool.transaction() as db:
        await lock(db, {file_bucket(file) for file in files})
        now_us = pool.clock.now_us()
        known = await states(db, files)
        may_go = [
            (row := known.get(file)) is None
            or row[0] == "condemned"
            or (row[0] == "released" and row[2] <= now_us - released_us)
            for file in files
        ]
        if not only_ask:
            gone = sorted({file for file, goes in zip(files, may_go, strict=True) if goes})
            await db.run("DELETE FROM ps_file WHERE state = 'condemned' AND since <= %s", now_us - CONDEMNED_US)
            await db.insert(_PUT_SQL, [(file, None, None, None, "condemned", now_us) for file in gone])
    return may_go
