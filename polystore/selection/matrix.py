"""The matrix: which kind of store suits which role and which type of data, as data.

Stores are named here by the URL scheme of their adapter ("postgresql", "redis"). A preference is an order, not a claim:
what an adapter can do is asked of the adapter. Every order ends with what one relational server can do by itself, then
with `sqlite` and `memory`, so that few stores, and the embedded profile, always have an answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from polystore.config import Role
from polystore.errors import ConfigurationError, did_you_mean

Kind = Literal["record", "fact", "state", "blob"]


class Product(msgspec.Struct, frozen=True):
    """A kind of store: the name that people know it by, and what having one costs."""

    title: str
    cost: str


# Memory is the resident size of an idle server, as measured on a 2-core Linux machine while this table was made.
PRODUCTS: Final[Mapping[str, Product]] = {
    "postgresql": Product("PostgreSQL", "a server (50 to 210 MB idle); a pooler from some hundred connections on"),
    "mysql": Product("MySQL", "a server; no vectors, JSON without rich indexes"),
    "mariadb": Product("MariaDB", "a server; JSON without rich indexes"),
    "redis": Product("Redis", "a server (10 MB idle); all data must fit in its memory; may lose the last second"),
    "valkey": Product("Valkey", "a server (10 MB idle); all data must fit in its memory; may lose the last second"),
    "keydb": Product("KeyDB", "a server; all data must fit in its memory; may lose the last second"),
    "mongodb": Product("MongoDB", "a server; its writes commit through the journal of another store"),
    "couchdb": Product("CouchDB", "a server (80 MB idle); its writes commit through the journal of another store"),
    "influxdb": Product("InfluxDB", "a server (100 MB idle); points only, no joins, no transactions"),
    "timescaledb": Product("TimescaleDB", "an extension to install in a PostgreSQL server"),
    "neo4j": Product("Neo4j", "a Java server (600 MB idle); a copy that lags its home by milliseconds"),
    "arangodb": Product("ArangoDB", "a server; a copy that lags its home by milliseconds"),
    "chromadb": Product("ChromaDB", "a server (150 MB idle, 500 MB on disk); a copy that lags; no conditional write"),
    "pgvector": Product("pgvector", "an extension to install in a PostgreSQL server; its index wants to fit in memory"),
    "milvus": Product("Milvus", "a server (300 MB idle); a copy that lags its home by milliseconds"),
    "pinecone": Product("Pinecone", "a paid service outside your network; a copy that lags its home"),
    "elasticsearch": Product("Elasticsearch", "a Java server (800 MB idle); new text is found after its refresh (1 s)"),
    "opensearch": Product("OpenSearch", "a Java server (400 MB idle); new text is found after its refresh (1 s)"),
    "minio": Product("MinIO", "a server (110 to 140 MB idle); content is written before the record that names it"),
    "s3": Product("S3", "a service outside your network; tens of milliseconds a request"),
    "kafka": Product("Kafka", "a Java server (350 MB idle); readers keep their own position"),
    "file": Product("a directory", "no server; one machine only"),
    "sqlite": Product("SQLite", "no server; one machine, one writer at a time"),
    "memory": Product("memory", "no server; everything is gone when the process ends"),
}
"""URL scheme -> the kind of store behind it."""


class Preference(msgspec.Struct, frozen=True):
    """What a role is best played by: `stores` are URL schemes, the best first. `copy_only`: this role never makes a
    home for records; it holds a copy of what lives elsewhere."""

    role: Role
    stores: tuple[str, ...]
    why: str
    copy_only: bool = False


def _prefer(role: Role, stores: str, why: str, *, copy_only: bool = False) -> Preference:
    return Preference(role, (*stores.split(), "sqlite", "memory"), why, copy_only)


ROLES: Final[Mapping[Role, Preference]] = {
    preference.role: preference
    for preference in (
        _prefer("home", "postgresql mysql mariadb", "ACID, integrity, joins, JSON, rich indexes"),
        _prefer("journal", "postgresql mysql mariadb", "outbox and versions need a store that can commit"),
        # A relational server is no cache of itself, so none stands here.
        _prefer("cache", "redis valkey keydb", "in memory, low latency, expiry", copy_only=True),
        _prefer(
            "live_state",
            "redis valkey keydb postgresql mysql mariadb",
            "in memory, low latency; counters, expiry, rate limits, pub/sub",
        ),
        _prefer(
            "document", "mongodb couchdb postgresql mysql mariadb", "documents of flexible schema, indexes on any field"
        ),
        _prefer(
            "full_text",
            "elasticsearch opensearch postgresql mongodb mysql mariadb",
            "full-text search and analysis",
            copy_only=True,
        ),
        _prefer(
            "vector",
            "chromadb pgvector milvus pinecone postgresql elasticsearch opensearch mariadb",
            "search by nearness: cosine, l2, inner product; the dimension is checked",
            copy_only=True,
        ),
        _prefer("graph", "neo4j arangodb postgresql mysql mariadb", "queries about relations", copy_only=True),
        _prefer(
            "time_series",
            "influxdb timescaledb postgresql mongodb mysql mariadb",
            "optimised for time: ranges, windows, retention",
        ),
        _prefer("file", "minio s3 file postgresql", "object storage: content of any size, streamed"),
        _prefer("stream", "kafka redis valkey keydb postgresql", "a durable log that many readers follow"),
    )
}


class Row(msgspec.Struct, frozen=True):
    """One row of the matrix: how a type of data is treated and where it is best kept.

    `aliases` are other names of the same type. `home` is the role of the store that is its source of truth, `copy` the
    role of the copy that this type always has beside it. `stores` are URL schemes for the role that gives the row its
    reason, best first.
    """

    data_type: str
    kind: Kind
    home: Role
    why: str
    copy: Role | None = None
    aliases: tuple[str, ...] = ()

    @property
    def roles(self) -> tuple[Role, ...]:
        """The role of the home, then that of the copy."""
        return (self.home,) if self.copy is None else (self.home, self.copy)

    @property
    def stores(self) -> tuple[str, ...]:
        return ROLES[self.copy or self.home].stores

    @property
    def alternatives(self) -> tuple[str, ...]:
        """The stores that stand in, in this order, when the first is not configured."""
        return self.stores[1:]


MATRIX: Final[tuple[Row, ...]] = (
    Row(
        "user_profile",
        "record",
        "home",
        "ACID, integrity, joins",
        aliases=("profile", "account", "transaction", "contract", "audit_trail"),
    ),
    Row(
        "live_state",
        "state",
        "live_state",
        "in memory, low latency; changes too often for a journal",
        aliases=("session", "cache", "counter", "rate_limit"),
    ),
    Row(
        "conversation",
        "record",
        "document",
        "documents of flexible schema that grow by fields",
        aliases=("skill", "memory", "document"),
    ),
    Row(
        "time_series",
        "fact",
        "time_series",
        "points that never change, asked for by range of time",
        aliases=("metric", "emotion", "stat"),
    ),
    Row(
        "graph",
        "record",
        "home",
        "queries about relations; the record itself lives in its home, the graph holds a copy",
        copy="graph",
        aliases=("relation",),
    ),
    Row(
        "embedding",
        "record",
        "home",
        "vector search; the record itself lives in its home, the vector store holds a copy",
        copy="vector",
        aliases=("vector",),
    ),
    # Lines are facts: they are appended and never changed, so the search index itself may be where they live.
    Row("log", "fact", "full_text", "appended, never changed, found by their words", aliases=("log_line",)),
    Row("file", "blob", "file", "content of any size beside the record that names it", aliases=("image", "blob")),
)
"""The types of data that `data_type=` may name. A stream is a role and no type: it is chosen for `real_time` data too
big for memory."""

_BY_NAME: Final[Mapping[str, Row]] = {name: row for row in MATRIX for name in (row.data_type, *row.aliases)}


def row_of(data_type: str) -> Row:
    """The row of a type of data, by its name or one of its aliases.

    Raises ConfigurationError for any other name, with the nearest and all known ones.
    """
    if data_type not in _BY_NAME:
        known = ", ".join(
            f"{row.data_type} ({', '.join(row.aliases)})" if row.aliases else row.data_type for row in MATRIX
        )
        raise ConfigurationError(f"unknown data_type {data_type!r}{did_you_mean(data_type, _BY_NAME)}; known: {known}")
    return _BY_NAME[data_type]


def copies_only(scheme: str) -> bool:
    """Whether a known kind of store stands in no order of homes: it only ever holds copies."""
    homes = {store for role in ("home", "document", "live_state") for store in ROLES[role].stores}
    return scheme in PRODUCTS and scheme not in homes


def title(stores: tuple[str, ...]) -> str:
    """How people call stores given by their URL schemes: "Kafka + Redis". A third party's scheme stands for itself."""
    return " + ".join(PRODUCTS[store].title if store in PRODUCTS else store for store in stores)
