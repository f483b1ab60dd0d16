"""ChromaDB 1: copies of records, found by their vectors. Read `items.py` first (what lies in a collection), then
`conditions.py` (questions as filters), `records.py` (the guard), `vectors.py` (the nearest), `prepare.py`; `server.py`
is the HTTP API.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from polystore.env import Env

if TYPE_CHECKING:
    from polystore_adapters.chromadb.repository import ChromadbRepository

__all__ = ["connect"]


async def connect(url: str, options: Mapping[str, Any], env: Env) -> ChromadbRepository:
    """`chromadb://[USER:PASSWORD@]HOST:PORT[/DATABASE]`, `chromadbs://` with TLS. Options: see `Options`. Nothing is
    sent before the first call. Raises ConfigurationError."""
    from polystore_adapters.chromadb.options import parse
    from polystore_adapters.chromadb.repository import ChromadbRepository
    from polystore_adapters.chromadb.server import Server  # imports the HTTP client

    return ChromadbRepository(Server(parse(url, options), env))
