"""What the tests of the Neo4j adapter share: a label for the run, whose nodes are removed after each test, and whose
indexes, which take the server longer than a test, at the end.
"""

import atexit
import functools
import gc
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import neo4j
from polystore_adapters.neo4j import connect
from polystore_adapters.neo4j.server import parse

from polystore.env import Env
from polystore.protocols import Repository
from polystore.testing.conformance import Connect

LABEL = f"T{uuid4().hex[:12]}"


@functools.cache
def _driver(url: str) -> Any:
    place, module = parse(url, {}), neo4j
    driver: Any = module.GraphDatabase.driver(place.url, auth=place.auth)

    def end() -> None:
        with driver.session() as session:
            for kind in ("CONSTRAINT", "INDEX"):
                for row in session.run(f"SHOW {kind} YIELD name RETURN name").data():
                    if row["name"].endswith(LABEL):
                        session.run(f"DROP {kind} {row['name']} IF EXISTS").consume()
        driver.close()

    atexit.register(end)
    return driver


@contextmanager
def own_label(url: str) -> Generator[str]:
    yield LABEL
    with _driver(url).session() as session:
        session.run(f"MATCH (n) WHERE n:{LABEL} OR n:{LABEL}Meta DETACH DELETE n").consume()


@contextmanager
def forgotten_connections() -> Generator[None]:
    """The driver forgets the socket of a connection that is cancelled while it is made, without closing it: collected
    here, where it is expected, and not in the middle of another test."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield
        gc.collect()


def connecting(url: str, label: str, **options: Any) -> Connect:
    async def connected(env: Env) -> Repository:
        return await connect(url, {"label": label, **options}, env)

    return connected
