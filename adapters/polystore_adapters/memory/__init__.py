"""`memory:` and `memory:NAME`: records of this process, gone when it ends. The reference of what an adapter does.

Read `tables.py` first (records and the guard), then `home.py` (commits), `journal.py` (the duty to deliver),
`queries.py` and `schema.py`; `server.py` puts them together, `repository.py` is a connection.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from polystore.env import Env
from polystore.errors import ConfigurationError

from .cache import CACHE_BYTES
from .repository import MemoryRepository
from .server import MemoryServer

__all__ = ["MemoryRepository", "MemoryServer", "connect", "forget_servers"]

_URL = re.compile(r"memory:([A-Za-z0-9_.-]*)")
_servers: dict[str, MemoryServer] = {}
CACHE_BYTES_MIN = 1 << 16


class _Options(msgspec.Struct, forbid_unknown_fields=True):
    """`cache_bytes`: the room for cached values, of the server's first connection; an eighth as much is for what is
    known about them. place: 2 for what is built anew beside the first."""

    cache_bytes: Annotated[int, msgspec.Meta(ge=CACHE_BYTES_MIN)] = CACHE_BYTES
    place: Literal[1, 2] = 1


async def connect(url: str, options: Mapping[str, Any], env: Env) -> MemoryRepository:
    """A connection to the server NAME of this process, made at the first use of its name; `memory:` is one of its own.

    A server takes its time and randomness from the `env` of its first connection. Raises ConfigurationError.
    """
    match = _URL.fullmatch(url)
    if match is None:
        raise ConfigurationError("a memory store is memory: or memory:NAME, with a name of letters, digits, _, . and -")
    try:
        known = msgspec.convert(dict(options), _Options)
    except msgspec.ValidationError as e:
        raise ConfigurationError(f"a memory store has the option cache_bytes, from {CACHE_BYTES_MIN} up: {e}") from None
    name = match[1] and match[1] + "~" * (known.place - 1)
    server = _servers.get(name) or MemoryServer(env, cache_bytes=known.cache_bytes)
    if name:
        _servers[name] = server
    return MemoryRepository(server, env)


def forget_servers() -> None:
    """Connect to new, empty servers from now on. Existing connections keep theirs."""
    _servers.clear()
