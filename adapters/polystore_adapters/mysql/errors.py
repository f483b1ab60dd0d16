"""The servers' errors as polystore's, by number, never by message (https://mariadb.com/kb/en/mariadb-error-code-reference/,
https://dev.mysql.com/doc/mysql-errors/9.0/en/server-error-reference.html)."""

from __future__ import annotations

import asyncio
import ssl
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
from polystore_adapters.mysql.driver import DriverError

LOST = "the connection was lost"
DUPLICATE = 1062
_LOST_CODES = frozenset(
    (
        *(0, 1042, 1043, 1053, 1077, 1079, 1152, 1158, 1159, 1160, 1161, 1184, 1927),  # the server's
        *(2002, 2003, 2006, 2013, 2014, 2055, 4031),  # the driver's
    )
)
_GIVE_WAY = (Unavailable, "the server chose this transaction to give way to another; nothing was written")
_READ_ONLY = (Unavailable, "the server is read-only; it was made a replica, or its administrator said so")
_DENIED = (PermissionDenied, "the user has not the right; GRANT it")
_REFUSED = (PermissionDenied, "the server refuses the user or the password")
_TLS = (ConfigurationError, "the server takes this user with TLS only; add ssl=true, or ssl_ca, to the URL")
_TABLE = (SchemaMismatch, "a table or a column is missing; run `polystore init`")
_FULL = (StoreFull, "the disk of the server, or the file of its tables, is full; make room and write again")
_LARGE = (ValueTooLarge, "the record, or a value in an index, is larger than MariaDB takes")
_FITS = (InvalidData, "a value does not fit its column")
_BUSY = (Unavailable, "the server has no connections, no locks or no memory left")
_AWAY = (
    Unavailable,
    "the server is offline, is no part of its cluster now, or blocks this host",
)
_CORRUPT = (StoreCorrupt, "the data are damaged; restore them from a backup, or rebuild a copy from its home")
_CONSTRAINT = (IntegrityViolation, "a constraint of the tables does not hold")
_BY_CODE: Mapping[int, tuple[type[PolystoreError], str]] = {
    **dict.fromkeys((1020, 1205, 1213, 1412, 1689, 3101), _GIVE_WAY),
    **dict.fromkeys((1036, 1290, 1792, 1836), _READ_ONLY),
    **dict.fromkeys((1142, 1143, 1227, 1370), _DENIED),
    **dict.fromkeys((1044, 1045, 1130, 1251, 1698, 1820, 1862, 3118, 4151), _REFUSED),
    3159: _TLS,
    1665: (ConfigurationError, "the server logs statements, not rows; set its binlog_format to ROW or MIXED"),
    1049: (ConfigurationError, "the server has no such database; make it, or mend the URL"),
    **dict.fromkeys((1051, 1054, 1146, 1305, 4091), _TABLE),
    **dict.fromkeys((3, 20, 1021, 1026, 1114), _FULL),
    **dict.fromkeys((1071, 1118, 1153, 1162, 1301), _LARGE),
    **dict.fromkeys((1048, 1264, 1265, 1292, 1300, 1366, 1367, 1406, 1411, 1690, 3140, 4038), _FITS),
    **dict.fromkeys((DUPLICATE, 1586), (IntegrityViolation, "another record has the same value, which is unique")),
    **dict.fromkeys((1169, 1216, 1217, 1451, 1452, 3819, 4025), _CONSTRAINT),
    **dict.fromkeys((1037, 1038, 1040, 1041, 1135, 1203, 1206, 1226), _BUSY),
    **dict.fromkeys((1047, 1129, 3032, 3100), _AWAY),
    **dict.fromkeys((1317, 1969, 3024), (Unavailable, "the server ended the call")),
    **dict.fromkeys((1034, 1194, 1195, 1712, 1877), _CORRUPT),
}


def code_of(error: BaseException) -> int:
    """The server's or the driver's number; 0: there is none."""
    if isinstance(error, DriverError) and error.args and isinstance(error.args[0], int):
        return error.args[0]
    return 0


def lost(error: BaseException) -> bool:
    """Whether there is no answer because the connection is gone, not because the server said no."""
    if isinstance(error, DriverError):
        return code_of(error) in _LOST_CODES
    return isinstance(error, (OSError, EOFError, TimeoutError, asyncio.IncompleteReadError))


def translate(error: Exception, place: str, *, sent: bool = False, closed: bool = False) -> Exception:
    """The error to raise for one of the driver; every other exception is returned as it is.

    `sent`: what was under way may be done when the connection is lost: OutcomeUnknown. `closed`: the connection was
    closed under the call, whatever the driver says then.
    """
    if isinstance(error, PolystoreError):
        return error
    said = code_of(error) in _BY_CODE
    if lost(error) or (closed and not said and isinstance(error, (AttributeError, RuntimeError, DriverError))):
        if sent:
            return OutcomeUnknown(f"{place}: {LOST} before the answer; read the records before writing again")
        tls = error if isinstance(error, ssl.SSLError) else error.__cause__
        if isinstance(tls, ssl.SSLError):
            return Unavailable(f"{place}: TLS failed: {getattr(tls, 'verify_message', None) or tls.reason}")
        return Unavailable(f"{place}: {LOST}, or none could be made")
    if isinstance(error, DriverError):
        code = code_of(error)
        make, text = _BY_CODE.get(code, (StoreError, f"error {code}"))
        return make(f"{place}: {text}" if issubclass(make, (StoreError, ConfigurationError, SchemaMismatch)) else text)
    if isinstance(error, (OverflowError, UnicodeError)):
        return InvalidData("a value that MariaDB cannot keep: text that is no Unicode, or an integer beyond 64 bits")
    return error
