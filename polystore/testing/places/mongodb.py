"""MongoDB and what speaks its protocol: a database for each test."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from polystore.testing.places import Place, Places, fresh_name


def named(url: str, database: str) -> str:
    """The URL of another database on the server."""
    head, _, query = url.partition("?")
    return f"{head.rstrip('/').rsplit('/', 1)[0] if head.count('/') > 3 else head.rstrip('/')}/{database}?{query}"


@contextmanager
def fresh_database(url: str) -> Generator[str]:
    """The URL of a new database."""
    from pymongo import MongoClient

    name = fresh_name()
    try:
        yield named(url, name)
    finally:
        with MongoClient[dict[str, Any]](url) as client:
            for one in (name, f"{name}_2"):
                client.drop_database(one)


def places(url: str) -> Places:
    @contextmanager
    def made() -> Generator[Place]:
        with fresh_database(url) as fresh:
            yield Place(fresh, {"pool_size": 8})

    return made
