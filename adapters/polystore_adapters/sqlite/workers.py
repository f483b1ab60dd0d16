"""The part of a SQLite repository that is about workers: who lives, and who may do what only one may do at a time."""

from __future__ import annotations

import sqlite3

from polystore.env import Env
from polystore_adapters.sqlite import journal
from polystore_adapters.sqlite.database import Database
from polystore_adapters.sqlite.errors import translating
from polystore_adapters.sqlite.liveness import Liveness

TABLES = (
    "CREATE TABLE IF NOT EXISTS ps_lease (name TEXT PRIMARY KEY, owner TEXT NOT NULL, until INTEGER NOT NULL) "
    "WITHOUT ROWID",
)
_HOLD_SQL = (
    "INSERT INTO ps_lease (name, owner, until) VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE SET "
    "owner = excluded.owner, until = excluded.until WHERE owner = excluded.owner OR until <= ?"
)


class WorkerCalls:
    """Mixed into the repository, which opens the file."""

    path: str
    _db: Database
    _env: Env
    _liveness: Liveness

    async def beat(self, worker: str) -> frozenset[str]:
        self._db.check()
        with translating(self.path):
            self._liveness.register(worker)
            return self._liveness.live()

    async def retire(self, worker: str) -> None:
        await self._db.write_one(journal.retire, worker)
        with translating(self.path):
            self._liveness.release(worker)

    async def hold_lease(self, name: str, worker: str, ttl_s: float) -> bool:
        return await self._db.write_one(self._hold, (name, worker, int(ttl_s * 1e6)), durable=False)

    def _hold(self, db: sqlite3.Connection, lease: tuple[str, str, int]) -> bool:
        name, worker, ttl_us = lease
        now = self._env.now_us()
        return db.execute(_HOLD_SQL, (name, worker, now + ttl_us, now)).rowcount == 1
