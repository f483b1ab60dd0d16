"""MariaDB and MySQL: a database for each test, of which the repository's clock is the test's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from polystore.env import Env
from polystore.protocols import Repository
from polystore.testing.conformance.base import MovableEnv
from polystore.testing.places import Place, Places, fresh_name


def run(url: str, *statements: str) -> list[Any]:
    """Carry the statements out on a connection of their own; the rows of the last one."""
    import sqlalchemy as sa
    from polystore_adapters.mysql.driver import connect

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
def fresh_database(url: str) -> Generator[str]:
    """The URL of a new database on the server."""
    import sqlalchemy as sa

    parts, name = sa.make_url(url), fresh_name()
    plain = parts.render_as_string(hide_password=False)
    run(plain, f"CREATE DATABASE {name}")
    try:
        yield parts.set(database=name).render_as_string(hide_password=False)
    finally:
        run(plain, f"DROP DATABASE {name}", f"DROP DATABASE IF EXISTS {name}_2")


def follow_clock(env: Env, repository: Any) -> None:
    """A clock that the test has set forward is the server's too."""
    if isinstance(env, MovableEnv):
        clock = repository.clock
        moved: Callable[[int], None] = clock.set

        def ahead(server_us: int) -> None:
            moved(server_us + env.ahead_us)

        clock.set = ahead


class Database(Place):
    def __init__(self, url: str) -> None:
        super().__init__(url, {"pool_size": 5})

    async def connect(self, env: Env) -> Repository:
        repository = await super().connect(env)
        follow_clock(env, repository)
        return repository


def places(url: str) -> Places:
    @contextmanager
    def made() -> Generator[Place]:
        with fresh_database(url) as fresh:
            yield Database(fresh)

    return made
