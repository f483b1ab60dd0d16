"""The driver's client, the database on it, and the server's clock."""

from __future__ import annotations

import warnings
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qsl

from bson.codec_options import CodecOptions
from pymongo import ReadPreference, WriteConcern
from pymongo.errors import PyMongoError
from pymongo.read_concern import ReadConcern

from polystore.env import Env
from polystore.errors import ConfigurationError, Unavailable
from polystore_adapters.mongodb.driver import PLAIN, Client, Collection, Database, Document, is_client, made
from polystore_adapters.mongodb.errors import speaking
from polystore_adapters.mongodb.options import Options

EVERYWHERE = WriteConcern(w="majority", j=True)
_SAID = "mongodb://user:password@host/database, or mongodb+srv://..."


class Clock:
    """The server's clock, carried on by this machine's monotonic one: a clock that is set here moves nothing."""

    def __init__(self, env: Env) -> None:
        self._env = env
        self._ahead_us = env.now_us() - int(env.monotonic() * 1e6)

    def set(self, server_us: int) -> None:
        self._ahead_us = server_us - int(self._env.monotonic() * 1e6)

    def now_us(self) -> int:
        """Microseconds since the epoch."""
        return int(self._env.monotonic() * 1e6) + self._ahead_us


class Server:
    """One database. Nothing is tried twice, but where the URL says so."""

    def __init__(self, url: str, known: Options, theirs: Mapping[str, Any], env: Env) -> None:
        if known.client is not None and not is_client(known.client):
            raise ConfigurationError("the option client is a pymongo.AsyncMongoClient or motor's AsyncIOMotorClient")
        if known.client is not None and theirs:
            raise ConfigurationError(f"options of a mongodb: store: {', '.join(theirs)}: the client is made already")
        self._owned = known.client is None
        self._closed = False
        self.client: Client = _made(url, known, theirs) if known.client is None else known.client
        name = (known.database or _database_of(self.client)) + ("_2" if known.place == 2 else "")
        self.place = f"mongodb {name}"
        self.options = known
        self.clock = Clock(env)
        # Only these two together never show a write that a fail-over takes back.
        self.database: Database = self.client.get_database(
            name,
            codec_options=PLAIN,
            read_preference=ReadPreference.PRIMARY,
            write_concern=EVERYWHERE,
            read_concern=ReadConcern("majority"),
        )

    def collection(self, name: str, codec_options: CodecOptions[Any] = PLAIN) -> Collection:
        return self.database.get_collection(name, codec_options=codec_options)

    @contextmanager
    def speaking(self, *, sent: bool = False) -> Generator[None]:
        """Errors of the driver leave the block as polystore's. `sent`: what is under way in it writes."""
        if self._closed:
            raise Unavailable(f"{self.place}: closed; connect again")
        with speaking(self.place, sent=sent):
            yield

    async def hello(self) -> Document:
        """Who answers; sets the clock."""
        with self.speaking():
            found: Document = await self.client.admin.command("hello", codec_options=PLAIN)
        self.clock.set(int(found["localTime"].timestamp() * 1e3) * 1000)
        return found

    async def aclose(self) -> None:
        """Calls under way end with an error. Idempotent; a program's own client stays open."""
        self._closed = True
        if self._owned:
            await self.client.close()


def _made(url: str, known: Options, theirs: Mapping[str, Any]) -> Client:
    """Where the URL has an option, it counts."""
    wait_ms = int(known.connect_timeout_s * 1000)
    ours = {
        "maxPoolSize": known.pool_size,
        "serverSelectionTimeoutMS": wait_ms,
        "connectTimeoutMS": wait_ms,
        "retryReads": False,
        "retryWrites": False,
        "appname": "polystore",
    }
    try:
        given = {name.lower() for name, _ in parse_qsl(url.partition("?")[2])}
        defaults = {name: value for name, value in ours.items() if name.lower() not in given}
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # the driver only warns of an option that it does not know
            return made(url, **{**defaults, **theirs})
    except (PyMongoError, ValueError, TypeError, OSError, Warning) as e:
        why = type(e).__name__  # its text may show the password
        raise ConfigurationError(
            f"not a URL of a MongoDB server, or an option that PyMongo refuses ({why}): {_SAID}"
        ) from None


def _database_of(client: Client) -> str:
    try:
        return str(client.get_default_database().name)
    except PyMongoError:
        raise ConfigurationError(f"the URL names no database: {_SAID}; or pass the option database") from None
