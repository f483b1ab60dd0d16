"""What the tests of the Neo4j adapter share."""

import gc
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from polystore_adapters.neo4j import connect

from polystore.env import Env
from polystore.protocols import Repository
from polystore.testing.conformance import Connect
from polystore.testing.places.neo4j import own_label

__all__ = ["connecting", "forgotten_connections", "own_label"]


@contextmanager
def forgotten_connections() -> Generator[None]:
    """The driver forgets the socket of a connection that is cancelled while it is made, without closing it: collected
    here, where it is expected, and not in the middle of another test."""
    gc.freeze()  # what was there before is not looked at again, which would take a second in a long run
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield
        gc.collect()
    gc.unfreeze()


def connecting(url: str, label: str, **options: Any) -> Connect:
    async def connected(env: Env) -> Repository:
        return await connect(url, {"label": label, **options}, env)

    return connected
