"""asyncmy, whose own types leave most open."""

from __future__ import annotations

from typing import Any, TypeAlias

import asyncmy
import asyncmy.cursors
import asyncmy.errors
from asyncmy.constants import CLIENT

module: Any = asyncmy
connect: Any = module.connect
"""Makes a `Connection`."""
Connection: TypeAlias = Any


def usable(connection: Connection) -> bool:
    """Whether neither side has ended the connection. Of the server's end asyncmy knows when it is told, but says in
    `connected` only after the next statement."""
    return bool(connection.connected and not connection._stream_broken)


MULTI_STATEMENTS: int = CLIENT.MULTI_STATEMENTS
"""The flag of connections that send several statements in one packet."""


class Quiet(asyncmy.cursors.Cursor):
    """Asks for no warnings: on MySQL each VALUES() in an upsert is one, and would cost a round trip. To have the server
    keep none takes a right that a user seldom has there."""

    async def _show_warnings(self, conn: Connection) -> None:
        pass


DriverError: type[Exception] = asyncmy.errors.MySQLError
"""Its first argument is a number of the server's or of the driver's."""
