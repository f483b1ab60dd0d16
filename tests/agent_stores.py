"""The agent of examples/ on different stores: unchanged, by what is said in the configuration of its data directory."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec
from pymongo import MongoClient

from polystore.testing.places import chromadb
from polystore.testing.places.elasticsearch import own_prefix
from polystore.testing.places.influxdb import own_bucket
from polystore.testing.places.mongodb import fresh_database
from polystore.testing.places.neo4j import fresh_label
from polystore.testing.places.postgresql import fresh_schema
from polystore.testing.places.s3 import own_objects
from tests import agent_child, mongodb, mysql, postgresql
from tests.agent_child import EXAMPLES
from tests.homes import Stores
from tests.redis_servers import Place
from tests.stack import url_of

COUNT = "SELECT count(*) FROM {} WHERE source != '/chat'"


class AgentStores(msgspec.Struct, frozen=True):
    """`home`: the store of the messages. `stores`: what the configuration says, nothing where the agent writes it
    itself, started with `arguments`. `committed`: how many messages of files the home holds, -1 before there is one;
    asked beside the agent, not through it."""

    home: str
    committed: Callable[[Path], int]
    stores: Stores = {}
    arguments: Sequence[str] = ()

    def configure(self, data: Path) -> None:
        """Write the configuration, as a user does before the first start."""
        if not self.stores:
            return
        data.mkdir(parents=True, exist_ok=True)
        lines = ['entities = ["agent.entities"]', f"import_paths = [{_toml(str(EXAMPLES))}]"]
        for name, settings in self.stores.items():
            lines += [f"[stores.{name}]", *(f"{key} = {_toml(value)}" for key, value in settings.items())]
        (data / "polystore.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {_toml(one)}" for key, one in value.items()) + "}"  # pyright: ignore[reportUnknownVariableType]
    return json.dumps(value)


@contextmanager
def embedded(folder: Path) -> Generator[AgentStores]:
    yield AgentStores("home", agent_child.imported, arguments=("--store", "embedded"))


@contextmanager
def sqlite(folder: Path) -> Generator[AgentStores]:
    yield AgentStores("main", agent_child.imported, arguments=("--store", "sqlite"))


@contextmanager
def postgresql_alone(folder: Path) -> Generator[AgentStores]:
    with postgresql.fresh_schema() as path:
        yield AgentStores("main", _in_postgresql(path), {"main": postgresql.configured(path)})


@contextmanager
def mariadb_redis_and_a_directory(folder: Path) -> Generator[AgentStores]:
    with mysql.fresh_database() as url, _redis() as redis:
        files = {"url": f"file:{folder / 'files'}"}
        yield AgentStores("main", _in_mariadb(url), {"main": {"url": url}, "live": redis, "files": files})


@contextmanager
def postgresql_redis_and_mongodb(folder: Path) -> Generator[AgentStores]:
    """Messages are documents; who said them, about what and when is PostgreSQL's, and so is the journal of both."""
    with postgresql.fresh_schema() as path, _redis() as redis, mongodb.fresh_database() as url:
        stores = {"main": postgresql.configured(path), "live": redis, "documents": {"url": url}}
        yield AgentStores("documents", _in_mongodb(url), stores)


@contextmanager
def every_kind(folder: Path, instead: Mapping[str, str] = {}) -> Generator[AgentStores]:
    """Each kind of data in the store that is made for it, as in compose/polystore.toml; PostgreSQL has what is left,
    and the journal. `instead`: servers by their names with other URLs than those of `tests.stack`."""

    def url(name: str) -> str:
        return instead.get(name) or url_of(name)

    with ExitStack() as own:
        main = url("postgresql")
        path = own.enter_context(fresh_schema(main))
        documents = own.enter_context(fresh_database(url("mongodb")))
        search, graph, vectors = url("elasticsearch"), url("neo4j"), url("chromadb")
        stores: dict[str, Mapping[str, Any]] = {
            "main": {"url": main, "options": {"schema": path, "pool_size": 5}},
            "live": own.enter_context(_redis(url("redis"))),
            "documents": {"url": documents},
            "search": {"url": search, "options": {"prefix": own.enter_context(own_prefix(search))}},
            "graph": {"url": graph, "options": {"label": own.enter_context(fresh_label(graph))}},
            "vectors": {"url": vectors, "options": {"prefix": own.enter_context(chromadb.own_prefix(vectors))}},
            "series": {"url": own.enter_context(own_bucket(url("influxdb")))},
            "files": {"url": own.enter_context(own_objects(url("minio")))},
        }
        yield AgentStores("documents", _in_mongodb(documents), stores)


@contextmanager
def _redis(url: str | None = None) -> Generator[Mapping[str, Any]]:
    """Settings of a Redis store under a prefix of its own."""
    place = Place(url or url_of("redis"))
    try:
        yield {"url": place.url, "options": {"prefix": place.prefix}}
    finally:
        place.clear()


def _in_postgresql(path: str) -> Callable[[Path], int]:
    table = f"{path.partition(',')[0]}.message"

    def committed(data: Path) -> int:
        there = postgresql.server().value("SELECT to_regclass($1) IS NOT NULL", table)
        return int(postgresql.server().value(COUNT.format(table))) if there else -1

    return committed


def _in_mariadb(url: str) -> Callable[[Path], int]:
    database = url.rpartition("/")[2]

    def committed(data: Path) -> int:
        there = mysql.run(url, f"SHOW TABLES FROM {database} LIKE 'message'")
        return int(mysql.run(url, COUNT.format(f"{database}.message"))[0][0]) if there else -1

    return committed


def _in_mongodb(url: str) -> Callable[[Path], int]:
    def committed(data: Path) -> int:
        with MongoClient[dict[str, Any]](url) as client:
            messages = client.get_default_database()["message"]
            if not messages.find_one():
                return -1
            return messages.count_documents({"source": {"$exists": True, "$ne": "/chat"}})

    return committed


ON_SERVERS: Mapping[str, Callable[[Path], AbstractContextManager[AgentStores]]] = {
    "postgresql": postgresql_alone,
    "mariadb+redis+file": mariadb_redis_and_a_directory,
    "postgresql+redis+mongodb": postgresql_redis_and_mongodb,
}
AGENT_STORES: Mapping[str, Callable[[Path], AbstractContextManager[AgentStores]]] = {
    "embedded": embedded,
    "sqlite": sqlite,
    **ON_SERVERS,
    "full": every_kind,
}
