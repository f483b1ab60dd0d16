"""Copies in ChromaDB behind the facade: what others find there, what a restart does, what changes of a class keep."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import httpx
import msgspec
import pytest
from polystore_adapters.chromadb import connect
from polystore_adapters.chromadb.repository import ChromadbRepository

from polystore import (
    ConfigurationError,
    DecodeError,
    Embedding,
    F,
    HybridDataArchitecture,
    SchemaMismatch,
    Unavailable,
    entity,
)
from polystore.consistency.verify import Verifier
from polystore.embedding import pack, unpack
from polystore.entity import entity_type
from polystore.env import Env
from polystore.filters import predicate
from polystore.model import EVERYTHING, UNREADABLE, Change, Key, key_hash, vector_digest
from polystore.protocols import Layout, VectorSpec
from tests.chromadb import COLLECTIONS, http, own_prefix
from tests.loops import in_a_loop
from tests.stack import own_server, server

chromadb = server("chromadb")


@entity()
@dataclass(kw_only=True)
class Place:
    id: str
    at: Annotated[list[float] | None, Embedding(dimension=3)] = None
    name: str = ""
    stars: int = 0
    ratio: float | None = None
    open: bool = True
    code: UUID | None = None
    day: date | None = None


PLACE = entity_type(Place)
EAST, NORTH, WEST = [1.0, 0.0, 0.0], [0.1, 1.0, 0.0], [-1.0, 0.1, 0.0]
SPEC = VectorSpec(3, "cosine", "caller")


@pytest.fixture
def prefix(chromadb: str) -> Iterator[str]:
    with own_prefix(chromadb) as own:
        yield own


def application(folder: Path, url: str, prefix: str) -> Any:
    stores = {
        "home": {"url": f"sqlite:{folder}/home.db", "roles": ["home", "journal"]},
        "near": {"url": url, "roles": ["vector"], "options": {"prefix": prefix}},
    }
    return HybridDataArchitecture.open({"stores": stores}, entities=[Place])


async def ids(places: Any, to: list[float], **more: Any) -> list[str]:
    return [hit.value.id for hit in await places.similar(to, **more)]


@in_a_loop
async def test_what_is_written_is_found_there_by_its_vector_and_by_others(
    tmp_path: Path, chromadb: str, prefix: str
) -> None:
    async with application(tmp_path, chromadb, prefix) as hda:
        places = hda.collection(Place)
        await places.put(Place(id="가", at=EAST, name="학교", stars=1))
        await places.put(Place(id="b", at=NORTH, name="바다", stars=2))
        written = await places.put(Place(id="c", at=WEST, name="바다", stars=3))
        assert await ids(places, EAST, after=written.token) == ["가", "b", "c"]
        assert await ids(places, EAST, where=F.name == "바다") == ["b", "c"]
        assert await ids(places, EAST, where=F.name.contains("다"), limit=1) == ["b"]
        deleted = await places.delete("가")
        assert await ids(places, EAST, after=deleted.token) == ["b", "c"]
        client: httpx.AsyncClient = hda.client("near")
        there = {one["name"]: one["id"] for one in (await client.get(COLLECTIONS)).json()}
        mine = {name: id for name, id in there.items() if name.startswith(prefix)}
        (vectors,) = [id for name, id in mine.items() if name.startswith(f"{prefix}place.v")]
        nearest = {
            "query_embeddings": [NORTH],
            "n_results": 1,
            "where": {"stars": {"$gt": 1}},
            "include": ["metadatas"],
        }
        found = (await client.post(f"{COLLECTIONS}/{vectors}/query", json=nearest)).json()
        (about,) = found["metadatas"][0]
        assert (found["ids"], about["name"]) == ([["/b"]], "바다")
        assert about.keys() == {"id", "name", "stars", "open", "ps_version", "ps_tenant", "ps_at"}, "each costs a row"
        asked = {"ids": ["/가"], "include": ["metadatas"]}
        (tombstone,) = (await client.post(f"{COLLECTIONS}/{mine[f'{prefix}place.records']}/get", json=asked)).json()[
            "metadatas"
        ]
        assert tombstone.keys() == {"ps_version", "ps_deleted_us"}
        assert tombstone["ps_version"] == deleted.version
        (counted,) = {(await client.get(f"{COLLECTIONS}/{id}/count")).json() for id in mine.values()} - {1}
        assert counted == 2, "the two others lie in one collection"


@in_a_loop
async def test_a_server_that_is_killed_in_the_middle_of_writes_catches_up(tmp_path: Path) -> None:
    with own_server("chromadb") as mine:
        async with application(tmp_path, mine.url, "ps-") as hda:
            places = hda.collection(Place)
            await places.put_many([Place(id=str(i), at=EAST) for i in range(50)])
            mine.kill()
            await places.put_many([Place(id=str(i), at=WEST) for i in range(25, 75)])
            with pytest.raises(Unavailable):
                await ids(places, EAST)
            mine.start()
            await hda.settle(60)
            assert sorted(await ids(places, EAST, limit=25)) == sorted(str(i) for i in range(25))
            verifier = Verifier(hda.stores, hda.manager.placements, hda.manager.embedders)
            assert [one async for one in verifier.differences("place")] == []


async def prepared(url: str, prefix: str, spec: VectorSpec = SPEC, **options: Any) -> ChromadbRepository:
    store = await connect(url, {"prefix": prefix, **options}, Env())
    await store.prepare([Layout(PLACE, False, frozenset({"vector"}), {"at": spec})], create=True)
    return store


def change(version: int, place: Place | None, id: str = "a") -> Change:
    key = Key("", PLACE.name, id)
    h = key_hash(*key_parts(key))
    if place is None:
        return Change(key, version, h, None, b"", 1)
    vectors = {} if place.at is None else {"at": pack(place.at)}
    body = PLACE.encode(place)
    return Change(key, version, h, body, PLACE.content_hash(body), 1, vectors)


def key_parts(key: Key) -> tuple[str, str, str]:
    return key.tenant, key.etype, key.id


@in_a_loop
async def test_a_deleted_record_stays_deleted_until_its_tombstone_is_removed(chromadb: str, prefix: str) -> None:
    store = await prepared(chromadb, prefix)
    gone = [change(6 + i, None, id) for i, id in enumerate("ab")]
    await store.apply([change(5, Place(id="a", at=EAST))])
    await store.apply(gone)
    assert [one.status for one in await store.apply([change(4, Place(id="a", at=EAST))])] == ["stale"]
    assert await store.forget_tombstones(PLACE.name, 0) == 1, "the newest stays"
    assert await store.get([gone[0].key]) == [None]
    assert await store.newest(PLACE.name) == 7
    await store.apply([change(8, Place(id="a", at=EAST))])
    assert [one.id for one in await store.similar(PLACE.name, "", "at", pack(EAST), None, 9)] == ["a"]
    await store.aclose()


PLACES = [
    Place(id="0"),
    Place(id="1", name="a", stars=-(1 << 63), ratio=0.0, open=False, code=UUID(int=1), day=date(2024, 2, 29)),
    Place(id="2", name="a ", stars=(1 << 63) - 1, ratio=0.1, day=date(2024, 3, 1)),
    Place(id="3", name="A", stars=1 << 53, ratio=-1e300, code=UUID(int=2)),
    Place(id="4", name="가나", stars=(1 << 53) + 1, ratio=float(1 << 53)),
    Place(id="5", name="가" * 1001, stars=5, ratio=5.0),
]
CONDITIONS = [
    *(
        F.name == "a",
        F.name != "a",
        F.name == "가나",
        F.name != "가나",
        F.name == "가" * 1001,
        F.name.in_(["a", "A"]),
    ),
    *(F.name.startswith("가"), F.name.contains(" "), F.name > "a", F.name.in_([])),
    *(F.stars == 1 << 53, F.stars > 1 << 53, F.stars <= -(1 << 63), F.stars.in_([5, 0]), F.stars.between(0, 9)),
    *(F.ratio == 0.1, F.ratio != 0.1, F.ratio < 0.1, F.ratio >= 5, F.ratio == None, F.ratio != None),  # noqa: E711
    *(F.open == True, F.open != True, F.code == UUID(int=2), F.day == date(2024, 3, 1), F.day < date(2024, 3, 1)),  # noqa: E712
    *(~(F.name == "a"), (F.stars > 4) & F.name.startswith("가"), (F.stars == 5) | F.name.contains("A"), ~(F.ratio > 0)),
]


@in_a_loop
async def test_a_condition_means_there_what_it_means_everywhere(chromadb: str, prefix: str) -> None:
    store = await prepared(chromadb, prefix)
    given = [change(1, replace(one, at=EAST), one.id) for one in PLACES]
    assert {one.status for one in await store.apply(given)} == {"applied"}
    for condition in CONDITIONS:
        where = PLACE.condition(condition)
        assert where is not None
        holds = predicate(where)
        found = await store.similar(PLACE.name, "", "at", pack(EAST), where, 9)
        assert [one.id for one in found] == [one.key.id for one in given if holds(one.body or {})], condition
    await store.aclose()


@in_a_loop
async def test_vectors_stay_when_they_are_compared_in_another_way_and_go_with_their_embedder(
    chromadb: str, prefix: str
) -> None:
    first = await prepared(chromadb, prefix)
    given = [change(3, Place(id="a", at=[2.0, 0.0, 0.0])), change(4, Place(id="b", at=[1.0, 0.1, 0.0]), "b")]
    await first.apply(given)
    second = await prepared(chromadb, prefix, VectorSpec(3, "l2", "caller"))
    found = await second.similar(PLACE.name, "", "at", pack(EAST), None, 9)
    assert [(one.id, one.version) for one in found] == [("b", 4), ("a", 3)]
    for refused in (
        first.similar(PLACE.name, "", "at", pack(EAST), None, 9),
        first.apply([change(9, Place(id="a", at=EAST))]),
    ):
        with pytest.raises(SchemaMismatch):
            await refused
    await prepare_for_texts(chromadb, prefix)
    with pytest.raises(SchemaMismatch):
        await second.similar(PLACE.name, "", "at", pack(EAST), None, 9)
    for store in (first, second):
        await store.aclose()


@entity(name="place")
@dataclass(kw_only=True)
class Described:
    """The class with a vector of its name, too."""

    id: str
    at: Annotated[list[float] | None, Embedding(dimension=3)] = None
    name: Annotated[str, Embedding(embedder="words")] = ""
    stars: int = 0
    ratio: float | None = None
    open: bool = True
    code: UUID | None = None
    day: date | None = None


async def prepare_for_texts(url: str, prefix: str) -> None:
    """What cannot be made of what is held has to be delivered again: at the version that it had."""
    store = await connect(url, {"prefix": prefix}, Env())
    specs = {"at": SPEC, "name": VectorSpec(2, "cosine", "words")}
    await store.prepare([Layout(entity_type(Described), False, frozenset({"vector"}), specs)], create=True)
    assert await store.newest(PLACE.name) == 4
    assert {one.id for one in await store.similar(PLACE.name, "", "at", pack(EAST), None, 9)} == {"a", "b"}
    assert await store.similar(PLACE.name, "", "name", pack([1, 0]), None, 9) == []
    again = change(3, Place(id="a", at=[2.0, 0.0, 0.0]))
    both = {"at": pack([2.0, 0.0, 0.0]), "name": pack([1.0, 0.0])}
    (outcome,) = await store.apply([msgspec.structs.replace(again, vectors=both)])
    assert outcome.status == "applied"
    (found,) = await store.similar(PLACE.name, "", "name", pack([1, 0]), None, 9)
    assert (found.id, found.version) == ("a", 3)
    await prepare_for_names(store, url, prefix)
    await store.aclose()


async def prepare_for_names(both: ChromadbRepository, url: str, prefix: str) -> None:
    """Records go with the vectors that stay; what has none of them is a record all the same."""
    before = await both.get([change(1, None, id).key for id in "ab"])
    names = {"name": VectorSpec(2, "cosine", "words")}
    store = await connect(url, {"prefix": prefix}, Env())
    await store.prepare([Layout(entity_type(Described), False, frozenset({"vector"}), names)], create=True)
    assert await store.get([change(1, None, id).key for id in "ab"]) == before
    assert [one.id for one in await store.similar(PLACE.name, "", "name", pack([1, 0]), None, 9)] == ["a"]
    stamps = (await store.scan(PLACE.name, "", EVERYTHING, None, 9)).stamps
    assert {one.id: (set(one.vectors), one.fault) for one in stamps} == {"a": ({"name"}, ""), "b": (set(), "")}
    await store.aclose()


@in_a_loop
async def test_a_search_shows_nothing_of_a_tenant_that_has_come_since_the_last_one(chromadb: str, prefix: str) -> None:
    """While there was one tenant, the server was asked for the nearest of all."""
    store, other = await prepared(chromadb, prefix, exact_max=0), await prepared(chromadb, prefix, exact_max=0)
    mine = [change(1, Place(id=f"m{i}", at=[0.1 * i, 1.0, 0.0]), f"m{i}") for i in range(60)]
    await store.apply(mine)
    asked: list[Any] = []
    nearest = store._server.nearest  # pyright: ignore[reportPrivateUsage]

    async def noted(id: str, vector: Any, count: int, where: Any) -> Any:
        asked.append(where)
        return await nearest(id, vector, count, where)

    store._server.nearest = noted  # type: ignore[method-assign]  # pyright: ignore[reportPrivateUsage]
    before = await store.similar(PLACE.name, "", "at", pack(EAST), None, 3)
    theirs = [change(1, Place(id=f"t{i}", at=EAST), f"t{i}") for i in range(70)]
    keyed = [msgspec.structs.replace(one, key=Key("acme", PLACE.name, one.key.id)) for one in theirs]
    await other.apply(keyed)
    assert await store.similar(PLACE.name, "", "at", pack(EAST), None, 3) == before
    assert [one.id for one in before] == ["m59", "m58", "m57"]
    assert asked[0] is None
    found = await other.similar(PLACE.name, "acme", "at", pack(EAST), None, 99)
    assert {one.id for one in found} == {one.key.id for one in keyed}
    await store.aclose()
    await other.aclose()


@in_a_loop
async def test_scan_tells_what_others_have_changed_there(chromadb: str, prefix: str) -> None:
    store = await prepared(chromadb, prefix)
    await store.apply([change(1, Place(id=id, at=EAST, name="a"), id) for id in "abcde"])
    held = store._types[PLACE.name]  # pyright: ignore[reportPrivateUsage]
    path = f"{COLLECTIONS}/{held.ids['at']}"
    async with httpx.AsyncClient(base_url=http(chromadb)) as client:
        there = (await client.post(f"{path}/get", json={"ids": ["/d"], "include": ["uris"]})).json()
        for spoiled in (
            {"ids": ["/a"], "embeddings": [WEST]},
            {"ids": ["/b"], "metadatas": [{"name": "b"}]},
            {"ids": ["/c"], "uris": ["data:,"]},
            {"ids": ["/e"], "uris": there["uris"]},
        ):
            (await client.post(f"{path}/update", json=spoiled)).raise_for_status()
    page = await store.scan(PLACE.name, "", EVERYTHING, None, 9)
    told = {one.id: one.fault for one in page.stamps}
    assert [id for id, fault in told.items() if not fault] == ["d"]
    assert told["a"] == told["c"] == UNREADABLE, "a field of the record is its vector"
    assert len(set(told.values())) == 3, "b and e tell of their metadata"
    with pytest.raises(DecodeError):
        await store.get([change(1, Place(id="a", at=EAST, name="a"), "a").key])
    await store.aclose()


EXACT = [[-0.0, 1.0, 0.0], [1e-40, 1e-38, 0.0], [0.0, 0.0, 0.0], [0.1, 0.2, 3e38], [0.6, 0.8, 1e-9], [0.1, 0.7, 0.7]]


@pytest.mark.parametrize("metric", ["cosine", "l2", "ip"])
@in_a_loop
async def test_a_vector_comes_back_bit_by_bit(chromadb: str, prefix: str, metric: Any) -> None:
    """Also one that the server has in its index alone, and as numbers that the record has in 64 bits."""
    store = await prepared(chromadb, prefix, VectorSpec(3, metric, "caller"))
    rounded = [unpack(pack(one)).tolist() for one in EXACT]
    given = [change(1, Place(id=f"{i}", at=one), f"{i}") for i, one in enumerate([*EXACT, *rounded])]
    assert {one.status for one in await store.apply(given)} == {"applied"}
    assert [one and one.body for one in await store.get([one.key for one in given])] == [one.body for one in given]
    stamps = {one.id: one for one in (await store.scan(PLACE.name, "", EVERYTHING, None, 99)).stamps}
    wanted = {one.key.id: ({"at": vector_digest(one.vectors["at"])}, one.hash, "") for one in given}
    assert {id: (dict(one.vectors), one.hash, one.fault) for id, one in stamps.items()} == wanted
    await store.aclose()


@in_a_loop
async def test_a_record_that_lost_its_vector_is_one_record_though_the_move_ended_half_way(
    chromadb: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both places have it then: the newer one counts, and the delivery that comes again takes the other away."""
    store = await prepared(chromadb, prefix)
    await store.apply([change(1, Place(id="a", at=EAST))])
    request = store.client.request

    async def ended(method: str, path: str, **more: Any) -> Any:
        if path.endswith("/delete"):
            raise httpx.ReadError("")
        return await request(method, path, **more)

    without = change(2, Place(id="a", name="b"))
    with monkeypatch.context() as patched:
        patched.setattr(store.client, "request", ended)
        with pytest.raises(Unavailable):
            await store.apply([without])
    (found,) = await store.get([without.key])
    assert found is not None
    assert (found.version, found.body) == (2, without.body)
    (stamp,) = (await store.scan(PLACE.name, "", EVERYTHING, None, 9)).stamps
    assert (stamp.version, stamp.vectors, stamp.fault) == (2, {}, "")
    assert [one.status for one in await store.apply([without])] == ["stale"]
    assert await store.similar(PLACE.name, "", "at", pack(EAST), None, 9) == []
    await store.apply([change(3, Place(id="a", at=WEST))])
    (match,) = await store.similar(PLACE.name, "", "at", pack(EAST), None, 9)
    (stamp,) = (await store.scan(PLACE.name, "", EVERYTHING, None, 9)).stamps
    assert (match.version, stamp.version) == (3, 3)
    await store.aclose()


@in_a_loop
async def test_a_record_is_found_while_it_moves(chromadb: str, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It leaves the place that is read last when the other was read."""
    store, other = await prepared(chromadb, prefix), await prepared(chromadb, prefix)
    await store.apply([change(1, Place(id="a", at=EAST))])
    without, request, moved = change(2, Place(id="a")), store.client.request, asyncio.Event()
    vectors = store._types[PLACE.name].ids["at"]  # pyright: ignore[reportPrivateUsage]

    async def late(method: str, path: str, **more: Any) -> Any:
        if vectors in path:
            await moved.wait()
            return await request(method, path, **more)
        answer = await request(method, path, **more)
        if not moved.is_set():
            await other.apply([without])
            moved.set()
        return answer

    monkeypatch.setattr(store.client, "request", late)
    (found,) = await store.get([without.key])
    assert found is not None
    assert found.version == 2
    await store.aclose()
    await other.aclose()


@in_a_loop
async def test_reads_go_on_while_records_are_deleted(
    chromadb: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server fails to give the embedding of what is deleted while it looks, in one of six reads of 1,000 records
    with 15 deletions a second."""
    store = await prepared(chromadb, prefix)
    await store.apply([change(1, Place(id=id, at=EAST), id) for id in "abcd"])
    request, gone = store.client.request, iter("abc")

    async def deleted_meanwhile(method: str, path: str, **more: Any) -> Any:
        if b"embeddings" in (more["content"] or b"") and path.endswith("/get") and (id := next(gone, None)):
            with monkeypatch.context() as patched:
                patched.setattr(store.client, "request", request)
                await store.apply([change(2, None, id)])
            return httpx.Response(500, json={"error": "InternalError"})
        return await request(method, path, **more)

    monkeypatch.setattr(store.client, "request", deleted_meanwhile)
    found = await store.get([change(1, None, id).key for id in "abcd"])
    assert [one and one.deleted for one in found] == [True, True, True, False]
    gone = iter("d")
    assert await store.similar(PLACE.name, "", "at", pack(EAST), None, 9) == []
    await store.aclose()


@in_a_loop
async def test_what_another_version_of_polystore_left_is_refused(chromadb: str, prefix: str) -> None:
    store = await prepared(chromadb, prefix)
    id = store._types[PLACE.name].ids[""]  # pyright: ignore[reportPrivateUsage]
    async with httpx.AsyncClient(base_url=http(chromadb)) as client:
        there = {one["id"]: one["metadata"] for one in (await client.get(COLLECTIONS, params={"limit": 10_000})).json()}
        older = {name: value for name, value in there[id].items() if name != "form"}
        (await client.put(f"{COLLECTIONS}/{id}", json={"new_metadata": older})).raise_for_status()
    layout = Layout(PLACE, False, frozenset({"vector"}), {"at": SPEC})
    with pytest.raises(SchemaMismatch, match="another version of polystore"):
        await store.prepare([layout], create=True)
    await store.aclose()


@in_a_loop
async def test_a_write_whose_caller_is_gone_ends_before_the_next_one_begins(
    chromadb: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it could land after a newer one: the server does not compare versions."""
    store = await prepared(chromadb, prefix)
    request, sent, answered = store.client.request, asyncio.Event(), asyncio.Event()

    async def slow(method: str, path: str, **more: Any) -> Any:
        if path.endswith("/upsert"):
            sent.set()
            await answered.wait()
        return await request(method, path, **more)

    monkeypatch.setattr(store.client, "request", slow)
    older = asyncio.create_task(store.apply([change(1, Place(id="a", at=EAST))]))
    await sent.wait()
    older.cancel()
    with pytest.raises(asyncio.CancelledError):
        await older
    newer = asyncio.create_task(store.apply([change(2, Place(id="a", at=WEST))]))
    assert store._server.lane(f"{prefix}place.records").locked()  # pyright: ignore[reportPrivateUsage]
    answered.set()
    assert [one.status for one in await newer] == ["applied"]
    (match,) = await store.similar(PLACE.name, "", "at", pack(EAST), None, 9)
    assert (match.version, round(match.score)) == (2, -1)
    await store.aclose()


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("chromadb:host", {}),
        ("chromadb://host:1/a/b", {}),
        ("chromadb://host:1?x=1", {}),
        ("chromadb://host:1", {"prefix": "-a"}),
        ("chromadb://host:1", {"ef_search": 0}),
        ("chromadb://host:1", {"ef_serach": 1}),
        ("chromadb://host:1", {"client": object()}),
        ("chromadbs://host:1", {"ca_file": "nowhere.pem"}),
    ],
)
@in_a_loop
async def test_what_makes_no_sense_is_refused_before_anything_is_asked(url: str, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        await connect(url, options, Env())
