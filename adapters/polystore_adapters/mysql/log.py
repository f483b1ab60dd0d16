"""Lines of logs in MariaDB: rows like those of a copy, all of version 1, with an index on their time. A class that
changed is carried over as for records (`prepare.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from polystore.errors import SchemaMismatch
from polystore.filters import Checked
from polystore.model import Key, Line, key_hash
from polystore.protocols import Layout
from polystore.relational.deciding import Draft
from polystore.text import Phrase
from polystore_adapters.mysql.dialect import encode_datetime, ident
from polystore_adapters.mysql.full_text import HOLDS, needle, words
from polystore_adapters.mysql.pool import Pool
from polystore_adapters.mysql.table import RecordTable

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_VERSION = 1


class LogTable:
    """SQL of one log."""

    def __init__(self, layout: Layout) -> None:
        key = ident(layout.entity.key)
        self.table = table = RecordTable(
            msgspec.structs.replace(layout, home=False, facets=frozenset({"full_text"})),
            {"ps_log": f"KEY {{}} (ps_tenant, `at`, {key})", "ps_age": "KEY {} (`at`)"},
        )
        fields = ", ".join(f"t.{ident(one)}" for one in (*table.codec.names, "ps_exact"))
        self._select = f"SELECT t.{key}, {fields} FROM {table.name} AS t WHERE t.ps_tenant = %s"
        self._count = f"SELECT COUNT(*) FROM {table.name} AS t WHERE t.ps_tenant = %s"
        self._orders = {False: f"t.`at`, t.{key}", True: f"t.`at` DESC, t.{key} DESC"}
        ttl_s = layout.entity.ttl_s
        self._ttl = None if ttl_s is None else timedelta(seconds=ttl_s)

    async def append(self, pool: Pool, tenant: str, lines: Sequence[Line]) -> None:
        table = self.table
        drafts: dict[Key, Draft] = {}
        for line in lines:
            key = Key(tenant, table.etype, line.id)
            if key not in drafts:  # of two lines with one id the first counts
                h = key_hash(tenant, table.etype, line.id)
                drafts[key] = Draft(_VERSION, h, b"", 0, line.body, table.columns(key, line.body))
        if drafts:
            async with pool.transaction(name="lines") as db:
                as_it_is = "ON DUPLICATE KEY UPDATE ps_version = ps_version"
                await db.insert(table.insert_sql, table.rows(drafts), as_it_is, texts=True)

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
            sql += f" AND {HOLDS}"
            given += [words([phrase]), needle(phrase)]
        async with pool.session() as db:
            chosen, values = self._chosen(pool, where)
            sql += f"{chosen} ORDER BY {self._orders[newest_first]} LIMIT %s"
            rows = await db.fetch(sql, *given, *values, limit)
        return [Line(str(row[0]), self.table.codec.decode(str(row[0]), row[1:])) for row in rows]

    async def count(self, pool: Pool, tenant: str, where: Checked | None) -> int:
        async with pool.session() as db:
            chosen, values = self._chosen(pool, where)
            return int(await db.value(self._count + chosen, tenant, *values))

    def _chosen(self, pool: Pool, where: Checked | None) -> tuple[str, list[Any]]:
        """Only lines that are young enough, and for which the condition holds."""
        sql, given = "", list[Any]()
        first = self._first(pool)
        if first is not None:
            sql += " AND t.`at` >= %s"
            given.append(first)
        if where is not None:
            condition, values = self.table.statements.condition(where)
            sql += f" AND ({condition})"
            given += values
        return sql, given

    def _first(self, pool: Pool) -> str | None:
        """Where what is kept begins."""
        if self._ttl is None:
            return None
        return encode_datetime(_EPOCH + timedelta(microseconds=pool.clock.now_us()) - self._ttl)

    async def expire(self, pool: Pool, limit: int) -> int:
        async with pool.session(sent=True) as db:
            first = self._first(pool)
            if first is None:
                return 0
            return await db.run(f"DELETE FROM {self.table.name} WHERE `at` < %s LIMIT %s", first, limit)


class LogTables(dict[str, LogTable]):
    """Entity name -> its log, of those that this repository was prepared for."""

    def __missing__(self, etype: str) -> LogTable:
        raise SchemaMismatch(f"nothing is prepared for the log {etype!r}: prepare it with create=True first")
