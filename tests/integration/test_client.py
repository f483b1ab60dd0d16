"""`hda.client("main")` of the SQL servers: the driver's own connections, clean again after each use."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest

from polystore import HybridDataArchitecture, entity
from tests import mysql, postgresql


@entity()
@dataclass
class Slip:
    id: str
    text: str = ""


async def fail_inside(client: Any) -> None:
    async with client.acquire() as connection:
        await connection.execute("BEGIN; UPDATE slip SET text = 'drei'")
        raise ZeroDivisionError


def test_connections_of_asyncpg_come_back_clean() -> None:
    async def scenario(schema: str) -> None:
        config = {"stores": {"main": postgresql.configured(schema)}}
        async with HybridDataArchitecture.open(config, entities=[Slip]) as hda:
            await hda.collection(Slip).put(Slip("a", "eins"))
            client = hda.client("main")
            assert hda.tenant("acme").client("main") is client
            async with client.acquire() as connection:
                assert await connection.fetchval("SELECT text FROM slip WHERE id = $1", "a") == "eins"
                await connection.execute("SET lock_timeout = '7s'")
                await connection.execute("BEGIN; UPDATE slip SET text = 'zwei'")
            async with client.acquire() as connection:
                assert await connection.fetchval("SHOW lock_timeout") == "0"
                assert not connection.is_in_transaction()
            with pytest.raises(ZeroDivisionError):
                await fail_inside(client)
            assert await hda.collection(Slip).get("a") == Slip("a", "eins")

    with postgresql.fresh_schema() as schema:
        asyncio.run(scenario(schema))


def test_connections_of_asyncmy_come_back_clean() -> None:
    async def scenario(database: str) -> None:
        config = {"stores": {"main": {"url": database}}}
        async with HybridDataArchitecture.open(config, entities=[Slip]) as hda:
            await hda.collection(Slip).put(Slip("a", "eins"))
            async with hda.client("main").acquire() as connection:
                cursor = connection.cursor()
                await cursor.execute("SELECT text FROM slip WHERE id = %s", ("a",))
                assert await cursor.fetchone() == ("eins",)
                await connection.begin()
                await cursor.execute("UPDATE slip SET text = 'zwei'")
            assert await hda.collection(Slip).get("a") == Slip("a", "eins")

    with mysql.fresh_database() as database:
        asyncio.run(scenario(database))
