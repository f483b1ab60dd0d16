"""Relations in Neo4j behind the facade: what others find there, what a restart and a refusal do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import pytest
from polystore_adapters.neo4j import connect

from polystore import (
    ConfigurationError,
    Edge,
    F,
    HybridDataArchitecture,
    PermissionDenied,
    Relation,
    Unavailable,
    entity,
)
from polystore.consistency.verify import Verifier
from polystore.env import Env
from polystore.model import Change, Key, key_hash
from polystore.protocols import Layout
from polystore.testing.conformance.entities import PERSON, Person
from tests.loops import in_a_loop, settled
from tests.neo4j import own_label
from tests.sockets import forgotten_connections
from tests.stack import own_server, server

neo4j = server("neo4j")
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")


@entity()
@dataclass
class Friend:
    id: str
    name: str = ""
    knows: Annotated[list[Edge[dict[str, int]]], Relation("KNOWS", to="Friend")] = field(
        default_factory=list[Edge[dict[str, int]]]
    )


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    with forgotten_connections():
        yield


@pytest.fixture
def label(neo4j: str) -> Iterator[str]:
    with own_label(neo4j) as own:
        yield own


def application(folder: Path, url: str, label: str) -> Any:
    stores = {
        "home": {"url": f"sqlite:{folder}/home.db", "roles": ["home", "journal"]},
        "graph": {"url": url, "roles": ["graph"], "options": {"label": label}},
    }
    return HybridDataArchitecture.open({"stores": stores}, entities=[Friend])


def friend(id: str, *others: str, year: int = 2020) -> Friend:
    return Friend(id, f"이름 {id}", [Edge(other, {"year": year}) for other in others])


@in_a_loop
async def test_relations_are_walked_there_and_others_see_them(tmp_path: Path, neo4j: str, label: str) -> None:
    async with application(tmp_path, neo4j, label) as hda:
        friends = hda.collection(Friend)
        await friends.put_many([friend("a", "b"), friend("b", "c", year=1999), friend("c", "a")])
        written = await friends.put(friend("d", "a"))
        await hda.settle(30)  # a new server takes seconds for its first transactions
        found = await friends.related("a", "KNOWS", into=Friend, depth=2, after=written.token)
        assert [(one.value.id, one.depth) for one in found] == [("b", 1), ("c", 2)]
        young = await friends.related("a", "KNOWS", into=Friend, depth=2, edges=F.year > 2000)
        assert [one.value.id for one in young] == ["b"]
        records, _, _ = await hda.client("graph").execute_query(
            f"MATCH (n:{label}:friend)-[e:KNOWS]->(m) RETURN n.name AS name, e.year AS year, m.ps_id AS id ORDER BY id"
        )
        rows = [(one["name"], one["year"], one["id"]) for one in records]
        assert rows == [("이름 c", 2020, "a"), ("이름 d", 2020, "a"), ("이름 a", 2020, "b"), ("이름 b", 1999, "c")]
        deleted = await friends.delete("b")
        found = await friends.related("a", "KNOWS", into=Friend, depth=2, after=deleted.token)
        assert [one.value.id for one in found] == []


@in_a_loop
async def test_a_server_that_is_killed_in_the_middle_of_writes_catches_up(tmp_path: Path) -> None:
    with own_server("neo4j") as mine:
        async with application(tmp_path, mine.url, "PsEntity") as hda:
            friends = hda.collection(Friend)
            await friends.put_many([friend(str(i), str(i + 1)) for i in range(30)])
            mine.kill()
            await friends.put_many([friend(str(i), str(i - 1)) for i in range(20, 50)])
            with pytest.raises(Unavailable):
                await friends.related("1", "KNOWS", into=Friend)
            mine.start()
            await settled(hda)
            walked = await friends.related("49", "KNOWS", into=Friend, depth=10)
            assert [one.value.id for one in walked] == [str(i) for i in range(48, 38, -1)]
            verifier = Verifier(hda.stores, hda.manager.placements, hda.manager.embedders)
            assert [one async for one in verifier.differences("friend")] == []


@in_a_loop
async def test_tombstones_that_are_purged_leave_the_ends_of_others(neo4j: str, label: str) -> None:
    store = await connect(neo4j, {"label": label}, Env())
    await store.prepare([Layout(PERSON, False, frozenset({"graph"}))], create=True)

    def change(id: str, version: int, value: Person | None) -> Change:
        body = None if value is None else PERSON.encode(value)
        hash = b"" if body is None else PERSON.content_hash(body)
        return Change(Key("", PERSON.name, id), version, key_hash("", PERSON.name, id), body, hash, 1)

    await store.apply([change("a", 1, Person(id="a", boss="b")), change("b", 2, Person(id="b"))])
    await store.apply([change("b", 3, None), change("c", 4, None), change("d", 5, None)])
    assert await store.forget_tombstones(PERSON.name, 0) == 2
    assert await store.newest(PERSON.name) == 5, "the newest stays"
    assert await store.get([Key("", PERSON.name, "b")]) == [None]
    found = await store.traverse(PERSON.name, "", "a", ["REPORTS_TO"], "out", 1, None, 9)
    assert [one.id for one in found] == ["b"]
    assert [one.status for one in await store.apply([change("b", 6, Person(id="b"))])] == ["applied"]
    await store.aclose()


@in_a_loop
async def test_a_refusal_says_what_to_do_and_no_secret(neo4j: str) -> None:
    store = await connect(neo4j.replace("polystore-test", "wrong"), {}, Env())
    with pytest.raises(PermissionDenied, match="rights") as caught:
        await store.ping()
    assert "wrong" not in str(caught.value)
    await store.aclose()
    with pytest.raises(Unavailable):
        await store.ping()


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("neo4j:host", {}),
        ("neo4j://host:1/a/b", {}),
        ("neo4j://host:1", {"label": "two words"}),
        ("neo4j://host:1", {"pool_size": 0}),
        ("neo4j://host:1", {"no_such_option": 1}),
        ("neo4j://host:1", {"client": object()}),
    ],
)
@in_a_loop
async def test_what_makes_no_sense_is_refused_before_anything_is_asked(url: str, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        await connect(url, options, Env())
