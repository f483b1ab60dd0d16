"""A MongoDB database for tests: one of its own for each.

The server is that of POLYSTORE_TEST_MONGODB_URL; without one these tests are skipped.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import Any

from polystore.env import Env
from polystore.protocols import Repository
from polystore.testing.places import mongodb
from tests.stack import url_of


@contextmanager
def fresh_database() -> Generator[str]:
    """The URL of a new database; the test is skipped, or fails if it is required, where there is no server."""
    with mongodb.fresh_database(url_of("mongodb")) as url:
        yield url


async def connected(env: Env, url: str, **options: Any) -> Repository:
    from polystore_adapters.mongodb import connect

    return await connect(url, {"pool_size": 8, **options}, env)


def connecting(url: str) -> Callable[[Env], Awaitable[Repository]]:
    return lambda env: connected(env, url)
