"""`postgresql://user@host/database`: all kinds of data in one PostgreSQL database, by asyncpg.

Read `pool.py` first (connections and what a lost one means), then `table.py` and `records.py` (rows and the guard),
`commit.py` and `quick.py`, `journal.py`, `prepare.py`; `repository.py` puts them together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from polystore.env import Env

if TYPE_CHECKING:
    from polystore_adapters.postgresql.repository import PostgresRepository

__all__ = ["connect"]


async def connect(url: str, options: Mapping[str, Any], env: Env) -> PostgresRepository:
    """The database of the URL, which asyncpg reads (its query part may have sslmode and the like). Options: see
    `Options`. Nothing is sent before the first call. Raises ConfigurationError."""
    from polystore_adapters.postgresql.options import parse
    from polystore_adapters.postgresql.repository import PostgresRepository  # imports asyncpg and SQLAlchemy

    return PostgresRepository(url, parse(options), env)
