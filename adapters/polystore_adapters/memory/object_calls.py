"""The verbs of blobs and of the files that records name, as a connection has them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import ParamSpec, TypeVar

from polystore.model import ObjectPage, StoredObject, Upload

from .server import MemoryServer

P = ParamSpec("P")
R = TypeVar("R")


class ObjectCalls:
    """Part of `MemoryRepository`."""

    server: MemoryServer

    @abstractmethod
    async def _call(self, method: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R: ...

    async def put_part(self, upload: Upload, index: int, data: bytes) -> None:
        await self._call(self.server.blobs.put_part, upload, index, data)

    async def finish_object(self, upload: Upload, made: StoredObject) -> None:
        await self._call(self.server.blobs.finish_object, upload, made)

    async def abandon_object(self, upload: Upload) -> None:
        await self._call(self.server.blobs.abandon_object, upload)

    async def read_object(self, key: str, start: int, end: int) -> bytes:
        return await self._call(self.server.blobs.read_object, key, start, end)

    async def stat_objects(self, keys: Sequence[str]) -> list[StoredObject | None]:
        return await self._call(self.server.blobs.stat_objects, keys)

    async def list_objects(self, prefix: str, after: str, limit: int) -> ObjectPage:
        return await self._call(self.server.blobs.list_objects, prefix, after, limit)

    async def remove_objects(self, keys: Sequence[str]) -> None:
        await self._call(self.server.blobs.remove_objects, keys)

    async def discard_parts(self, idle_us: int) -> bool:
        return await self._call(self.server.blobs.discard_parts, idle_us)

    async def object_url(self, key: str, expires_s: int) -> str:
        return await self._call(self.server.blobs.object_url, key, expires_s)

    async def condemn(self, keys: Sequence[str], released_us: int, only_ask: bool) -> list[bool]:
        return await self._call(self.server.condemn, keys, released_us, only_ask)
