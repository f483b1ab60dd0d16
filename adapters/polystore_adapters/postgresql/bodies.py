"""Bodies that a database keeps for homes that cannot commit."""

from __future__ import annotations

from collections.abc import Sequence

from polystore.model import JOURNAL_BODY, JOURNAL_HELD, Held
from polystore_adapters.postgresql.dialect import ident
from polystore_adapters.postgresql.pool import Pool, Session
from polystore_adapters.postgresql.records import Tables
from polystore_adapters.postgresql.table import RecordTable

_GONE = f"{JOURNAL_BODY} = NULL, {JOURNAL_HELD} = NULL"


async def settle_held(db: Session, tables: Tables, held: Sequence[Held]) -> None:
    """See `SupportsKeptBodies`. Who writes a record holds its row while others of the batch are settled: skipped, since
    what is written now is settled by itself. To wait for such rows in any order ended in deadlocks."""
    groups: dict[tuple[str, bool], list[Held]] = {}
    for one in held:
        groups.setdefault((one.key.etype, one.durable), []).append(one)
    for (etype, durable), some in groups.items():
        table = tables[etype]
        places = [(one.key.tenant, table.key_value(one.key.id), one.version) for one in some]
        await db.run(_held_sql(table, durable=durable), *map(list, zip(*places, strict=True)))


def _held_sql(table: RecordTable, *, durable: bool) -> str:
    key, change = ident(table.key), _GONE if durable else f"{JOURNAL_HELD} = ps_now_us()"
    return (
        f"WITH s AS MATERIALIZED (SELECT t.ps_tenant AS tenant, t.{key} AS id FROM {table.name} t JOIN "
        f"unnest($1::text[], $2::{table.key_type}[], $3::bigint[]) AS u (tenant, id, version) ON "
        f"t.ps_tenant = u.tenant AND t.{key} = u.id AND t.ps_version = u.version "
        f"WHERE t.{JOURNAL_BODY} IS NOT NULL FOR UPDATE OF t SKIP LOCKED) "
        f"UPDATE {table.name} t SET {change} FROM s WHERE t.ps_tenant = s.tenant AND t.{key} = s.id"
    )


async def release(pool: Pool, tables: Tables, etype: str, age_us: int, limit: int) -> int:
    """See `SupportsKeptBodies.release`."""
    name = tables[etype].name
    sql = (
        f"UPDATE {name} SET {_GONE} WHERE ctid = ANY(ARRAY(SELECT ctid FROM {name} WHERE {JOURNAL_HELD} < "
        "ps_now_us() - $1::bigint LIMIT $2 FOR UPDATE SKIP LOCKED))"
    )
    return await pool.run(sql, age_us, limit)
