"""`memory:` and `memory:NAME`: records of this process, gone when it ends. The reference of what an adapter does.

Read `tables.py` first (records and the guard), then `home.py` (commits), `journal.py` (the duty to deliver),
`queries.py` and `schema.py`; `server.py` puts them together, `repository.py` is a connection.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from polystore.env import Env
from polystore.errors import ConfigurationError

from .repository import MemoryRepository
from .server import MemoryServer

__all__ = ["MemoryRepository", "MemoryServer", "connect", "forget_servers"]

_URL = re.compile(r"memory:([A-Za-z0-9_.-]*)")
_servers: dict[str, MemoryServer] = {}


async def connect(url: str, options: Mapping[str, Any], env: Env) -> MemoryRepository:
    """A connection to the server NAME of this process, made at the first use of its name; `memory:` is one of its own.

    A server takes its time and randomness from the `env` of its first connection. Raises ConfigurationError.
    """
    match = _URL.fullmatch(url)
    if match is None:
        raise ConfigurationError("a memory store is memory: or memory:NAME, with a name of letters, digits, _, . and -")
    if options:
        raise ConfigurationError(f"a memory store takes no options, remove {', '.join(sorted(options))}")
    name = match[1]
    server = _servers.get(name) or MemoryServer(env)
    if name:
        _servers[name] = server
    return MemoryRepository(server, env)


def forget_servers() -> None:
    """Connect to new, empty servers from now on. Existing connections keep theirs."""
    _servers.clear()
