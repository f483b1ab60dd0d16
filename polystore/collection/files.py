"""`hda.files`: content saved before the record that names it, and read back checked.

A stream is a row of calls to the store, one for each part, see `SupportsObjects`: none has a deadline for the whole,
and memory holds a part or two however long it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import os
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from polystore.collection.sources import Content, parts_of
from polystore.collection.sweeping import FileRoom
from polystore.errors import IntegrityViolation, InvalidData, PolystoreError, StoreCorrupt, StoreError, ValueTooLarge
from polystore.model import FileRef, StoredObject, Upload, file_key, file_key_owner, tenant_segment
from polystore.protocols import SupportsObjects

P = ParamSpec("P")
R = TypeVar("R")
Method = Callable[Concatenate[Any, P], Coroutine[Any, Any, R]]

READ_MAX = 16 << 20
"""Bytes that `Files.read` keeps in memory unless it is told otherwise."""
URL_S_MAX = 7 * 86_400


class Files:
    """The files of one tenant: content of any size, each named by one record's field of type FileRef.

    Save the content first, then write the record that holds the `FileRef`. Content that no record names is removed
    when it is a day old; content whose record was replaced or deleted, when `tombstone_ttl_s` (7 days) have passed
    since. Raises InvalidData for a ref of another tenant, NotFound where there is no content, StoreCorrupt where what
    is read is not what was saved, and the store's errors.
    """

    def __init__(self, room: FileRoom, tenant: str) -> None:
        self._room = room
        self._store = room.store
        self._tenant = tenant

    async def save(self, data: Content, *, content_type: str = "application/octet-stream") -> FileRef:
        """Keep the content, and return what a record names it by. It is durable then, and under a key of its own: saved
        again it is another file. `data`: bytes, a path, a file opened for reading in binary, or an async iterable of
        bytes; of a stream only a part is in memory. After an error, or cancelled, nothing is kept."""
        _check_content_type(content_type)
        return await self._keep(file_key(self._tenant, self._room.env.uuid7()), data, content_type, None)

    async def restore(self, ref: FileRef, data: Content) -> None:
        """Keep content under the FileRef that it had: from a backup, or from another application's store. No-op when it
        is there. Raises InvalidData when it is not the content that was saved; then, and after any other error, or
        cancelled, nothing is kept."""
        self._check(ref)
        if not await self.exists(ref):
            await self._keep(ref.key, data, ref.content_type, ref)

    async def _keep(self, key: str, data: Content, content_type: str, known: FileRef | None) -> FileRef:
        size, part_bytes = 0, self._store.limits.part_bytes
        upload = Upload(key, str(self._room.env.uuid7()))
        digest, index = hashlib.sha256(), 0
        try:
            async with contextlib.aclosing(parts_of(data, part_bytes)) as parts:
                async for part in parts:
                    await _update(digest, part)
                    await self._call(upload.key, SupportsObjects.put_part, upload, index, part)
                    index, size = index + 1, size + len(part)
            ref = FileRef(key, digest.hexdigest(), size, content_type)
            if known not in (None, ref):
                raise InvalidData(f"files.restore: {key!r}: this is not the content that was saved")
            made = StoredObject(key, size, ref.sha256, content_type)
            await self._call(upload.key, SupportsObjects.finish_object, upload, made)
        except BaseException:
            with contextlib.suppress(PolystoreError):  # then the sweep does it
                await self._store.call(SupportsObjects.abandon_object, upload)
            raise
        self._room.remember(ref)
        return ref

    def open(
        self, ref: FileRef, *, start: int = 0, end: int | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """The content, or its bytes from `start` to `end` (exclusive), as chunks: `async with hda.files.open(ref) as
        chunks: async for chunk in chunks: ...`. Whoever reads all of it to the end has its sha256 checked."""
        end = ref.size if end is None else end
        self._check(ref)
        if type(start) is not int or type(end) is not int or not 0 <= start <= end <= ref.size:
            raise InvalidData(f"files: a range lies within 0 and the size of the file ({ref.size}), start before end")
        return self._opened(ref, start, end)

    @asynccontextmanager
    async def _opened(self, ref: FileRef, start: int, end: int) -> AsyncGenerator[AsyncIterator[bytes]]:
        first = await self._read(ref, start, end)
        async with contextlib.aclosing(self._chunks(ref, start, end, first)) as chunks:
            yield chunks

    async def _chunks(self, ref: FileRef, start: int, end: int, chunk: bytes) -> AsyncGenerator[bytes]:
        digest = hashlib.sha256() if (start, end) == (0, ref.size) else None
        while True:
            start += len(chunk)
            if digest is not None:
                await _update(digest, chunk)
                if start == end and digest.hexdigest() != ref.sha256:
                    raise self._corrupt(ref, "it is not the content that was saved (its sha256 differs)")
            if chunk:
                yield chunk
            if start == end:
                return
            chunk = await self._read(ref, start, end)

    async def _read(self, ref: FileRef, start: int, end: int) -> bytes:
        """The first part of the range, whole."""
        end = min(end, start + self._store.limits.part_bytes)
        chunk = await self._call(ref.key, SupportsObjects.read_object, ref.key, start, end)
        if len(chunk) != end - start:
            raise self._corrupt(ref, f"{len(chunk)} bytes were read where {end - start} should be")
        return chunk

    async def read(self, ref: FileRef, *, limit: int = READ_MAX) -> bytes:
        """All of the content, checked. Raises ValueTooLarge before any I/O when it has more than `limit` bytes."""
        if ref.size > limit:
            raise ValueTooLarge(
                f"files.read: {ref.size} bytes are more than the limit of {limit}; use files.open, or pass limit="
            )
        async with self.open(ref) as chunks:
            return b"".join([chunk async for chunk in chunks])

    async def save_to(self, ref: FileRef, path: os.PathLike[str]) -> None:
        """Write the content to a file, which appears or is replaced only when all of it was read and checked."""
        goal = Path(path)
        number, name = await asyncio.to_thread(tempfile.mkstemp, dir=goal.parent)
        try:
            with io.FileIO(number, "w") as file:
                async with self.open(ref) as chunks:
                    async for chunk in chunks:
                        await asyncio.to_thread(_write, file, chunk)
            await asyncio.to_thread(os.replace, name, goal)
        except BaseException:
            os.unlink(name)
            raise

    async def url(self, ref: FileRef, *, expires_s: int = 3600) -> str:
        """An address for others, which holds for `expires_s` where the store's addresses end; a file: store gives that
        of the file itself. Raises UnsupportedOperation where the store has none."""
        self._check(ref)
        if type(expires_s) is not int or not 1 <= expires_s <= URL_S_MAX:
            raise InvalidData(f"files.url: expires_s is a number of whole seconds from 1 to {URL_S_MAX}")
        return await self._call(ref.key, SupportsObjects.object_url, ref.key, expires_s)

    async def exists(self, ref: FileRef) -> bool:
        """Whether the content is there."""
        self._check(ref)
        (found,) = await self._call(ref.key, SupportsObjects.stat_objects, [ref.key])
        return found is not None

    async def delete(self, ref: FileRef) -> None:
        """Remove content now, which the sweep would do later; no-op when there is none. Raises IntegrityViolation while
        a record names it: delete or change the record first."""
        self._check(ref)
        if not await self._room.condemn([ref.key], 0, only_ask=False):
            raise IntegrityViolation(f"files.delete: a record names {ref.key!r}; delete or change the record first")
        self._room.forget(ref.key)
        await self._call(ref.key, SupportsObjects.remove_objects, [ref.key])

    # -- how --------------------------------------------------------------------------------------------------------

    def _check(self, ref: FileRef) -> None:
        if not isinstance(ref, FileRef):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidData(f"files: a FileRef is needed, not {type(ref).__name__}")
        if file_key_owner(ref.key) != tenant_segment(self._tenant):
            raise InvalidData("files: this FileRef is of another tenant, or not made by files.save")

    async def _call(self, key: str, method: Method[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return await self._store.call(method, *args, **kwargs)
        except StoreError as error:
            error.key = error.key or key
            raise

    def _corrupt(self, ref: FileRef, what: str) -> StoreCorrupt:
        return StoreCorrupt(
            f"{what}; restore the content from a backup of the store",
            store=self._store.name,
            operation="read",
            key=ref.key,
        )


def _write(file: io.FileIO, chunk: bytes) -> None:
    rest = memoryview(chunk)
    while rest:
        rest = rest[file.write(rest) :]


class _Digest(Protocol):
    def update(self, data: bytes, /) -> None: ...


async def _update(digest: _Digest, chunk: bytes) -> None:
    """Off the event loop, where that takes longer than the change of threads."""
    if len(chunk) > 64 << 10:
        await asyncio.to_thread(digest.update, chunk)
    else:
        digest.update(chunk)


def _check_content_type(value: object) -> None:
    if not isinstance(value, str) or not 0 < len(value) <= 255 or not value.isascii() or not value.isprintable():
        raise InvalidData("files.save: content_type is a text such as 'image/png', of at most 255 ASCII characters")
