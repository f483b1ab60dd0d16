"""What the tests of the Elasticsearch adapter share."""

from typing import Any

from polystore_adapters.elasticsearch import connect

from polystore.env import Env
from polystore.protocols import Repository
from polystore.testing.conformance import Connect
from polystore.testing.places.elasticsearch import own_prefix

__all__ = ["connecting", "own_prefix"]


def connecting(url: str, prefix: str, **options: Any) -> Connect:
    async def connected(env: Env) -> Repository:
        return await connect(url, {"prefix": prefix, **options}, env)

    return connected
