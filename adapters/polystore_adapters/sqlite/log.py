"""Lines of logs in a SQLite file: rows like those of records, all of version 1, with the words of their texts beside
them and an index on their time. A class that changed is carried over as for records (`prepare.py`)."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import msgspec

from polystore.errors import SchemaMismatch
from polystore.filters import All, Checked, Compare
from polystore.model import Key, Line, key_hash
from polystore.protocols import Layout
from polystore.text import Phrase, fts5_match
from polystore_adapters.sqlite.table import Draft, RecordTable

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_VERSION = 1


class LogTable:
    """SQL of one log."""

    def __init__(self, layout: Layout) -> None:
        self.table = RecordTable(msgspec.structs.replace(layout, home=False, facets=frozenset({"full_text"})), 0)
        name, key = self.table.etype, self.table.key
        fields = ", ".join(f't."{field}"' for field in self.table.codec.names)
        self._select = f'SELECT CAST(t."{key}" AS TEXT), {fields} FROM "{name}" AS t WHERE t.ps_tenant = ?'
        self._words = f'AND t.ps_rid IN (SELECT rowid FROM "ps_text_{name}" WHERE "ps_text_{name}" MATCH ?)'
        self._orders = {False: f't."at", t."{key}"', True: f't."at" DESC, t."{key}" DESC'}
        self._index = f'CREATE INDEX IF NOT EXISTS "ps_log_{name}" ON "{name}" (ps_tenant, "at", "{key}")'
        self._old = f'SELECT ps_rid FROM "{name}" WHERE "at" < ? LIMIT ?'
        self._ages = f'CREATE INDEX IF NOT EXISTS "ps_age_{name}" ON "{name}" ("at")'
        self._delete = f'DELETE FROM "{name}" WHERE ps_rid = ?'
        ttl_s = layout.entity.ttl_s
        self._ttl = None if ttl_s is None else timedelta(seconds=ttl_s)

    def prepare(self, db: sqlite3.Connection) -> None:
        """The indexes on the time; the table is there."""
        db.execute(self._index)
        db.execute(self._ages)

    def append(self, db: sqlite3.Connection, tenant: str, lines: Sequence[Line]) -> None:
        table = self.table
        new = {line.id: line for line in reversed(lines)}  # of two lines with one id the first counts
        known = table.stored(db, tenant, list(new), bodies=False)
        drafts: dict[Key, Draft] = {}
        for id, line in reversed(new.items()):
            if id not in known:
                key = Key(tenant, table.etype, id)
                h = key_hash(tenant, table.etype, id)
                drafts[key] = Draft(_VERSION, h, b"", 0, line.body, table.columns(key, line.body))
        table.write(db, {}, drafts)

    def lines(
        self,
        db: sqlite3.Connection,
        tenant: str,
        phrases: Sequence[Phrase],
        where: Checked | None,
        limit: int,
        newest_first: bool,
        now_us: int,
    ) -> list[Line]:
        condition = self._young(where, now_us)
        parts, parameters = [self._select], [tenant]
        if phrases:
            parts.append(self._words)
            parameters.append(fts5_match(phrases))
        if condition is not None:
            sql, values = self.table.statements.condition(condition)
            parts.append(f"AND ({sql})")
            parameters.extend(values)
        parts.append(f"ORDER BY {self._orders[newest_first]} LIMIT ?")
        rows = db.execute(" ".join(parts), (*parameters, limit))
        return [Line(id, self.table.codec.decode(id, tuple(fields))) for id, *fields in rows]

    def count(self, db: sqlite3.Connection, tenant: str, where: Checked | None, now_us: int) -> int:
        sql, parameters = self.table.statements.count(tenant, self._young(where, now_us))
        return int(db.execute(sql, parameters).fetchone()[0])

    def expire(self, db: sqlite3.Connection, limit: int, now_us: int) -> int:
        before = self._before(now_us)
        if before is None:
            return 0
        rids = [rid for (rid,) in db.execute(self._old, (before.isoformat(timespec="microseconds"), limit))]
        for facet in self.table.facets:
            facet.remove(db, rids)
        db.executemany(self._delete, [(rid,) for rid in rids])
        return len(rids)

    def _before(self, now_us: int) -> datetime | None:
        return None if self._ttl is None else _EPOCH + timedelta(microseconds=now_us) - self._ttl

    def _young(self, where: Checked | None, now_us: int) -> Checked | None:
        before = self._before(now_us)
        if before is None:
            return where
        young = Compare(("at",), ">=", before, "datetime")
        return young if where is None else All((young, where))


class LogTables(dict[str, LogTable]):
    """Entity name -> its log, of those that this repository was prepared for."""

    def __missing__(self, etype: str) -> LogTable:
        raise SchemaMismatch(f"nothing is prepared for the log {etype!r}: prepare it with create=True first")
