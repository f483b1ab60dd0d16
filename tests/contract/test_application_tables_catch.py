"""The kit's class of application tables is tested too: homes broken on purpose fail on the right test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from polystore_adapters.sqlite import joining
from polystore_adapters.sqlite.following import Following
from polystore_adapters.sqlite.options import Options
from polystore_adapters.sqlite.repository import SqliteRepository

from polystore.env import Env
from polystore.errors import PolystoreError
from polystore.model import Commit, Committed, Key, Written
from polystore.protocols import Repository
from polystore.testing.conformance import ApplicationTablesConformance

if TYPE_CHECKING:
    import sqlite3

    import sqlalchemy as sa

Joined = tuple[Committed, Mapping[Key, Written]]


class AdoptsTheFirstRows(SqliteRepository):
    async def adopt(self, etype: str, cursor: str | None, limit: int) -> tuple[int, str | None]:
        count, _ = await super().adopt(etype, cursor, limit)
        return count, None


class AdoptsInOnePiece(SqliteRepository):
    async def adopt(self, etype: str, cursor: str | None, limit: int) -> tuple[int, str | None]:
        return await super().adopt(etype, cursor, 10_000)


class ForgetsToOwe(SqliteRepository):
    def _following(self, db: sqlite3.Connection) -> Following:
        one = super()._following(db)
        one._masks.clear()  # pyright: ignore[reportPrivateUsage]
        return one


class TakesEveryRowForChanged(SqliteRepository):
    async def follow(self, etype: str, ids: Sequence[str]) -> int:
        await self._db.write_one(lambda db, _: db.execute("UPDATE ps_row SET hash = x'00'"), None)
        return await super().follow(etype, ids)


class SeesNoStrays(SqliteRepository):
    async def strays(self, etype: str, limit: int) -> list[Key]:
        return []


class HearsWithoutListening(SqliteRepository):
    async def touched(self, etypes: Sequence[str], limit: int) -> int:
        return 0


class HearsAgainAndAgain(SqliteRepository):
    async def touched(self, etypes: Sequence[str], limit: int) -> int:
        found = await self._db.read(lambda db: db.execute("SELECT etype, id FROM ps_touch").fetchall())
        count = await super().touched(etypes, limit)
        sql = "INSERT OR IGNORE INTO ps_touch VALUES (?, ?)"
        await self._db.write_one(lambda db, rows: db.executemany(sql, rows), found)
        return count


class EndsTheCallersTransaction(SqliteRepository):
    def commit_on(self, connection: sa.Connection, commit: Commit, rows: Mapping[str, Sequence[str]]) -> Joined:
        done = super().commit_on(connection, commit, rows)
        connection.commit()
        return done


class JoinsWithoutTheRows(SqliteRepository):
    def commit_on(self, connection: sa.Connection, commit: Commit, rows: Mapping[str, Sequence[str]]) -> Joined:
        committed, _ = super().commit_on(connection, commit, {})
        return committed, {Key("", etype, id): Written(0, True) for etype, ids in rows.items() for id in ids}


class JoinsAnything(SqliteRepository):
    def commit_on(self, connection: sa.Connection, commit: Commit, rows: Mapping[str, Sequence[str]]) -> Joined:
        if connection.engine.url.database is None:
            return Committed([]), {}
        return joining.commit_on(connection, self._tables, self._env, commit, rows)


CASES = [
    (AdoptsTheFirstRows, "test_rows_are_taken_over_once_some_at_a_time"),
    (AdoptsInOnePiece, "test_rows_are_taken_over_once_some_at_a_time"),
    (ForgetsToOwe, "test_only_a_row_whose_content_changed_gets_another_version"),
    (ForgetsToOwe, "test_a_row_that_is_gone_leaves_a_tombstone_and_is_owed"),
    (TakesEveryRowForChanged, "test_only_a_row_whose_content_changed_gets_another_version"),
    (SeesNoStrays, "test_a_row_that_is_gone_leaves_a_tombstone_and_is_owed"),
    (HearsWithoutListening, "test_what_triggers_note_is_taken_over_once"),
    (HearsAgainAndAgain, "test_what_triggers_note_is_taken_over_once"),
    (EndsTheCallersTransaction, "test_a_joined_commit_is_the_caller_s_to_end"),
    (JoinsWithoutTheRows, "test_a_joined_commit_is_the_caller_s_to_end"),
    (JoinsAnything, "test_a_connection_to_another_database_is_not_joined"),
]


def run(home: type[SqliteRepository], test: str, path: Path) -> None:
    """The test of the kit, without pytest around it."""

    async def connected(env: Env) -> Repository:
        repository = home(str(path), Options(), env)
        await repository.open()
        return repository

    kit = ApplicationTablesConformance()
    kit.use(connected)
    with kit.beside(f"sqlite:///{path}"):
        getattr(kit, test)()


@pytest.mark.parametrize(("broken", "test"), CASES)
def test_a_broken_home_fails_where_it_should_and_the_sound_one_does_not(
    broken: type[SqliteRepository], test: str, tmp_path: Path
) -> None:
    run(SqliteRepository, test, tmp_path / "sound.db")
    with pytest.raises((AssertionError, pytest.fail.Exception, PolystoreError)):
        run(broken, test, tmp_path / "broken.db")
