"""A database that was put back from the past goes on above the versions that copies may hold."""

from __future__ import annotations

from polystore.model import EPOCH_BITS, JOURNAL_BODY, JOURNAL_HELD
from polystore.relational.serving import load_served
from polystore_adapters.mysql.dialect import ident
from polystore_adapters.mysql.locks import lock
from polystore_adapters.mysql.pool import Pool
from polystore_adapters.mysql.schema import BUCKETS, TARGETS_LOCK

_KEPT_SQL = "SELECT table_name FROM information_schema.columns WHERE table_schema = DATABASE() AND column_name = %s"


async def begin(pool: Pool) -> int:
    """Begin the next epoch; see `SupportsEpoch`. Under the locks of all keys: commits under way end first. The counter
    is no part of the transaction: should that fail, versions are left out."""
    async with pool.transaction(name="epoch") as db:
        await lock(db, [*range(BUCKETS), TARGETS_LOCK])
        number = (int(await db.value(db.flavour.newest)) >> EPOCH_BITS) + 1
        version = (number << EPOCH_BITS) + 1
        for statement in db.flavour.go_on(version):
            db.later(statement)
        kept = {str(name) for (name,) in await db.fetch(_KEPT_SQL, JOURNAL_BODY)}
        for name, served in await db.fetch("SELECT k, v FROM ps_meta WHERE k LIKE 'served:%%'"):
            etype = str(name).removeprefix("served:")
            if not load_served(served).home:
                continue
            if etype in kept:
                change = f"ps_version = %s, {JOURNAL_HELD} = NULL"  # the home held the body at the version before
                db.later(f"UPDATE {ident(etype)} SET {change} WHERE {JOURNAL_BODY} IS NOT NULL", version)
                db.later("UPDATE ps_tombstone SET version = %s WHERE etype = %s", version, etype)
                continue
            db.later(f"UPDATE {ident(etype)} SET ps_version = %s", version)
            db.later("UPDATE ps_tombstone SET version = %s WHERE etype = %s", version, etype)
            sql = "UPDATE ps_target SET status = 'backfilling', cur = NULL WHERE status <> 'off' AND etype = %s"
            db.later(sql, etype)
    return number
