"""Which workers on one file are alive: each holds a lock on a file of its name, so that none has to say so again.

A worker that dies, however it dies, loses its lock at that moment; nobody's clock is compared.
"""

from __future__ import annotations

import sys
from pathlib import Path

from polystore_adapters.sqlite.locks import FileLock


class Liveness:
    """The workers' lock files in `<database>.workers/`. One thread at a time."""

    def __init__(self, database: str) -> None:
        self._folder = Path(database + ".workers")
        self._held: dict[str, FileLock] = {}

    def register(self, worker: str) -> None:
        """Be alive until `release` or the end of the process. Raises OSError."""
        if worker in self._held:
            return
        self._folder.mkdir(exist_ok=True)
        # Locked under a name that no checker looks at, and only then under its own: it is never seen unlocked.
        new = self._folder / f".{worker}"
        lock = FileLock(new)
        lock.acquire()
        new.replace(self._folder / worker)
        self._held[worker] = lock

    def live(self) -> frozenset[str]:
        """The living workers; the files of dead ones are removed. Without locks: those of this process."""
        if sys.platform == "win32" or not self._folder.is_dir():
            return frozenset(self._held)
        names = [path.name for path in self._folder.iterdir() if not path.name.startswith(".")]
        return frozenset(name for name in names if name in self._held or self._alive(name))

    def _alive(self, worker: str) -> bool:
        path = self._folder / worker
        try:
            lock = FileLock(path, create=False)
        except FileNotFoundError:
            return False
        try:
            if not lock.try_acquire(shared=True):
                return True
            # Dead. Only who holds the file alone may remove it, and only if it still is the file of that name.
            if lock.try_acquire() and lock.is_file_at(path):
                path.unlink(missing_ok=True)
            return False
        finally:
            lock.close()

    def release(self, worker: str) -> None:
        """Leave: the worker is no longer alive. Idempotent."""
        lock = self._held.pop(worker, None)
        if lock is not None:
            (self._folder / worker).unlink(missing_ok=True)
            lock.close()

    def close(self) -> None:
        """Let go of all workers of this process, as their death would."""
        for lock in self._held.values():
            lock.close()
        self._held.clear()
