"""PostgreSQL: a schema for each test, in which the server's clock is shadowed by one that a test sets forward."""

from __future__ import annotations

import asyncio
import atexit
import functools
import importlib
import threading
from collections.abc import Coroutine, Generator
from contextlib import contextmanager
from typing import Any, TypeVar

from polystore.env import Env
from polystore.protocols import Repository
from polystore.testing.conformance.base import MovableEnv
from polystore.testing.places import Place, Places, fresh_name

R = TypeVar("R")
WAIT_S = 30


class Statements:
    """Sent to a server from where nothing can be awaited: over a connection in a thread and a loop of its own."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="postgresql-tests", daemon=True).start()
        self._connection: Any = None
        atexit.register(self._end)

    def run(self, statements: str) -> None:
        self._call(self._run(statements))

    def value(self, sql: str, *args: Any) -> Any:
        return self._call(self._value(sql, *args))

    def _call(self, work: Coroutine[Any, Any, R]) -> R:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(WAIT_S)

    async def _connected(self) -> Any:
        asyncpg: Any = importlib.import_module("asyncpg")
        if self._connection is None or self._connection.is_closed():
            self._connection = await asyncpg.connect(self._url)
        return self._connection

    def _end(self) -> None:
        if self._connection is not None and not self._connection.is_closed():
            self._call(self._connection.close())

    async def _run(self, statements: str) -> None:
        await (await self._connected()).execute(statements)

    async def _value(self, sql: str, *args: Any) -> Any:
        return await (await self._connected()).fetchval(sql, *args)


@functools.cache
def statements(url: str) -> Statements:
    """Those of a server."""
    return Statements(url)


@contextmanager
def fresh_schema(url: str) -> Generator[str]:
    """The search path of a new schema. The server's `now()` is shadowed there by one that `follow_clock` moves."""
    name = fresh_name()
    statements(url).run(
        f"CREATE SCHEMA {name}; CREATE TABLE {name}.test_clock (ahead interval NOT NULL); "
        f"INSERT INTO {name}.test_clock VALUES ('0'); CREATE FUNCTION {name}.now() RETURNS timestamptz LANGUAGE sql "
        f"STABLE AS $$SELECT pg_catalog.now() + (SELECT ahead FROM {name}.test_clock)$$; "
        f"CREATE FUNCTION {name}.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS "
        f"$$SELECT pg_catalog.clock_timestamp() + (SELECT ahead FROM {name}.test_clock)$$"
    )
    try:
        yield f"{name},pg_catalog"
    finally:
        statements(url).run(f"DROP SCHEMA {name} CASCADE; DROP SCHEMA IF EXISTS {name}_2 CASCADE")


def follow_clock(env: Env, url: str, search_path: str) -> None:
    """From now on the schema's clock is as far ahead as that of `env`."""
    if not isinstance(env, MovableEnv) or "forward" in vars(env):
        return
    table = f"{search_path.partition(',')[0]}.test_clock"
    forward = env.forward

    def both(seconds: float) -> None:
        forward(seconds)
        statements(url).run(f"UPDATE {table} SET ahead = '{env.ahead_us} microseconds'")

    env.forward = both  # type: ignore[method-assign]


def sqlalchemy_url(url: str, search_path: str, driver: str) -> str:
    """SQLAlchemy's URL of the schema, for an application."""
    import sqlalchemy as sa

    made = sa.make_url(url).set(drivername=f"postgresql+{driver}")
    if driver == "asyncpg":
        return made.render_as_string(hide_password=False)  # the path goes into its `server_settings`
    return made.set(query={"options": f"-csearch_path={search_path}"}).render_as_string(hide_password=False)


class Schema(Place):
    def __init__(self, url: str, search_path: str) -> None:
        super().__init__(url, {"schema": search_path, "pool_size": 5})
        self._search_path = search_path

    @property
    def database(self) -> str | None:
        return sqlalchemy_url(self.url, self._search_path, "psycopg")

    async def connect(self, env: Env) -> Repository:
        follow_clock(env, self.url, self._search_path)
        return await super().connect(env)


def places(url: str) -> Places:
    @contextmanager
    def made() -> Generator[Place]:
        with fresh_schema(url) as path:
            yield Schema(url, path)

    return made
