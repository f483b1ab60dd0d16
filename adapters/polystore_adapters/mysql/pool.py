"""Connections to one MariaDB or MySQL server, transactions on them, and the server's clock."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterable, Sequence
from typing import Any

from polystore.env import Env
from polystore.errors import ValueTooLarge
from polystore.relational.client import Client
from polystore.relational.pool import Connections
from polystore_adapters.mysql.driver import MULTI_STATEMENTS, Connection, DriverError, Quiet, connect, usable
from polystore_adapters.mysql.errors import code_of, lost, translate
from polystore_adapters.mysql.flavour import MARIADB, Flavour, flavour_of
from polystore_adapters.mysql.options import Address, Options

Row = Sequence[Any]
_DEAD_CODES = (1053, 1290, 1317, 1792, 1836, 1927)
"""After these errors a connection is of no use: its server stops, or is a replica now."""
_SETTINGS = (
    "SET NAMES utf8mb4 COLLATE {collation}, sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION', "
    "time_zone = '+00:00', max_sort_length = 8192, sql_notes = 0, "
    "sql_select_limit = 18446744073709551615, sql_big_selects = 1, sql_safe_updates = 0, "
    "completion_type = 'NO_CHAIN', autocommit = 1, innodb_lock_wait_timeout = {lock_timeout_s}{others}"
)
"""Whatever the server's own settings are: some of them change what a statement means."""
_ISOLATION = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED"
_SNAPSHOT = (
    "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",  # of the next transaction; another one has no snapshot
    "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",
)
_SERVER = "SELECT VERSION(), @@max_allowed_packet, CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED)"
STATEMENT_BYTES = 1 << 20
"""A statement of many rows is sent in parts of about so many characters, and so are many statements."""


class Clock:
    """The server's clock: asked for by each new connection, and carried on by this machine's monotonic one, so that no
    statement has to ask, and a clock that is set here moves nothing. It is as late as the answer came, so never ahead:
    what is made due now is due."""

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
    server would not take.

    Statements may wait for the next one and travel with it in one packet: the server carries them out in their order,
    and none after one that fails.
    """

    __slots__ = ("_packet_max", "_queue", "connection", "flavour")

    def __init__(self, connection: Connection, flavour: Flavour, packet_max: int) -> None:
        self.connection = connection
        self.flavour = flavour
        self._packet_max = packet_max
        self._queue: list[tuple[str, list[Row]]] = []

    def later(self, sql: str, *args: Any) -> list[Row]:
        """Have it sent with the next statement. Returns the list in which its rows are then."""
        rows: list[Row] = []
        self._queue.append((sql % tuple(self.connection.literal(one) for one in args), rows))
        return rows

    def forget(self) -> None:
        """What waits is not sent."""
        self._queue = []

    async def flush(self) -> int:
        """Send what waits. Returns how many rows the last statement changed."""
        queue, self._queue = self._queue, []
        changed = size = first = 0
        for i, (text, _) in enumerate(queue):
            if i > first and size + len(text) > STATEMENT_BYTES:
                await self._send(queue[first:i])
                first, size = i, 0
            size += len(text)
        if queue:
            changed = await self._send(queue[first:])
        return changed

    async def _send(self, packet: Sequence[tuple[str, list[Row]]]) -> int:
        text = ";".join(one for one, _ in packet)
        if len(text) * 4 > self._packet_max and len(text.encode(errors="surrogateescape")) >= self._packet_max - 16:
            raise ValueTooLarge(
                f"more than {self._packet_max} bytes in a statement, max_allowed_packet of the server; raise it there, "
                "or write less at once"
            )
        cursor = self.connection.cursor(Quiet)
        try:
            await cursor.execute(text)
            for i, (_, rows) in enumerate(packet):
                if i:
                    await cursor.nextset()
                if cursor.description is not None:
                    rows.extend(await cursor.fetchall())
        except BaseException as error:
            if not isinstance(error, DriverError):  # an error of the server's is the end of its answer
                self.connection.close()  # else the rest of the answer would be that to the next call
            raise
        changed: int = cursor.rowcount
        return changed

    async def fetch(self, sql: str, *args: Any) -> list[Row]:
        rows = self.later(sql, *args)
        await self.flush()
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
        self.later(sql, *args)
        return await self.flush()

    async def create(self, sql: str) -> None:
        """Carry out a CREATE TABLE, with the options that all tables have."""
        await self.run(f"{sql} {self.flavour.table_options}")

    async def insert(self, begin: str, rows: Iterable[Sequence[Any]], end: str = "", *, texts: bool = False) -> None:
        """`begin` VALUES the rows `end`, in as many statements as their size asks for; the last of them waits for the
        next statement, such as COMMIT. `texts`: the table has a full-text index."""
        alone = texts and self.flavour.texts_alone
        literal = self.connection.literal
        part: list[str] = []
        size = 0
        for row in rows:
            text = f"({','.join(map(literal, row))})"
            if part and (alone or size + len(text) > STATEMENT_BYTES):
                self._queue.append((f"{begin} VALUES {','.join(part)} {end}", []))
                part = []
                if size + len(text) > STATEMENT_BYTES:
                    await self.flush()
                    size = 0
            part.append(text)
            size += len(text)
        if part:
            self._queue.append((f"{begin} VALUES {','.join(part)} {end}", []))


class Pool:
    """Used from one event loop."""

    def __init__(self, address: Address, options: Options, env: Env) -> None:
        self.place = address.place
        self.clock = Clock(env)
        self._address = address
        self._options = options
        self._env = env
        self._flavour = MARIADB
        self._packet_max = 16 << 20
        self._connections: Connections[Connection] = Connections(
            address.place, options.pool_size, self._connect, lambda one: one.close(), usable
        )
        self.client: Client[Connection] = Client(self._connections)

    @property
    def checked_out(self) -> int:
        """Connections that are in use now."""
        return self._connections.checked_out

    @property
    def flavour(self) -> Flavour:
        """Known from the first connection on."""
        return self._flavour

    async def aclose(self) -> None:
        """Calls under way end with an error. Idempotent."""
        for connection in self._connections.end():
            with contextlib.suppress(Exception):
                await connection.ensure_closed()

    async def _connect(self) -> Connection:
        connection: Connection | None = None
        try:
            async with asyncio.timeout(self._options.connect_timeout_s):  # the driver's own ends with the first packet
                connection = await connect(
                    **self._address.arguments,
                    charset="utf8mb4",
                    autocommit=True,
                    binary_prefix=True,
                    client_flag=MULTI_STATEMENTS,
                    program_name="polystore",
                )
                await self._begin(connection)
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

    async def _begin(self, connection: Connection) -> None:
        """Learn what the server is, and have its session as the statements here are meant."""
        session = Session(connection, self._flavour, self._packet_max)
        version, self._packet_max, server_us = (await session.fetch(_SERVER))[0]
        self._flavour = flavour = flavour_of(version, self.place)
        self.clock.set(server_us)
        wait_s = self._options.lock_timeout_s
        session.later(_SETTINGS.format(collation=flavour.collation, lock_timeout_s=wait_s, others=flavour.settings))
        await session.run(_ISOLATION)

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
    async def snapshot(self) -> AsyncGenerator[Session]:
        """All that the block reads is of one moment. Raises polystore's errors."""
        async with self.session() as db:
            for statement in _SNAPSHOT:
                db.later(statement)
            try:
                yield db
            except Exception as error:
                await _roll_back(db, error)
                raise
            await db.run("COMMIT")

    @contextlib.asynccontextmanager
    async def transaction(self, *, name: str = "") -> AsyncGenerator[Session]:
        """One transaction; an error in the block rolls it back. Raises polystore's errors: OutcomeUnknown only when the
        connection is lost at the commit. `name`: of the crash points before and after the commit. What waits in the
        session travels with the commit."""
        async with self.session() as db:
            db.later("BEGIN")
            try:
                yield db
            except Exception as error:
                await _roll_back(db, error)
                raise
            if name:
                self._env.crashpoint(f"mysql.{name}.before")
            try:
                await db.run("COMMIT")
            except Exception as error:
                await _roll_back(db, error)
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
            yield Session(connection, self._flavour, self._packet_max)
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


async def _roll_back(db: Session, error: Exception) -> None:
    db.forget()
    if not lost(error) and db.connection.connected:
        await db.run("ROLLBACK")
