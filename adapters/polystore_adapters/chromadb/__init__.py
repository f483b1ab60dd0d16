"""ChromaDB 1: copies of records, found by their vectors. Read `items.py` first (what lies in a collection), then
`conditions.py` (questions as filters), `records.py` (the guard), `scanning.py`, `vectors.py` (the nearest),
`prepare.py`; `server.py` is what they ask, `remote.py` the HTTP API, `local.py` the library in this process.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from polystore.env import Env

if TYPE_CHECKING:
    from polystore_adapters.chromadb.repository import ChromadbRepository

__all__ = ["connect"]


async def connect(url: str, options: Mapping[str, Any], env: Env) -> ChromadbRepository:
    """`chromadb://[USER:PASSWORD@]HOST:PORT[/DATABASE]`, `chromadbs://` with TLS: nothing is sent before the first
    call. `chromadb:FOLDER`: in this process, by the library `chromadb`. Options: see `Options`. Raises
    ConfigurationError, and Unavailable for a folder that another process has open."""
    from polystore_adapters.chromadb.options import parse
    from polystore_adapters.chromadb.repository import ChromadbRepository

    place = parse(url, options)
    if place.folder:
        from polystore_adapters.chromadb.local import Local  # imports the library

        return ChromadbRepository(await Local.opened(place, env))
    from polystore_adapters.chromadb.remote import Remote  # imports the HTTP client

    return ChromadbRepository(Remote(place, env))
