"""MongoDB's errors as polystore's, by class and code (https://www.mongodb.com/docs/manual/reference/error-codes/ and
src/mongo/base/error_codes.yml), never by message."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

from bson.errors import BSONError, InvalidBSON
from pymongo import errors as driver

from polystore.errors import (
    ConfigurationError,
    DecodeError,
    IntegrityViolation,
    InvalidData,
    OutcomeUnknown,
    PermissionDenied,
    PolystoreError,
    RateLimited,
    SchemaMismatch,
    StoreError,
    StoreFull,
    Unavailable,
    UnsupportedOperation,
    ValueTooLarge,
)

DUPLICATE = 11000
NOT_PRIMARY = 10107
NO_SUCH_COMMAND = 59
COLLECTION_EXISTS = 48
_INTERNAL = (Unavailable, "the server met an error of its own; FerretDB says so while its PostgreSQL is away")
_GIVE_WAY = (Unavailable, "the server chose this call to give way to another")
_STOPS = (Unavailable, "the server stops, is no primary any more, or is not ready yet")
_ENDED = (Unavailable, "the server ended the call")
_DENIED = (PermissionDenied, "the user has not the right, or the server refuses the user or the password")
_INDEX = (SchemaMismatch, "an index of this name or on these fields is there already and differs; drop it first")
_LARGE = (ValueTooLarge, "the document, or a value in an index, is larger than the server takes")
_BY_CODE: Mapping[int, tuple[type[PolystoreError], str]] = {
    **dict.fromkeys((1, 8), _INTERNAL),
    # 16908292 is FerretDB's: "deadlock detected" in its PostgreSQL.
    **dict.fromkeys((112, 246, 16908292), _GIVE_WAY),
    **dict.fromkeys((6, 7, 89, 91, 133, 134, 145, 189, 9001, 10058, 10107, 11600, 11602, 13435, 13436), _STOPS),
    # Those of a cluster whose shards or collections move.
    **dict.fromkeys((63, 150, 203, 211, 215, 249, 250, 13388), _STOPS),
    **dict.fromkeys((11, 13, 18, 31, 8000), _DENIED),
    **dict.fromkeys((85, 86), _INDEX),
    67: (SchemaMismatch, "the server makes no such index; see `collections` in the options of the store"),
    26: (SchemaMismatch, "the collection is missing; run `polystore init`"),
    **dict.fromkeys((10334, 17280, 17419, 17420), _LARGE),
    **dict.fromkeys((52, 55, 56, 57), (InvalidData, "a name inside a value is one that the server does not take")),
    171: (InvalidData, "an index of the application's own is on two lists of this document"),
    10003: (InvalidData, "before MongoDB 5.3, a document of a capped collection keeps its size"),
    121: (InvalidData, "the collection has a validator of another program, which refuses the document"),
    **dict.fromkeys((24, 43, 46, 50, 175, 202, 237, 262, 365, 11601), _ENDED),
    462: (RateLimited, "the server asks to slow down"),
    14031: (StoreFull, "the disk of the server is full; make room and write again"),
    NO_SUCH_COMMAND: (UnsupportedOperation, "the server has no such command"),
    DUPLICATE: (IntegrityViolation, "a unique index of this collection has the value already"),
}
_UNKNOWN_CODES = frozenset({1, 6, 8, 50, 64, 79, 89, 91, 100, 133, 189, 202, 262, 9001, 11600, 11601, 11602})
"""After these a write may be done, here or on too few servers, or the first writes of several."""


def by_code(code: int | None, place: str, *, sent: bool = False) -> PolystoreError:
    """What a code of the server means. `sent`: it answers a write."""
    if sent and code in _UNKNOWN_CODES:
        return OutcomeUnknown(f"{place}: the server does not say whether it is done; read before writing again")
    make, text = _BY_CODE.get(code or 0, (StoreError, f"error {code}"))
    plain = issubclass(make, (InvalidData, IntegrityViolation))
    return make(text if plain else f"{place}: {text}")


def translate(error: Exception, place: str, *, sent: bool) -> Exception:
    """The error to raise for one of the driver; every other exception is returned as it is. `sent`: what was under way
    may be done when the connection is lost: OutcomeUnknown."""
    match error:
        case driver.ServerSelectionTimeoutError() | driver.WaitQueueTimeoutError():
            return Unavailable(f"{place}: no server answers, or no connection is free")
        case driver.NotPrimaryError(details=Mapping() as said):
            return by_code(said.get("code", NOT_PRIMARY), place, sent=sent)
        case driver.NotPrimaryError():
            return by_code(NOT_PRIMARY, place, sent=sent)
        case driver.ConnectionFailure() if sent:
            return OutcomeUnknown(f"{place}: the connection was lost before the answer; read before writing again")
        case driver.ConnectionFailure():
            return Unavailable(f"{place}: the connection was lost, or none could be made")
        case driver.BulkWriteError():
            single, concern = details(error)
            return by_code([*single, *concern][0]["code"], place, sent=sent)
        case driver.OperationFailure():
            return by_code(error.code, place, sent=sent)
        case driver.InvalidOperation():
            return Unavailable(f"{place}: closed; connect again")
        case driver.ConfigurationError() if type(error.__cause__).__module__.startswith("dns."):  # of mongodb+srv
            return Unavailable(f"{place}: the names of the servers cannot be looked up")
        case driver.ConfigurationError():
            return ConfigurationError(f"{place}: the driver refuses the URL or an option; see PyMongo's MongoClient")
        case InvalidBSON():
            return DecodeError(f"{place}: a document holds what no driver reads; repair it, or rebuild this store")
        case BSONError() | OverflowError() | UnicodeError():
            return InvalidData("a value that MongoDB cannot keep: text that is no Unicode, or an integer over 64 bits")
        case driver.PyMongoError():
            return StoreError(f"{place}: {type(error).__name__}")
        case _:
            return error


@contextmanager
def speaking(place: str, *, sent: bool = False) -> Generator[None]:
    """Errors of the driver leave the block as polystore's, without those of the driver: they show documents."""
    try:
        yield
    except Exception as error:
        ours = translate(error, place, sent=sent)
        if ours is error:
            raise
        raise ours from None


def details(error: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The errors of single writes of a bulk, and those of its write concern."""
    found: Mapping[str, Any] = error.details or {}
    return list(found.get("writeErrors", ())), list(found.get("writeConcernErrors", ()))
