"""Walks along relations, as an application asks for them."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from typing import Any, Generic, TypeVar, overload

from polystore.collection import relations
from polystore.collection.scope import KeyValue, Scope
from polystore.filters import Condition
from polystore.model import Direction
from polystore.results import Path, Related, Token

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
    ) -> Sequence[Related[Any]]:
        """Records reached from this one over relations of the types, nearest first, each once; `direction` "in" follows
        those that point here. `into` keeps the records of one class; `where` is a condition on it (without `into` on
        the only class that can be reached). `edges`: only edges whose properties satisfy this condition are followed.
        Ends that are not there are left out. Raises WorkLimitExceeded when the first 100,000 do not hold `limit`."""
        asked = relations.walk(self._scope, key, type, into, direction, depth, where, edges, limit)
        return await relations.related(self._scope, asked, after)

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
