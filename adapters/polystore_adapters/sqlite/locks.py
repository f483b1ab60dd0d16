"""Locks between processes: `flock` on a file, which the system releases when the process ends, however it ends.

A forked child inherits the descriptors and with them the locks: its parent would seem alive for as long as the child
is. So the child closes them at once (never LOCK_UN, which would release the parent's). Windows has no flock: there the
locks do nothing, and one process may use a directory.
"""

from __future__ import annotations

import os
import sys
import weakref
from pathlib import Path

if sys.platform != "win32":
    import fcntl

_open: weakref.WeakSet[FileLock] = weakref.WeakSet()


class FileLock:
    """An open file that can be locked against every other `FileLock` of the same file, in any process.

    Raises OSError; FileNotFoundError when it is not to be created.
    """

    def __init__(self, path: Path, *, create: bool = True) -> None:
        self._fd: int | None = os.open(path, os.O_RDWR | (os.O_CREAT if create else 0), 0o666)
        _open.add(self)

    def acquire(self) -> None:
        """Wait until the lock is ours."""
        if sys.platform != "win32" and self._fd is not None:
            fcntl.flock(self._fd, fcntl.LOCK_EX)

    def try_acquire(self, *, shared: bool = False) -> bool:
        """Take the lock if it is free."""
        if sys.platform != "win32" and self._fd is not None:
            try:
                fcntl.flock(self._fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
        return True

    def release(self) -> None:
        if sys.platform != "win32" and self._fd is not None:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def is_file_at(self, path: Path) -> bool:
        """Whether the open file still is the one of that name."""
        try:
            return self._fd is not None and os.path.samestat(os.fstat(self._fd), os.stat(path))
        except FileNotFoundError:
            return False

    def close(self) -> None:
        """Release and close. Idempotent."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)


def _close_in_child() -> None:
    for lock in list(_open):
        lock.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)
