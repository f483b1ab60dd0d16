"""Which record of a file names which content: decided and written with the commits."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from polystore.model import Key, check_object_key
from polystore.relational.claims import FileClaims

TABLES = """
CREATE TABLE IF NOT EXISTS ps_file (key TEXT PRIMARY KEY, tenant TEXT, etype TEXT, id TEXT,
    state TEXT NOT NULL CHECK (state IN ('named', 'released', 'condemned')), since INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS ps_file_record ON ps_file (tenant, etype, id) WHERE state = 'named';
"""
CONDEMNED_US = 86_400_000_000
"""How long a condemned key is remembered: longer than a write whose files were checked before can be under way."""
_OF_SQL = "SELECT key FROM ps_file WHERE state = 'named' AND tenant = ? AND etype = ? AND id = ?"
_STATE_SQL = "SELECT state, tenant, etype, id, since FROM ps_file WHERE key = ?"
_PUT_SQL = "INSERT OR REPLACE INTO ps_file (key, tenant, etype, id, state, since) VALUES (?, ?, ?, ?, ?, ?)"
_RELEASE_SQL = "UPDATE ps_file SET state = 'released', tenant = NULL, etype = NULL, id = NULL, since = ? WHERE key = ?"


class Claims(FileClaims):
    """Of the commits of one transaction, which looks up what it needs. Nothing is written before `write`."""

    def __init__(self, db: sqlite3.Connection, now_us: int) -> None:
        super().__init__({}, {})
        self._db = db
        self._now_us = now_us

    def _named_by(self, key: Key) -> frozenset[str]:
        known = self._files_of.get(key)
        if known is not None:
            return known
        return frozenset(file for (file,) in self._db.execute(_OF_SQL, (key.tenant, key.etype, key.id)))

    def _standing(self, file: str) -> tuple[str, Key | None]:
        row: tuple[Any, ...] | None = self._db.execute(_STATE_SQL, (file,)).fetchone()
        if row is None:
            return "", None
        state, *holder, _ = row
        return state, Key(*holder) if state == "named" else None

    def write(self) -> None:
        db, now = self._db, self._now_us
        db.executemany(_RELEASE_SQL, [(now, file) for file, key in self.holders.items() if key is None])
        named = [(file, key) for file, key in self.holders.items() if key is not None]
        db.executemany(_PUT_SQL, [(file, key.tenant, key.etype, key.id, "named", now) for file, key in named])


def condemn(
    db: sqlite3.Connection, keys: Sequence[str], released_us: int, now_us: int, *, only_ask: bool
) -> list[bool]:
    """See `SupportsFileClaims.condemn`."""
    rows = [db.execute(_STATE_SQL, (check_object_key(key),)).fetchone() for key in keys]
    may_go = [
        row is None or row[0] == "condemned" or (row[0] == "released" and row[4] <= now_us - released_us)
        for row in rows
    ]
    if not only_ask:
        gone = [key for key, goes in zip(keys, may_go, strict=True) if goes]
        db.execute("DELETE FROM ps_file WHERE state = 'condemned' AND since <= ?", (now_us - CONDEMNED_US,))
        db.executemany(_PUT_SQL, [(key, None, None, None, "condemned", now_us) for key in gone])
    return may_go
