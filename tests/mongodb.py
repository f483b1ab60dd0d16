"""A MongoDB database for tests: one of its own for each.

The server is that of POLYSTORE_TEST_MONGODB_URL; without one these tests are skipped.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

from pymongo import MongoClient

from polystore.env import Env
from polystore.protocols import Repository
from tests.stack import url_of


def named(url: str, database: str) -> str:
    """The URL of another database on the server."""
    head, _, query = url.partition("?")
    return f"{head.rstrip('/').rsplit('/', 1)[0] if head.count('/') > 3 else head.rstrip('/')}/{database}?{query}"


@contextmanager
def fresh_database() -> Generator[str]:
    """The URL of a new database; the test is skipped, or fails if it is required, where there is no server."""
    url = url_of("mongodb")
    name = f"kit_{uuid4().hex[:16]}"
    try:
        yield named(url, name)
    finally:
        with MongoClient[dict[str, Any]](url) as client:
            client.drop_database(name)


async def connected(env: Env, url: str, **options: Any) -> Repository:
    from polystore_adapters.mongodb import connect

    return await connect(url, {"pool_size": 8, **options}, env)


def connecting(url: str) -> Callable[[Env], Awaitable[Repository]]:
    return lambda env: connected(env, url)
