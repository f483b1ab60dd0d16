"""Verbs of a repository that are functions of its parts, and those that every SQL store has alike."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar

from polystore.filters import Checked
from polystore.model import Line
from polystore.text import Phrase

P = ParamSpec("P")
R = TypeVar("R")
Pool = TypeVar("Pool")
Pool_contra = TypeVar("Pool_contra", contravariant=True)


def of_pool(
    function: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, R]]:
    """The method of a repository that calls this function of its pool."""

    async def method(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await function(self._pool, *args, **kwargs)

    return _as_method(method, function, 1)


def of_tables(
    function: Callable[Concatenate[Any, Any, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, R]]:
    """The same of its pool and its tables."""

    async def method(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await function(self._pool, self._tables, *args, **kwargs)

    return _as_method(method, function, 2)


M = TypeVar("M", bound=Callable[..., Any])


def _as_method(method: M, function: Callable[..., Any], parts: int) -> M:
    """With the name and the parameters of the function, `self` for its parts."""
    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    signature = inspect.signature(function)
    rest = list(signature.parameters.values())[parts:]
    told: Any = method
    told.__name__, told.__doc__ = function.__name__, function.__doc__
    told.__signature__ = signature.replace(parameters=[own, *rest])
    return method


class Log(Protocol[Pool_contra]):
    """The table of one log."""

    async def append(self, pool: Pool_contra, tenant: str, lines: Sequence[Line]) -> None: ...

    async def lines(
        self,
        pool: Pool_contra,
        tenant: str,
        phrases: Sequence[Phrase],
        where: Checked | None,
        limit: int,
        newest_first: bool,
    ) -> list[Line]: ...

    async def count(self, pool: Pool_contra, tenant: str, where: Checked | None) -> int: ...

    async def expire(self, pool: Pool_contra, limit: int) -> int: ...


Logs = TypeVar("Logs", bound=Mapping[str, Log[Any]])


class LogCalls(Generic[Pool, Logs]):
    """`SupportsLog` of a repository that has a table for each log."""

    _pool: Pool
    _logs: Logs

    async def append_lines(self, etype: str, tenant: str, lines: Sequence[Line]) -> None:
        await self._logs[etype].append(self._pool, tenant, lines)

    async def lines(
        self,
        etype: str,
        tenant: str,
        phrases: Sequence[Phrase],
        where: Checked | None,
        limit: int,
        newest_first: bool,
    ) -> list[Line]:
        return await self._logs[etype].lines(self._pool, tenant, phrases, where, limit, newest_first)

    async def count_lines(self, etype: str, tenant: str, where: Checked | None) -> int:
        return await self._logs[etype].count(self._pool, tenant, where)

    async def expire_lines(self, etype: str, limit: int) -> int:
        return await self._logs[etype].expire(self._pool, limit)
