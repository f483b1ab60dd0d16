"""The options of a PostgreSQL store in the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from polystore.errors import ConfigurationError


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """pool_size: most connections at once. connect_timeout_s: for one connection. pooler: "transaction" behind a pooler
    that gives a server connection for one transaction only, such as PgBouncer: then statements are not prepared, and
    each call is a transaction. schema: where the tables are, the first of the search path by default. place: 2 for
    the schema beside, where copies are built anew: of the name with _2 behind it, ps_place_2 without one.

    vectors: "pgvector" keeps them in columns of that extension, "bytes" in plain ones, "auto" as they are kept, and new
    ones with pgvector where the database has it. exact_vectors_max: most vectors of one field and tenant that a search
    in plain columns compares one by one. vector_index: "hnsw" or, in half the space, "hnsw_half" is made over
    pgvector's columns, of hnsw_m and hnsw_ef_construction, and asked where more than approximate_min vectors satisfy
    the condition; hnsw_ef_search is how many it looks at."""

    pool_size: int = 10
    connect_timeout_s: float = 5.0
    pooler: Literal["none", "transaction"] = "none"
    schema: str | None = None
    place: Literal[1, 2] = 1
    exact_vectors_max: int = 1_000_000
    vectors: Literal["auto", "pgvector", "bytes"] = "auto"
    vector_index: Literal["none", "hnsw", "hnsw_half"] = "none"
    hnsw_m: int = 16
    hnsw_ef_construction: int = 64
    hnsw_ef_search: int = 200
    approximate_min: int = 10_000

    def __post_init__(self) -> None:
        if self.pool_size < 1 or self.connect_timeout_s <= 0:
            raise ValueError("pool_size and connect_timeout_s must be more than 0")
        if not 2 <= self.hnsw_m <= 100 or not max(4, 2 * self.hnsw_m) <= self.hnsw_ef_construction <= 1_000:
            raise ValueError("hnsw_m is 2 to 100, and hnsw_ef_construction twice that to 1000, as pgvector has it")
        if not 1 <= self.hnsw_ef_search <= 1_000 or self.approximate_min < 0:
            raise ValueError("hnsw_ef_search is 1 to 1000, and approximate_min not less than 0")
        if (self.schema is not None or self.place == 2) and self.pooler == "transaction":
            raise ValueError("schema is a setting of a session, which a pooler does not keep; set it for the user")


def parse(options: Mapping[str, Any]) -> Options:
    """Raises ConfigurationError for an unknown option or a value of another type."""
    try:
        known = msgspec.convert(dict(options), Options)
    except msgspec.ValidationError as e:
        names = ", ".join(Options.__struct_fields__)
        raise ConfigurationError(f"options of a postgresql: store: {e}; known: {names}") from None
    if known.place == 2:
        first, *others = known.schema.split(",") if known.schema else ["ps_place"]
        return msgspec.structs.replace(known, schema=",".join((f"{first.strip()}_2", *others)))
    return known
