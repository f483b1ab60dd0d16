"""The driver, transactions on it, its errors by code, and what the next read has to see."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal, NamedTuple
from urllib.parse import unquote, urlsplit, urlunsplit

import msgspec

from polystore.errors import (
    ConfigurationError,
    InvalidData,
    PermissionDenied,
    PolystoreError,
    StoreFull,
    Unavailable,
)

_module: Any = importlib.import_module("neo4j")
_errors: Any = importlib.import_module("neo4j.exceptions")
Neo4jError: type[Exception] = _errors.Neo4jError
"""The server answered with an error: `code`."""
DriverError: type[Exception] = _errors.DriverError
"""There was no answer, or the driver refuses."""
ConfigError: type[Exception] = _errors.ConfigurationError
SCHEMES = tuple(f"{scheme}{tls}" for scheme in ("neo4j", "bolt") for tls in ("", "+s", "+ssc"))
_SAID = "neo4j://user:password@host:port[/database]"
Row = dict[str, Any]


class Options(msgspec.Struct, frozen=True):
    """label: of all nodes that are polystore's, a word. pool_size: connections at most. connect_timeout_s. client: an
    `AsyncDriver` of the application, which stays open; of the URL only the database is used then. place: 2 for
    the nodes beside, with another label, where copies are built anew."""

    label: str = "PsEntity"
    pool_size: int = 16
    connect_timeout_s: float = 5.0
    client: Any = None
    place: Literal[1, 2] = 1


class Place(NamedTuple):
    """How to reach a database."""

    url: str
    auth: tuple[str, str] | None
    database: str | None
    options: Options
    theirs: Mapping[str, Any]


def parse(url: str, options: Mapping[str, Any]) -> Place:
    """Raises ConfigurationError."""
    ours = {name: value for name, value in options.items() if name in Options.__struct_fields__}
    theirs = {name: value for name, value in options.items() if name not in ours}
    try:
        known = msgspec.convert(ours, Options)
    except msgspec.ValidationError as e:
        raise ConfigurationError(f"options of a neo4j: store: {e}") from None
    if (
        not known.label.isidentifier()
        or not known.label.isascii()
        or known.pool_size < 1
        or known.connect_timeout_s <= 0
    ):
        raise ConfigurationError("options of a neo4j: store: label is a word, pool_size and connect_timeout_s above 0")
    if known.client is not None and (not isinstance(known.client, _module.AsyncDriver) or theirs):
        raise ConfigurationError("the option client is a neo4j.AsyncDriver, and no other option of the driver is given")
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES or not parts.hostname or "/" in parts.path.strip("/") or parts.fragment:
        raise ConfigurationError(f"not a URL of a Neo4j server: {_SAID}")
    auth = (unquote(parts.username), unquote(parts.password or "")) if parts.username else None
    host = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], "", parts.query, ""))
    return Place(host, auth, unquote(parts.path.strip("/")) or None, known, theirs)


class Server:
    """One database. Nothing is tried twice."""

    def __init__(self, place: Place) -> None:
        known = place.options
        self._owned, self._closed = known.client is None, False
        self._database = place.database
        self.label = known.label + ("_2" if known.place == 2 else "")
        self.client: Any = _made(place) if known.client is None else known.client
        self._writing = asyncio.Lock()
        self._bookmarks: frozenset[str] = frozenset()

    async def aclose(self) -> None:
        """Calls under way end with an error. Idempotent; a program's own driver stays open."""
        if not self._closed:
            self._closed = True
            if self._owned:
                await self.client.close()

    def _session(self) -> Any:
        if self._closed:
            raise Unavailable("closed; connect again")
        bookmarks = _module.Bookmarks.from_raw_values(self._bookmarks)
        return self.client.session(database=self._database, bookmarks=bookmarks)

    async def read(self, cypher: str, **given: Any) -> list[Row]:
        """The rows of one query, which sees what this process wrote, on whatever server of a cluster."""
        try:
            async with self._session() as session:
                result = await session.run(_module.Query(cypher), given)
                rows: list[Row] = [record.data() async for record in result]
                return rows
        except (Neo4jError, DriverError, OSError) as error:
            raise translated(error) from error

    @asynccontextmanager
    async def writing(self) -> AsyncGenerator[Any]:
        """One transaction, committed at the end of the block. One at a time in a process: several would lock the ends
        of their relationships in different orders, and the server ends such a deadlock by failing one of them."""
        async with self._writing:
            try:
                async with self._session() as session:
                    async with await session.begin_transaction() as tx:
                        yield tx
                        await tx.commit()
                    self._bookmarks = frozenset((await session.last_bookmarks()).raw_values)
            except (Neo4jError, DriverError, OSError) as error:
                raise translated(error) from error

    async def run(self, cypher: str, **given: Any) -> None:
        """A statement that makes an index or a constraint where there is none, in a transaction of its own."""
        async with self._writing:
            try:
                async with self._session() as session:
                    await (await session.run(_module.Query(cypher), given)).consume()
            except (Neo4jError, DriverError, OSError) as error:
                if getattr(error, "code", "") != _MADE:
                    raise translated(error) from error


_MADE = "Neo.ClientError.Schema.EquivalentSchemaRuleAlreadyExists"
"""Somebody else has made it at the same moment: the server looks for it first and makes it then."""


async def rows(tx: Any, cypher: str, **given: Any) -> list[Row]:
    result = await tx.run(cypher, given)
    found: list[Row] = [record.data() async for record in result]
    return found


def translated(error: Exception) -> PolystoreError:
    """By code, see https://neo4j.com/docs/status-codes/current/errors/all-errors/"""
    code = str(getattr(error, "code", "") or "")
    if code.startswith("Neo.ClientError.Security"):
        return PermissionDenied("the server refuses these credentials; give them rights on the database")
    if code in (
        "Neo.TransientError.General.MemoryPoolOutOfMemoryError",
        "Neo.DatabaseError.Transaction.TransactionLogError",
    ):
        return StoreFull("the server has no room for this transaction; give it more, or write less at a time")
    if code.startswith("Neo.ClientError") and code != "Neo.ClientError.Cluster.NotALeader":
        return InvalidData(f"the server refuses the statement ({code})")
    return Unavailable(f"the server does not answer as it should ({code or type(error).__name__})")


def names(words: Sequence[str]) -> str:
    """Names in a statement."""
    return ", ".join(quoted(word) for word in words)


def quoted(word: str) -> str:
    return f"`{word.replace('`', '``')}`"


def _made(place: Place) -> Any:
    known = place.options
    ours = {
        "max_connection_pool_size": known.pool_size,
        "connection_timeout": known.connect_timeout_s,
        "connection_acquisition_timeout": known.connect_timeout_s * 2,
        "user_agent": "polystore",
        "notifications_min_severity": "OFF",  # such as that nothing has a label yet
    }
    try:
        return _module.AsyncGraphDatabase.driver(place.url, auth=place.auth, **{**ours, **place.theirs})
    except (ValueError, TypeError, OSError, ConfigError) as e:
        raise ConfigurationError(f"an option that the driver refuses ({type(e).__name__}): {_SAID}") from None
