"""Which record of a database names which content: read and written with the commits, under locks of the contents."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from polystore.model import Key, key_hash
from polystore_adapters.postgresql.locks import BUCKETS, begin_sql
from polystore_adapters.postgresql.pool import Pool, Session

CONDEMNED_US = 86_400_000_000
"""How long a condemned key is remembered: longer than a write whose files were checked before can be under way."""
_OF_SQL = (
    "SELECT key, tenant, etype, id FROM ps_file WHERE state = 'named' AND (tenant, etype, id) IN "
    "(SELECT * FROM unnest($1::text[], $2::text[], $3::text[]))"
)
_STATE_SQL = "SELECT key, state, tenant, etype, id, since FROM ps_file WHERE key = ANY($1::text[])"
_PUT_SQL = (
    "INSERT INTO ps_file (key, tenant, etype, id, state, since) SELECT u.*, $5, $6 FROM unnest($1::text[], $2::text[], "
    "$3::text[], $4::text[]) AS u ON CONFLICT (key) DO UPDATE SET tenant = excluded.tenant, etype = excluded.etype, "
    "id = excluded.id, state = excluded.state, since = excluded.since"
)


def file_bucket(file: str) -> int:
    """The lock of a content."""
    return key_hash("", "ps_file", file) % BUCKETS


async def files_of(db: Session, keys: Collection[Key]) -> dict[Key, frozenset[str]]:
    """What these records name."""
    given = [k.tenant for k in keys], [k.etype for k in keys], [k.id for k in keys]
    found: dict[Key, set[str]] = {key: set() for key in keys}
    for file, *key in await db.fetch(_OF_SQL, *given):
        found[Key(*key)].add(file)
    return {key: frozenset(named) for key, named in found.items()}


async def states(db: Session, files: Collection[str]) -> dict[str, tuple[str, Key | None]]:
    """State and holder of the files of which something is known."""
    rows = await db.fetch(_STATE_SQL, sorted(files))
    return {file: (state, Key(*key) if key[0] is not None else None) for file, state, *key, _ in rows}


async def write(db: Session, holders: Mapping[str, Key | None], now_us: int) -> None:
    free = sorted(file for file, key in holders.items() if key is None)
    if free:
        nothing: list[str | None] = [None] * len(free)
        await db.run(_PUT_SQL, free, nothing, nothing, nothing, "released", now_us)
    named = [(file, key) for file, key in sorted(holders.items()) if key is not None]
    if named:
        rows = [(file, key.tenant, key.etype, key.id) for file, key in named]
        await db.run(_PUT_SQL, *map(list, zip(*rows, strict=True)), "named", now_us)


async def condemn(pool: Pool, keys: Sequence[str], released_us: int, *, only_ask: bool) -> list[bool]:
    """See `SupportsFileClaims.condemn`."""
    async with pool.transaction(begin=begin_sql(map(file_bucket, keys))) as db:
        now_us: int = await db.value("SELECT ps_now_us()")
        found = {file: (state, since) for file, state, *_, since in await db.fetch(_STATE_SQL, list(keys))}
        may_go = [
            (row := found.get(key)) is None
            or row[0] == "condemned"
            or (row[0] == "released" and row[1] <= now_us - released_us)
            for key in keys
        ]
        gone = sorted({key for key, goes in zip(keys, may_go, strict=True) if goes})
        if not only_ask:
            await db.run("DELETE FROM ps_file WHERE state = 'condemned' AND since <= $1", now_us - CONDEMNED_US)
            nothing: list[str | None] = [None] * len(gone)
            await db.run(_PUT_SQL, gone, nothing, nothing, nothing, "condemned", now_us)
    return may_go
