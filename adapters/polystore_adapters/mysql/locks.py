"""Locks of `ps_lock`: for what has no row that could be locked."""

from __future__ import annotations

from collections.abc import Collection

from polystore.model import Key, key_hash
from polystore_adapters.mysql.pool import Session
from polystore_adapters.mysql.schema import BUCKETS

_LOCK_SQL = "SELECT b FROM ps_lock WHERE b IN %s ORDER BY b FOR UPDATE"


def bucket(key: Key) -> int:
    return key_hash(key.tenant, key.etype, key.id) % BUCKETS


def lock_later(db: Session, buckets: Collection[int]) -> None:
    """As `lock`, with the statements that are sent next."""
    if buckets:
        db.later(_LOCK_SQL, tuple(sorted(set(buckets))))


async def lock(db: Session, buckets: Collection[int]) -> None:
    """Wait until the buckets are ours, in ascending order; until the end of the transaction."""
    lock_later(db, buckets)
    await db.flush()
