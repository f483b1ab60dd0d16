"""Tombstones that are removed while others write."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from polystore_adapters.neo4j import connect, records
from polystore_adapters.neo4j.nodes import key_of

from polystore.env import Env
from polystore.model import Change, Key, key_hash
from polystore.protocols import Layout
from polystore.purging import PURGE_S
from polystore.testing.conformance import MovableEnv
from polystore.testing.conformance.entities import PERSON, Person
from tests.loops import in_a_loop
from tests.neo4j import own_label
from tests.sockets import forgotten_connections
from tests.stack import server

neo4j = server("neo4j")
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    with forgotten_connections():
        yield


@pytest.fixture
def label(neo4j: str) -> Iterator[str]:
    with own_label(neo4j) as own:
        yield own


@pytest.mark.parametrize("before", [{}, {"ps_version": 1, "ps_h": 1, "ps_updated_us": 1}], ids=["stub", "tombstone"])
@in_a_loop
async def test_what_a_record_is_being_made_of_stays(neo4j: str, label: str, before: dict[str, int]) -> None:
    """It is found before the other transaction ends, and is a record when that has ended."""
    store = await connect(neo4j, {"label": label}, Env())
    try:
        await store.prepare([Layout(PERSON, False, frozenset({"graph"}))], create=True)
        key = Key("", PERSON.name, "stub")
        place = key_of(key.tenant, (key.etype, key.id))
        own = {"ps_tenant": "", "ps_etype": PERSON.name, "ps_id": "stub"}
        newest = {**own, "ps_key": "another", "ps_version": 5, "ps_updated_us": 1}
        for node in ({**own, **before, "ps_key": place}, newest):
            await store.client.execute_query(f"CREATE (n:{label}) SET n = $node", node=node)
        async with store.client.session() as session:
            writing = await session.begin_transaction()
            node = store._types[PERSON.name].codec.encoded(  # pyright: ignore[reportPrivateUsage]
                _change(key, Person(id="stub")), {}
            )
            await writing.run(f"MATCH (n:{label} {{ps_key: $key}}) SET n = $node", key=place, node=node)
            purging = asyncio.create_task(store.forget_tombstones(PERSON.name, 0))
            for _ in range(1000):
                if await _waiting(store):
                    break
                await asyncio.sleep(0.01)
            await writing.commit()
        await purging
        (found,) = await store.get([key])
        assert found is not None
        assert found.body is not None
    finally:
        await store.aclose()


@in_a_loop
async def test_all_tombstones_are_purged_by_who_writes(neo4j: str, label: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "KEYS", 3)
    env = MovableEnv()
    store = await connect(neo4j, {"label": label}, env)
    try:
        await store.prepare([Layout(PERSON, False, frozenset({"graph"}))], create=True)

        def removed(id: str, version: int) -> Change:
            return Change(Key("", PERSON.name, id), version, key_hash("", PERSON.name, id), None, b"", 1)

        await store.apply([removed(f"{i}", i) for i in range(1, 9)])
        env.forward(PURGE_S)
        for version in (10, 11, 12):
            await store.apply([_change(Key("", PERSON.name, "one"), Person(id="one"), version)])
        (left,) = await store._server.read(  # pyright: ignore[reportPrivateUsage]
            f"MATCH (n:{label}) WHERE n.ps_version IS NOT NULL RETURN count(n) AS n"
        )
        assert left["n"] == 1, "the record"
        assert await store.newest(PERSON.name) == 12
    finally:
        await store.aclose()


@in_a_loop
async def test_what_is_cleared_keeps_no_value_and_takes_nobodys_relationship(neo4j: str, label: str) -> None:
    store = await connect(neo4j, {"label": label}, Env())
    try:
        await store.prepare([Layout(PERSON, False, frozenset({"graph"}))], create=True)
        await store.apply([_change(Key("", PERSON.name, id), Person(id=id, name="비밀")) for id in ("a", "b", "c")])
        ends = f"MATCH (a:{label} {{ps_id: 'a'}}), (b:{label} {{ps_id: 'b'}})"
        await store.client.execute_query(f"{ends} CREATE (a)-[:OURS {{since: 1}}]->(b)")
        await store.clear(PERSON.name)
        found, _, _ = await store.client.execute_query(
            f"MATCH (n:{label}) WHERE n.ps_id IS NOT NULL OPTIONAL MATCH (n)-[e]->(m) "
            "RETURN n.ps_id AS id, n.name AS name, type(e) AS type, m.ps_id AS to ORDER BY id"
        )
        assert [row.data() for row in found] == [
            {"id": "a", "name": None, "type": "OURS", "to": "b"},
            {"id": "b", "name": None, "type": None, "to": None},
        ]
    finally:
        await store.aclose()


def _change(key: Key, person: Person, version: int = 7) -> Change:
    body = PERSON.encode(person)
    return Change(key, version, key_hash(key.tenant, key.etype, key.id), body, PERSON.content_hash(body), 0)


async def _waiting(store: Any) -> bool:
    """Whether a transaction waits for a lock."""
    rows, _, _ = await store.client.execute_query(
        "SHOW TRANSACTIONS YIELD status, currentQuery WHERE status STARTS WITH 'Blocked' RETURN status"
    )
    return bool(rows)
