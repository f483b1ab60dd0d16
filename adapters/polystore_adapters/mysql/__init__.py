"""`mysql://user@host/database` and `mariadb://...`: all kinds of data in one MariaDB database, by asyncmy.

Read `pool.py` first (connections, the server's clock, and what a lost connection means), then `table.py` and
`records.py` (rows and the guard), `commit.py`, `journal.py`, `prepare.py`; `repository.py` puts them together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from polystore.env import Env

if TYPE_CHECKING:
    from polystore_adapters.mysql.repository import MysqlRepository

__all__ = ["connect"]


async def connect(url: str, options: Mapping[str, Any], env: Env) -> MysqlRepository:
    """The database of the URL. Its query part may have `unix_socket`, `ssl_ca`, `ssl_cert` and `ssl_key`, or `ssl=true`
    for TLS with the system's certificates. Options: see `Options`. Nothing is sent before the first call, but for the
    database of place 2, which is made where it is missing. Raises ConfigurationError, and what making it raises."""
    from polystore_adapters.mysql.options import parse
    from polystore_adapters.mysql.repository import MysqlRepository  # imports asyncmy and SQLAlchemy

    repository = MysqlRepository(url, parse(options), env)
    await repository.open()
    return repository
