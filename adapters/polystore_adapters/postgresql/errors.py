"""PostgreSQL's errors as polystore's, by SQLSTATE (https://www.postgresql.org/docs/current/errcodes-appendix.html),
never by message."""

from __future__ import annotations

from collections.abc import Mapping

from polystore.errors import (
    ConfigurationError,
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
from polystore_adapters.postgresql.driver import asyncpg

LOST = "the connection was lost"
_BY_STATE: Mapping[str, tuple[type[PolystoreError], str]] = {
    "08": (Unavailable, LOST),
    "0A000": (Unavailable, "the tables were changed meanwhile; ask again"),  # a cached plan that is not valid any more
    "22000": (SchemaMismatch, "vectors of a column have another length now; open the store again"),
    "22": (InvalidData, "a value does not fit its column"),
    "23": (IntegrityViolation, "a constraint of the tables does not hold"),
    "23505": (IntegrityViolation, "another record has the same value, which is unique"),
    "25P03": (Unavailable, "the server ended the transaction, whose rows others waited for; nothing was written"),
    "25P04": (Unavailable, "the server ended the transaction, which took longer than it allows; nothing was written"),
    "25006": (Unavailable, "the server is read-only; it was made a standby, or its administrator said so"),
    "28": (PermissionDenied, "the server refuses the user or the password"),
    "3D000": (ConfigurationError, "the server has no such database; make it, or mend the URL"),
    "3F000": (ConfigurationError, "the database has no such schema; make it, or mend the option schema"),
    "40": (Unavailable, "the server chose this transaction to give way to another; nothing was written"),
    "42501": (PermissionDenied, "the user has not the right; GRANT it"),
    "42P01": (SchemaMismatch, "a table is missing; run `polystore init`"),
    "42703": (SchemaMismatch, "a column is missing; run `polystore init`"),
    "42704": (SchemaMismatch, "a type is missing: an extension was dropped? make it again, or open the store again"),
    "42804": (SchemaMismatch, "a column has another type now; open the store again"),
    "42883": (SchemaMismatch, "a function is missing; run `polystore init`"),
    "53": (Unavailable, "the server has no connections or no memory left"),
    "53100": (StoreFull, "the disk of the server is full; make room and write again"),
    "44": (IntegrityViolation, "the view that is written through does not show such a row"),
    "54": (ValueTooLarge, "the record, or a value in an index (2,700 bytes), is larger than PostgreSQL takes"),
    "55": (Unavailable, "what the call needs is in use"),
    "57": (Unavailable, "the server ended the call, or is starting or stopping"),
    "58": (Unavailable, "the server met an error of its system; look at its log"),
    "P0001": (IntegrityViolation, "a trigger of the tables refuses it"),
    "XX001": (StoreCorrupt, "the data are damaged; restore them from a backup, or rebuild a copy from its home"),
    "XX002": (StoreCorrupt, "an index is damaged; REINDEX it"),
}
"""SQLSTATE, or its class of two characters, to the error and what to say."""


def state_of(error: BaseException) -> str:
    """The SQLSTATE; "" where the server said none."""
    return getattr(error, "sqlstate", None) or ""


def lost(error: BaseException) -> bool:
    """Whether there is no answer because the connection is gone, not because the server said no."""
    if isinstance(error, asyncpg.PostgresError):
        return isinstance(error, asyncpg.PostgresConnectionError)
    return refused(error) or isinstance(error, (OSError, EOFError, TimeoutError))


def refused(error: BaseException) -> bool:
    """Whether the driver sent nothing, because the connection is closed or in a state of its own."""
    if isinstance(error, asyncpg.InterfaceError):
        return not isinstance(error, ValueError)  # `asyncpg.DataError`: an argument that it cannot encode
    return isinstance(error, asyncpg.InternalClientError)


def translate(error: Exception, place: str, *, sent: bool = False, closed: bool = False) -> Exception:
    """The error to raise for one of the driver; every other exception is returned as it is.

    `sent`: what was under way may be done when the connection is lost: OutcomeUnknown. `closed`: the connection was
    closed under the call, whatever the driver says then.
    """
    if isinstance(error, PolystoreError):
        return error
    cut = closed and isinstance(error, AttributeError)  # asyncpg's own, before it sends
    if cut or lost(error):
        if sent and not cut and not refused(error):
            return OutcomeUnknown(f"{place}: {LOST} before the answer; read the records before writing again")
        return Unavailable(f"{place}: {LOST}, or none could be made")
    if isinstance(error, asyncpg.PostgresError):
        return by_state(state_of(error), place)
    if isinstance(error, (asyncpg.InterfaceError, OverflowError, UnicodeError)):
        return InvalidData("a value that PostgreSQL cannot keep: an integer beyond 64 bits, or text that is no Unicode")
    return error


def by_state(state: str, place: str) -> PolystoreError:
    """The error for a SQLSTATE, whichever driver told it."""
    make, text = _BY_STATE.get(state) or _BY_STATE.get(state[:2]) or (StoreError, f"SQLSTATE {state}")
    return make(f"{place}: {text}" if issubclass(make, (StoreError, ConfigurationError, SchemaMismatch)) else text)
