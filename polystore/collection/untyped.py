"""Writes and reads as plain mappings, for callers that know entities by name only: scripts, tools, other languages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta, tzinfo
from typing import Any, Literal, TypedDict, cast
from uuid import UUID

import msgspec

from polystore.classes import members_of
from polystore.collection.cached_results import Answer, read_kept
from polystore.collection.measures import append_beside, measure_named, rows_of
from polystore.collection.relations import graph_of
from polystore.collection.scope import KeyValue, Scope, Wiring
from polystore.collection.typed import Collection
from polystore.collection.writing import send_one
from polystore.entity import EntityType, decode_foreign
from polystore.errors import (
    ConfigurationError,
    DecodeError,
    InvalidData,
    InvalidFilter,
    Unavailable,
    UnsupportedOperation,
)
from polystore.filters import Condition, Field, Order
from polystore.layers import tracing
from polystore.model import Aggregate, Direction, PointValue
from polystore.results import Ack, Token, WriteResult

QueryKind = Literal["key", "similarity", "relationship", "full_text", "hybrid", "filter", "time_range"]


class Parts(TypedDict, total=False):
    """What `write_operation` writes, by what it is for; field names are the entity's own.

    With `core` the parts together are the whole record, and fields that no part names get their defaults. Without
    `core` they change a standing record: only the named fields.

    core: plain values. searchable: texts of fields with FullText(). embeddings: the caller's own vectors, of texts
    that this write holds, or of fields that are vectors. relationships: ids, or edges as {"to": id, "properties": ...},
    of fields with Relation(). cache_keys: names of cached results of queries that this write outdates; they
    go when it has been committed. files: what `hda.files.save` gave, or its fields as a mapping, or a list of them, of
    fields with FileRef. points: of measures, each a list of (time, value); appended when the record has been
    committed, or alone. The result then tells of their store, too: "failed" where neither it nor the journal took them.
    """

    core: Mapping[str, object]
    searchable: Mapping[str, str | None]
    embeddings: Mapping[str, Sequence[float]]
    relationships: Mapping[str, object]
    files: Mapping[str, object]
    cache_keys: Sequence[str]
    points: Mapping[str, Sequence[tuple[datetime | None, PointValue]]]


class _Target(TypedDict):
    kind: QueryKind
    entity: str | type[Any]


class Query(_Target, total=False):
    """What `read_operation` asks. By kind: key: `key`; similarity: `to` (text or vector), `field`; full_text and
    hybrid: `text`; relationship: `key`, `type`, `into`, `direction`, `depth`, `edges`; filter: `order_by`, `cursor`;
    time_range: `key`, `measure` (its name), `start`, `end`, `every`, `aggregate`, `tz`, `limit`, `newest_first`, see
    `Collection.series`. All but key and time_range take `where` and `limit`, all but time_range `after`.

    `cache_key`, of all but these two: the name under which the result is kept for five seconds in the configured
    cache, if any; with `after` it is not used. Kept is which records were found: they are read at their home each time,
    those that are gone or do not satisfy `where` any more are left out. One name, one query."""

    key: KeyValue
    text: str
    to: str | Sequence[float]
    field: str
    type: str | Sequence[str]
    into: str | type[Any]
    direction: Direction
    depth: int
    where: Condition
    edges: Condition
    order_by: Sequence[Field | Order] | Field | Order
    limit: int
    cursor: str
    after: Token
    cache_key: str
    measure: str
    start: datetime
    end: datetime
    every: timedelta | str
    aggregate: Aggregate
    tz: tzinfo | str
    newest_first: bool


class ReadResult(msgspec.Struct, frozen=True):
    """items: values (key, filter), `Hit`s, `Related`s or `Point`s. source: the store that was asked first. cache:
    whether the answer was in a cache; "off": none was to be asked, "bypass": it could not be used. degraded: a store
    that should have taken part was down, and the answer came without it. steps: every call to a store, in the order in
    which they ended."""

    items: Sequence[Any]
    source: str
    cache: Literal["off", "hit", "miss", "bypass"]
    degraded: bool
    steps: Sequence[tracing.Step]
    cursor: str | None = None


def scope_of(wiring: Wiring, entity: str | type[Any], tenant: str) -> Scope[Any]:
    """Raises ConfigurationError for an entity that is not known."""
    if not isinstance(entity, str):
        return Scope(wiring, wiring.entity(entity), tenant)
    if entity not in wiring.types:
        raise ConfigurationError(f"no entity is named {entity!r}; known: {', '.join(sorted(wiring.types))}")
    return Scope(wiring, wiring.types[entity], tenant)


# -- write --------------------------------------------------------------------------------------------------------

_PARTS = frozenset(Parts.__annotations__)
_LATER = frozenset({"documents"})


async def write(
    scope: Scope[Any],
    data: Parts,
    key: KeyValue,
    op_id: UUID | None,
    expect_version: int | None,
    ack: Ack,
    ack_timeout_s: float,
) -> WriteResult:
    """See `HybridDataArchitecture.write_operation`."""
    entity = scope.entity
    for part, given in data.items():
        if part in _LATER:
            raise UnsupportedOperation(f"write_operation: no store of this version takes the part {part!r}")
        if part not in _PARTS:
            raise InvalidData(f"write_operation: there is no part {part!r}; parts: {', '.join(sorted(_PARTS))}")
        if part == "cache_keys":
            _check_names(given)
        elif not isinstance(given, Mapping):
            raise InvalidData(f"write_operation: the part {part!r} maps fields to values")
    fields: dict[str, object] = dict(data.get("core", {}))
    _join(fields, data.get("searchable", {}), entity.full_text, "searchable", entity)
    _join(fields, msgspec.to_builtins(data.get("files", {})), entity.files, "files", entity)
    _join(fields, data.get("relationships", {}), entity.relations, "relationships", entity)
    vectors: dict[str, Sequence[float]] = {}
    for field, vector in data.get("embeddings", {}).items():
        if field in entity.embeddings and field not in entity.embedded_texts:
            fields[field] = list(vector)
        else:
            vectors[field] = vector
    rows = rows_of(scope, key, data.get("points", {}))
    if rows and data.keys() <= {"points"}:
        return await append_beside(scope, WriteResult(rows[0].series.id, None, False, Token(""), {}), rows)
    if entity.key in fields:
        _check_same_key(entity, fields[entity.key], key)
    if "core" in data:
        value = _value(entity, {**fields, entity.key: key})
        one = scope.whole("put", value, expect_version=expect_version, vectors=vectors)
    else:
        made = {
            field: _fitting(entity, field, fields[field], part)
            for part in ("relationships", "files")
            for field in cast(Mapping[str, object], data.get(part, {}))
        }
        changes = {**fields, **made}
        one = scope.patch(scope.key(key), changes, expect_version=expect_version, vectors=vectors)
    names = data.get("cache_keys", ())
    try:
        result = await send_one(scope, one, op_id, ack, ack_timeout_s)
    finally:  # also when it is unknown whether it was written
        if names and scope.results is not None:
            await scope.results.forget(names)
    return await append_beside(scope, result, rows) if rows else result


def _check_names(given: object) -> None:
    names = cast(Sequence[object], given)
    if isinstance(given, str) or not isinstance(given, Sequence) or not all(isinstance(one, str) for one in names):
        raise InvalidData("write_operation: the part 'cache_keys' is a list of names of cached results")


def _check_same_key(entity: EntityType[Any], given: object, key: KeyValue) -> None:
    """The key is said by `key=`; parts may repeat it, and must not say another one."""
    try:
        same = entity.key_id(entity.key_value(str(given))) == entity.key_id(key)
    except ValueError:
        same = False
    if not same:
        raise InvalidData(
            f"write_operation: {entity.cls.__name__}.{entity.key} in the parts is another key than key=; leave it out "
            "of the parts"
        )


def _join(
    fields: dict[str, object], part: Mapping[str, object], fit: object, name: str, entity: EntityType[Any]
) -> None:
    for field, value in part.items():
        if field not in cast(Sequence[str], fit):
            known = ", ".join(cast(Sequence[str], fit)) or "none"
            raise InvalidData(
                f"write_operation: {name} names {entity.cls.__name__}.{field}; fields it can have: {known}"
            )
        if field in fields:
            raise InvalidData(f"write_operation: {entity.cls.__name__}.{field} is in {name} and in another part")
        fields[field] = value


def _value(entity: EntityType[Any], fields: Mapping[str, object]) -> Any:
    for field in fields:
        if field not in entity.fields:
            known = ", ".join(entity.fields)
            raise InvalidData(f"write_operation: {entity.cls.__name__} has no field {field!r}; its fields: {known}")
    try:
        return entity.decode(fields)
    except DecodeError as e:
        what = str(e).partition("the stored record does not fit ")[2]
        raise InvalidData(f"write_operation: the parts do not fit {what}") from None


def _fitting(entity: EntityType[Any], field: str, value: object, part: str) -> object:
    """The value of a field whose edges or files may be mappings, as the class has them."""
    try:
        hint = (members_of(entity.cls) or {})[field]
        return msgspec.convert(value, hint, from_attributes=True, dec_hook=decode_foreign)
    except (msgspec.ValidationError, ValueError) as e:
        what = str(e).partition(" - at ")[2]
        raise InvalidData(
            f"write_operation: {part} do not fit {entity.cls.__name__}.{field}" + (f" at {what}" if what else "")
        ) from None


# -- read ---------------------------------------------------------------------------------------------------------

_COMMON = frozenset({"kind", "entity", "after"})
_SERIES = frozenset({"start", "end", "every", "aggregate", "tz", "limit", "newest_first"})
_KEYS: Mapping[str, frozenset[str]] = {
    "key": frozenset({"key"}),
    "filter": frozenset({"where", "order_by", "limit", "cursor", "cache_key"}),
    "full_text": frozenset({"text", "where", "limit", "cursor", "cache_key"}),
    "similarity": frozenset({"to", "field", "where", "limit", "cache_key"}),
    "hybrid": frozenset({"text", "where", "limit", "cache_key"}),
    "relationship": frozenset({"key", "type", "into", "direction", "depth", "where", "edges", "limit", "cache_key"}),
    "time_range": frozenset({"key", "measure"}) | _SERIES,
}
_NEEDED: Mapping[str, tuple[str, ...]] = {
    "key": ("key",),
    "filter": (),
    "full_text": ("text",),
    "similarity": ("to",),
    "hybrid": ("text",),
    "relationship": ("key", "type"),
    "time_range": ("key", "measure", "start"),
}


async def read(wiring: Wiring, tenant: str, query: Query) -> ReadResult:
    """See `HybridDataArchitecture.read_operation`."""
    asked = _checked(query)
    kind = cast(str, asked.pop("kind"))
    scope = scope_of(wiring, asked.pop("entity"), tenant)
    if isinstance(asked.get("into"), str):
        asked["into"] = scope_of(wiring, asked["into"], tenant).entity.cls
    if kind == "time_range":
        asked["measure"] = measure_named(scope, asked["measure"])
    source, answer = _WAYS[kind]
    name = asked.pop("cache_key", None)
    with tracing.use(trace := _Steps()):
        if name is None or scope.results is None or "after" in asked:
            found = await answer(Collection(scope), asked)
            cached = _cached(scope, trace.steps) if kind == "key" and "after" not in asked else "off"
        else:
            found, cached = await read_kept(scope, name, kind, asked, lambda: answer(Collection(scope), asked))
    return ReadResult(found.items, source(scope, asked), cached, found.degraded, tuple(trace.steps), found.cursor)


def _cached(scope: Scope[Any], steps: Sequence[tracing.Step]) -> Literal["off", "hit", "miss", "bypass"]:
    """What the cache did for a read by key, from what was asked of whom."""
    if scope.cached is None:
        return "off"
    if any(step.store == scope.placement.cache and step.error for step in steps):
        return "bypass"
    return "miss" if any(step.store == scope.home.name for step in steps) else "hit"


class _Steps(tracing.Trace):
    """The steps of one read; who traces around it hears them too."""

    def __init__(self) -> None:
        super().__init__()
        self._around = tracing.current.get()

    def record(self, step: tracing.Step) -> None:
        super().record(step)
        if self._around is not None:
            self._around.record(step)


def _checked(query: Query) -> dict[str, Any]:
    asked: dict[str, Any] = dict(query)
    kind = str(asked.get("kind"))
    if kind not in _KEYS:
        raise InvalidFilter(f"read_operation: kind={kind!r}; kinds: {', '.join(_KEYS)}")
    known = _KEYS[kind] | (_COMMON - {"after"} if kind == "time_range" else _COMMON)
    for name in asked:
        if name not in known:
            raise InvalidFilter(
                f"read_operation: a query of kind {kind!r} takes no {name!r}; {', '.join(sorted(known))}"
            )
    for name in ("entity", *_NEEDED[kind]):
        if name not in asked:
            raise InvalidFilter(f"read_operation: a query of kind {kind!r} needs {name!r}")
    return asked


async def _by_key(records: Collection[Any], asked: Mapping[str, Any]) -> Answer:
    value = await records.get(**asked)
    return Answer([] if value is None else [value])


async def _by_filter(records: Collection[Any], asked: Mapping[str, Any]) -> Answer:
    page = await records.find(**asked)
    return Answer(page, page.cursor)


async def _by_words(records: Collection[Any], asked: Mapping[str, Any]) -> Answer:
    page = await records.search(**asked)
    return Answer(page, page.cursor)


async def _by_vector(records: Collection[Any], asked: Mapping[str, Any]) -> Answer:
    return Answer(await records.similar(**asked))


async def _by_both(records: Collection[Any], asked: Mapping[str, Any]) -> Answer:
    """When one of the two stores is down, the other one answers alone, and the result says so."""
    try:
        return Answer(await records.hybrid(**asked))
    except Unavailable:
        try:
            return Answer(await records.search(**asked), degraded=True)
        except Unavailable:
            rest = {name: value for name, value in asked.items() if name != "text"}
            return Answer(await records.similar(asked["text"], **rest), degraded=True)


async def _by_relation(records: Collection[Any], asked: Mapping[str, Any]) -> Answer:
    return Answer(await records.related(**asked))


async def _by_time(records: Collection[Any], asked: Mapping[str, Any]) -> Answer:
    rest = {name: value for name, value in asked.items() if name in _SERIES}
    series: Any = records.series
    return Answer(await series(asked["measure"], asked["key"], **rest))


def _home(scope: Scope[Any], asked: Mapping[str, Any]) -> str:
    return scope.placement.home


def _words(scope: Scope[Any], asked: Mapping[str, Any]) -> str:
    return scope.placement.facets["full_text"]


def _vectors(scope: Scope[Any], asked: Mapping[str, Any]) -> str:
    return scope.placement.facets["vector"]


def _measures(scope: Scope[Any], asked: Mapping[str, Any]) -> str:
    return scope.wiring.facts.measuring(scope.etype)


def _graph(scope: Scope[Any], asked: Mapping[str, Any]) -> str:
    return graph_of(scope, asked["type"])[0].name


_WAYS: Mapping[
    str,
    tuple[
        Callable[[Scope[Any], Mapping[str, Any]], str],
        Callable[[Collection[Any], Mapping[str, Any]], Awaitable[Answer]],
    ],
] = {
    "key": (_home, _by_key),
    "filter": (_home, _by_filter),
    "full_text": (_words, _by_words),
    "similarity": (_vectors, _by_vector),
    "hybrid": (_words, _by_both),
    "relationship": (_graph, _by_relation),
    "time_range": (_measures, _by_time),
}
