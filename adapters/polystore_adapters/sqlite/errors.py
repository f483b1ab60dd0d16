"""SQLite's errors as polystore's, by result code (https://sqlite.org/rescode.html). SQLITE_ERROR alone stands for all
that has no code of its own: there the kind of message tells, of which nothing else is told on."""

from __future__ import annotations

import contextlib
import errno
import re
import sqlite3
from collections.abc import Callable, Generator, Mapping

from polystore.errors import (
    DecodeError,
    IntegrityViolation,
    InvalidData,
    OutcomeUnknown,
    PermissionDenied,
    PolystoreError,
    SchemaMismatch,
    StoreCorrupt,
    StoreError,
    StoreFull,
    Unavailable,
    ValueTooLarge,
)

Make = Callable[[str], PolystoreError]


def _full(path: str) -> PolystoreError:
    return StoreFull(f"{path}: the disk or the page limit is full; make room and write again")


def _busy(path: str) -> PolystoreError:
    return Unavailable(f"{path}: another program holds the database; close it or try again")


def _corrupt(path: str) -> PolystoreError:
    return StoreCorrupt(f"{path}: the database is damaged; restore it from a backup, or rebuild a copy from its home")


def _no_database(path: str) -> PolystoreError:
    return StoreCorrupt(f"{path}: this file is no SQLite database; move it away or name another file")


def _denied(path: str) -> PolystoreError:
    return PermissionDenied(f"{path}: the file and its directory must be writable; change their rights or the URL")


def _io(path: str) -> PolystoreError:
    return Unavailable(f"{path}: reading or writing the file failed; check the disk")


def _memory(path: str) -> PolystoreError:
    return Unavailable(f"{path}: no memory left")


def _taken(path: str) -> PolystoreError:
    return IntegrityViolation("a unique value is held by another record")


def _dangling(path: str) -> PolystoreError:
    return IntegrityViolation("a foreign key of the application's tables: the row it names is missing, or still named")


def _unfit(path: str) -> PolystoreError:
    return InvalidData("a value does not fit the table")


def _too_big(path: str) -> PolystoreError:
    return ValueTooLarge("the record is larger than SQLite takes (1 GB)")


_CHANGED = re.compile(
    r"(error in \w+ .*: )?no such (table|column|index|trigger|view): |duplicate column name: "
    r"|(table|index|trigger|view) .* already exists$|table .* (has no column named |has \d+ columns but )",
    re.DOTALL,
)
_KINDS = ("syntax error", "unrecognized token", "no such function", "too many", "too large", "integer overflow")


def _other(path: str, message: str) -> PolystoreError:
    # Statements are compiled from the tables that were prepared: what does not fit them is another process's change.
    if _CHANGED.match(message):
        return SchemaMismatch(
            f"{path}: the tables are not those that were prepared; another process has changed them, open it again"
        )
    if message.startswith("malformed JSON"):
        return DecodeError("a stored value is no JSON; repair the record by writing it again")
    kind = next((kind for kind in _KINDS if kind in message), "an error of no known kind")
    return StoreError(f"{path}: SQLite does not carry out a statement ({kind}); its own error is the cause of this one")


_BY_CODE: Mapping[int, Make] = {
    sqlite3.SQLITE_FULL: _full,
    sqlite3.SQLITE_BUSY: _busy,
    sqlite3.SQLITE_LOCKED: _busy,
    sqlite3.SQLITE_INTERRUPT: _busy,
    sqlite3.SQLITE_CORRUPT: _corrupt,
    sqlite3.SQLITE_NOTADB: _no_database,
    sqlite3.SQLITE_READONLY: _denied,
    sqlite3.SQLITE_PERM: _denied,
    sqlite3.SQLITE_AUTH: _denied,
    sqlite3.SQLITE_CANTOPEN: _denied,
    sqlite3.SQLITE_IOERR: _io,
    sqlite3.SQLITE_PROTOCOL: _busy,
    sqlite3.SQLITE_NOMEM: _memory,
    sqlite3.SQLITE_CONSTRAINT: _unfit,
    sqlite3.SQLITE_CONSTRAINT_UNIQUE: _taken,
    sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY: _dangling,
    sqlite3.SQLITE_MISMATCH: _unfit,
    sqlite3.SQLITE_TOOBIG: _too_big,
}


def translate(error: Exception, path: str, *, committing: bool = False) -> Exception:
    """The error to raise for a driver's or file system's error; every other exception is returned as it is.

    `committing`: the error came from COMMIT. A failed write there may leave the transaction in the log, complete, so
    that it is replayed later: OutcomeUnknown.
    """
    if isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", None)
        if code is None and isinstance(error, sqlite3.OperationalError):  # the module's own error for this alone
            return DecodeError(
                "a stored text is no UTF-8; repair the record by writing it again, or rebuild this store from its home"
            )
        if code is None:  # likewise: a value that it cannot bind
            return InvalidData("a value that SQLite cannot keep")
        if committing and code & 0xFF == sqlite3.SQLITE_IOERR:
            return OutcomeUnknown(f"{path}: the disk failed during the commit; read the records before writing again")
        if code == sqlite3.SQLITE_ERROR:
            return _other(path, str(error))
        make = _BY_CODE.get(code) or _BY_CODE.get(code & 0xFF)
        return make(path) if make is not None else StoreError(f"{path}: {error.sqlite_errorname}")
    if isinstance(error, OSError):
        return _full(path) if error.errno in (errno.ENOSPC, errno.EDQUOT) else _denied(path)
    if isinstance(error, (OverflowError, UnicodeError)):
        return InvalidData("a value that SQLite cannot keep: an integer beyond 64 bits, or text that is no Unicode")
    return error


@contextlib.contextmanager
def translating(path: str, *, committing: bool = False) -> Generator[None]:
    """Raise `translate`d errors from the block."""
    try:
        yield
    except Exception as error:
        ours = translate(error, path, committing=committing)
        if ours is error:
            raise
        raise ours from error
