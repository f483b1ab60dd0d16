"""`hda.client`: the driver's own object, where the adapter has one."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest
from redis.asyncio import Redis

from polystore import ConfigurationError, HybridDataArchitecture, UnsupportedOperation, entity
from tests.stack import url_of


@entity()
@dataclass
class Note:
    id: str


def test_a_store_without_a_driver_and_one_that_is_not_there_are_refused() -> None:
    async def main() -> None:
        async with HybridDataArchitecture.open({"stores": {"main": {"url": "memory:"}}}, entities=[Note]) as hda:
            with pytest.raises(UnsupportedOperation, match="main"):
                hda.client("main")
            with pytest.raises(ConfigurationError, match="did you mean 'main'"):
                hda.client("mian")

    asyncio.run(main())


def test_it_is_the_one_that_polystore_uses() -> None:
    async def main() -> None:
        stores = {"main": {"url": "memory:"}, "cache": {"url": url_of("redis"), "roles": ["cache"]}}
        async with HybridDataArchitecture.open({"stores": stores}, entities=[Note]) as hda:
            client = hda.client("cache")
            assert await client.ping()
            assert hda.tenant("acme").client("cache") is client
            assert isinstance(client, Redis)

    asyncio.run(main())
