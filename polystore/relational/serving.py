"""What a SQL store was last asked to serve of an entity type, and how that differs from what it is asked now."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, cast

import msgspec

from polystore.embedding import pack
from polystore.evolution import Migration
from polystore.model import Body, Key, Vectors, text_hash
from polystore.protocols import VectorSpec


class Served(msgspec.Struct, frozen=True):
    """Kept as JSON in the store, beside the entity's schema."""

    home: bool
    facets: list[str]
    vectors: Mapping[str, VectorSpec]


_decoder = msgspec.json.Decoder(Served)  # made by one thread, see `polystore.evolution`


def load_served(text: str) -> Served:
    return _decoder.decode(text)


def same(before: VectorSpec | None, now: VectorSpec) -> bool:
    """Whether the same vectors serve both: how they are compared is not in them."""
    return before is not None and (before.dimension, before.embedder) == (now.dimension, now.embedder)


def differences(migration: Migration | None, before: Served | None, now: Served) -> str:
    """What is not as declared, to be told; empty when everything is. No migration: nothing is stored of the type."""
    if migration is None:
        return "nothing is stored of it"
    parts = [
        ("renamed", [new for _, new in migration.rename]),
        ("new", [field for field, _ in migration.add]),
        ("to be filled", [field for field, _ in migration.fill]),
        ("back", migration.revived),
        ("gone", migration.retired),
        ("of another type", migration.widened),
        ("with other facets", {one.field for one in (*migration.facets_added, *migration.facets_removed)}),
    ]
    told = [f"{word}: {', '.join(sorted(fields))}" for word, fields in parts if fields]
    if not told and before != now:
        told.append("it serves other facets, or vectors of another kind")
    return "; ".join(told)


async def known_vectors(
    key: Key,
    body: Body,
    specs: Mapping[str, VectorSpec],
    fields: Collection[str],
    stored: Callable[..., Awaitable[bytes | None]],
) -> Vectors:
    """The vectors of a record that can be had of what the store holds: those in the record itself, and those that
    embedders made of the same text. `stored(tenant, entity, id, field, embedder, text_hash, bytes)` looks one up."""
    found: dict[str, bytes] = {}
    for field in fields:
        value: Any = body.get(field)
        vector: bytes | None = None
        if isinstance(value, list):
            vector = pack(cast(list[float], value))
        elif isinstance(value, str):
            made = (specs[field].embedder, text_hash(value), 4 * specs[field].dimension)
            vector = await stored(key.tenant, key.etype, key.id, field, *made)
        if vector is not None:
            found[field] = vector
    return found
