"""Somebody else's connection to the database: writing in its transaction, through SQLAlchemy whatever the driver."""

from __future__ import annotations

import functools
import re
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar, cast

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from polystore.errors import ConfigurationError
from polystore.model import Commit, Committed, Key, Written
from polystore_adapters.postgresql import commit as commits
from polystore_adapters.postgresql.application import ApplicationTable
from polystore_adapters.postgresql.errors import by_state
from polystore_adapters.postgresql.following import follow
from polystore_adapters.postgresql.locks import Again, lock_sql
from polystore_adapters.postgresql.pool import Session
from polystore_adapters.postgresql.records import Tables

R = TypeVar("R")
_TOKEN = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|\$(\d+)""")
_SAME_SQL = "SELECT v FROM ps_meta WHERE k = 'data_id'"
_LEVEL_SQL = "SELECT current_setting('transaction_isolation')"
READY_SQL = "SELECT to_regclass(quote_ident(current_schema()) || '.ps_meta') IS NOT NULL"
AGAIN_MAX = 10
"""How often rows may come from others between looking for them and writing them."""


class Joined(Session):
    """The calls of a `Session`, over a connection of SQLAlchemy: done when they are called, so that nothing is ever
    awaited, see `driven`."""

    __slots__ = ()
    copies = False

    async def fetch(self, sql: str, *args: Any) -> Sequence[Any]:
        found = self._execute(sql, args)
        return [tuple(map(_plain, row)) for row in found] if found.returns_rows else []

    async def row(self, sql: str, *args: Any) -> Any:
        rows = await self.fetch(sql, *args)
        return rows[0] if rows else None

    async def value(self, sql: str, *args: Any) -> Any:
        rows = await self.fetch(sql, *args)
        return rows[0][0] if rows else None

    async def run(self, sql: str, *args: Any) -> int:
        return max(0, self._execute(sql, args).rowcount)

    async def each(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        for row in rows:
            self._execute(sql, row)

    def _execute(self, sql: str, args: Sequence[Any]) -> sa.CursorResult[Any]:
        connection: sa.Connection = self.connection
        style = connection.dialect.paramstyle
        if style == "numeric_dollar":
            return connection.exec_driver_sql(sql, tuple(args))
        text, order = _formatted(sql)
        if style == "pyformat":
            return connection.exec_driver_sql(text, {f"p{i}": one for i, one in enumerate(args, 1)})
        if style == "format":
            return connection.exec_driver_sql(re.sub(r"%\(p\d+\)s", "%s", text), tuple(args[i - 1] for i in order))
        raise ConfigurationError(f"{connection.dialect.driver}: a driver of another style of parameters; use psycopg")


@functools.lru_cache(maxsize=512)
def _formatted(sql: str) -> tuple[str, Sequence[int]]:
    """The statement with `%(p1)s` for `$1`, and the order of the parameters."""
    order: list[int] = []

    def replaced(found: re.Match[str]) -> str:
        if found[1] is None:
            return found[0]
        order.append(int(found[1]))
        return f"%(p{found[1]})s"

    return _TOKEN.sub(replaced, sql.replace("%", "%%")), order


def _plain(value: Any) -> Any:
    """What the adapter's own driver would give."""
    if isinstance(value, memoryview):
        return cast("memoryview[int]", value).tobytes()
    return value.astimezone(UTC) if isinstance(value, datetime) and value.tzinfo is not None else value


def driven(work: Coroutine[Any, Any, R]) -> R:
    """The result of work over a `Joined`, which never waits for the loop."""
    try:
        work.send(None)
    except StopIteration as done:
        return cast(R, done.value)
    raise AssertionError("a joined connection awaited something")


def check_same(connection: sa.Connection, place: str, data_id: str) -> None:
    """Raises ConfigurationError unless the connection is to this database, finds polystore's tables there, and sees
    what stands: in a transaction that sees the past, an update would write again what was deleted since."""
    name = connection.dialect.name
    if name != "postgresql":
        raise ConfigurationError(f"the joined connection speaks to {name}, the home is {place}")
    ready = connection.exec_driver_sql(READY_SQL).scalar()
    if not ready or connection.exec_driver_sql(_SAME_SQL).scalar() != data_id:
        raise ConfigurationError(
            f"the joined connection is to another database or schema than the home, {place}: one transaction is of "
            "one database, and its connection must have the same search path"
        )
    level: str = connection.exec_driver_sql(_LEVEL_SQL).scalar_one()
    if level not in ("read committed", "read uncommitted"):
        raise ConfigurationError(
            f"the joined transaction is {level.upper()} and does not see what others wrote since it began; join one "
            "that is READ COMMITTED"
        )


def commit_on(
    connection: sa.Connection, place: str, tables: Tables, commit: Commit, rows: Mapping[str, Sequence[str]]
) -> tuple[Committed, dict[Key, Written]]:
    """See `SupportsApplicationTables.commit_on`. An error leaves the caller's transaction as it was before."""
    mine = on(connection, tables)
    try:
        for _ in range(AGAIN_MAX):
            try:
                with connection.begin_nested():
                    return driven(_carry_out(Joined(connection), mine, commit, rows))
            except Again:
                continue
        with connection.begin_nested():
            return driven(_carry_out(Joined(connection), mine, commit, rows))
    except DBAPIError as error:
        state: str = getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None) or ""
        if not state:
            raise
        raise by_state(state, place) from error


def on(connection: sa.Connection, tables: Tables) -> Tables:
    """The tables as the connection's driver sees them."""
    dialect = connection.dialect
    made = {etype: one.on(dialect) if isinstance(one, ApplicationTable) else one for etype, one in tables.items()}
    return Tables(made)


async def _carry_out(
    db: Session, tables: Tables, commit: Commit, rows: Mapping[str, Sequence[str]]
) -> tuple[Committed, dict[Key, Written]]:
    followed: dict[Key, Written] = {}
    for etype in sorted(rows):
        table = tables[etype]
        assert isinstance(table, ApplicationTable)
        found = await follow(db, table, rows[etype])
        followed.update((Key("", etype, id), one) for id, one in found.items())
    if not commit.writes:
        return Committed([]), followed
    await db.run(lock_sql(commits.buckets_of(tables, [commit], ())))
    (answer,) = await commits.carry_out(db, tables, [commit])
    if isinstance(answer, Exception):
        raise answer
    return answer, followed
