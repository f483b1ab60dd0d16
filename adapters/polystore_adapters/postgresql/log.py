"""Lines of logs in PostgreSQL: rows like those of a copy, all of version 1, with an index on their time. A class that
changed is carried over as for records (`prepare.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from polystore.errors import SchemaMismatch
from polystore.filters import Checked
from polystore.model import Key, Line, key_hash
from polystore.protocols import Layout
from polystore.text import Phrase
from polystore_adapters.postgresql.dialect import ident
from polystore_adapters.postgresql.full_text import needle, tsquery
from polystore_adapters.postgresql.placeholders import shifted
from polystore_adapters.postgresql.pool import Pool, Session
from polystore_adapters.postgresql.table import Draft, RecordTable

_VERSION = 1


class LogTable:
    """SQL of one log."""

    def __init__(self, layout: Layout) -> None:
        self.table = table = RecordTable(msgspec.structs.replace(layout, home=False, facets=frozenset({"full_text"})))
        key = ident(table.key)
        fields = ", ".join(f"t.{ident(one)}" for one in (*table.codec.names, "ps_exact"))
        self._select = f"SELECT t.{key}::text, {fields} FROM {table.name} t WHERE t.ps_tenant = $1"
        self._count = f"SELECT count(*) FROM {table.name} t WHERE t.ps_tenant = $1"
        self._orders = {False: f't."at", t.{key}', True: f't."at" DESC, t.{key} DESC'}
        self._indexes = (
            f'CREATE INDEX IF NOT EXISTS {ident("ps_log", table.etype)} ON {table.name} (ps_tenant, "at", {key})',
            f'CREATE INDEX IF NOT EXISTS {ident("ps_age", table.etype)} ON {table.name} ("at")',
        )
        self._append = table.upsert_sql.partition(" ON CONFLICT ")[0] + " ON CONFLICT DO NOTHING"
        ttl_s = layout.entity.ttl_s
        self._first = None  # where what is kept begins
        if ttl_s is not None:
            age = f"(ps_now_us() - {int(ttl_s * 1e6)}) * interval '1 microsecond'"
            self._first = f"(timestamptz '1970-01-01 00:00:00+00' + {age})"

    async def prepare(self, db: Session) -> None:
        """The indexes on the time; the table is there."""
        for statement in self._indexes:
            await db.run(statement)

    async def append(self, pool: Pool, tenant: str, lines: Sequence[Line]) -> None:
        table = self.table
        drafts: dict[Key, Draft] = {}
        for line in lines:
            key = Key(tenant, table.etype, line.id)
            if key not in drafts:  # of two lines with one id the first counts
                h = key_hash(tenant, table.etype, line.id)
                drafts[key] = Draft(_VERSION, h, b"", 0, line.body, table.columns(key, line.body))
        if drafts:
            await pool.run(self._append, *table.arrays(drafts))

    async def lines(
        self,
        pool: Pool,
        tenant: str,
        phrases: Sequence[Phrase],
        where: Checked | None,
        limit: int,
        newest_first: bool,
    ) -> list[Line]:
        sql, given = self._select, list[Any]([tenant])
        for phrase in phrases:
            at = len(given) + 1
            sql += f" AND t.ps_terms @@ ${at}::text::tsquery AND strpos(t.ps_line, ${at + 1}) > 0"
            given += [tsquery([phrase]), needle(phrase)]
        sql, given = self._chosen(sql, given, where)
        sql += f" ORDER BY {self._orders[newest_first]} LIMIT ${len(given) + 1}"
        rows = await pool.fetch(sql, *given, limit)
        return [Line(row[0], self.table.codec.decode(row[0], row[1:])) for row in rows]

    async def count(self, pool: Pool, tenant: str, where: Checked | None) -> int:
        sql, given = self._chosen(self._count, [tenant], where)
        return int(await pool.value(sql, *given))

    def _chosen(self, sql: str, given: list[Any], where: Checked | None) -> tuple[str, list[Any]]:
        """Only lines that are young enough, and for which the condition holds."""
        if self._first is not None:
            sql += f' AND t."at" >= {self._first}'
        if where is not None:
            condition, values = self.table.statements.condition(where)
            sql += f" AND ({shifted(condition, len(given))})"
            given = [*given, *values]
        return sql, given

    async def expire(self, pool: Pool, limit: int) -> int:
        if self._first is None:
            return 0
        name = self.table.name
        sql = f'DELETE FROM {name} WHERE ctid = ANY(ARRAY(SELECT ctid FROM {name} WHERE "at" < {self._first} LIMIT $1))'
        return await pool.run(sql, limit)


class LogTables(dict[str, LogTable]):
    """Entity name -> its log, of those that this repository was prepared for."""

    def __missing__(self, etype: str) -> LogTable:
        raise SchemaMismatch(f"nothing is prepared for the log {etype!r}: prepare it with create=True first")
