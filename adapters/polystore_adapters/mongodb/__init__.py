"""`mongodb://user@host/database` and `mongodb+srv://...`: records as documents, by PyMongo's asynchronous client.

Read `documents.py` first (what lies in a collection), then `conditions.py` and `full_text.py` (questions as queries),
`records.py` (the guard), `held.py` and `prepare.py` (indexes, changes of a class); `server.py` is the
driver's client, `repository.py` puts them together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from polystore.env import Env

if TYPE_CHECKING:
    from polystore_adapters.mongodb.repository import MongoRepository

__all__ = ["connect"]


async def connect(url: str, options: Mapping[str, Any], env: Env) -> MongoRepository:
    """The database of the URL, or of the option `database`. Options: see `Options`; all others are the driver's own.
    Nothing is sent before the first call. Raises ConfigurationError."""
    from polystore_adapters.mongodb.options import parse
    from polystore_adapters.mongodb.repository import MongoRepository  # imports PyMongo
    from polystore_adapters.mongodb.server import Server

    known, theirs = parse(options)
    return MongoRepository(Server(url, known, theirs, env), env)
