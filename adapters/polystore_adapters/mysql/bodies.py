"""Bodies that a database keeps for homes that cannot commit."""

from __future__ import annotations

from collections.abc import Sequence

from polystore.model import JOURNAL_BODY, JOURNAL_HELD, Held
from polystore_adapters.mysql.dialect import ident
from polystore_adapters.mysql.pool import Pool, Session
from polystore_adapters.mysql.records import Tables

_GONE = f"{JOURNAL_BODY} = NULL, {JOURNAL_HELD} = NULL"


async def settle_held(db: Session, tables: Tables, held: Sequence[Held], now_us: int) -> None:
    """See `SupportsKeptBodies`. Who writes a record holds its row while others of the batch are settled: skipped, since
    what is written now is settled by itself."""
    groups: dict[tuple[str, str, bool], dict[str, int]] = {}
    for one in held:
        groups.setdefault((one.key.etype, one.key.tenant, one.durable), {})[one.key.id] = one.version
    for (etype, tenant, durable), versions in groups.items():
        table = tables[etype]
        key, among = ident(table.key), f"ps_tenant = %s AND {ident(table.key)} IN %s"
        rows = await db.fetch(
            f"SELECT {key}, ps_version FROM {table.name} WHERE {among} AND {JOURNAL_BODY} IS NOT NULL "
            "FOR UPDATE SKIP LOCKED",
            tenant,
            table.key_values(sorted(versions)),
        )
        found = tuple(id for id, version in rows if versions[str(id)] == version)
        if found:
            change = _GONE if durable else f"{JOURNAL_HELD} = {now_us:d}"
            await db.run(f"UPDATE {table.name} SET {change} WHERE {among}", tenant, found)


async def release(pool: Pool, tables: Tables, etype: str, age_us: int, limit: int) -> int:
    """See `SupportsKeptBodies.release`."""
    async with pool.session(sent=True) as db:
        sql = f"UPDATE {tables[etype].name} SET {_GONE} WHERE {JOURNAL_HELD} < %s LIMIT %s"
        return await db.run(sql, pool.clock.now_us() - age_us, limit)
