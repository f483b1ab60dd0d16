"""The options of a MongoDB store in the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from polystore.errors import ConfigurationError


class Index(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An index of the application's own, beside those of the facets: keys maps a path in the documents to 1, -1,
    "text", "hashed" or "2dsphere", in their order; options go to `createIndexes` as they are."""

    keys: dict[str, int | str]
    options: dict[str, Any] = {}


class CollectionOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the collection of one entity type is made. capped_bytes, capped_documents: the oldest documents make way
    beyond that. shard_key: as `shardCollection` takes it; `_id`, by which changes reach their document, 1 or "hashed".
    indexes: name -> index."""

    capped_bytes: Annotated[int, msgspec.Meta(gt=0)] | None = None
    capped_documents: Annotated[int, msgspec.Meta(gt=0)] | None = None
    shard_key: dict[str, int | str] | None = None
    indexes: dict[str, Index] = {}

    def __post_init__(self) -> None:
        if self.capped_documents is not None and self.capped_bytes is None:
            raise ValueError("capped_documents needs capped_bytes")
        if self.shard_key is not None and self.shard_key.keys() != {"_id"}:
            raise ValueError("shard_key is { _id = 1 } or { _id = 'hashed' }")
        if self.shard_key is not None and self.capped_bytes is not None:
            raise ValueError("capped_bytes and shard_key: MongoDB has no capped collections on shards")
        if reserved := [name for name in self.indexes if name.startswith(("ps_", "_id"))]:
            raise ValueError(f"indexes: names that begin with ps_ and _id are taken: {', '.join(reserved)}")


class Options(msgspec.Struct, frozen=True):
    """client: the program's own AsyncMongoClient or motor client, which stays open. database: instead of the URL's.
    pool_size: most connections to a server at once. connect_timeout_s: how long a call waits for a server that can
    take it. tombstone_ttl_s: after this time the server removes what is left of a deleted record. collections: entity
    name -> how its collection is made. place: 2 for the database beside, where copies are built anew."""

    client: Any = None
    database: str | None = None
    pool_size: Annotated[int, msgspec.Meta(ge=1)] = 20
    connect_timeout_s: Annotated[float, msgspec.Meta(gt=0)] = 5.0
    tombstone_ttl_s: Annotated[float, msgspec.Meta(gt=0)] = 7 * 86_400.0
    collections: dict[str, CollectionOptions] = {}
    place: Literal[1, 2] = 1


def parse(options: Mapping[str, Any]) -> tuple[Options, dict[str, Any]]:
    """Ours, and those of the driver. Raises ConfigurationError for a value of another type."""
    names = Options.__struct_fields__
    ours = {name: value for name, value in options.items() if name in names}
    try:
        known = msgspec.convert(ours, Options)
    except msgspec.ValidationError as e:
        raise ConfigurationError(f"options of a mongodb: store: {e}; ours: {', '.join(names)}") from None
    return known, {name: value for name, value in options.items() if name not in names}
