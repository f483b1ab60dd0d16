"""Searches: ask the copy that is made for it, then answer with the home's current records.

A copy may be a moment behind. So its hits are looked up at the home in one batch, deleted records are dropped, the
condition is tested again on the current body (a condition may be somebody's access control), and the copy is asked for
more until there are enough. With `hydrate=False` the copy's own bodies are the answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, Generic, TypeVar, cast

import msgspec

from polystore.collection.paging import fingerprint, read_cursor, write_cursor
from polystore.collection.scope import Scope, check_limit
from polystore.entity import EntityType
from polystore.errors import InvalidData, InvalidFilter, Unavailable, UnsupportedOperation
from polystore.filters import Condition, predicate
from polystore.model import Body, Key, Match, Record
from polystore.protocols import SupportsTextSearch, SupportsVectorSearch
from polystore.results import Found, Hit, Token
from polystore.store import Store
from polystore.text import Phrase, highlight, query

T = TypeVar("T")
A = TypeVar("A")

RRF_K = 60
"""Reciprocal rank fusion: score = sum of 1 / (60 + rank) over the lists (Cormack, Clarke, Büttcher: Reciprocal Rank
Fusion outperforms Condorcet and individual Rank Learning Methods, SIGIR 2009; 60 is their constant)."""
RRF_WINDOW = 50
"""Fewest results of each list that are fused; a record that is good in both lists may be first in neither."""


class Question(Generic[T]):
    """One search: where it goes, what it asks, and how its matches become hits."""

    def __init__(
        self, scope: Scope[T], where: Condition | None, limit: int, *, hydrate: bool = True, stale_ok: bool = False
    ) -> None:
        check_limit(limit)
        self.scope = scope
        self.limit = limit
        self.hydrate = hydrate
        self.stale_ok = stale_ok
        self.where = scope.entity.condition(where)
        self._holds = None if self.where is None else predicate(self.where)

    async def hits(self, store: Store, matches: Sequence[Match], phrases: Sequence[Phrase] = ()) -> dict[str, Hit[T]]:
        """The matches that are live and satisfy the condition now, by id."""
        scope = self.scope
        keys = [Key(scope.tenant, scope.etype, match.id) for match in matches]
        hits: dict[str, Hit[T]] = {}
        for match, record in zip(matches, await self._records(store, keys) if keys else (), strict=True):
            body = live(record, self._holds)
            if record is not None and body is not None:
                value = scope.entity.decode(body)
                marked = highlights(scope.entity, body, phrases) if phrases else {}
                hits[match.id] = Hit(value, record.version, match.score, match.version, marked)
        return hits

    async def _records(self, store: Store, keys: Sequence[Key]) -> list[Record | None]:
        """What the store that was searched holds is the answer where nothing newer is wanted, or can be had."""
        if self.hydrate:
            try:
                return await self.scope.home.get(keys)
            except Unavailable:
                if not self.stale_ok:
                    raise
        return await store.get(keys)


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
    manager, etype = question.scope.manager, question.scope.etype
    return await manager.following.where_it_is((etype,), lambda: _page(question, text, cursor, after))


async def _page(question: Question[T], text: str, cursor: str | None, after: Token | None) -> Found[Hit[T]]:
    scope = question.scope
    store = scope.serving("full_text")
    of = fingerprint("search", scope.etype, scope.tenant, text, question.where)
    seen, last = (0, "") if cursor is None else cast(tuple[int, str], tuple(read_cursor(cursor, of, (_Count, str))))
    phrases = query(text)
    if not phrases:
        return Found(())
    await scope.ready(store, after, question.stale_ok)
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


async def _nearest(question: Question[T], store: Store, field: str, vector: bytes, limit: int) -> list[Match]:
    scope = question.scope
    return await store.call(
        SupportsVectorSearch.similar, scope.etype, scope.tenant, field, vector, question.where, limit
    )


async def similar(
    question: Question[T], to: str | Sequence[float], field: str | None, after: Token | None
) -> Found[Hit[T]]:
    scope = question.scope
    name = vector_field(scope, field)
    vector = check_target(scope, name, to)

    async def one_model() -> Found[Hit[T]]:
        store = scope.serving("vector")
        await scope.vectors_ready(store, after, question.stale_ok)
        scope.manager.embedders.comparable(scope.etype, name)
        asked = vector or await scope.manager.query_vector(scope.etype, name, cast(str, to))

        async def ask(n: int) -> tuple[Sequence[Hit[T]], bool]:
            matches = await _nearest(question, store, name, asked, n)
            found = await question.hits(store, matches)
            return list(found.values()), len(matches) < n

        return Found(await enough(question.limit, ask))

    return await scope.manager.following.with_one_model(scope.etype, one_model)


# -- both ---------------------------------------------------------------------------------------------------------


async def hybrid(question: Question[T], text: str, after: Token | None) -> Found[Hit[T]]:
    scope = question.scope
    for facet in ("full_text", "vector"):
        scope.serving(facet)
    fields = scope.entity.embedded_texts
    if not fields:
        raise UnsupportedOperation(f"{scope.entity.cls.__name__}: hybrid needs Embedding() on a str field")
    phrases = query(text)

    async def by_words(words: Store, n: int) -> list[Match]:
        if not phrases:
            return []
        return await words.call(SupportsTextSearch.search, scope.etype, scope.tenant, phrases, question.where, n, None)

    async def one_model() -> Found[Hit[T]]:
        words, vectors = scope.serving("full_text"), scope.serving("vector")
        await scope.ready(words, after, question.stale_ok)
        await scope.vectors_ready(vectors, after, question.stale_ok)
        targets = {name: await scope.manager.query_vector(scope.etype, name, text) for name in fields}

        async def ask(n: int) -> tuple[Sequence[Hit[T]], bool]:
            n = max(RRF_WINDOW, n)
            lists = await asyncio.gather(
                by_words(words, n),
                *(_nearest(question, vectors, name, vector, n) for name, vector in targets.items()),
            )
            matches = fused(lists)[:n]
            found = await question.hits(words, matches, phrases)
            return list(found.values()), all(len(one) < n for one in lists)

        return Found(await enough(question.limit, ask))

    return await scope.manager.following.with_one_model(scope.etype, one_model)


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
