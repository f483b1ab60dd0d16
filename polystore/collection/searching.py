"""Searches: ask the copy that is made for it, then answer with the home's current records.

A copy may be a moment behind. So its hits are looked up at the home in one batch, deleted records are dropped, the
condition is tested again on the current body (a condition may be somebody's access control), and the copy is asked for
more until there are enough. With `hydrate=False` the copy's own bodies are the answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Annotated, Any, Generic, TypeVar, cast

import msgspec

from polystore.collection.paging import fingerprint, read_cursor, write_cursor
from polystore.collection.scope import Scope, check_limit
from polystore.entity import EntityType
from polystore.errors import InvalidData, InvalidFilter, UnsupportedOperation
from polystore.filters import Checked, Condition, predicate
from polystore.model import (
    Body,
    Direction,
    Key,
    Match,
    Reached,
    Record,
)
from polystore.protocols import SupportsTextSearch, SupportsTraversal, SupportsVectorSearch
from polystore.results import Found, Hit, Related, Token
from polystore.store import Store
from polystore.text import Phrase, highlight, query

T = TypeVar("T")
A = TypeVar("A")

RRF_K = 60
"""Reciprocal rank fusion: score = sum of 1 / (60 + rank) over the lists (Cormack, Clarke, Büttcher: Reciprocal Rank
Fusion outperforms Condorcet and individual Rank Learning Methods, SIGIR 2009; 60 is their constant)."""
RRF_WINDOW = 50
"""Fewest results of each list that are fused; a record that is good in both lists may be first in neither."""
DEPTH_MAX = 10


class Question(Generic[T]):
    """One search: where it goes, what it asks, and how its matches become hits."""

    def __init__(self, scope: Scope[T], where: Condition | None, limit: int, *, hydrate: bool = True) -> None:
        check_limit(limit)
        self.scope = scope
        self.limit = limit
        self.hydrate = hydrate
        self.where = scope.entity.condition(where)
        self._holds = None if self.where is None else predicate(self.where)

    async def hits(self, store: Store, matches: Sequence[Match], phrases: Sequence[Phrase] = ()) -> dict[str, Hit[T]]:
        """The matches that are live and satisfy the condition now, by id."""
        scope = self.scope
        source = scope.home if self.hydrate else store
        keys = [Key(scope.tenant, scope.etype, match.id) for match in matches]
        hits: dict[str, Hit[T]] = {}
        for match, record in zip(matches, await source.get(keys) if keys else (), strict=True):
            body = live(record, self._holds)
            if record is not None and body is not None:
                value = scope.entity.decode(body)
                marked = highlights(scope.entity, body, phrases) if phrases else {}
                hits[match.id] = Hit(value, record.version, match.score, match.version, marked)
        return hits


def live(record: Record | None, holds: Callable[[Body], bool] | None) -> Body | None:
    """The body of a record that exists and satisfies the condition."""
    body = None if record is None else record.body
    return body if body is not None and (holds is None or holds(body)) else None


def highlights(entity: EntityType[Any], body: Body, phrases: Sequence[Phrase]) -> dict[str, Sequence[str]]:
    """Field -> pieces of its text with the matches marked, for the fields in which there are any."""
    found = {field: highlight(text, phrases) for field in entity.full_text if (text := body.get(field))}
    return {field: pieces for field, pieces in found.items() if pieces}


async def enough(limit: int, ask: Callable[[int], Awaitable[tuple[Sequence[A], bool]]]) -> Sequence[A]:
    """Ask for more and more until `limit` answers are left, or there are no more. `ask(n)` looks at the best n and says
    what is left of them, and whether there were fewer than n."""
    n = limit
    while True:
        left, all_seen = await ask(n)
        if len(left) >= limit or all_seen:
            return left[:limit]
        n *= 2


_Count = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]


# -- full text ----------------------------------------------------------------------------------------------------


async def search(question: Question[T], text: str, cursor: str | None, after: Token | None) -> Found[Hit[T]]:
    """One page. A cursor names the last match and how many came up to it: scores of all records move with every write,
    so a score is no place to go on from."""
    scope = question.scope
    store = scope.serving("full_text")
    of = fingerprint("search", scope.etype, scope.tenant, text, question.where)
    seen, last = (0, "") if cursor is None else cast(tuple[int, str], tuple(read_cursor(cursor, of, (_Count, str))))
    phrases = query(text)
    if not phrases:
        return Found(())
    await scope.ready(store, after)
    hits: list[Hit[T]] = []
    at: tuple[float, str] | None = None
    more, skip = True, seen
    while more and len(hits) < question.limit:
        wanted = skip + question.limit - len(hits) + 1  # one more tells whether there is another page
        matches = await store.call(
            SupportsTextSearch.search, scope.etype, scope.tenant, phrases, question.where, wanted, at
        )
        more = len(matches) == wanted
        if skip:  # behind the last match; behind as many as were seen where it is gone
            skip, seen = 0, next((i + 1 for i, match in enumerate(matches) if match.id == last), skip)
            matches = matches[seen:]
        found = await question.hits(store, matches, phrases)
        for match in matches:
            if len(hits) == question.limit:
                more = True
                break
            at, seen, last = (match.score, match.id), seen + 1, match.id
            if match.id in found:
                hits.append(found[match.id])
    return Found(hits, write_cursor(of, (seen, last)) if more else None)


# -- vectors ------------------------------------------------------------------------------------------------------


def vector_field(scope: Scope[T], field: str | None) -> str:
    """The field to compare by. Raises UnsupportedOperation without any, InvalidFilter when it must be named."""
    scope.serving("vector")
    fields = scope.entity.embeddings
    if field is None and len(fields) == 1:
        return next(iter(fields))
    if field is not None and field in fields:
        return field
    what = "field= is needed" if field is None else f"field={field!r} has no Embedding()"
    raise InvalidFilter(f"{scope.entity.cls.__name__}: {what}; fields that have: {', '.join(fields)}")


def check_target(scope: Scope[T], field: str, to: str | Sequence[float]) -> bytes | None:
    """The packed vector to compare with; None when a text has to be embedded first."""
    if not isinstance(to, str):
        return scope.packed(field, to)
    if field not in scope.entity.embedded_texts:
        raise UnsupportedOperation(
            f"{scope.entity.cls.__name__}.{field} holds vectors that the application made; compare with such a vector"
        )
    check_text(to)
    return None


def check_text(text: str) -> None:
    if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidData(f"a text is needed to search with, not {type(text).__name__}")


async def nearest(question: Question[T], field: str, vector: bytes, limit: int) -> list[Match]:
    scope = question.scope
    store = scope.serving("vector")
    return await store.call(
        SupportsVectorSearch.similar, scope.etype, scope.tenant, field, vector, question.where, limit
    )


async def similar(
    question: Question[T], to: str | Sequence[float], field: str | None, after: Token | None
) -> Found[Hit[T]]:
    scope = question.scope
    name = vector_field(scope, field)
    vector = check_target(scope, name, to)
    await scope.vectors_ready(scope.serving("vector"), after)
    if vector is None:
        vector = await scope.manager.query_vector(scope.etype, name, cast(str, to))

    async def ask(n: int) -> tuple[Sequence[Hit[T]], bool]:
        matches = await nearest(question, name, vector, n)
        found = await question.hits(scope.serving("vector"), matches)
        return list(found.values()), len(matches) < n

    return Found(await enough(question.limit, ask))


# -- both ---------------------------------------------------------------------------------------------------------


async def hybrid(question: Question[T], text: str, after: Token | None) -> Found[Hit[T]]:
    scope = question.scope
    words, vectors = scope.serving("full_text"), scope.serving("vector")
    fields = scope.entity.embedded_texts
    if not fields:
        raise UnsupportedOperation(f"{scope.entity.cls.__name__}: hybrid needs Embedding() on a str field")
    phrases = query(text)
    await scope.ready(words, after)
    await scope.vectors_ready(vectors, after)
    targets = {name: await scope.manager.query_vector(scope.etype, name, text) for name in fields}

    async def by_words(n: int) -> list[Match]:
        if not phrases:
            return []
        return await words.call(SupportsTextSearch.search, scope.etype, scope.tenant, phrases, question.where, n, None)

    async def ask(n: int) -> tuple[Sequence[Hit[T]], bool]:
        n = max(RRF_WINDOW, n)
        lists = await asyncio.gather(
            by_words(n), *(nearest(question, name, vector, n) for name, vector in targets.items())
        )
        matches = fused(lists)[:n]
        found = await question.hits(words, matches, phrases)
        return list(found.values()), all(len(one) < n for one in lists)

    return Found(await enough(question.limit, ask))


def fused(lists: Sequence[Sequence[Match]]) -> list[Match]:
    """The lists as one, best first, ties by id: reciprocal rank fusion, see `RRF_K`. A record keeps the oldest of the
    versions that matched."""
    scores: dict[str, float] = {}
    versions: dict[str, int] = {}
    for matches in lists:
        for rank, match in enumerate(matches, 1):
            scores[match.id] = scores.get(match.id, 0.0) + 1 / (RRF_K + rank)
            versions[match.id] = min(match.version, versions.get(match.id, match.version))
    ranked = sorted(scores.items(), key=lambda item: (-item[1], item[0]))
    return [Match(id, score, versions[id]) for id, score in ranked]


# -- relations ----------------------------------------------------------------------------------------------------


class Walk(msgspec.Struct, frozen=True):
    """A question about relations, checked before any I/O."""

    key: Key
    relation: str
    into: EntityType[Any] | None
    direction: Direction
    depth: int
    where: Checked | None
    limit: int


def walk(
    scope: Scope[Any],
    key: object,
    relation: str,
    into: type[Any] | None,
    direction: Direction,
    depth: int,
    where: Condition | None,
    limit: int,
) -> Walk:
    """Raises InvalidFilter, InvalidData, ConfigurationError (an unknown class)."""
    check_limit(limit)
    if type(depth) is not int or not 1 <= depth <= DEPTH_MAX:
        raise InvalidFilter(f"depth={depth!r}: an int from 1 to {DEPTH_MAX}")
    if direction not in ("out", "in", "both"):
        raise InvalidFilter(f"direction={direction!r}: 'out', 'in' or 'both'")
    target: EntityType[Any] | None = None
    if into is not None:
        target = scope.wiring.entity(into)
    elif where is not None:
        target = _only_end(scope, relation, direction)
    condition = None if target is None else target.condition(where)
    return Walk(scope.key(key), relation, target, direction, depth, condition, limit)


def _only_end(scope: Scope[Any], relation: str, direction: Direction) -> EntityType[Any]:
    """The one entity that this walk can reach: what a condition without `into` is about."""
    ends: set[str] = set()
    for name, one in scope.wiring.types.items():
        for declared in one.relations.values():
            if declared.type == relation:
                ends.update([str(declared.to)] if direction != "in" else [], [name] if direction != "out" else [])
    if len(ends) != 1:
        raise InvalidFilter(
            f"where= is a condition on the related records, which can be {', '.join(sorted(ends)) or 'none'}: say into="
        )
    return scope.wiring.types[ends.pop()]


def graph_of(scope: Scope[Any], relation: str) -> tuple[Store, list[str]]:
    """The store that holds the edges of a relation, and the entity types that have them: the edges into a record
    belong to other types. Raises UnsupportedOperation when no entity declares the relation, or two stores hold it."""
    wiring = scope.wiring
    owners = [name for name, one in wiring.types.items() if any(r.type == relation for r in one.relations.values())]
    if not owners:
        known = sorted({r.type for one in wiring.types.values() for r in one.relations.values()})
        raise UnsupportedOperation(
            f"no entity declares a relation {relation!r}; known: {', '.join(known) or 'none'}. Put "
            f"Relation({relation!r}, to=...) on a field"
        )
    stores = {wiring.placements[name].facets["graph"] for name in owners}
    if len(stores) > 1:
        raise UnsupportedOperation(
            f"the edges of {relation!r} lie in several stores ({', '.join(sorted(stores))}); pin the graph of "
            f"{', '.join(owners)} to one of them"
        )
    return wiring.store(stores.pop()), owners


async def related(scope: Scope[Any], asked: Walk, after: Token | None) -> list[Related[Any]]:
    store, owners = graph_of(scope, asked.relation)
    for owner in owners:
        await Scope(scope.wiring, scope.wiring.types[owner], scope.tenant).ready(store, after)

    async def ask(n: int) -> tuple[Sequence[Related[Any]], bool]:
        key = asked.key
        reached = await store.call(
            SupportsTraversal.traverse, key.etype, key.tenant, key.id, [asked.relation], asked.direction, asked.depth, n
        )
        return await _hydrated(scope, asked, reached), len(reached) < n

    return list(await enough(asked.limit, ask))


async def _hydrated(scope: Scope[Any], asked: Walk, reached: Sequence[Reached]) -> list[Related[Any]]:
    """The nodes with their current records, in the order of the walk; each type is looked up at its own home."""
    wiring = scope.wiring
    wanted = wiring.types if asked.into is None else {asked.into.name: asked.into}
    holds = None if asked.where is None else predicate(asked.where)
    by_type: dict[str, list[Key]] = {}
    for node in reached:
        if node.etype in wanted:
            by_type.setdefault(node.etype, []).append(Key(scope.tenant, node.etype, node.id))
    homes = [wiring.store(wiring.placements[etype].home) for etype in by_type]
    answers = await asyncio.gather(*(home.get(keys) for home, keys in zip(homes, by_type.values(), strict=True)))
    records: Mapping[Key, Record | None] = {
        key: record
        for keys, found in zip(by_type.values(), answers, strict=True)
        for key, record in zip(keys, found, strict=True)
    }
    out: list[Related[Any]] = []
    for node in reached:
        body = live(records.get(Key(scope.tenant, node.etype, node.id)), holds)
        if body is not None:
            out.append(Related(wanted[node.etype].decode(body), node.depth, node.path, node.properties))
    return out
