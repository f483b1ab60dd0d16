from __future__ import annotations

from collections import Counter
from typing import get_args

import pytest

from polystore.config import Role
from polystore.errors import ConfigurationError
from polystore.selection.matrix import MATRIX, PRODUCTS, ROLES, Row, row_of, title

ROWS = pytest.mark.parametrize("row", MATRIX, ids=lambda row: row.data_type)


@pytest.mark.parametrize(
    ("data_type", "kind", "home", "copy", "best"),
    [
        ("user_profile", "record", "home", None, "PostgreSQL"),
        ("live_state", "state", "live_state", None, "Redis"),
        ("conversation", "record", "document", None, "MongoDB"),
        ("time_series", "fact", "time_series", None, "InfluxDB"),
        ("graph", "record", "home", "graph", "Neo4j"),
        ("embedding", "record", "home", "vector", "ChromaDB"),
        ("log", "fact", "full_text", None, "Elasticsearch"),
        ("file", "blob", "file", None, "MinIO"),
    ],
)
def test_every_type_of_data_has_its_row(data_type: str, kind: str, home: str, copy: str | None, best: str) -> None:
    row = row_of(data_type)
    assert (row.kind, row.home, row.copy) == (kind, home, copy)
    assert title(row.stores[:1]) == best
    assert row.stores[0] not in row.alternatives


@pytest.mark.parametrize(
    ("alias", "data_type"),
    [
        ("account", "user_profile"),
        ("transaction", "user_profile"),
        ("contract", "user_profile"),
        ("audit_trail", "user_profile"),
        ("session", "live_state"),
        ("cache", "live_state"),
        ("rate_limit", "live_state"),
        ("skill", "conversation"),
        ("memory", "conversation"),
        ("metric", "time_series"),
        ("emotion", "time_series"),
        ("relation", "graph"),
        ("vector", "embedding"),
        ("log_line", "log"),
        ("image", "file"),
    ],
)
def test_an_alias_names_the_same_row(alias: str, data_type: str) -> None:
    assert row_of(alias) is row_of(data_type)


def test_a_name_belongs_to_one_row_only() -> None:
    names = Counter(name for row in MATRIX for name in (row.data_type, *row.aliases))
    assert [name for name, count in names.items() if count > 1] == []


def test_an_unknown_type_of_data_is_refused_with_the_nearest_and_the_known_ones() -> None:
    with pytest.raises(
        ConfigurationError, match=r"'conversatoin', did you mean 'conversation'\?; known: user_profile .*file"
    ):
        row_of("conversatoin")
    with pytest.raises(ConfigurationError, match="unknown data_type 'xyz'; known: "):
        row_of("xyz")


@pytest.mark.parametrize(
    ("role", "order"),
    [
        ("home", "postgresql mysql mariadb"),
        ("cache", "redis valkey keydb"),
        ("live_state", "redis valkey keydb postgresql"),
        ("document", "mongodb couchdb postgresql"),
        ("full_text", "elasticsearch opensearch postgresql"),
        ("vector", "chromadb pgvector milvus pinecone postgresql"),
        ("graph", "neo4j arangodb postgresql"),
        ("time_series", "influxdb timescaledb postgresql"),
        ("file", "minio s3 file"),
        ("stream", "kafka redis"),
    ],
)
def test_a_role_prefers_the_store_made_for_it_then_its_kin_then_a_relational_one(role: Role, order: str) -> None:
    expected = order.split()
    assert list(ROLES[role].stores[: len(expected)]) == expected


@pytest.mark.parametrize("role", get_args(Role))
def test_every_role_ends_with_what_needs_no_server_and_names_known_stores_once(role: Role) -> None:
    stores = ROLES[role].stores
    assert stores[-2:] == ("sqlite", "memory")
    assert len(set(stores)) == len(stores)
    assert set(stores) <= set(PRODUCTS)


@pytest.mark.parametrize("role", sorted(set(get_args(Role)) - {"cache"}))
def test_one_postgresql_can_play_every_role_but_the_cache_of_itself(role: Role) -> None:
    assert "postgresql" in ROLES[role].stores


@ROWS
def test_a_record_never_lives_in_a_store_that_only_makes_copies(row: Row) -> None:
    assert row.kind != "record" or not ROLES[row.home].copy_only
    assert row.copy is None or ROLES[row.copy].copy_only


@pytest.mark.parametrize("store", ["chromadb", "elasticsearch", "neo4j"])
def test_a_store_that_cannot_be_a_home_is_preferred_for_no_record_home(store: str) -> None:
    assert all(store not in ROLES[row.home].stores for row in MATRIX if row.kind == "record")


def test_a_third_partys_scheme_is_its_own_title() -> None:
    assert title(("kafka", "duckdb")) == "Kafka + duckdb"
