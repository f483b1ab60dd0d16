"""Records that somebody has damaged: told, never missing, and repaired."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from polystore_adapters.neo4j import connect

from polystore import DecodeError
from polystore.env import Env
from polystore.model import EVERYTHING, UNREADABLE, Change, Key, key_hash
from polystore.protocols import Layout
from polystore.testing.conformance.entities import PERSON, Person
from tests.loops import in_a_loop
from tests.neo4j import own_label
from tests.sockets import forgotten_connections
from tests.stack import server

neo4j = server("neo4j")
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")


@pytest.fixture
def label(neo4j: str) -> Iterator[str]:
    with forgotten_connections(), own_label(neo4j) as own:
        yield own


@pytest.mark.parametrize("wrong", [b"\x80", "a text"], ids=["bytes", "text"])
@in_a_loop
async def test_a_damaged_record_is_told_and_can_be_written_again(neo4j: str, label: str, wrong: Any) -> None:
    store = await connect(neo4j, {"label": label}, Env())
    try:
        await store.prepare([Layout(PERSON, False, frozenset({"graph"}))], create=True)
        store._types[PERSON.name].retired = ["gone"]  # pyright: ignore[reportPrivateUsage]
        key, body = Key("", PERSON.name, "하늘"), PERSON.encode(Person(id="하늘"))
        h, hash = key_hash(key.tenant, key.etype, key.id), PERSON.content_hash(body)
        await store.apply([Change(key, 7, h, body, hash, 0)])
        await store.client.execute_query(f"MATCH (n:{label}) SET n.ps_record = $wrong", wrong=wrong)
        (stamp,) = (await store.scan(PERSON.name, "", EVERYTHING, None, 10)).stamps
        assert (stamp.id, stamp.h, stamp.version, stamp.fault) == (key.id, h, 7, UNREADABLE)
        with pytest.raises(DecodeError, match="하늘"):
            await store.get([key])
        (outcome,) = await store.apply([Change(key, 7, h, body, hash, 0, overwrites=True)])
        assert outcome.status == "applied"
        (found,) = await store.get([key])
        assert found is not None
        assert found.body == body
    finally:
        await store.aclose()
