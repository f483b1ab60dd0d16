"""Records by hand: what each driver has for many of them at once, in requests of 500, into a table, an index or a
collection made for the purpose as its documentation shows. No versions, no tombstones, no comparing. A record is its
fields by their names, the key is `id`; all have the same fields."""

from __future__ import annotations

import importlib
import uuid
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

import httpx
import msgspec
import sqlalchemy as sa
from polystore_adapters.mysql.driver import connect
from polystore_adapters.neo4j.server import parse

from polystore.testing.places import chromadb

SIZE = 500


Row = Mapping[str, Any]


class Bulk(Protocol):
    async def __call__(self, rows: Sequence[Row]) -> None: ...


def _module(name: str) -> Any:
    return importlib.import_module(name)


def parts(rows: Sequence[Row]) -> list[Sequence[Row]]:
    return [rows[at : at + SIZE] for at in range(0, len(rows), SIZE)]


@asynccontextmanager
async def postgresql(url: str) -> AsyncGenerator[Bulk]:
    schema = f"bulk_{uuid.uuid4().hex[:12]}"
    settings = {"search_path": schema, "synchronous_commit": "off"}
    db = await _module("asyncpg").connect(url, server_settings=settings)
    await db.execute(
        f"CREATE SCHEMA {schema}; CREATE TABLE raw (id text PRIMARY KEY, owner text, title text, body text, stars "
        "bigint, ratio double precision, terms tsvector); CREATE INDEX ON raw USING gin (terms)"
    )

    async def write(rows: Sequence[Row]) -> None:
        for some in parts(rows):
            await db.executemany(
                "INSERT INTO raw VALUES ($1, $2, $3, $4, $5, $6, to_tsvector('simple', $3)) ON CONFLICT (id) DO UPDATE "
                "SET owner = excluded.owner, title = excluded.title, body = excluded.body, stars = excluded.stars, "
                "ratio = excluded.ratio, terms = excluded.terms",
                [tuple(one.values()) for one in some],
            )

    try:
        yield write
    finally:
        await db.execute(f"DROP SCHEMA {schema} CASCADE")
        await db.close()


@asynccontextmanager
async def mariadb(url: str) -> AsyncGenerator[Bulk]:
    at, name = sa.make_url(url), f"bulk_{uuid.uuid4().hex[:12]}"
    where = {"host": at.host, "port": at.port, "user": at.username, "password": at.password}
    db = await connect(**where, charset="utf8mb4", autocommit=True)
    cursor = db.cursor()
    await cursor.execute(f"CREATE DATABASE {name}")
    await cursor.execute(f"USE {name}")
    await cursor.execute(
        "CREATE TABLE raw (id VARCHAR(512) PRIMARY KEY, owner LONGTEXT, title LONGTEXT, body LONGTEXT, stars BIGINT, "
        "ratio DOUBLE, FULLTEXT (title)) CHARSET=utf8mb4"
    )
    upsert = (
        "INSERT INTO raw (id, owner, title, body, stars, ratio) VALUES (%s, %s, %s, %s, %s, %s) ON DUPLICATE KEY "
        "UPDATE owner = VALUES(owner), title = VALUES(title), body = VALUES(body), stars = VALUES(stars), "
        "ratio = VALUES(ratio)"
    )

    async def write(rows: Sequence[Row]) -> None:
        for some in parts(rows):
            await cursor.executemany(upsert, [tuple(one.values()) for one in some])

    try:
        yield write
    finally:
        await cursor.execute(f"DROP DATABASE {name}")
        await db.ensure_closed()


@asynccontextmanager
async def mongodb(url: str, text: str = "title") -> AsyncGenerator[Bulk]:
    pymongo = _module("pymongo")
    client = pymongo.AsyncMongoClient(url)
    name = f"bulk_{uuid.uuid4().hex[:12]}"
    found = client[name].get_collection("raw", write_concern=_module("pymongo.write_concern").WriteConcern("majority"))
    await found.create_index([(text, 1)])

    async def write(rows: Sequence[Row]) -> None:
        for some in parts(rows):
            await found.bulk_write(
                [pymongo.ReplaceOne({"_id": one["id"]}, {"_id": one["id"], **one}, upsert=True) for one in some],
                ordered=False,
            )

    try:
        yield write
    finally:
        await client.drop_database(name)
        await client.close()


@asynccontextmanager
async def elasticsearch(url: str, text: str = "title") -> AsyncGenerator[Bulk]:
    module, helpers = _module("elasticsearch"), _module("elasticsearch.helpers")
    client = module.AsyncElasticsearch([f"http{url.removeprefix('elasticsearch')}"], request_timeout=60)
    index = f"bulk-{uuid.uuid4().hex[:12]}"
    mappings = {
        "properties": {text: {"type": "text"}},
        "dynamic_templates": [
            {"rest": {"match_mapping_type": "string", "mapping": {"type": "keyword", "ignore_above": 8191}}}
        ],
    }
    await client.indices.create(
        index=index, mappings=mappings, settings={"number_of_shards": 1, "number_of_replicas": 0}
    )

    async def write(rows: Sequence[Row]) -> None:
        for some in parts(rows):
            actions = [{"_index": index, "_id": one["id"], "_source": one} for one in some]
            await helpers.async_bulk(client, actions, chunk_size=SIZE)

    try:
        yield write
    finally:
        await client.indices.delete(index=index)
        await client.close()


@asynccontextmanager
async def neo4j(url: str, edges: Mapping[str, str] = {"follows": "FOLLOWS"}) -> AsyncGenerator[Bulk]:
    """`edges`: field with the ids of the other ends -> type."""
    at, label = parse(url, {}), f"B{uuid.uuid4().hex[:12]}"
    driver = _module("neo4j").AsyncGraphDatabase.driver(at.url, auth=at.auth)
    await driver.execute_query(f"CREATE CONSTRAINT {label.lower()} FOR (n:{label}) REQUIRE n.id IS UNIQUE")
    query = f"UNWIND $rows AS r MERGE (n:{label} {{id: r.id}}) SET n += r"
    for field, type_ in edges.items():
        query += f" FOREACH (to IN r.{field} | MERGE (m:{label} {{id: to}}) MERGE (n)-[:{type_}]->(m))"

    async def write(rows: Sequence[Row]) -> None:
        for some in parts(rows):
            await driver.execute_query(query, parameters_={"rows": some})

    try:
        yield write
    finally:
        await driver.execute_query(f"MATCH (n:{label}) DETACH DELETE n")
        await driver.execute_query(f"DROP CONSTRAINT {label.lower()}")
        await driver.close()


@asynccontextmanager
async def chroma(url: str) -> AsyncGenerator[Bulk]:
    """Of the field `place`."""
    path, name = chromadb.collections(url), f"bulk-{uuid.uuid4().hex[:12]}"
    async with httpx.AsyncClient(base_url=chromadb.http(url), timeout=60) as client:
        made = await client.post(path, json={"name": name, "configuration": {"hnsw": {"space": "cosine"}}})
        id = made.raise_for_status().json()["id"]

        async def write(rows: Sequence[Row]) -> None:
            for some in parts(rows):
                given: Mapping[str, Any] = {
                    "ids": [one["id"] for one in some],
                    "embeddings": [one["place"] for one in some],
                    "metadatas": [{name: value for name, value in one.items() if name != "place"} for one in some],
                }
                sent = msgspec.json.encode(given)
                headers = {"Content-Type": "application/json"}
                (await client.post(f"{path}/{id}/upsert", content=sent, headers=headers)).raise_for_status()

        try:
            yield write
        finally:
            await client.delete(f"{path}/{name}")


@asynccontextmanager
async def redis(url: str) -> AsyncGenerator[Bulk]:
    """What a cache is brought is that its entry is out of date."""
    prefix = f"bulk-{uuid.uuid4().hex[:12]}:"
    client = _module("redis.asyncio").Redis.from_url(url)

    async def write(rows: Sequence[Row]) -> None:
        for some in parts(rows):
            async with client.pipeline(transaction=False) as pipe:
                for one in some:
                    pipe.set(prefix + one["id"], b"", px=60_000)
                await pipe.execute()

    try:
        yield write
    finally:
        await client.aclose()


DRIVERS: Mapping[str, Callable[[str], AbstractAsyncContextManager[Bulk]]] = {
    "postgresql": postgresql,
    "mariadb": mariadb,
    "mongodb": mongodb,
    "redis": redis,
    "elasticsearch": elasticsearch,
    "neo4j": neo4j,
    "chromadb": chroma,
}
