"""`import_many`: any amount of values in commits of some hundred or thousand, each with the position reached."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Generator, Iterable, Sequence
from contextlib import aclosing
from itertools import chain, islice
from typing import Generic, Literal, NoReturn, TypeVar

import msgspec

from polystore.collection.scope import Scope
from polystore.errors import Conflict, InvalidData
from polystore.model import Key, Write
from polystore.protocols import SupportsJournal
from polystore.results import ImportReport

T = TypeVar("T")

CHUNK_MAX = 500
"""Values of one commit while copies have to follow, which are as late as it is large."""
COMMIT_S = 0.1
"""How long others may have to wait for a commit of an import. Where no copy is behind, commits grow up to
`Limits.import_max` values while they take less than this: each writes anew what it touches of an index over hashes,
which is nearly all of it, however few its values are."""
CHUNK_BYTES_MAX = 4 << 20
"""Bytes of the content of one commit, so that memory does not grow with the size of the values."""
ERRORS_MAX = 100
LEAD_S = 0.001
"""A commit begins with what its home does in Python, about this long for a chunk. To prepare the next chunk meanwhile
would only take the interpreter lock from it; after that the database is at work, which needs no lock."""
GIVE_WAY_S = 1e-6
"""The thread that commits needs that lock again for moments. Who only lets it go has it back before another thread is
awake: so the preparing one sleeps as briefly as it can, some 50 us, each time that other tasks get their turn."""
YIELD_EVERY = 32
"""Values that are prepared before other tasks of this process get their turn, some milliseconds."""

_Kind = Literal["skip", "insert", "create"]
_KINDS: dict[str, _Kind] = {"overwrite": "skip", "skip": "insert", "error": "create"}


class _Chunk:
    """The writes of the next commit, with the position of each in the source. `end` is the position behind all that
    is decided when this chunk is committed, rejected values included."""

    def __init__(self) -> None:
        self.writes: list[Write] = []
        self.positions: list[int] = []
        self.keys: set[Key] = set()
        self.bytes = 0
        self.end = 0

    def add(self, write: Write, size: int, position: int) -> None:
        self.writes.append(write)
        self.positions.append(position)
        self.keys.add(write.key)
        self.bytes += size


class Import(Generic[T]):
    """One run of an import; see `Collection.import_many`."""

    def __init__(
        self,
        scope: Scope[T],
        on_conflict: str,
        on_error: str,
        resume: str | None,
        progress: Callable[[ImportReport], None] | None,
    ) -> None:
        if on_conflict not in _KINDS:
            raise InvalidData(f"on_conflict={on_conflict!r}: 'overwrite', 'skip' or 'error'")
        if on_error not in ("stop", "collect"):
            raise InvalidData(f"on_error={on_error!r}: 'stop' or 'collect'")
        self._scope = scope
        self._kind: _Kind = _KINDS[on_conflict]
        self._stop = on_error == "stop"
        self._mark = None if resume is None else mark_name(scope.tenant, scope.etype, resume)
        self._progress = progress
        limits = scope.home.limits
        self._size = self._size_min = min(CHUNK_MAX, limits.batch_max)
        self._size_max = max(self._size_min, limits.import_max)
        self._value_s = math.inf
        """Of the last commit, for each of its values."""
        self._read = self._written = self._skipped = self._rejected = 0
        self._errors: list[tuple[int, str]] = []

    def report(self) -> ImportReport:
        return ImportReport(self._read, self._written, self._skipped, self._rejected, tuple(self._errors))

    async def run(self, source: Iterable[T | InvalidData] | AsyncIterable[T | InvalidData]) -> ImportReport:
        """One commit is under way while the next one is prepared. A source that makes its values from something else
        gives an InvalidData in the place of a value that cannot be made."""
        done = await self._position()
        chunk = _Chunk()
        sending: asyncio.Task[None] | None = None
        try:
            async with aclosing(_some(source)) as parts:
                async for some in parts:
                    for value in some:
                        position = self._read
                        self._read = position + 1
                        if position < done:
                            self._skipped += 1
                            continue
                        prepared = self._prepare(value)
                        if isinstance(prepared, InvalidData):
                            if self._stop:
                                await self._flush(sending, chunk)
                                self._raise(prepared, position)
                            self._reject(prepared, position)
                        else:
                            write, size = prepared
                            if not self._fits(write, chunk):
                                sending, chunk = await self._next(sending, chunk), _Chunk()
                            chunk.add(write, size, position)
                        chunk.end = position + 1
                    if sending is not None and not sending.done():
                        time.sleep(GIVE_WAY_S)  # noqa: ASYNC251
            await self._flush(sending, chunk)
            sending = None
        finally:
            if sending is not None:  # a commit that was sent is carried out in any case: end when it is known
                await asyncio.gather(sending, return_exceptions=True)
        return self.report()

    def _fits(self, write: Write, chunk: _Chunk) -> bool:
        return len(chunk.writes) < self._size and chunk.bytes < CHUNK_BYTES_MAX and write.key not in chunk.keys

    def _prepare(self, value: T | InvalidData) -> tuple[Write, int] | InvalidData:
        if isinstance(value, InvalidData):
            return value
        try:
            return self._scope.measured(self._kind, value)
        except InvalidData as e:
            return e

    async def _position(self) -> int:
        """How many values of the source earlier runs are done with."""
        if self._mark is None:
            return 0
        return int(await self._scope.home.call(SupportsJournal.mark, self._mark) or 0)

    async def _next(self, sending: asyncio.Task[None] | None, chunk: _Chunk) -> asyncio.Task[None]:
        """Wait for the commit under way, then begin this one."""
        if sending is not None:
            await sending
        size = await self._scope.manager.room(self._scope.etype)
        quick = self._value_s * self._size_max < COMMIT_S
        if size is None and quick:
            self._size = min(2 * self._size, self._size_max)
        else:
            self._size = min(self._size_min, size or self._size_min)
        task = asyncio.create_task(self._send(chunk.writes, chunk.positions, chunk.end))
        try:
            await asyncio.sleep(LEAD_S)
        except asyncio.CancelledError:
            await asyncio.gather(task, return_exceptions=True)  # as in `run`
            raise
        return task

    async def _flush(self, sending: asyncio.Task[None] | None, chunk: _Chunk) -> None:
        if sending is not None:
            await sending
        if chunk.writes or (chunk.end and self._mark is not None):
            await self._send(chunk.writes, chunk.positions, chunk.end)

    async def _send(self, writes: Sequence[Write], positions: Sequence[int], end: int) -> None:
        """Commit the writes with the position behind them. A commit that one of them spoils is tried in halves, in
        order, so that everything before the bad value is written and the bad one alone is not."""
        marks = {} if self._mark is None else {self._mark: str(end)}
        manager = self._scope.manager
        started = manager.env.monotonic()
        try:
            written = await manager.write_quietly(self._scope.etype, writes, marks)
        except (InvalidData, Conflict) as e:
            if len(writes) > 1:
                half = len(writes) // 2
                await self._send(writes[:half], positions[:half], positions[half])
                await self._send(writes[half:], positions[half:], end)
                return
            if self._stop:
                self._raise(e, positions[0])
            self._reject(e, positions[0])
            if marks:
                await manager.write_quietly(self._scope.etype, (), marks)
        else:
            self._value_s = (manager.env.monotonic() - started) / max(1, len(writes))
            changed = sum(one.changed for one in written)
            self._written += changed
            self._skipped += len(written) - changed
        if self._progress is not None:
            self._progress(self.report())

    def _reject(self, error: Exception, position: int) -> None:
        self._rejected += 1
        if len(self._errors) < ERRORS_MAX:
            self._errors.append((position, str(error)))

    def _raise(self, error: Exception, position: int) -> NoReturn:
        error.add_note(
            f"import_many: this is value {position} of the source, counted from 0; everything before it is written. "
            "Mend it and import again, or pass on_error='collect'"
        )
        raise error


def mark_name(tenant: str, etype: str, resume: str) -> str:
    """The name of an import's position in the journal."""
    return msgspec.json.encode(["import", tenant, etype, resume]).decode()


async def _some(source: Iterable[T] | AsyncIterable[T]) -> AsyncGenerator[Iterable[T]]:
    """The values of the source, none read before it is asked for. In between other tasks get their turn."""
    if isinstance(source, AsyncIterable):
        read = 0
        async for value in source:
            yield (value,)
            read += 1
            if read % YIELD_EVERY == 0:
                await asyncio.sleep(0)
    else:
        values = iter(source)
        try:
            for first in values:
                yield chain((first,), islice(values, YIELD_EVERY - 1))
                await asyncio.sleep(0)
        finally:
            if values is not source and isinstance(values, Generator):  # it was made here; it may hold a file open
                values.close()
