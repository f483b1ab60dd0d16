"""What the tests of the Elasticsearch adapter share: a prefix for each test, whose indexes are removed after it."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import httpx
from polystore_adapters.elasticsearch import connect

from polystore.env import Env
from polystore.protocols import Repository
from polystore.testing.conformance import Connect


@contextmanager
def own_prefix(url: str) -> Generator[str]:
    prefix = f"t{uuid4().hex[:12]}-"
    yield prefix
    with httpx.Client(base_url=url.replace("elasticsearch://", "http://"), timeout=30) as client:
        names: dict[str, Any] = client.get(f"/{prefix}*").json()
        for name in names:
            client.delete(f"/{name}").raise_for_status()


def connecting(url: str, prefix: str, **options: Any) -> Connect:
    async def connected(env: Env) -> Repository:
        return await connect(url, {"prefix": prefix, **options}, env)

    return connected
