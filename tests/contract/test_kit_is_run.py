"""Nothing that an adapter claims is left out: every class of the kit runs against each adapter that has to pass it."""

from types import ModuleType
from typing import Any

import pytest
from polystore_adapters.chromadb.repository import ChromadbRepository
from polystore_adapters.elasticsearch.repository import ElasticsearchRepository
from polystore_adapters.file.repository import FileRepository
from polystore_adapters.influxdb import InfluxRepository
from polystore_adapters.memory import MemoryRepository
from polystore_adapters.mongodb.repository import MongoRepository
from polystore_adapters.mysql.repository import MysqlRepository
from polystore_adapters.neo4j.repository import Neo4jRepository
from polystore_adapters.postgresql.repository import PostgresRepository
from polystore_adapters.redis import RedisRepository
from polystore_adapters.s3 import S3Repository
from polystore_adapters.sqlite.repository import SqliteRepository

from polystore.protocols import Repository, SupportsSchema
from polystore.testing import conformance
from polystore.testing.conformance import Conformance
from polystore.testing.conformance.chosen import chosen
from tests.contract import (
    test_alias_catches,
    test_chromadb,
    test_elasticsearch,
    test_file,
    test_influxdb,
    test_memory,
    test_mongodb,
    test_mysql,
    test_neo4j,
    test_postgresql,
    test_redis,
    test_refresh_catches,
    test_s3,
    test_sqlite,
)

KIT = {one for one in vars(conformance).values() if isinstance(one, type) and issubclass(one, Conformance)}


@pytest.mark.parametrize(
    ("module", "repository"),
    [
        (test_memory, MemoryRepository),
        (test_sqlite, SqliteRepository),
        (test_file, FileRepository),
        (test_postgresql, PostgresRepository),
        (test_mysql, MysqlRepository),
        (test_mongodb, MongoRepository),
        (test_redis, RedisRepository),
        (test_s3, S3Repository),
        (test_elasticsearch, ElasticsearchRepository),
        (test_neo4j, Neo4jRepository),
        (test_chromadb, ChromadbRepository),
        (test_influxdb, InfluxRepository),
    ],
)
def test_every_class_of_the_kit_and_every_claim_is_run(module: ModuleType, repository: Any) -> None:
    tests = [one for name, one in vars(module).items() if name.startswith("Test") and issubclass(one, Conformance)]
    wanted = chosen(repository.capabilities)
    assert [one for one in wanted if not any(issubclass(t, one.cls) and t.home == one.home for t in tests)] == []
    assert {one.cls.protocol for one in wanted} | {Repository, SupportsSchema} >= {*repository.capabilities}


def test_every_class_of_the_kit_is_run() -> None:
    modules = (test_memory, test_sqlite, test_alias_catches, test_refresh_catches)
    run = [one for module in modules for one in vars(module).values() if isinstance(one, type)]
    assert {base for one in run for base in one.__mro__} >= KIT
