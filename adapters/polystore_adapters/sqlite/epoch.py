"""A file that was put back from the past goes on above the versions that copies may hold."""

from __future__ import annotations

import sqlite3

from polystore.model import EPOCH_BITS, JOURNAL_BODY, JOURNAL_HELD
from polystore.relational.serving import load_served
from polystore_adapters.sqlite.database import Database


class EpochCalls:
    """Part of `SqliteRepository`."""

    _db: Database

    async def bump_epoch(self) -> int:
        return await self._db.write_one(lambda db, _: begin(db), None, "epoch")


def begin(db: sqlite3.Connection) -> int:
    """Begin the next epoch; see `SupportsEpoch`."""
    drawn: int = db.execute("SELECT v FROM ps_meta WHERE k = 'version'").fetchone()[0]
    number = (drawn >> EPOCH_BITS) + 1
    version = (number << EPOCH_BITS) + 1
    db.execute("UPDATE ps_meta SET v = ? WHERE k = 'version'", (version,))
    for etype, served in db.execute("SELECT substr(k, 8), v FROM ps_meta WHERE k GLOB 'served:*'").fetchall():
        if not load_served(served).home:
            continue
        columns = {row[1] for row in db.execute(f'PRAGMA table_info("{etype}")')}
        if JOURNAL_BODY in columns:
            # The home held the body at the version before.
            change = f'UPDATE "{etype}" SET ps_version = ?, {JOURNAL_HELD} = NULL WHERE {JOURNAL_BODY} IS NOT NULL'
            db.execute(change, (version,))
            db.execute("UPDATE ps_tombstone SET version = ? WHERE etype = ?", (version, etype))
            continue
        if "ps_version" in columns:
            db.execute(f'UPDATE "{etype}" SET ps_version = ?', (version,))
        else:  # a table of the application
            db.execute("UPDATE ps_row SET version = ? WHERE etype = ?", (version, etype))
        db.execute("UPDATE ps_tombstone SET version = ? WHERE etype = ?", (version, etype))
        db.execute(
            "UPDATE ps_target SET status = 'backfilling', cursor = NULL WHERE status <> 'off' AND etype = ?", (etype,)
        )
    return number
