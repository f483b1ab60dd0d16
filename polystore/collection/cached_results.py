"""What is kept of the result of a query: which records it found, in which order, and why; never the records themselves.
They are read at their home each time, and the condition is tested again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, cast

import msgspec

from polystore.cache import Answered
from polystore.collection.paging import fingerprint
from polystore.collection.scope import Scope
from polystore.collection.searching import highlights, live
from polystore.entity import EntityType
from polystore.errors import InvalidFilter
from polystore.filters import as_expr, predicate
from polystore.model import Key
from polystore.results import Hit, Related
from polystore.text import query


class Row(msgspec.Struct, frozen=True, array_like=True):
    """One record of a result. Of a hit `version` and `score`, of a related record `depth`, `path` and `properties`."""

    etype: str
    id: str
    version: int = 0
    score: float = 0.0
    depth: int = 0
    path: tuple[tuple[str, str, str], ...] = ()
    properties: Mapping[str, Any] = {}


class Answer(msgspec.Struct):
    """What a query has found. `degraded`: a store that should have taken part was missing."""

    items: Sequence[Any]
    cursor: str | None = None
    degraded: bool = False


class Kept(msgspec.Struct, frozen=True, array_like=True):
    """A whole result."""

    rows: Sequence[Row]
    cursor: str | None = None


class _Degraded(Exception):
    """An answer that a store was missing from is given, and not kept."""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Kept).decode


async def read_kept(
    scope: Scope[Any], name: str, kind: str, asked: Mapping[str, Any], ask: Callable[[], Awaitable[Answer]]
) -> tuple[Answer, Answered]:
    """The result under this name, or a new one, which is then kept under it. Raises what `ask` raises."""
    if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidFilter(f"read_operation: cache_key= is a text, not {type(name).__name__}")
    assert scope.results is not None
    fresh: list[Answer] = []

    async def read() -> bytes:
        found = await ask()
        fresh.append(found)
        if found.degraded:
            raise _Degraded
        return _encode(Kept(_rows(scope, found.items), found.cursor))

    try:
        result, cached = await scope.results.get(name, _of(scope, kind, asked), read)
    except _Degraded:
        return fresh[0], "miss"
    if fresh:
        return fresh[0], cached
    kept = _decode(result)
    return Answer(await _items(scope, kind, asked, kept.rows), kept.cursor), cached


def _of(scope: Scope[Any], kind: str, asked: Mapping[str, Any]) -> bytes:
    """Which query this is. Raises InvalidFilter."""
    words = {
        name: as_expr(value)
        if name in ("where", "edges")
        else scope.entity.sort(value)
        if name == "order_by"
        else value
        for name, value in sorted(asked.items())
    }
    return fingerprint(kind, scope.etype, scope.tenant, words)


def _rows(scope: Scope[Any], items: Sequence[Any]) -> list[Row]:
    """What is kept of these values, hits or related records."""
    return [_row(scope, item) for item in items]


def _row(scope: Scope[Any], item: Any) -> Row:
    if isinstance(item, Hit):
        hit = cast(Hit[Any], item)
        return Row(scope.etype, _id(scope.entity, hit.value), hit.match_version, hit.score)
    if isinstance(item, Related):
        one = cast(Related[Any], item)
        entity = scope.wiring.entity(cast(type[Any], type(one.value)))
        return Row(entity.name, _id(entity, one.value), 0, 0.0, one.depth, tuple(one.path), one.properties)
    return Row(scope.etype, _id(scope.entity, item))


def _id(entity: EntityType[Any], value: object) -> str:
    return entity.key_id(getattr(value, entity.key))


async def _items(scope: Scope[Any], kind: str, asked: Mapping[str, Any], kept: Sequence[Row]) -> list[Any]:
    """The records as they are now, without those that are gone or do not satisfy the condition any more."""
    found: dict[tuple[str, str], Any] = {}
    for etype in dict.fromkeys(row.etype for row in kept):
        entity = scope.wiring.types[etype]
        condition = entity.condition(asked.get("where"))
        holds = None if condition is None else predicate(condition)
        keys = [Key(scope.tenant, etype, row.id) for row in kept if row.etype == etype]
        home = scope.wiring.store(scope.wiring.placements[etype].authority)
        for key, record in zip(keys, await home.get(keys), strict=True):
            if record is not None and (body := live(record, holds)) is not None:
                found[etype, key.id] = (entity.decode(body), record.version, body)
    phrases = query(asked["text"]) if kind in ("full_text", "hybrid") else ()
    out: list[Any] = []
    for row in kept:
        if (row.etype, row.id) not in found:
            continue
        value, version, body = found[row.etype, row.id]
        if kind == "filter":
            out.append(value)
        elif kind == "relationship":
            out.append(Related(value, row.depth, row.path, row.properties))
        else:
            marked = highlights(scope.entity, body, phrases) if phrases else {}
            out.append(Hit(value, version, row.score, row.version, marked))
    return out
