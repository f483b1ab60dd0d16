"""What the documents say of the stores is what the kit said, of the kit and the adapters as they are."""

from __future__ import annotations

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

from docs.stores import PAGE, READMES, REPORTS, ROOT, page, readme, reports
from polystore import protocols
from polystore.testing.places import places
from polystore.testing.report import classes, count

ADAPTERS: dict[str, Any] = {
    "memory": MemoryRepository,
    "sqlite": SqliteRepository,
    "file": FileRepository,
    "postgresql": PostgresRepository,
    "mariadb": MysqlRepository,
    "mysql": MysqlRepository,
    "mongodb": MongoRepository,
    "redis": RedisRepository,
    "valkey": RedisRepository,
    "elasticsearch": ElasticsearchRepository,
    "neo4j": Neo4jRepository,
    "chromadb": ChromadbRepository,
    "influxdb": InfluxRepository,
    "s3": S3Repository,
}
AGAIN = "run the kit on it again: `python docs/stores.py NAME=URL`, see docs/stores.py"


def test_the_table_is_made_from_the_reports() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run `python docs/stores.py`"


@pytest.mark.parametrize("name", READMES)
def test_the_table_of_the_readme_is_made_from_the_reports(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert "| postgresql | postgresql 18" in text
    assert text == readme(name), "run `python docs/stores.py`"


@pytest.mark.parametrize("name", sorted(path.stem for path in REPORTS.glob("*.json")))
def test_a_report_tells_of_the_adapter_and_the_kit_as_they_are(name: str) -> None:
    report, claims = reports()[name], ADAPTERS[name].capabilities
    assert report.claims == sorted(one.__name__ for one in claims), AGAIN
    made: Any = classes(claims, places("memory:{}"), layers=False).values()
    told = [(row.name, row.way, row.passed) for row in report.rows]
    assert told == [(one.__name__, one.way, count(one)) for one in made], AGAIN


def test_every_adapter_has_a_report() -> None:
    assert ADAPTERS.keys() == reports().keys()


def test_who_writes_an_adapter_is_told_of_every_protocol() -> None:
    text = (ROOT / "docs/how-to/write-an-adapter.md").read_text(encoding="utf-8")
    assert [name for name in vars(protocols) if name.startswith("Supports") and f"`{name}`" not in text] == []
