"""One SQLite file: a thread that writes, threads that read, and a connection for reads on the caller's own thread.

Writes are committed in groups: whatever is waiting when the writer is free goes into one transaction and shares one
sync to the disk. The work of a group is done once for all its members; when that fails, the transaction is rolled back
whole and every member is tried again in a transaction of its own, so that one member's failure is never another's.
(SQLITE_FULL and an interrupt end a transaction together with its savepoints, so savepoints would not isolate them.)

Processes take turns by a lock on `<file>.lock`, held for one transaction: SQLite's own waiting is neither fair nor
quick (four writing processes waited up to 4.5 s for each other, with the lock 0.3 s).
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import os
import queue
import sqlite3
import threading
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar

from polystore.env import Env
from polystore.errors import OutcomeUnknown, PermissionDenied, StoreCorrupt, Unavailable
from polystore_adapters.sqlite.dialect import DECIMAL_COLLATION, compare_decimals
from polystore_adapters.sqlite.errors import translating
from polystore_adapters.sqlite.locks import FileLock
from polystore_adapters.sqlite.options import Options
from polystore_adapters.sqlite.schema import check_file

T = TypeVar("T")
R = TypeVar("R")
P = ParamSpec("P")

Handler = Callable[[sqlite3.Connection, Sequence[T]], Sequence[R | Exception]]
"""Work of one kind for many members, inside a transaction: a result or an error for each. What it raises is the failure
of all, and is followed by another try for each alone."""

GROUP_MAX = 2_000
"""Members in one transaction: about 50 ms, so that other processes and single writes do not wait long."""
BUSY_TIMEOUT_S = 5.0
"""How long the writer waits for a program that does not know our lock."""
CLOSE_TIMEOUT_S = 10.0
"""How long `aclose` waits for the writer."""
_CLOSED = "closed"
_HOPELESS = (Unavailable, OutcomeUnknown, StoreCorrupt, PermissionDenied)


_open: weakref.WeakSet[Database] = weakref.WeakSet()
_inherited: list[object] = []


class _Job(NamedTuple):
    handler: Handler[Any, Any]
    name: str
    members: Sequence[Any]
    future: asyncio.Future[Any]
    durable: bool


class Database:
    """The connections of one process to one file. Used from one event loop."""

    def __init__(self, path: str, options: Options, env: Env) -> None:
        self.path = path
        self.options = options
        self.env = env
        self._unusable = "not prepared"
        self._inline: sqlite3.Connection | None = None
        self._writer: sqlite3.Connection | None = None
        self._syncs = True
        self._lock: FileLock | None = None
        self._idle: list[sqlite3.Connection] = []
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._opening = threading.Lock()
        self._thread: threading.Thread | None = None
        self._readers = ThreadPoolExecutor(options.readers, "polystore-read")
        self._loop: asyncio.AbstractEventLoop | None = None
        _open.add(self)

    # -- opening and closing ----------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        return self._inline is not None

    async def open(self, *, create: bool) -> None:
        """Open the file; `create` makes it and its directory when they are missing. Of several calls at once one does
        so. Raises StoreCorrupt for what is no database, SchemaMismatch for another program's or a newer polystore's,
        PermissionDenied, Unavailable."""
        self._loop = asyncio.get_running_loop()
        await asyncio.to_thread(self._open, create)

    def _open(self, create: bool) -> None:
        """A second writer thread would share the first one's connection, and end its transactions in their middle. The
        lock is a thread's: one whose caller was cancelled goes on."""
        with self._opening, translating(self.path):
            if self._inline is not None:
                return
            if self._unusable == _CLOSED:
                raise self._unavailable()
            if create:
                Path(self.path).parent.mkdir(parents=True, exist_ok=True)
            mode = "rwc" if create else "rw"
            writer = self._connect(mode, BUSY_TIMEOUT_S)
            try:
                # What is no database, damaged or not ours is found before anything is written.
                (size,) = writer.execute("PRAGMA page_size").fetchone()
                (pages,) = writer.execute("PRAGMA page_count").fetchone()
                self._check_size(size, pages)
                ours = check_file(writer, self.path) or not pages
                self._lock = FileLock(Path(self.path + ".lock"))
                self._lock.acquire()
                try:
                    self._settings(writer, wal=ours)
                finally:
                    self._lock.release()
                inline = self._connect("rw", 0.0)
            except BaseException:
                writer.close()
                if self._lock is not None:
                    self._lock.close()
                raise
            self._writer = writer
            self._thread = threading.Thread(target=self._write, name="polystore-write", daemon=True)
            self._thread.start()
            self._inline = inline

    def _check_size(self, page_size: int, pages: int) -> None:
        """SQLite notices missing pages by itself, but not that the last one is torn. With a log beside the file, the
        file may be in the middle of being written."""
        log = Path(self.path + "-wal")
        if not (log.exists() and log.stat().st_size) and Path(self.path).stat().st_size % page_size:
            raise StoreCorrupt(
                f"{self.path}: the file is truncated ({pages} pages); restore it from a backup, or rebuild a copy from "
                "its home"
            )

    async def use_log(self) -> None:
        """Have the file keep a write-ahead log: an application's own is left as it is until it is prepared."""

        def use() -> None:
            with translating(self.path), contextlib.closing(self._connect("rw", BUSY_TIMEOUT_S)) as db:
                db.execute("PRAGMA journal_mode=WAL")

        await asyncio.to_thread(use)

    def _settings(self, writer: sqlite3.Connection, *, wal: bool) -> None:
        if wal:
            writer.execute("PRAGMA journal_mode=WAL")
        writer.execute("PRAGMA foreign_keys=ON")  # of the application's tables; ours have none
        writer.execute("PRAGMA cache_size=-16000")
        if self.options.page_limit is not None:
            writer.execute(f"PRAGMA max_page_count={self.options.page_limit:d}")

    def _connect(self, mode: str, timeout_s: float) -> sqlite3.Connection:
        uri = f"{Path(self.path).absolute().as_uri()}?mode={mode}"
        db = sqlite3.connect(
            uri, timeout_s, isolation_level=None, check_same_thread=False, cached_statements=512, uri=True
        )
        db.create_collation(DECIMAL_COLLATION, compare_decimals)
        db.execute("PRAGMA synchronous=FULL")
        db.execute("PRAGMA secure_delete=FAST")
        return db

    async def aclose(self) -> None:
        """Carry out what was asked for, take nothing new, close. Idempotent."""
        inline, self._inline = self._inline, None
        self._unusable = _CLOSED
        if inline is not None or self._opening.locked():
            await asyncio.to_thread(self._close, inline)

    def _close(self, inline: sqlite3.Connection | None) -> None:
        with self._opening:  # what is under way ends first
            inline, self._inline = inline or self._inline, None
        if inline is None:
            return
        self._jobs.put(None)
        self._readers.shutdown(wait=True)
        if self._thread is not None:
            self._thread.join(CLOSE_TIMEOUT_S)  # it ends later, when a stopped process holds the lock for so long
        for db in (*self._idle, inline):
            db.close()

    def leave_to_parent(self) -> None:
        """In a forked child: be unusable, and never close the connections, which would end the parent's log."""
        _inherited.append((self._inline, self._writer, self._idle))
        self._inline = self._writer = None
        self._opening = threading.Lock()
        self._unusable = "opened before a fork"

    def check(self) -> None:
        """Raises Unavailable when this cannot be used: not opened, closed, or inherited by a forked process."""
        if self._inline is None:
            raise self._unavailable()

    def _unavailable(self) -> Unavailable:
        return Unavailable(f"{self.path}: {self._unusable}; connect and prepare in this process first")

    # -- reading ----------------------------------------------------------------------------------------------

    @property
    def inline(self) -> sqlite3.Connection:
        """The connection for the event loop's own thread: it never waits for a lock. Raises Unavailable."""
        inline = self._inline
        if inline is None:
            raise self._unavailable()
        return inline

    async def read(
        self, function: Callable[Concatenate[sqlite3.Connection, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Run a function in a thread with a connection of its own, inside one snapshot."""
        self.check()
        assert self._loop is not None
        return await self._loop.run_in_executor(self._readers, lambda: self._read(function, *args, **kwargs))

    def _read(self, function: Callable[Concatenate[sqlite3.Connection, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        with translating(self.path):
            try:
                db = self._idle.pop()
            except IndexError:
                db = self._connect("rw", BUSY_TIMEOUT_S)
            try:
                db.execute("BEGIN")
                return function(db, *args, **kwargs)
            finally:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                self._idle.append(db)

    # -- writing ----------------------------------------------------------------------------------------------

    async def write(
        self, handler: Handler[T, R], members: Sequence[T], name: str = "", *, durable: bool = True
    ) -> Sequence[R | Exception]:
        """Have the writer thread do this work; done when it returns.

        The answer has the result of each member, or the error for which nothing of it was written. Cancelling the call
        does not stop the work. `name` is that of the crash points before and after the commit. With `durable` False a
        loss of power may undo it, though never a part of it, nor what was durable before or is after: for what is only
        done again then, such as noting a delivery.
        """
        self.check()
        assert self._loop is not None
        future: asyncio.Future[Sequence[R | Exception]] = self._loop.create_future()
        self._jobs.put(_Job(handler, name, members, future, durable))
        return await future

    async def write_one(
        self, handler: Callable[[sqlite3.Connection, T], R], member: T, name: str = "", *, durable: bool = True
    ) -> R:
        """`write` of one member by a function of one; raises its error."""

        def each(db: sqlite3.Connection, members: Sequence[T]) -> Sequence[R]:
            return [handler(db, one) for one in members]

        (result,) = await self.write(each, (member,), name, durable=durable)
        if isinstance(result, Exception):
            raise result
        return result

    def _write(self) -> None:
        """The writer thread. Its connection and its lock are its own, to the end."""
        assert self._writer is not None
        assert self._lock is not None
        with contextlib.closing(self._writer), contextlib.closing(self._lock):
            self._write_groups()

    def _write_groups(self) -> None:
        closing = False
        while not closing:
            job = self._jobs.get()
            group: list[_Job] = []
            size = 0
            while job is not None:
                group.append(job)
                size += len(job.members)
                if size >= GROUP_MAX:
                    break
                try:
                    job = self._jobs.get_nowait()
                except queue.Empty:
                    break
            closing = job is None
            self._finish([(job.future, result) for job, result in zip(group, self._carry_out(group), strict=True)])
            del job, group  # to end many writes takes time: let the caller, while this thread is at the next ones

    def _finish(self, results: list[tuple[asyncio.Future[Any], Sequence[Any] | Exception]]) -> None:
        def resolve() -> None:
            for future, result in results:
                if future.done():
                    continue  # cancelled
                if isinstance(result, Exception):
                    future.set_exception(result)
                else:
                    future.set_result(result)

        if results and self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop was closed under us: nobody waits any more
                self._loop.call_soon_threadsafe(resolve)

    def _carry_out(self, group: Sequence[_Job]) -> list[Sequence[Any] | Exception]:
        """For each job the results of its members, or one error of all."""
        try:
            return [*self._transaction(group)]
        except Exception as error:  # noqa: BLE001  (each caller gets it)
            if isinstance(error, _HOPELESS):
                return [copy.copy(error) for _ in group]
            if len(group) == 1 and len(group[0].members) == 1:
                return [[error]]
        return [[one for member in job.members for one in self._alone(job, member)] for job in group]

    def _alone(self, job: _Job, member: Any) -> Sequence[Any]:
        try:
            (result,) = self._transaction([job._replace(members=(member,))])
        except Exception as error:  # noqa: BLE001  (the caller gets it)
            return [error]
        return result

    def _transaction(self, group: Sequence[_Job]) -> list[Sequence[Any]]:
        """One transaction for all. Raises polystore's errors, after which nothing was written (or OutcomeUnknown)."""
        db = self._writer
        assert db is not None
        assert self._lock is not None
        names = dict.fromkeys(job.name for job in group if job.name)
        with translating(self.path):
            self._lock.acquire()
            try:
                self._synchronize(db, full=any(job.durable for job in group))
                db.execute("BEGIN IMMEDIATE")
                results = self._results(db, group)
                self._crashpoints(names, "before")
                with translating(self.path, committing=True):
                    db.execute("COMMIT")
            finally:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                self._lock.release()
        self._crashpoints(names, "after")
        return results

    def _synchronize(self, db: sqlite3.Connection, *, full: bool) -> None:
        """FULL syncs the log at each commit, and with it all commits before; NORMAL leaves that to a later one."""
        if full is not self._syncs:
            db.execute(f"PRAGMA synchronous={'FULL' if full else 'NORMAL'}")
            self._syncs = full

    def _results(self, db: sqlite3.Connection, group: Sequence[_Job]) -> list[Sequence[Any]]:
        """The results of each job; all of one kind are done together."""
        kinds: dict[Handler[Any, Any], list[int]] = {}
        for i, job in enumerate(group):
            kinds.setdefault(job.handler, []).append(i)
        results: list[Sequence[Any]] = [()] * len(group)
        for handler, indexes in kinds.items():
            answers = handler(db, [member for i in indexes for member in group[i].members])
            start = 0
            for i in indexes:
                stop = start + len(group[i].members)
                results[i] = answers[start:stop]
                start = stop
        return results

    def _crashpoints(self, names: dict[str, None], moment: str) -> None:
        for name in names:
            self.env.crashpoint(f"sqlite.{name}.{moment}")


def _leave_to_parent() -> None:
    for database in list(_open):
        database.leave_to_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)
