"""Neo4j: a label for the run, whose nodes are removed after each test, and whose indexes, which take the server longer
than a test, at the end.
"""

from __future__ import annotations

import atexit
import functools
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Any
from uuid import uuid4

import neo4j
from polystore_adapters.neo4j.server import parse

from polystore.testing.places import Place, Places

LABEL = f"T{uuid4().hex[:12]}"


@functools.cache
def _driver(url: str) -> Any:
    place, module = parse(url, {}), neo4j
    driver: Any = module.GraphDatabase.driver(place.url, auth=place.auth)
    atexit.register(driver.close)
    atexit.register(_forget, driver, LABEL)  # before that
    return driver


def _empty(driver: Any, label: str) -> None:
    with driver.session() as session:
        for one in (label, f"{label}_2"):
            session.run(f"MATCH (n) WHERE n:{one} OR n:{one}Meta DETACH DELETE n").consume()


def _forget(driver: Any, label: str) -> None:
    gone = suppress(neo4j.exceptions.ServiceUnavailable, neo4j.exceptions.SessionExpired)
    with gone, driver.session() as session:  # a server that went with its test took them along
        for kind in ("CONSTRAINT", "INDEX"):
            for row in session.run(f"SHOW {kind} YIELD name RETURN name").data():
                if row["name"].endswith((label, f"{label}_2")):
                    session.run(f"DROP {kind} {row['name']} IF EXISTS").consume()


@contextmanager
def own_label(url: str) -> Generator[str]:
    """For one after the other: of several at once each needs a `fresh_label`."""
    try:
        yield LABEL
    finally:
        _empty(_driver(url), LABEL)


@contextmanager
def fresh_label(url: str) -> Generator[str]:
    label = f"T{uuid4().hex[:12]}"
    try:
        yield label
    finally:
        _empty(_driver(url), label)
        _forget(_driver(url), label)


def places(url: str) -> Places:
    @contextmanager
    def made() -> Generator[Place]:
        with own_label(url) as label:
            yield Place(url, {"label": label})

    return made
