"""Somebody else's connection to the file: writing in its transaction, through SQLAlchemy whatever the driver."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Awaitable, Generator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from polystore.env import Env
from polystore.errors import ConfigurationError
from polystore.model import Commit, Committed, Key, Written
from polystore_adapters.sqlite.commit import Commits
from polystore_adapters.sqlite.dialect import DECIMAL_COLLATION, compare_decimals
from polystore_adapters.sqlite.errors import translate
from polystore_adapters.sqlite.following import Following
from polystore_adapters.sqlite.records import Tables

LOCK_SQL = "UPDATE ps_meta SET v = v WHERE k = 'version'"
"""Begins to write: versions are read only when nobody else can draw one."""


class Joined:
    """What the adapter uses of a `sqlite3.Connection`."""

    in_transaction = True

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> sa.CursorResult[Any]:
        return self._connection.exec_driver_sql(sql, tuple(parameters))

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        if given := [tuple(row) for row in rows]:
            self._connection.exec_driver_sql(sql, given)


def joined(connection: sa.Connection) -> sqlite3.Connection:
    return cast(sqlite3.Connection, Joined(connection))


@contextlib.contextmanager
def translating(path: str) -> Generator[None]:
    """Raise polystore's errors for those of the caller's connection."""
    try:
        yield
    except DBAPIError as error:
        if not isinstance(error.orig, Exception):
            raise
        raise translate(error.orig, path) from error


def check_same(connection: sa.Connection, path: str) -> None:
    """Raises ConfigurationError unless the connection is to this file."""
    name = connection.dialect.name
    if name != "sqlite":
        raise ConfigurationError(f"the joined connection speaks to {name}, the home is the SQLite file {path}")
    files = [row[2] for row in connection.exec_driver_sql("PRAGMA database_list") if row[1] == "main"]
    if not files[0] or not Path(files[0]).exists() or not os.path.samefile(files[0], path):
        where = files[0] or "memory"
        raise ConfigurationError(
            f"the joined connection is to {where}, the home is {path}: one transaction is of one database"
        )


def commit_on(
    connection: sa.Connection, tables: Tables, env: Env, commit: Commit, rows: Mapping[str, Sequence[str]]
) -> tuple[Committed, dict[Key, Written]]:
    """See `SupportsApplicationTables.commit_on`."""
    db = joined(connection)
    db.execute(LOCK_SQL)
    followed: dict[Key, Written] = {}
    for etype, ids in rows.items():
        found = Following(db, tables, env).follow(etype, ids)
        followed.update((Key("", etype, id), one) for id, one in found.items())
    if any(
        spec.kind.name == "decimal"
        for write in commit.writes
        for spec in tables[write.key.etype].entity.fields.values()
    ):
        _add_collation(connection)
    (answer,) = Commits(db, tables, env).run([commit]) if commit.writes else (Committed([]),)
    if isinstance(answer, Exception):
        raise answer
    return answer, followed


def _add_collation(connection: sa.Connection) -> None:
    """The one that indexes of our own tables need. Each connection has it by itself."""
    if DECIMAL_COLLATION in connection.info:
        return
    connection.info[DECIMAL_COLLATION] = True
    dbapi: Any = connection.connection.dbapi_connection
    if hasattr(dbapi, "run_async"):  # aiosqlite: in the thread of the connection

        def create(raw: Any) -> Awaitable[None]:
            made: Awaitable[None] = raw._execute(raw._conn.create_collation, DECIMAL_COLLATION, compare_decimals)
            return made

        dbapi.run_async(create)
    else:
        dbapi.create_collation(DECIMAL_COLLATION, compare_decimals)
