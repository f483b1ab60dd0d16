"""What the tests of the Neo4j adapter share."""

from typing import Any

from polystore_adapters.neo4j import connect

from polystore.env import Env
from polystore.protocols import Repository
from polystore.testing.conformance import Connect
from polystore.testing.places.neo4j import own_label

__all__ = ["connecting", "own_label"]


def connecting(url: str, label: str, **options: Any) -> Connect:
    async def connected(env: Env) -> Repository:
        return await connect(url, {"label": label, **options}, env)

    return connected
