"""A directory as a repository, which holds blobs and nothing else."""

from __future__ import annotations

import asyncio
import errno
import os
import platform
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeVar

from polystore.env import Env
from polystore.errors import (
    PermissionDenied,
    SchemaMismatch,
    StoreError,
    StoreFull,
    Unavailable,
)
from polystore.model import Instance, Limits, ObjectPage, StoredObject, Upload
from polystore.protocols import Layout, SupportsObjects, SupportsSchema
from polystore.protocols.without_records import WithoutRecords
from polystore_adapters.file import Options
from polystore_adapters.file.objects import PART_BYTES, Directory

P = ParamSpec("P")
R = TypeVar("R")

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}


class FileRepository(WithoutRecords):
    """Blobs in a directory; any number of processes may share it. Disk operations run in threads of their own."""

    holds = "a file: store holds blobs"
    capabilities: frozenset[type] = frozenset({SupportsSchema, SupportsObjects})
    limits: Limits = Limits(part_bytes=PART_BYTES)

    def __init__(self, root: Path, options: Options, env: Env) -> None:
        self.root = root.absolute()
        self._env = env
        self._directory = Directory(self.root, options.umask)
        self._threads = ThreadPoolExecutor(options.threads, "polystore-file")
        self._unusable = ""

    async def _call(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        if self._unusable:
            raise Unavailable(f"{self.root}: {self._unusable}; connect again")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: function(*args, **kwargs))
        except OSError as error:
            raise self._translated(error) from error

    def _translated(self, error: OSError) -> StoreError:
        if error.errno in _FULL:
            return StoreFull(f"{self.root}: no room left; nothing of this file is kept")
        if error.errno in _DENIED:
            return PermissionDenied(f"{self.root}: the directory must be writable; change its rights or the URL")
        return Unavailable(
            f"{self.root}: reading or writing failed ({errno.errorcode.get(error.errno or 0, 'OSError')})"
        )

    # -- life -------------------------------------------------------------------------------------------------

    async def prepare(self, layouts: Sequence[Layout], *, create: bool) -> None:
        self.refuse(layouts)
        if create:
            await self._call(self._directory.create)
        elif not await self._call(self._directory.exists):
            raise SchemaMismatch(f"{self.root}: no directory for blobs yet; run `polystore init`")

    async def ping(self) -> Instance:
        await self._call(os.path.isdir, self.root)
        return Instance("file", platform.system(), "directory")

    async def aclose(self) -> None:
        self._unusable = "closed"
        await asyncio.to_thread(self._threads.shutdown)

    # -- blobs ------------------------------------------------------------------------------------------------

    async def put_part(self, upload: Upload, index: int, data: bytes) -> None:
        await self._call(self._directory.put_part, upload, index, data)
        self._env.crashpoint("file.put_part")

    async def finish_object(self, upload: Upload, made: StoredObject) -> None:
        await self._call(self._directory.finish, upload, made, self._env.now_us())

    async def abandon_object(self, upload: Upload) -> None:
        await self._call(self._directory.abandon, upload)

    async def read_object(self, key: str, start: int, end: int) -> bytes:
        return await self._call(self._directory.read, key, start, end)

    async def stat_objects(self, keys: Sequence[str]) -> list[StoredObject | None]:
        return await self._call(self._directory.stat, list(keys))

    async def list_objects(self, prefix: str, after: str, limit: int) -> ObjectPage:
        return ObjectPage(await self._call(self._directory.list, prefix, after, limit), self._env.now_us())

    async def remove_objects(self, keys: Sequence[str]) -> None:
        await self._call(self._directory.remove, list(keys))

    async def discard_parts(self, idle_us: int) -> bool:
        return await self._call(self._directory.discard, self._env.now_us() - idle_us)

    async def object_url(self, key: str, expires_s: int) -> str:
        return await self._call(self._directory.address, key)
