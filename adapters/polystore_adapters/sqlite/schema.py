"""Tables of a SQLite file: what every file has, and what the entities of this program need."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from polystore.errors import SchemaMismatch
from polystore.model import FIRST_VERSION

SCHEMA_VERSION = 4
"""Of what polystore makes. A file of a newer one is refused, an older one is brought up by `prepare`. 1: without state,
limits and facts. 2: without leases. 3: the hashes of a table's keys in one index."""

_TABLES = """
CREATE TABLE ps_meta (k TEXT PRIMARY KEY, v) WITHOUT ROWID;
CREATE TABLE ps_placement (etype TEXT PRIMARY KEY, placement TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE ps_tombstone (tenant TEXT NOT NULL, etype TEXT NOT NULL, id TEXT NOT NULL, version INTEGER NOT NULL,
    h INTEGER NOT NULL, deleted_at INTEGER NOT NULL, PRIMARY KEY (tenant, etype, id)) WITHOUT ROWID;
CREATE TABLE ps_vector (tenant TEXT NOT NULL, etype TEXT NOT NULL, id TEXT NOT NULL, field TEXT NOT NULL,
    embedder TEXT NOT NULL, text_hash BLOB NOT NULL, vec BLOB NOT NULL,
    PRIMARY KEY (tenant, etype, id, field, embedder)) WITHOUT ROWID;
CREATE TABLE ps_outbox (version INTEGER PRIMARY KEY, tenant TEXT NOT NULL, etype TEXT NOT NULL, id TEXT NOT NULL,
    h INTEGER NOT NULL, targets INTEGER NOT NULL, owner TEXT, claimed_at INTEGER, claims INTEGER NOT NULL,
    created_at INTEGER NOT NULL);
CREATE TABLE ps_retry (target TEXT NOT NULL, tenant TEXT NOT NULL, etype TEXT NOT NULL, id TEXT NOT NULL,
    h INTEGER NOT NULL, version INTEGER NOT NULL, min_version INTEGER NOT NULL, state TEXT NOT NULL,
    attempts INTEGER NOT NULL, hard_fails INTEGER NOT NULL, first_us INTEGER NOT NULL, next_us INTEGER NOT NULL,
    error_class TEXT NOT NULL, error TEXT NOT NULL, PRIMARY KEY (target, tenant, etype, id)) WITHOUT ROWID;
CREATE INDEX ps_retry_due ON ps_retry (target, next_us) WHERE state <> 'p';
CREATE INDEX ps_retry_h ON ps_retry (target, etype, h, min_version);
CREATE TABLE ps_target (etype TEXT NOT NULL, name TEXT NOT NULL, bit INTEGER NOT NULL, status TEXT NOT NULL,
    cursor TEXT, data_id TEXT NOT NULL, PRIMARY KEY (etype, name), UNIQUE (etype, bit)) WITHOUT ROWID;
CREATE TABLE ps_op (tenant TEXT NOT NULL, op_id TEXT NOT NULL, request_hash BLOB NOT NULL, answers TEXT NOT NULL,
    created_at INTEGER NOT NULL, PRIMARY KEY (tenant, op_id)) WITHOUT ROWID;
CREATE TABLE ps_mark (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""


def check_file(db: sqlite3.Connection, path: str) -> bool:
    """Whether the file has polystore's tables. Raises SchemaMismatch for a file that a newer polystore wrote."""
    if "ps_meta" not in _tables(db):
        return False
    row = db.execute("SELECT v FROM ps_meta WHERE k = 'schema'").fetchone()
    found = row[0] if row is not None else None
    if not isinstance(found, int) or found > SCHEMA_VERSION:
        raise SchemaMismatch(
            f"{path}: written by a newer polystore (schema version {found}, this one knows {SCHEMA_VERSION}); update "
            "polystore"
        )
    return True


def _tables(db: sqlite3.Connection) -> set[str]:
    return {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def data_id_of(db: sqlite3.Connection, path: str) -> str:
    """Which data this is: a file that was deleted and made anew has another one, an empty file none."""
    if not check_file(db, path):
        return ""
    (data_id,) = db.execute("SELECT v FROM ps_meta WHERE k = 'data_id'").fetchone()
    return str(data_id)


def is_current(db: sqlite3.Connection, path: str) -> bool:
    """Whether the file has all tables of this polystore."""
    sql = "SELECT 1 FROM ps_meta WHERE k = 'schema' AND v = ?"
    return check_file(db, path) and db.execute(sql, (SCHEMA_VERSION,)).fetchone() is not None


def create_tables(db: sqlite3.Connection, path: str, later: Iterable[str] = (), *, shared: bool = False) -> None:
    """Make the tables of an empty file and those that came later (`CREATE ... IF NOT EXISTS`), inside the caller's
    transaction. Raises SchemaMismatch for another program's file, unless it is to be `shared` with it."""
    if not check_file(db, path):
        # What `install_trigger` makes may be there before.
        if not shared and _tables(db):
            raise SchemaMismatch(f"{path}: the database of another program; name another file")
        for statement in _TABLES.split(";\n"):
            if statement.strip():
                db.execute(statement)
        values = "('version', ?), ('data_id', lower(hex(randomblob(16))))"
        db.execute(f"INSERT INTO ps_meta (k, v) VALUES {values}", (FIRST_VERSION,))
    for statement in later:
        db.execute(statement)
    db.execute("INSERT OR REPLACE INTO ps_meta (k, v) VALUES ('schema', ?)", (SCHEMA_VERSION,))
