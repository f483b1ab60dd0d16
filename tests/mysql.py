"""A database for tests, of MariaDB or of MySQL: one of its own for each, and a clock that the test sets forward.

The servers are those of POLYSTORE_TEST_MARIADB_URL and POLYSTORE_TEST_MYSQL_URL; without one its tests are skipped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import sqlalchemy as sa
from polystore_adapters.mysql.driver import connect

from polystore.env import Env
from polystore.protocols import Repository
from polystore.testing.conformance import MovableEnv
from tests.stack import url_of

FLAVOURS = ("mariadb", "mysql")
"""The servers' names."""


def run(url: str, *statements: str) -> list[Any]:
    """Carry the statements out on a connection of their own; the rows of the last one."""
    parts = sa.make_url(url)

    async def all_of_them() -> list[Any]:
        connection = await connect(
            host=parts.host, port=parts.port, user=parts.username, password=parts.password, autocommit=True
        )
        cursor = connection.cursor()
        for statement in statements:
            await cursor.execute(statement)
        rows = list(await cursor.fetchall()) if cursor.description is not None else []
        await connection.ensure_closed()
        return rows

    return asyncio.run(all_of_them())


@contextmanager
def fresh_database(server: str = "mariadb") -> Generator[str]:
    """The URL of a new database; the test is skipped, or fails if it is required, where there is no server."""
    url = sa.make_url(url_of(server))
    name = f"kit_{uuid4().hex[:16]}"
    run(str(url.render_as_string(hide_password=False)), f"CREATE DATABASE {name}")
    try:
        yield url.set(database=name).render_as_string(hide_password=False)
    finally:
        run(url.render_as_string(hide_password=False), f"DROP DATABASE {name}")


async def connected(env: Env, url: str, **options: Any) -> Repository:
    """A repository of the database. A clock that the test has set forward is the server's too."""
    from polystore_adapters.mysql import connect

    repository = await connect(url, {"pool_size": 5, **options}, env)
    if isinstance(env, MovableEnv):
        clock = repository.clock
        moved: Callable[[int], None] = clock.set
        clock.set = lambda server_us: moved(server_us + env.ahead_us)  # type: ignore[method-assign]
    return repository


def connecting(url: str) -> Callable[[Env], Awaitable[Repository]]:
    return lambda env: connected(env, url)
