"""Connections to one MariaDB server, transactions on them, and the server's clock."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Iterable, Sequence
from typing import Any

from polystore.env import Env
from polystore.errors import ConfigurationError, ValueTooLarge
from polystore.relational.pool import Connections
from polystore_adapters.mysql.dialect import COLLATION
from polystore_adapters.mysql.driver import Connection, connect
from polystore_adapters.mysql.errors import code_of, lost, translate
from polystore_adapters.mysql.options import Address, Options

Row = Sequence[Any]
_DEAD_CODES = (1053, 1290, 1317, 1792, 1836, 1927)
"""After these errors a connection is of no use: its server stops, or is a replica now."""
_SETTINGS = (
    f"SET collation_connection = {COLLATION}, sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION', "
    "time_zone = '+00:00', max_sort_length = 8192, sql_notes = 0, max_error_count = 0, "
    "innodb_lock_wait_timeout = {lock_timeout_s}"
)
_ISOLATION = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED"
_SERVER = "SELECT VERSION(), @@max_allowed_packet, CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED)"
STATEMENT_BYTES = 1 << 20
"""A statement of many rows is sent in parts of about so many characters."""


class Clock:
    """The server's clock: asked for by each new connection, and carried on by this machine's monotonic one, so that no
    statement has to ask, and a clock that is set here moves nothing."""

    def __init__(self, env: Env) -> None:
        self._env = env
        self._ahead_us = 0

    def set(self, server_us: int) -> None:
        self._ahead_us = server_us - int(self._env.monotonic() * 1e6)

    def now_us(self) -> int:
        """Microseconds since the epoch."""
        return int(self._env.monotonic() * 1e6) + self._ahead_us


class Session:
    """One connection in the hands of one caller. Errors are the driver's, and ValueTooLarge for a statement that the
    server would not take."""

    __slots__ = ("_packet_max", "connection")

    def __init__(self, connection: Connection, packet_max: int) -> None:
        self.connection = connection
        self._packet_max = packet_max

    async def _send(self, text: str) -> Any:
        if len(text) * 4 > self._packet_max and len(text.encode(errors="surrogateescape")) >= self._packet_max - 16:
            raise ValueTooLarge(
                f"more than {self._packet_max} bytes in a statement, max_allowed_packet of the server; raise it there, "
                "or write less at once"
            )
        cursor = self.connection.cursor()
        await cursor.execute(text)
        return cursor

    def _filled(self, sql: str, args: Sequence[Any]) -> str:
        """The statement with its %s replaced."""
        return sql % tuple(self.connection.literal(one) for one in args)

    async def fetch(self, sql: str, *args: Any) -> list[Row]:
        cursor = await self._send(self._filled(sql, args))
        rows: list[Row] = list(await cursor.fetchall())
        return rows

    async def row(self, sql: str, *args: Any) -> Row | None:
        """The first row; None: there is none."""
        rows = await self.fetch(sql, *args)
        return rows[0] if rows else None

    async def value(self, sql: str, *args: Any) -> Any:
        """The first value of the first row; None: there is none."""
        row = await self.row(sql, *args)
        return None if row is None else row[0]

    async def run(self, sql: str, *args: Any) -> int:
        """Carry out a statement. Returns how many rows it changed."""
        cursor = await self._send(self._filled(sql, args))
        changed: int = cursor.rowcount
        return changed

    async def insert(self, begin: str, rows: Iterable[Sequence[Any]], end: str = "") -> list[Row]:
        """`begin` VALUES the rows `end`, in as many statements as their size asks for. Returns what they return."""
        found: list[Row] = []
        literal = self.connection.literal
        part: list[str] = []
        size = 0

        async def send() -> None:
            cursor = await self._send(f"{begin} VALUES {','.join(part)} {end}")
            if cursor.description is not None:
                found.extend(await cursor.fetchall())

        for row in rows:
            text = f"({','.join(literal(one) for one in row)})"
            if part and size + len(text) > STATEMENT_BYTES:
                await send()
                part, size = [], 0
            part.append(text)
            size += len(text)
        if part:
            await send()
        return found


class Pool:
    """Used from one event loop."""

    def __init__(self, address: Address, options: Options, env: Env) -> None:
        self.place = address.place
        self.clock = Clock(env)
        self._address = address
        self._options = options
        self._env = env
        self._packet_max = 16 << 20
        self._connections: Connections[Connection] = Connections(
            address.place, options.pool_size, self._connect, lambda one: one.close(), lambda one: one.connected
        )

    @property
    def checked_out(self) -> int:
        """Connections that are in use now."""
        return self._connections.checked_out

    async def aclose(self) -> None:
        """Calls under way end with an error. Idempotent."""
        for connection in self._connections.end():
            with contextlib.suppress(Exception):
                await connection.ensure_closed()

    async def _connect(self) -> Connection:
        options = self._options
        connection: Connection | None = None
        try:
            connection = await connect(
                **self._address.arguments,
                charset="utf8mb4",
                autocommit=True,
                binary_prefix=True,
                connect_timeout=options.connect_timeout_s,
                program_name="polystore",
            )
            session = Session(connection, self._packet_max)
            asked = self._env.monotonic()
            version, packet_max, server_us = (await session.fetch(_SERVER))[0]
            half_way = int((self._env.monotonic() - asked) * 5e5)
            if "MariaDB" not in version:
                raise ConfigurationError(
                    f"{self.place}: the server is {version}, not MariaDB, and has no sequences; use MariaDB 10.6 or "
                    "later"
                )
            self._packet_max = packet_max
            self.clock.set(server_us + half_way)
            await session.run(_SETTINGS.format(lock_timeout_s=options.lock_timeout_s))
            await session.run(_ISOLATION)
        except BaseException as error:
            if connection is not None:
                connection.close()
            if not isinstance(error, Exception):
                raise
            ours = translate(error, self.place, closed=True)
            if ours is error:
                raise
            raise ours from error
        return connection

    def _failed(self, connection: Connection, error: BaseException) -> None:
        if isinstance(error, Exception) and not lost(error) and code_of(error) not in _DEAD_CODES:
            self._connections.give(connection)
            return
        self._connections.drop(connection)
        if isinstance(error, Exception):
            self._connections.drop_idle()

    # -- calls ------------------------------------------------------------------------------------------------

    async def fetch(self, sql: str, *args: Any, writes: bool = False) -> list[Row]:
        """The rows of one statement. Raises polystore's errors; where it `writes`, OutcomeUnknown when the connection
        is lost before the answer."""
        async with self.session(sent=writes) as db:
            return await db.fetch(sql, *args)

    async def value(self, sql: str, *args: Any) -> Any:
        """The first value of the first row; None: there is none."""
        rows = await self.fetch(sql, *args)
        return rows[0][0] if rows else None

    async def run(self, sql: str, *args: Any) -> int:
        """Carry out one writing statement. Returns how many rows it changed."""
        async with self.session(sent=True) as db:
            return await db.run(sql, *args)

    @contextlib.asynccontextmanager
    async def transaction(self, *, begin: str = "BEGIN", name: str = "") -> AsyncGenerator[Session]:
        """One transaction; an error in the block rolls it back. Raises polystore's errors: OutcomeUnknown only when the
        connection is lost at the commit. `name`: of the crash points before and after the commit."""
        async with self.session() as db:
            await db.run(begin)
            try:
                yield db
            except Exception as error:
                if not lost(error) and db.connection.connected:
                    await db.run("ROLLBACK")
                raise
            if name:
                self._env.crashpoint(f"mysql.{name}.before")
            try:
                await db.run("COMMIT")
            except Exception as error:
                ours = translate(error, self.place, sent=True, closed=not db.connection.connected)
                if ours is error:
                    raise
                raise ours from error
            if name:
                self._env.crashpoint(f"mysql.{name}.after")

    @contextlib.asynccontextmanager
    async def session(self, *, sent: bool = False) -> AsyncGenerator[Session]:
        """A connection. `sent`: what is under way in the block writes by itself, see `translate`."""
        connection = await self._connections.take()
        try:
            yield Session(connection, self._packet_max)
        except Exception as error:
            ours = translate(error, self.place, sent=sent, closed=not connection.connected)
            self._failed(connection, error.__cause__ if isinstance(error.__cause__, Exception) else error)
            if ours is error:
                raise
            raise ours from error
        except BaseException as error:
            self._failed(connection, error)
            raise
        self._connections.give(connection)
