"""What the facets share: tables that follow the declaration, and one snapshot for several reads."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager


def follow(db: sqlite3.Connection, table: str, statements: Sequence[str]) -> bool:
    """Make a table and its indexes by these statements, the table first; True when it was made.

    SQLite keeps the text of a table's statement. A table of another text belongs to another declaration: it is dropped
    and made anew, so that the caller fills it again.
    """
    stored = db.execute("SELECT sql FROM sqlite_master WHERE name = ?", (table,)).fetchone()
    if stored is not None and stored[0] == statements[0]:
        return False
    db.execute(f'DROP TABLE IF EXISTS "{table}"')
    for statement in statements:
        db.execute(statement)
    return True


@contextmanager
def snapshot(db: sqlite3.Connection) -> Generator[None, None, None]:
    """All reads inside see one state of the file; within a transaction of the caller, that transaction's."""
    if db.in_transaction:
        yield
        return
    db.execute("BEGIN")
    try:
        yield
    finally:
        db.rollback()  # nothing was written; no error when an interrupt has ended the transaction already


def json_list(values: Iterable[int | str]) -> str:
    """The parameter of `json_each(?)`: any number of values as one."""
    return json.dumps(list(values))
