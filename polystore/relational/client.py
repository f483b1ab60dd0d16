"""What an application gets of a SQL store for its own statements."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

from polystore.relational.pool import Connections

C = TypeVar("C")


class Client(Generic[C]):
    """The driver's own connections, of the store's pool:

        async with hda.client("main").acquire() as connection:
            rows = await connection.fetch("SELECT 1")  # as the driver has it

    `clean` takes back what the application may have left in a connection.
    """

    def __init__(self, connections: Connections[C], clean: Callable[[C], Awaitable[None]] | None = None) -> None:
        self._connections = connections
        self._clean = clean

    @asynccontextmanager
    async def acquire(self) -> AsyncGenerator[C]:
        """A connection for the block alone, no transaction begun; waits while all are in use. Errors are the driver's.
        A transaction that is open at the end is rolled back, and settings of the session end with the block. Raises
        Unavailable where none can be made."""
        connection = await self._connections.take()
        try:
            yield connection
            if self._clean is not None:
                await self._clean(connection)
        except BaseException:
            self._connections.drop(connection)
            raise
        if self._clean is not None:
            self._connections.give(connection)
        else:
            self._connections.drop(connection)
