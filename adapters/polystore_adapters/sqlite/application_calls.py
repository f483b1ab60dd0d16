"""The calls of a SQLite repository about tables of the application."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from polystore.env import Env
from polystore.model import Commit, Committed, Key, Written
from polystore_adapters.sqlite import following, joining
from polystore_adapters.sqlite.application import ApplicationTable
from polystore_adapters.sqlite.database import Database
from polystore_adapters.sqlite.following import Following
from polystore_adapters.sqlite.records import Tables

if TYPE_CHECKING:
    import sqlalchemy as sa


class ApplicationCalls:
    """Part of `SqliteRepository`."""

    path: str
    _db: Database
    _env: Env
    _tables: Tables

    async def adopt(self, etype: str, cursor: str | None, limit: int) -> tuple[int, str | None]:
        ids, cursor = await self._db.read(following.unknown, self._application(etype), cursor, limit)
        return await self.follow(etype, ids), cursor

    async def follow(self, etype: str, ids: Sequence[str]) -> int:
        if not ids:
            return 0
        found = await self._db.write_one(lambda db, given: self._following(db).follow(etype, given), ids, "follow")
        return sum(one.changed for one in found.values())

    async def touched(self, etypes: Sequence[str], limit: int) -> int:
        mine = [etype for etype in etypes if isinstance(self._tables.get(etype), ApplicationTable)]
        found = await self._db.read(following.touched, mine, limit) if mine else {}
        for etype, ids in found.items():
            await self.follow(etype, ids)
        return sum(map(len, found.values()))

    async def strays(self, etype: str, limit: int) -> list[Key]:
        table = self._tables[etype]
        if not isinstance(table, ApplicationTable):
            return []

        def look(db: sqlite3.Connection) -> list[str]:
            return [id for part in (None, following.BEHIND) for id in following.unknown(db, table, part, limit)[0]]

        return [Key("", etype, id) for id in (await self._db.read(look))[:limit]]

    def commit_on(
        self, connection: sa.Connection, commit: Commit, rows: Mapping[str, Sequence[str]]
    ) -> tuple[Committed, Mapping[Key, Written]]:
        self._db.check()
        joining.check_same(connection, self.path)
        with joining.translating(self.path):
            return joining.commit_on(connection, self._tables, self._env, commit, rows)

    def _application(self, etype: str) -> ApplicationTable:
        table = self._tables[etype]
        assert isinstance(table, ApplicationTable), f"{etype} is not at home in a table of the application"
        return table

    def _following(self, db: sqlite3.Connection) -> Following:
        return Following(db, self._tables, self._env)
