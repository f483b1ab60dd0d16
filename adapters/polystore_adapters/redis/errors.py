"""Errors of the driver and of the server -> polystore's, by class and by the server's code, never by a message."""

from __future__ import annotations

from redis import exceptions as driver

from polystore.errors import OutcomeUnknown, PermissionDenied, StoreCorrupt, StoreError, StoreFull, Unavailable

DENIED = (
    driver.AuthenticationError,
    driver.AuthorizationError,
    driver.NoPermissionError,
    driver.AuthenticationWrongNumberOfArgsError,
)
AWAY: dict[type[Exception], str] = {
    driver.BusyLoadingError: "it is loading its data",
    driver.ReadOnlyError: "it is a replica, which takes no writes; after a fail-over the new master does",
    driver.MasterDownError: "it is a replica whose master is down",
    driver.ClusterDownError: "the cluster is down: a slot has no master",
    driver.TryAgainError: "the slot is on its way to another node",
    driver.AskError: "the slot is on another node",
    driver.MaxConnectionsError: "all connections are taken",
}
"""Nothing was carried out, and the same call may be later."""
AWAY_CODES = {
    "BUSY": "a script of somebody's is running for too long",
    "MISCONF": "it cannot write its snapshot and therefore refuses writes",
    "NOREPLICAS": "it has fewer replicas than it is told to need",
}


def translated(error: BaseException, *, sent: bool) -> StoreError:
    """`sent`: when the connection is lost, a call that changes something may have been carried out."""
    if isinstance(error, DENIED):
        return PermissionDenied("the server refuses the credentials, or the command to this user; see its ACL")
    for one, text in AWAY.items():
        if isinstance(error, one):
            return Unavailable(text)
    if isinstance(error, driver.OutOfMemoryError):
        return StoreFull("maxmemory is reached and nothing may be evicted; nothing of this call was written")
    if isinstance(error, driver.ResponseError):
        code = str(error).partition(" ")[0]
        if code in AWAY_CODES:
            return Unavailable(AWAY_CODES[code])
        if code == "WRONGTYPE":
            return StoreCorrupt("a key of this application holds something that it did not write; see `prefix`")
        code = code if code.isupper() else "ERR"
        return StoreError(f"the server answered with the error {code}; where a script lacks a right, ACL LOG says it")
    if isinstance(error, driver.RedisClusterException):
        return Unavailable("the cluster does not answer for all slots")
    if sent and not _refused(error):
        return OutcomeUnknown("the connection was lost before the answer: carried out or not; look before repeating")
    if isinstance(error, (driver.TimeoutError, TimeoutError)):
        return Unavailable("the server did not answer in time")
    return Unavailable("no connection to the server")


def _refused(error: BaseException) -> bool:
    """It ended before anything was sent: nobody listens there, or the former master is a replica now."""
    cause = error.__cause__ or error.__context__
    return isinstance(cause, (ConnectionRefusedError, FileNotFoundError, driver.ReadOnlyError))
