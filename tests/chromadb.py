"""What the tests of the ChromaDB adapter share."""

from typing import Any

from polystore_adapters.chromadb import connect

from polystore.env import Env
from polystore.protocols import Repository
from polystore.testing.conformance import Connect
from polystore.testing.places.chromadb import collections, http, own_prefix

__all__ = ["COLLECTIONS", "connecting", "http", "own_prefix"]

COLLECTIONS = collections("chromadb:")


def connecting(url: str, prefix: str, **options: Any) -> Connect:
    async def connected(env: Env) -> Repository:
        return await connect(url, {"prefix": prefix, **options}, env)

    return connected
