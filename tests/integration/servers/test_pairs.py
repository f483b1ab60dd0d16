"""Every store that can be a home with every store that can hold a copy: what is written through the facade is in both,
as their own drivers say."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import neo4j
import pytest
from polystore_adapters.chromadb.repository import ChromadbRepository
from polystore_adapters.elasticsearch.repository import ElasticsearchRepository
from polystore_adapters.memory.repository import MemoryRepository
from polystore_adapters.mongodb.repository import MongoRepository
from polystore_adapters.mysql.repository import MysqlRepository
from polystore_adapters.neo4j.repository import Neo4jRepository
from polystore_adapters.neo4j.server import parse
from polystore_adapters.postgresql.repository import PostgresRepository
from polystore_adapters.redis.entries import DIGITS
from polystore_adapters.redis.repository import RedisRepository
from polystore_adapters.sqlite.repository import SqliteRepository
from pymongo import MongoClient
from redis import Redis

from polystore import ConfigurationError, HybridDataArchitecture
from polystore.config import Role
from polystore.consistency.verify import Verifier
from polystore.entity import EntityType, entity_types
from polystore.env import Env
from polystore.model import Key
from polystore.protocols import SupportsCommit
from polystore.selection import Candidate, place
from polystore.store import ROLE_NEEDS
from polystore.testing.places import Place, chromadb, mysql, places, postgresql
from tests.integration.servers.declared import declared
from tests.stack import url_of

ADAPTERS: Mapping[str, tuple[str, type[Any]]] = {
    "memory": ("memory", MemoryRepository),
    "sqlite": ("sqlite", SqliteRepository),
    "postgresql": ("postgresql", PostgresRepository),
    "mariadb": ("mysql", MysqlRepository),
    "mysql": ("mysql", MysqlRepository),
    "mongodb": ("mongodb", MongoRepository),
    "redis": ("redis", RedisRepository),
    "elasticsearch": ("elasticsearch", ElasticsearchRepository),
    "chromadb": ("chromadb", ChromadbRepository),
    "neo4j": ("neo4j", Neo4jRepository),
}
"""Store -> URL scheme, and the class that says what it can."""
ALL: tuple[Role, ...] = ("full_text", "vector", "graph")
JOURNALED, JOURNAL = {name for name, (_, cls) in ADAPTERS.items() if SupportsCommit not in cls.capabilities}, "sqlite"
"""Stores that cannot commit, and where the journal of their records is when they are homes."""


def candidates() -> list[Candidate]:
    return [
        Candidate(
            name,
            scheme,
            frozenset(role for role, needs in ROLE_NEEDS.items() if cls.capabilities.issuperset(needs)),
            cls.capabilities,
        )
        for name, (scheme, cls) in ADAPTERS.items()
    ]


def can(pins: Mapping[str, str], facets: Sequence[Role]) -> bool:
    """Whether the selector obeys."""
    cls = declared("asked", facets)
    made: EntityType[Any] = entity_types([cls])["asked"]
    try:
        place(made, candidates(), pins)
    except ConfigurationError:
        return False
    return True


def pairs() -> dict[tuple[str, str], tuple[Role, ...]]:
    """Home and copy -> what the copy can serve."""
    found: dict[tuple[str, str], tuple[Role, ...]] = {}
    for home in ADAPTERS:
        for copy in ADAPTERS:
            able: tuple[Role, ...] = tuple(facet for facet in ALL if can({"home": home, facet: copy}, (facet,)))
            forgets = copy == "memory" and home != copy  # `open` refuses what dies before its home
            if able and not forgets:
                found[home, copy] = able
    return found


PAIRS = pairs()
COPIES: dict[str, tuple[Role, ...]] = {
    **dict.fromkeys(("sqlite", "postgresql", "mariadb", "mysql"), ALL),
    "mongodb": ("full_text",),
    "elasticsearch": ("full_text",),
    "chromadb": ("vector",),
    "neo4j": ("graph",),
}


def test_the_matrix_gives_each_home_every_copy() -> None:
    homes = {home for home, _ in PAIRS}
    assert homes >= {"memory", "sqlite", "postgresql", "mariadb", "mysql", "mongodb", "redis"}
    assert not homes & {"elasticsearch", "chromadb", "neo4j"}
    own = {("memory", "memory"): ALL}
    assert own | {(home, copy): facets for home in homes for copy, facets in COPIES.items()} == PAIRS


# -- what the drivers say ----------------------------------------------------------------------------------------------


Texts = dict[str, str]


def in_memory(at: Place, etype: str) -> Texts:
    async def read() -> Texts:
        repository = await at.connect(Env())
        keys = [Key("", etype, id) for id in "abc"]
        found = await repository.get(keys)
        return {key.id: one.body["text"] for key, one in zip(keys, found, strict=True) if one and one.body}

    return asyncio.run(read())


def in_sqlite(at: Place, etype: str) -> Texts:
    with sqlite3.connect(at.url.partition(":")[2]) as db:
        return dict(db.execute(f"SELECT id, text FROM {etype} WHERE text IS NOT NULL"))


def in_postgresql(at: Place, etype: str) -> Texts:
    schema = at.options["schema"].partition(",")[0]
    sql = f"SELECT coalesce(json_object_agg(id, text), '{{}}') FROM {schema}.{etype} WHERE text IS NOT NULL"
    return dict(json.loads(postgresql.statements(at.url).value(sql)))


def in_mysql(at: Place, etype: str) -> Texts:
    database = at.url.rpartition("/")[2]
    return dict(mysql.run(at.url, f"SELECT id, text FROM {database}.{etype} WHERE text > ''"))


def in_mongodb(at: Place, etype: str) -> Texts:
    with MongoClient[dict[str, Any]](at.url) as client:
        live = client.get_default_database()[etype].find({"text": {"$exists": True}})
        return {one["id"]: one["text"] for one in live}


def in_redis(at: Place, etype: str) -> Texts:
    redis: Any = Redis  # says no types
    client = redis.from_url(at.url)
    entries = [client.get(key) for key in client.scan_iter(match=f"{at.options['prefix']}:r:{{/{etype}/*", count=1000)]
    client.close()
    bodies = [json.loads(entry[DIGITS:]).get("body") for entry in entries]
    return {body["id"]: body["text"] for body in bodies if body}


def in_elasticsearch(at: Place, etype: str) -> Texts:
    index = f"http{at.url.removeprefix('elasticsearch')}/{at.options['prefix']}{etype}*"
    httpx.post(f"{index}/_refresh", timeout=30).raise_for_status()
    hits = httpx.get(f"{index}/_search", timeout=30).json()["hits"]["hits"]
    return {one["_source"]["id"]: one["_source"]["text"] for one in hits if "text" in one["_source"]}


def in_chromadb(at: Place, etype: str) -> Texts:
    base = chromadb.http(at.url) + chromadb.collections(at.url)
    name = f"{at.options['prefix']}{etype}."  # of records without a vector, and with one
    ids = [one["id"] for one in httpx.get(base, timeout=30).json() if one["name"].startswith(name)]
    asked = {"include": ["metadatas"]}
    found = [httpx.post(f"{base}/{id}/get", json=asked, timeout=30).json()["metadatas"] for id in ids]
    return {one["id"]: one["text"] for some in found for one in some if "text" in one}


def in_neo4j(at: Place, etype: str) -> Texts:
    server, module = parse(at.url, {}), neo4j
    driver: Any = module.GraphDatabase.driver(server.url, auth=server.auth)
    live = f"MATCH (n:{at.options['label']} {{ps_etype: $etype}}) WHERE n.text IS NOT NULL RETURN n.id, n.text"
    with driver, driver.session() as session:
        return dict(session.run(live, etype=etype).values())


READERS: Mapping[str, Callable[[Place, str], Texts]] = {
    "memory": in_memory,
    "sqlite": in_sqlite,
    "postgresql": in_postgresql,
    "mariadb": in_mysql,
    "mysql": in_mysql,
    "mongodb": in_mongodb,
    "redis": in_redis,
    "elasticsearch": in_elasticsearch,
    "chromadb": in_chromadb,
    "neo4j": in_neo4j,
}


# -- the pairs ---------------------------------------------------------------------------------------------------------


@contextmanager
def everywhere(folder: Path) -> Generator[Mapping[str, Place]]:
    """A place of its own in each store."""
    own = {"memory": "memory:{}", "sqlite": f"sqlite:{folder}/{{}}.db"}
    with ExitStack() as all_of_them:
        yield {name: all_of_them.enter_context(places(own.get(name) or url_of(name))()) for name in READERS}


@pytest.mark.parametrize("home", dict.fromkeys(home for home, _ in PAIRS))
def test_what_is_written_at_a_home_is_in_each_of_its_copies(home: str, tmp_path: Path) -> None:
    copies = {copy: facets for (at, copy), facets in PAIRS.items() if at == home}
    classes = {copy: declared(f"in_{copy}", facets) for copy, facets in copies.items()}
    with everywhere(tmp_path) as where:
        pins: dict[str, dict[str, str]] = {}
        for copy, facets in copies.items():
            pins[f"in_{copy}"] = {"home": home, **dict.fromkeys(facets, copy)}
            if home in JOURNALED:
                pins[f"in_{copy}"]["journal"] = JOURNAL
        stores = {name: {"url": at.url, "options": dict(at.options)} for name, at in where.items()}
        config = {"stores": stores, "pins": pins}
        asyncio.run(written_and_read(config, classes, copies))
        for copy in copies:
            expected = {"a": "바다 여행", "b": "산 여행"}
            assert READERS[copy](where[copy], f"in_{copy}") == expected, copy
            assert READERS[home](where[home], f"in_{copy}") == expected, f"{home}, with {copy}"


async def written_and_read(
    config: Mapping[str, Any], classes: Mapping[str, type[Any]], copies: Mapping[str, Sequence[Role]]
) -> None:
    async with HybridDataArchitecture.open(config, entities=list(classes.values())) as hda:
        for cls in classes.values():
            records = hda.collection(cls)
            await records.put_many(
                [cls(id="a", text="바다 여행", follows=["b"]), cls(id="b", text="강"), cls(id="c", text="여행")]
            )
            await records.update("b", {"text": "산 여행"})
            await records.delete("c")
        await hda.settle(30)
        for copy, cls in classes.items():
            records = hda.collection(cls)
            assert await records.get("b") == cls(id="b", text="산 여행")
            assert await records.get("c") is None
            if "full_text" in copies[copy]:
                assert {hit.value.text for hit in await records.search("여행")} == {"바다 여행", "산 여행"}, copy
            if "vector" in copies[copy]:
                assert [hit.value.id for hit in await records.similar("바다 여행")] == ["a", "b"], copy
            if "graph" in copies[copy]:
                found = await records.related("a", f"NEXT_in_{copy}", into=cls)
                assert [one.value.text for one in found] == ["산 여행"], copy
        verifier = Verifier(hda.stores, hda.manager.placements, hda.manager.embedders)
        for etype in hda.manager.placements:
            assert [one async for one in verifier.differences(etype)] == []
