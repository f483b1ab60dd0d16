"""Many rows of one table in few statements."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from itertools import chain
from typing import Any

ROWS_MAX = 500
"""Rows of one statement. `executemany` gives the interpreter lock away and takes it back with every row; here other
threads run while SQLite is at work on all of them."""
PARAMETERS_MAX = 32_766 if sqlite3.sqlite_version_info >= (3, 32) else 999
"""Parameters of one statement: https://sqlite.org/limits.html#max_variable_number ."""


class Insert:
    """`INSERT INTO table (columns)`; `then` follows the values: what to do about a conflict.

    Without it a conflict is the end of the transaction, and until then rows of the statement may stand: to take them
    back SQLite would keep a copy of each page that it changes (https://sqlite.org/lang_conflict.html)."""

    def __init__(self, table: str, columns: Sequence[str], then: str = "") -> None:
        self._width = len(columns)
        self._rows = max(1, min(ROWS_MAX, PARAMETERS_MAX // len(columns)))
        verb = "INSERT" if then else "INSERT OR FAIL"
        into, row = f"{verb} INTO {table} ({', '.join(columns)}) VALUES ", f"({', '.join('?' * len(columns))})"
        self._one = f"{into}{row}{then}"
        self._block = f"{into}{', '.join([row] * self._rows)}{then}"

    def flat(self, db: sqlite3.Connection, values: list[Any]) -> None:
        """As `run`, of the rows' values one after the other: no row is an object of its own."""
        size = self._rows * self._width
        whole = len(values) - len(values) % size
        for start in range(0, whole, size):
            db.execute(self._block, values[start : start + size])
        if whole < len(values):
            db.executemany(self._one, zip(*[iter(values[whole:])] * self._width, strict=True))

    def run(self, db: sqlite3.Connection, rows: Sequence[Sequence[Any]]) -> None:
        whole = len(rows) - len(rows) % self._rows
        if whole:
            self.flat(db, list(chain.from_iterable(rows[:whole])))
        if whole < len(rows):
            db.executemany(self._one, rows[whole:])
