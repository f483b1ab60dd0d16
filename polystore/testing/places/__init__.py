"""A place of its own for each test of the kit: empty, shared with nobody, removed afterwards.

Of the servers that the adapters of polystore speak to, a place is a schema, a database or a prefix. For any other URL,
`{}` in it stands for a name that no other test has: `myshelf:kit/{}`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from uuid import uuid4

from polystore import registry
from polystore.env import Env
from polystore.errors import ConfigurationError
from polystore.protocols import Repository


def fresh_name() -> str:
    return f"kit_{uuid4().hex[:16]}"


class Place:
    """Where one test works, as a configuration says it."""

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        self.url = url
        self.options = options

    async def connect(self, env: Env) -> Repository:
        """One more connection. A store that has a clock of its own follows that of `env` when this is set forward."""
        return await registry.connect(self.url, self.options, env)

    @property
    def database(self) -> str | None:
        """SQLAlchemy's URL of the place, for an application beside polystore; None where there is no such thing."""
        return None

    def hooks(self, cls: type[Any]) -> Mapping[str, Any]:
        """What a class of the kit needs instead of its own methods, so that time goes by here too."""
        return {}


class File(Place):
    """Of SQLite."""

    @property
    def database(self) -> str | None:
        return f"sqlite:///{self.url.partition(':')[2]}"


Places = Callable[[], AbstractContextManager[Place]]
_MODULES = {
    "postgresql": "postgresql",
    "postgres": "postgresql",
    "mysql": "mysql",
    "mariadb": "mysql",
    "mongodb": "mongodb",
    "s3": "s3",
    "minio": "s3",
    "minios": "s3",
    "chromadb": "chromadb",
    "chromadbs": "chromadb",
    "elasticsearch": "elasticsearch",
    "elasticsearchs": "elasticsearch",
    "influxdb": "influxdb",
    "influxdbs": "influxdb",
    **{f"{scheme}{tls}": "neo4j" for scheme in ("neo4j", "bolt") for tls in ("", "+s", "+ssc")},
    "redis": "redis",
    "rediss": "redis",
    "redis+sentinel": "redis",
    "rediss+sentinel": "redis",
    "redis+cluster": "redis",
    "rediss+cluster": "redis",
    "valkey": "redis",
    "valkeys": "redis",
    "keydb": "redis",
    "unix": "redis",
}


def forgotten(url: str) -> Sequence[str]:
    """What warnings say that the driver of this URL alone is to blame for, as pytest's -W takes it: PyMongo forgets the
    socket of a connection that is cancelled while it is made, and so does Neo4j's; aiohttp warns of a large request."""
    return {
        "mongodb": ["ignore:unclosed:ResourceWarning"],
        "neo4j": ["ignore:unclosed:ResourceWarning"],
        "elasticsearch": ["ignore:Sending a large body:ResourceWarning"],
    }.get(_MODULES.get(registry.scheme_of(url) or "", ""), [])


def somewhere(url: str) -> Place:
    """A place where nobody writes, to ask who is there: nothing is made for it."""
    fresh = url.replace("{}", fresh_name())
    if _MODULES.get(registry.scheme_of(url) or "") == "mongodb" and fresh == url:
        fresh = importlib.import_module(f"{__name__}.mongodb").named(url, fresh_name())
    return Place(fresh, {})


def places(url: str) -> Places:
    """Makes a place at this URL, each time another one. Raises ConfigurationError for a URL that names one place only,
    in which tests would meet."""
    module = _MODULES.get(registry.scheme_of(url) or "")
    if "{}" not in url and module is not None:
        made: Places = importlib.import_module(f"{__name__}.{module}").places(url)
        return made
    if "{}" not in url:
        raise ConfigurationError(
            "each test needs an empty store of its own: write {} into the URL where a name may stand, as in "
            "sqlite:kit/{}.db"
        )

    @contextmanager
    def plain() -> Generator[Place]:
        fresh = url.replace("{}", fresh_name())
        yield (File if registry.scheme_of(url) == "sqlite" else Place)(fresh, {})

    return plain
