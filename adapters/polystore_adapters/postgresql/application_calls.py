"""The calls of a PostgreSQL repository about tables of the application."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from polystore.model import Commit, Committed, Key, Written
from polystore_adapters.postgresql import epoch, following, joining
from polystore_adapters.postgresql.application import ApplicationTable
from polystore_adapters.postgresql.locks import ROWS_SQL
from polystore_adapters.postgresql.pool import Pool
from polystore_adapters.postgresql.records import Tables

if TYPE_CHECKING:
    import sqlalchemy as sa


class ApplicationCalls:
    """Part of `PostgresRepository`."""

    _pool: Pool
    _tables: Tables
    _data_id: str

    async def adopt(self, etype: str, cursor: str | None, limit: int) -> tuple[int, str | None]:
        ids, cursor = await following.unknown(self._pool, self._application(etype), cursor, limit)
        return await self.follow(etype, ids), cursor

    async def follow(self, etype: str, ids: Sequence[str]) -> int:
        if not ids:
            return 0
        return await epoch.going_on(self._pool, lambda: self._follow(etype, ids))

    async def _follow(self, etype: str, ids: Sequence[str]) -> int:
        async with self._pool.transaction(begin=ROWS_SQL, name="follow") as db:
            found = await following.follow(db, self._application(etype), ids)
        return sum(one.changed for one in found.values())

    async def touched(self, etypes: Sequence[str], limit: int) -> int:
        mine = following.applications(self._tables, etypes)
        return await following.touched(self._pool, self._tables, mine, limit) if mine else 0

    async def strays(self, etype: str, limit: int) -> list[Key]:
        if not following.applications(self._tables, [etype]):
            return []
        found: list[str] = []
        for part in (None, following.BEHIND):
            found += (await following.unknown(self._pool, self._application(etype), part, limit))[0]
        return [Key("", etype, id) for id in found[:limit]]

    def commit_on(
        self, connection: sa.Connection, commit: Commit, rows: Mapping[str, Sequence[str]]
    ) -> tuple[Committed, Mapping[Key, Written]]:
        self._pool.check()
        joining.check_same(connection, self._pool.place, self._data_id)
        return joining.commit_on(connection, self._pool.place, self._tables, commit, rows)

    def _application(self, etype: str) -> ApplicationTable:
        table = self._tables[etype]
        assert isinstance(table, ApplicationTable), f"{etype} is not at home in a table of the application"
        return table
