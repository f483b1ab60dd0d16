"""Locks of a transaction on keys: buckets, so that the server's table of locks cannot fill, in ascending order, so that
no two transactions wait for one another."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from polystore.model import Key, key_hash

LOCK_CLASS = 1886614644
BUCKETS = 1024


class Again(Exception):
    """The transaction has to begin anew, with the locks of these keys too."""

    def __init__(self, keys: Collection[Key]) -> None:
        self.keys = keys


def bucket(key: Key) -> int:
    return key_hash(key.tenant, key.etype, key.id) % BUCKETS


def begin_sql(buckets: Iterable[int], *, rows: bool = False) -> str:
    """Begin a transaction with these buckets locked: what it reads afterwards is what stands. `rows`: see ROWS_SQL."""
    return f"{ROWS_SQL if rows else 'BEGIN ISOLATION LEVEL READ COMMITTED'}; {lock_sql(buckets)}"


ROWS_SQL = "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL idle_in_transaction_session_timeout = 2000"
"""Begin a transaction that locks rows of the application. Synchronous code of it may wait for one on the very thread
whose loop would have to go on with this transaction: then the server ends it, nothing is written, and it is tried
again."""


def lock_sql(buckets: Iterable[int]) -> str:
    """Lock these buckets in the transaction under way."""
    wanted = ",".join(map(str, sorted(set(buckets))))
    return f"SELECT pg_advisory_xact_lock({LOCK_CLASS}, b) FROM unnest('{{{wanted}}}'::int[]) AS b"
