"""A PostgreSQL database for tests: a schema of its own for each, and a clock that the test sets forward.

The server is that of `tests.stack`; without one these tests are skipped.
"""

from __future__ import annotations

import asyncio
import importlib
import threading
from collections.abc import Coroutine, Generator
from contextlib import contextmanager
from typing import Any, TypeVar
from uuid import uuid4

import sqlalchemy as sa

from polystore.env import Env
from polystore.protocols import Repository
from polystore.testing.conformance import MovableEnv
from tests.stack import url_of

R = TypeVar("R")


class _Thread:
    """A loop of its own, so that a test can ask the server from where it cannot await."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="postgresql-tests", daemon=True).start()
        self._connection: Any = None

    def run(self, statements: str) -> None:
        self._call(self._run(statements))

    def value(self, sql: str, *args: Any) -> Any:
        return self._call(self._value(sql, *args))

    def _call(self, work: Coroutine[Any, Any, R]) -> R:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _connected(self) -> Any:
        asyncpg: Any = importlib.import_module("asyncpg")
        if self._connection is None or self._connection.is_closed():
            self._connection = await asyncpg.connect(url_of("postgresql"))
        return self._connection

    async def _run(self, statements: str) -> None:
        await (await self._connected()).execute(statements)

    async def _value(self, sql: str, *args: Any) -> Any:
        return await (await self._connected()).fetchval(sql, *args)


_threads: list[_Thread] = []


def server() -> _Thread:
    """Statements to the test server, without a loop."""
    if not _threads:
        _threads.append(_Thread())
    return _threads[0]


@contextmanager
def fresh_schema() -> Generator[str]:
    """The search path of a new schema; skips without a server. The server's `now()` is shadowed there by one that
    `follow_clock` moves."""
    url_of("postgresql")
    name = f"kit_{uuid4().hex[:16]}"
    server().run(
        f"CREATE SCHEMA {name}; CREATE TABLE {name}.test_clock (ahead interval NOT NULL); "
        f"INSERT INTO {name}.test_clock VALUES ('0'); CREATE FUNCTION {name}.now() RETURNS timestamptz LANGUAGE sql "
        f"STABLE AS $$SELECT pg_catalog.now() + (SELECT ahead FROM {name}.test_clock)$$; "
        f"CREATE FUNCTION {name}.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS "
        f"$$SELECT pg_catalog.clock_timestamp() + (SELECT ahead FROM {name}.test_clock)$$"
    )
    try:
        yield f"{name},pg_catalog"
    finally:
        server().run(f"DROP SCHEMA {name} CASCADE")


@contextmanager
def fresh_database() -> Generator[str]:
    """The name of a new database of the server; skips without one."""
    url_of("postgresql")
    name = f"kit_{uuid4().hex[:16]}"
    server().run(f"CREATE DATABASE {name}")
    try:
        yield name
    finally:
        server().run(f"DROP DATABASE {name} WITH (FORCE)")


def follow_clock(env: Env, search_path: str) -> None:
    """From now on the database's clock is as far ahead as that of `env`."""
    if not isinstance(env, MovableEnv) or "forward" in vars(env):
        return
    table = f"{search_path.partition(',')[0]}.test_clock"
    forward = env.forward

    def both(seconds: float) -> None:
        forward(seconds)
        server().run(f"UPDATE {table} SET ahead = '{env.ahead_us} microseconds'")

    env.forward = both  # type: ignore[method-assign]


def sqlalchemy_url(search_path: str, driver: str = "psycopg") -> str:
    """SQLAlchemy's URL of the schema, for an application."""
    url = sa.make_url(url_of("postgresql")).set(drivername=f"postgresql+{driver}")
    if driver == "asyncpg":
        return url.render_as_string(hide_password=False)  # the path goes into its `server_settings`
    return url.set(query={"options": f"-csearch_path={search_path}"}).render_as_string(hide_password=False)


def configured(search_path: str, **settings: Any) -> dict[str, Any]:
    """A store's settings in a configuration."""
    return {"url": url_of("postgresql"), "options": {"schema": search_path, "pool_size": 5}, **settings}


async def connected(env: Env, search_path: str, **options: Any) -> Repository:
    """A repository of the schema."""
    from polystore_adapters.postgresql import connect

    follow_clock(env, search_path)
    return await connect(url_of("postgresql"), {"schema": search_path, "pool_size": 5, **options}, env)
