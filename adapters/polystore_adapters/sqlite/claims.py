"""Which record of a file names which content: decided and written with the commits."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from polystore.errors import IntegrityViolation, InvalidData
from polystore.model import Key, check_object_key

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


class Claims:
    """The files that the records of one transaction's commits name. Nothing is written before `write`."""

    def __init__(self, db: sqlite3.Connection, now_us: int) -> None:
        self._db = db
        self._now_us = now_us
        self._decided: list[tuple[Key, frozenset[str], frozenset[str]]] = []
        self._holders: dict[str, Key | None] = {}
        self._files_of: dict[Key, frozenset[str]] = {}

    def claim(self, key: Key, files: frozenset[str]) -> None:
        """The record names these files and no others. Raises IntegrityViolation, InvalidData."""
        before = self._files_of.get(key)
        if before is None:
            before = frozenset(file for (file,) in self._db.execute(_OF_SQL, (key.tenant, key.etype, key.id)))
        for file in files - before:
            if self._holder(key, file) not in (None, key):
                raise IntegrityViolation(
                    f"{key.etype} {key.id!r}: another record names the file {file!r}; save the content once more"
                )
        self._decided.append((key, before, files))
        self._set(key, before, files)

    def _holder(self, key: Key, file: str) -> Key | None:
        """Who names the file, as the claims so far leave it."""
        if file in self._holders:
            return self._holders[file]
        row = self._db.execute(_STATE_SQL, (file,)).fetchone()
        if row is not None and row[0] == "condemned":
            raise InvalidData(f"{key.etype} {key.id!r}: the content of {file!r} is being removed; save it again")
        return Key(row[1], row[2], row[3]) if row is not None and row[0] == "named" else None

    def _set(self, key: Key, before: frozenset[str], after: frozenset[str]) -> None:
        self._holders.update(dict.fromkeys(before - after))
        self._holders.update(dict.fromkeys(after, key))
        self._files_of[key] = after

    @property
    def position(self) -> int:
        """Where `back` may return to."""
        return len(self._decided)

    def back(self, position: int) -> None:
        """Take back the claims since then: their commit failed."""
        while len(self._decided) > position:
            key, before, after = self._decided.pop()
            self._set(key, after, before)

    def write(self) -> None:
        db, now = self._db, self._now_us
        db.executemany(_RELEASE_SQL, [(now, file) for file, key in self._holders.items() if key is None])
        named = [(file, key) for file, key in self._holders.items() if key is not None]
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
