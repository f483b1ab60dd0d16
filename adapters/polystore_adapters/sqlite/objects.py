"""Blobs in a SQLite file: parts as rows, each written in a short transaction of its own.

A stream so never holds the file for longer than a part takes, and commits of records go between its parts. The parts
belong to an upload until one row in `ps_object` makes them content. Content that was removed is an upload again, which
nobody touched for ever, until its parts are freed some at a time.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from polystore.errors import AlreadyExists, NotFound, StoreCorrupt
from polystore.model import StoredObject, Upload, check_object_key
from polystore_adapters.sqlite import claims
from polystore_adapters.sqlite.schema import check_file, create_tables

PART_BYTES = 256 << 10
FREED_MAX = 64
"""Parts that one transaction frees: about 20 ms."""
ROUNDS_MAX = 16
"""Such transactions of one call."""
_PART_BITS = 24
_TABLES = """
CREATE TABLE IF NOT EXISTS ps_upload (rid INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE,
    touched_us INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS ps_upload_touched ON ps_upload (touched_us);
CREATE TABLE IF NOT EXISTS ps_part (place INTEGER PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS ps_object (key TEXT PRIMARY KEY, rid INTEGER NOT NULL, part_bytes INTEGER NOT NULL,
    size INTEGER NOT NULL, sha256 TEXT NOT NULL, content_type TEXT NOT NULL, created_us INTEGER NOT NULL) WITHOUT ROWID;
"""
_TOUCH_SQL = (
    "INSERT INTO ps_upload (id, touched_us) VALUES (?, ?) "
    "ON CONFLICT (id) DO UPDATE SET touched_us = excluded.touched_us RETURNING rid"
)
_STAT_SQL = "SELECT key, size, sha256, content_type, created_us FROM ps_object"
_COUNT_SQL = "SELECT count(*), coalesce(sum(length(data)), 0) FROM ps_part WHERE place >= ? AND place < ?"
_FREE_SQL = "DELETE FROM ps_part WHERE place IN (SELECT place FROM ps_part WHERE place >= ? AND place < ? LIMIT ?)"
_REMOVE_SQL = (
    "INSERT INTO ps_upload (rid, id, touched_us) SELECT rid, 'removed ' || rid, 0 FROM ps_object WHERE key = ?"
)


def ready(db: sqlite3.Connection) -> bool:
    """Whether the file has the tables of blobs and of the files that records name."""
    sql = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name IN ('ps_object', 'ps_file')"
    return bool(db.execute(sql).fetchone()[0] == 2)


def create(db: sqlite3.Connection, path: str) -> None:
    """Make these tables, inside the caller's transaction."""
    if not check_file(db, path):
        create_tables(db, path)
    for statement in f"{_TABLES}{claims.TABLES}".split(";\n"):
        if statement.strip():
            db.execute(statement)


def _places(rid: int) -> tuple[int, int]:
    """Where the parts of an upload are in the table of all parts."""
    return rid << _PART_BITS, (rid + 1) << _PART_BITS


def put_part(db: sqlite3.Connection, upload: Upload, index: int, data: bytes, now_us: int) -> None:
    (rid,) = db.execute(_TOUCH_SQL, (upload.id, now_us)).fetchone()
    db.execute("INSERT OR REPLACE INTO ps_part (place, data) VALUES (?, ?)", (_places(rid)[0] + index, data))


def finish(db: sqlite3.Connection, upload: Upload, made: StoredObject, now_us: int) -> None:
    (standing,) = stat(db, [upload.key])
    if standing is not None:
        if not standing.same_content(made):
            raise AlreadyExists(f"object {upload.key!r} exists already, with other content")
        abandon(db, upload)
        return
    if not made.size:
        db.execute(_TOUCH_SQL, (upload.id, now_us)).fetchone()
    row = db.execute("SELECT rid FROM ps_upload WHERE id = ?", (upload.id,)).fetchone()
    parts = -(-made.size // PART_BYTES)
    if row is None or db.execute(_COUNT_SQL, _places(row[0])).fetchone() != (parts, made.size):
        raise NotFound(f"object {upload.key!r}: parts of the upload are missing; save the content again")
    values = (upload.key, row[0], PART_BYTES, made.size, made.sha256, made.content_type, now_us)
    db.execute("INSERT INTO ps_object VALUES (?, ?, ?, ?, ?, ?, ?)", values)
    db.execute("DELETE FROM ps_upload WHERE rid = ?", (row[0],))


def abandon(db: sqlite3.Connection, upload: Upload) -> None:
    """The parts are then freed as those of removed content."""
    db.execute("UPDATE ps_upload SET touched_us = 0 WHERE id = ?", (upload.id,))


def read(db: sqlite3.Connection, path: str, key: str, start: int, end: int) -> bytes:
    row = db.execute("SELECT rid, part_bytes, size FROM ps_object WHERE key = ?", (key,)).fetchone()
    if row is None:
        raise NotFound(f"object {key!r} does not exist")
    rid, part_bytes, size = row
    end = min(end, size)
    if start >= end:
        return b""
    first, last = start // part_bytes, (end - 1) // part_bytes
    sql = "SELECT data FROM ps_part WHERE place BETWEEN ? AND ? ORDER BY place"
    low = _places(rid)[0]
    data = b"".join([data for (data,) in db.execute(sql, (low + first, low + last))])
    found = data[start - first * part_bytes : end - first * part_bytes]
    if len(data) != min(size, (last + 1) * part_bytes) - first * part_bytes:
        raise StoreCorrupt(f"{path}: parts of the object are missing or too short; restore the file", key=key)
    return found


def stat(db: sqlite3.Connection, keys: Sequence[str]) -> list[StoredObject | None]:
    rows = [db.execute(f"{_STAT_SQL} WHERE key = ?", (key,)).fetchone() for key in keys]
    return [None if row is None else StoredObject(*row) for row in rows]


def listed(db: sqlite3.Connection, prefix: str, after: str, limit: int) -> list[StoredObject]:
    sql = f"{_STAT_SQL} WHERE key > ? AND key >= ? AND key < ? ORDER BY key LIMIT ?"
    rows = db.execute(sql, (after, prefix, f"{prefix}\x7f", limit))  # keys end below \x7f
    return [StoredObject(*row) for row in rows]


def remove(db: sqlite3.Connection, keys: Sequence[str]) -> None:
    for key in keys:
        db.execute(_REMOVE_SQL, (check_object_key(key),))
        db.execute("DELETE FROM ps_object WHERE key = ?", (key,))


def idle(db: sqlite3.Connection, before_us: int) -> int | None:
    """An upload that may be freed."""
    row = db.execute("SELECT rid FROM ps_upload WHERE touched_us <= ? LIMIT 1", (before_us,)).fetchone()
    return None if row is None else int(row[0])


def free(db: sqlite3.Connection, before_us: int) -> None:
    """Free some parts of an upload that nobody touched since then, and with the last ones the upload."""
    rid = idle(db, before_us)
    if rid is not None and db.execute(_FREE_SQL, (*_places(rid), FREED_MAX)).rowcount < FREED_MAX:
        db.execute("DELETE FROM ps_upload WHERE rid = ?", (rid,))
