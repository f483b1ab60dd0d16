"""Content as applications have it, in parts of one size."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
from typing import Any, Protocol, cast

from polystore.errors import InvalidData


class Readable(Protocol):
    """A file opened for reading in binary; its `read` may be a coroutine."""

    def read(self, size: int, /) -> bytes | Awaitable[bytes]: ...


Content = bytes | bytearray | memoryview | os.PathLike[str] | Readable | AsyncIterable[bytes]


async def parts_of(data: Content, size: int) -> AsyncGenerator[bytes]:
    """The content in parts of `size` bytes, the last one shorter; none of no content. Raises InvalidData for what is no
    content, and whatever reading it raises. What blocks is read in threads."""
    buffer = bytearray()
    async for chunk in _chunks(data, size):
        if not isinstance(chunk, (bytes, bytearray, memoryview)):
            raise InvalidData(f"files.save: the stream gave {type(chunk).__name__}, not bytes; open it in binary")
        if isinstance(chunk, bytes) and len(chunk) == size and not buffer:
            yield chunk
            continue
        rest = memoryview(cast(bytes, chunk)).cast("B")
        while rest:
            taken = rest[: size - len(buffer)]
            buffer += taken
            rest = rest[len(taken) :]
            if len(buffer) == size:
                yield bytes(buffer)
                buffer.clear()
    if buffer:
        yield bytes(buffer)


async def _chunks(data: Any, size: int) -> AsyncGenerator[object]:
    if isinstance(data, (bytes, bytearray, memoryview)):
        yield data
    elif isinstance(data, os.PathLike):
        file = await asyncio.to_thread(open, cast(os.PathLike[str], data), "rb", buffering=0)
        try:
            while chunk := await asyncio.to_thread(file.read, size):
                yield chunk
        finally:
            file.close()
    elif callable(read := getattr(data, "read", None)):
        while chunk := await _read(cast(Callable[[int], Any], read), size):
            yield chunk
    elif isinstance(data, AsyncIterable):
        async for chunk in cast(AsyncIterable[object], data):
            yield chunk
    else:
        raise InvalidData(
            "files.save takes bytes, a pathlib.Path, a file opened in binary, or an async iterable of bytes, not "
            f"{type(data).__name__}"
        )


async def _read(read: Callable[[int], Any], size: int) -> object:
    if inspect.iscoroutinefunction(read):
        return await read(size)
    return await asyncio.to_thread(read, size)
