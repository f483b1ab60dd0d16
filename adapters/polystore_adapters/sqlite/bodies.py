"""The part of a SQLite repository that settles deliveries, and keeps bodies for homes that cannot commit."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from polystore.env import Env
from polystore.model import JOURNAL_BODY, JOURNAL_HELD, Held, Settlement
from polystore_adapters.sqlite import journal
from polystore_adapters.sqlite.database import Database
from polystore_adapters.sqlite.records import Tables

_GONE = f"{JOURNAL_BODY} = NULL, {JOURNAL_HELD} = NULL"


class BodyCalls:
    """Mixed into the repository, which opens the file."""

    _db: Database
    _env: Env
    _tables: Tables

    async def settle(self, settlement: Settlement) -> None:
        await self._db.write_one(self._settle, settlement, "settle", durable=False)

    def _settle(self, db: sqlite3.Connection, settlement: Settlement) -> None:
        journal.settle(db, settlement, self._env)
        _settle_held(db, self._tables, settlement.held, self._env.now_us())

    async def release(self, etype: str, age_us: int, limit: int) -> int:
        before_us, source = self._env.now_us() - age_us, self._tables[etype].source
        sql = (
            f"UPDATE {source} SET {_GONE} WHERE ps_rid IN (SELECT ps_rid FROM {source} WHERE {JOURNAL_HELD} < ? "
            "LIMIT ?)"
        )
        return await self._db.write_one(lambda db, _: db.execute(sql, (before_us, limit)).rowcount, None)


def _settle_held(db: sqlite3.Connection, tables: Tables, held: Sequence[Held], now_us: int) -> None:
    for one in held:
        table, key = tables[one.key.etype], one.key
        change = _GONE if one.durable else f"{JOURNAL_HELD} = {now_us:d}"
        db.execute(
            f'UPDATE {table.source} SET {change} WHERE ps_tenant = ? AND "{table.key}" = ? AND ps_version = ? '
            f"AND {JOURNAL_BODY} IS NOT NULL",
            (key.tenant, table.key_value(key.id), one.version),
        )
