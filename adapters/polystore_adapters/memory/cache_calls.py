"""The cache of a memory server, as calls of a connection."""

# pyright: reportPrivateUsage=false
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ParamSpec, Protocol, TypeVar

from polystore.protocols.cache import Fill, Invalidation, Leased

from .server import MemoryServer

P = ParamSpec("P")
R = TypeVar("R")


class _Connection(Protocol):
    server: MemoryServer

    async def _call(self, method: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R: ...

    def _check_open(self) -> None: ...


class CacheCalls:
    """`SupportsCache` and `SupportsInlineCache`."""

    async def lookup(self: _Connection, names: Sequence[str]) -> list[bytes | None]:
        return await self._call(self.server.cache.lookup, names)

    def lookup_now(self: _Connection, name: str) -> bytes | None:
        self._check_open()
        return self.server.cache.lookup_now(name)

    async def lease(self: _Connection, names: Sequence[str], token: int) -> list[Leased]:
        return await self._call(self.server.cache.lease, names, token)

    async def fill(self: _Connection, fills: Sequence[Fill]) -> list[bool]:
        return await self._call(self.server.cache.fill, fills)

    async def invalidate(self: _Connection, invalidations: Sequence[Invalidation]) -> None:
        await self._call(self.server.cache.invalidate, invalidations)

    def invalidate_now(self: _Connection, invalidations: Sequence[Invalidation]) -> None:
        self._check_open()
        self.server.cache.invalidate(invalidations)

    async def intend(self: _Connection, names: Sequence[str], writer: int) -> None:
        await self._call(self.server.cache.intend, names, writer)

    async def forget(self: _Connection, etype: str) -> None:
        await self._call(self.server.cache.forget, etype)
