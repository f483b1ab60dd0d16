"""A PostgreSQL database for tests: a schema of its own for each, and a clock that the test sets forward.

The server is that of `tests.stack`; without one these tests are skipped.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

from polystore.env import Env
from polystore.protocols import Repository
from polystore.testing.places import postgresql
from tests.stack import url_of


def server() -> postgresql.Statements:
    """Statements to the test server, without a loop."""
    return postgresql.statements(url_of("postgresql"))


@contextmanager
def fresh_schema() -> Generator[str]:
    """The search path of a new schema; skips without a server."""
    with postgresql.fresh_schema(url_of("postgresql")) as path:
        yield path


@contextmanager
def fresh_database() -> Generator[str]:
    """The name of a new database of the server; skips without one."""
    name = f"kit_{uuid4().hex[:16]}"
    server().run(f"CREATE DATABASE {name}")
    try:
        yield name
    finally:
        server().run(f"DROP DATABASE {name} WITH (FORCE)")


def sqlalchemy_url(search_path: str, driver: str = "psycopg") -> str:
    """SQLAlchemy's URL of the schema, for an application."""
    return postgresql.sqlalchemy_url(url_of("postgresql"), search_path, driver)


def configured(search_path: str, **settings: Any) -> dict[str, Any]:
    """A store's settings in a configuration."""
    return {"url": url_of("postgresql"), "options": {"schema": search_path, "pool_size": 5}, **settings}


async def connected(env: Env, search_path: str, **options: Any) -> Repository:
    """A repository of the schema."""
    from polystore_adapters.postgresql import connect

    postgresql.follow_clock(env, url_of("postgresql"), search_path)
    return await connect(url_of("postgresql"), {"schema": search_path, "pool_size": 5, **options}, env)
