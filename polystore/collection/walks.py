"""Walks along relations, as an application asks for them."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from typing import Any, Generic, TypeVar, overload

from polystore.collection import exploring, relations, searching, stale
from polystore.collection.scope import KeyValue, Scope
from polystore.filters import Condition
from polystore.model import Direction
from polystore.results import Explored, Path, Related, Token

T = TypeVar("T")
R = TypeVar("R")


class Walks(Generic[T]):
    """The part of `Collection` that follows relations."""

    _scope: Scope[T]

    @overload
    async def related(
        self,
        key: KeyValue,
        type: str | Sequence[str],
        *,
        direction: Direction = ...,
        depth: int = ...,
        where: Condition | None = ...,
        edges: Condition | None = ...,
        limit: int = ...,
        after: Token | None = ...,
        stale_ok: bool = ...,
    ) -> Sequence[Related[object]]: ...
    @overload
    async def related(
        self,
        key: KeyValue,
        type: str | Sequence[str],
        *,
        into: type[R],
        direction: Direction = ...,
        depth: int = ...,
        where: Condition | None = ...,
        edges: Condition | None = ...,
        limit: int = ...,
        after: Token | None = ...,
        stale_ok: bool = ...,
    ) -> Sequence[Related[R]]: ...
    async def related(
        self,
        key: KeyValue,
        type: str | Sequence[str],  # noqa: A002
        *,
        into: Any = None,
        direction: Direction = "out",
        depth: int = 1,
        where: Condition | None = None,
        edges: Condition | None = None,
        limit: int = 100,
        after: Token | None = None,
        stale_ok: bool = False,
    ) -> Sequence[Related[Any]]:
        """Records reached from this one over relations of the types, nearest first, each once; `direction` "in" follows
        those that point here. `into` keeps the records of one class; `where` is a condition on it (without `into` on
        the only class that can be reached). `edges`: only edges whose properties satisfy this condition are followed.
        Ends that are not there are left out. Raises WorkLimitExceeded when the first 100,000 do not hold `limit`."""
        asked = relations.walk(self._scope, type, into, direction, depth, where, edges, limit)
        stale.check(stale_ok, after)
        found = await relations.related(self._scope, self._scope.key(key), asked, after, stale_ok)
        return [one for _, one in found]

    async def explore(
        self,
        to: str | Sequence[float],
        type: str | Sequence[str],  # noqa: A002
        *,
        field: str | None = None,
        seeds: int = 5,
        seed_where: Condition | None = None,
        into: builtins.type[Any] | None = None,
        direction: Direction = "out",
        depth: int = 1,
        where: Condition | None = None,
        edges: Condition | None = None,
        limit: int = 10,
        after: Token | None = None,
        stale_ok: bool = False,
    ) -> Sequence[Explored[Any]]:
        """A search that goes on along relations: the `seeds` records nearest to a text or vector (as `similar`, of
        those that satisfy `seed_where`), and what `related` reaches from them, best first. Each record comes once, with
        the best of the seeds that lead to it; the seeds themselves are among the results unless `into` is another
        class. Ranked by 1 / (60 + rank of the seed), halved with each step, summed over the seeds. Raises as `similar`
        and `related` do."""
        asked = relations.walk(self._scope, type, into, direction, depth, where, edges, limit)
        stale.check(stale_ok, after)
        question = searching.Question(self._scope, seed_where, seeds, stale_ok=stale_ok)
        return await exploring.explore(question, to, field, asked, after)

    async def path(
        self,
        key: KeyValue,
        to: KeyValue,
        type: str | Sequence[str],  # noqa: A002
        *,
        into: builtins.type[Any] | None = None,
        direction: Direction = "out",
        depth_max: int = 6,
        where: Condition | None = None,
        edges: Condition | None = None,
        after: Token | None = None,
    ) -> Path:
        """A shortest path to another record, empty when there is none: the first of `paths`."""
        asked = relations.way(self._scope, key, to, type, into, direction, depth_max, where, edges, 1)
        found = await relations.paths(self._scope, asked, after)
        return found[0] if found else []

    async def paths(
        self,
        key: KeyValue,
        to: KeyValue,
        type: str | Sequence[str],  # noqa: A002
        *,
        into: builtins.type[Any] | None = None,
        direction: Direction = "out",
        depth_max: int = 6,
        where: Condition | None = None,
        edges: Condition | None = None,
        limit: int = 100,
        after: Token | None = None,
    ) -> Sequence[Path]:
        """All paths to another record that come to no record twice, shortest first, over at most `depth_max` (up to 30)
        relations. `into` is the other record's class, where it can be one of several; `where` is a condition on the
        records of that class between the two ends, `edges` on the properties of the edges. All records and edges of a
        path are there at their homes. Raises WorkLimitExceeded rather than give an incomplete answer below `limit`."""
        asked = relations.way(self._scope, key, to, type, into, direction, depth_max, where, edges, limit)
        return await relations.paths(self._scope, asked, after)
