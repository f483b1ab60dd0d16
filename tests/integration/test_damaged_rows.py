"""A row of a server's table that somebody has damaged: told by a scan, which goes on, and replaced when it is written
again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated

import pytest
import sqlalchemy as sa

from polystore import DecodeError, FullText, Relation
from polystore.entity import entity, entity_types
from polystore.env import Env
from polystore.model import EVERYTHING, UNREADABLE, Change, Key, key_hash
from polystore.protocols import Layout, Repository, SupportsSchema
from tests import mysql, postgresql


@entity()
@dataclass(kw_only=True)
class Leaf:
    id: str
    text: Annotated[str, FullText()] = ""
    width: Decimal = Decimal("1E+2")
    near: Annotated[list[str], Relation("NEAR", to="Leaf")]


LEAF = entity_types([Leaf])["leaf"]
DAMAGE = "UPDATE {}leaf SET ps_exact = '[1]' WHERE id = 'b'"


@contextmanager
def place_on(server: str) -> Generator[tuple[Callable[[], Awaitable[Repository]], Callable[[str], object]]]:
    """How a new place on the server is connected to, and how a statement is carried out there."""
    if server == "postgresql":
        with postgresql.fresh_schema() as path:
            schema = path.split(",")[0]
            run = postgresql.server().run
            yield lambda: postgresql.connected(Env(), path), lambda sql: run(sql.format(f"{schema}."))
    else:
        with mysql.fresh_database(server) as url:
            database = sa.make_url(url).database
            yield lambda: mysql.connected(Env(), url), lambda sql: mysql.run(url, sql.format(f"{database}."))


def change(id: str, version: int, *, overwrites: bool = False) -> Change:
    body = LEAF.encode(Leaf(id=id, text=f"of {id}", near=["a"]))
    h = key_hash("", "leaf", id)
    return Change(Key("", "leaf", id), version, h, body, LEAF.content_hash(body), version, overwrites=overwrites)


@pytest.mark.parametrize("server", ["postgresql", *mysql.FLAVOURS])
def test_a_damaged_row_is_told_by_a_scan_and_yields_to_what_is_written_again(server: str) -> None:
    async def damaged(store: Repository, run: Callable[[str], object]) -> None:
        assert isinstance(store, SupportsSchema)
        await store.prepare([Layout(LEAF, False, frozenset({"full_text", "graph"}))], create=True)
        changes = [change(id, i) for i, id in enumerate("abc", 1)]
        await store.apply(changes)
        await asyncio.to_thread(run, DAMAGE)
        stamps = (await store.scan("leaf", "", EVERYTHING, None, 10)).stamps
        assert {one.id: (one.version, one.hash, one.fault) for one in stamps} == {
            **{one.key.id: (one.version, one.hash, "") for one in changes},
            "b": (2, b"", UNREADABLE),
        }
        with pytest.raises(DecodeError, match="'b'"):
            await store.get([one.key for one in changes])
        await store.apply([change("b", 2, overwrites=True)])
        stamps = (await store.scan("leaf", "", EVERYTHING, None, 10)).stamps
        assert {one.id: one.fault for one in stamps} == {"a": "", "b": "", "c": ""}

    async def opened(connect: Callable[[], Awaitable[Repository]], run: Callable[[str], object]) -> None:
        store = await connect()
        try:
            await damaged(store, run)
        finally:
            await store.aclose()

    with place_on(server) as (connect, run):
        asyncio.run(opened(connect, run))
