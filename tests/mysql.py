"""A database for tests, of MariaDB or of MySQL: one of its own for each, and a clock that the test sets forward.

The servers are those of POLYSTORE_TEST_MARIADB_URL and POLYSTORE_TEST_MYSQL_URL; without one its tests are skipped.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import sqlalchemy as sa

from polystore.env import Env
from polystore.protocols import Repository
from polystore.testing.places import mysql
from polystore.testing.places.mysql import run
from tests.stack import url_of

__all__ = ["FLAVOURS", "Databases", "connected", "connecting", "fresh_database", "run"]

FLAVOURS = ("mariadb", "mysql")
"""The servers' names."""


@contextmanager
def fresh_database(server: str = "mariadb") -> Generator[str]:
    """The URL of a new database; the test is skipped, or fails if it is required, where there is no server."""
    with mysql.fresh_database(url_of(server)) as url:
        yield url


_NOTED = "(k IN ('schema', 'data_id', 'spill_bytes') OR k REGEXP '^(schema|served|vectors):')"
"""What `ps_meta` says of the tables themselves."""
_KEPT = ("ps_meta", "ps_run", "ps_version", "ps_lock")


class Databases:
    """Databases of a server as rooms, see `tests.rooms`."""

    def __init__(self, server: str) -> None:
        self._server = server

    def fresh(self) -> AbstractContextManager[str]:
        return fresh_database(self._server)

    def _tables(self, url: str) -> list[str]:
        sql = "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE() ORDER BY 1"
        return [str(name) for (name,) in run(url, f"USE {sa.make_url(url).database}", sql)]

    def shape(self, url: str) -> str:
        database = sa.make_url(url).database
        columns = run(
            url,
            "SET group_concat_max_len = 1000000",
            "SELECT (SELECT GROUP_CONCAT(table_name, ' ', column_name, ' ', column_type ORDER BY table_name, "
            f"ordinal_position) FROM information_schema.columns WHERE table_schema = '{database}'), "
            "(SELECT GROUP_CONCAT(table_name, ' ', index_name, ' ', column_name ORDER BY table_name, index_name, "
            f"seq_in_index) FROM information_schema.statistics WHERE table_schema = '{database}')",
        )
        if "ps_meta k" not in str(columns):
            return str(columns)
        sql = "SELECT k, v FROM ps_meta WHERE k REGEXP '^(schema|served|vectors):' ORDER BY k"
        return f"{columns} {run(url, f'USE {database}', sql)}"

    def empty(self, url: str) -> None:
        tables = self._tables(url)
        if "ps_meta" not in tables:
            return
        emptied = [one for one in tables if one not in _KEPT]
        run(
            url,
            f"USE {sa.make_url(url).database}",
            f"LOCK TABLES {', '.join(f'`{one}` WRITE' for one in [*emptied, 'ps_meta'])}",
            *(f"DELETE FROM `{one}`" for one in emptied),
            f"DELETE FROM ps_meta WHERE NOT {_NOTED}",
            "UPDATE ps_meta SET v = '0' WHERE k = 'spill_bytes'",
            "UNLOCK TABLES",
        )


async def connected(env: Env, url: str, **options: Any) -> Repository:
    """A repository of the database. A clock that the test has set forward is the server's too."""
    from polystore_adapters.mysql import connect

    repository = await connect(url, {"pool_size": 5, **options}, env)
    mysql.follow_clock(env, repository)
    return repository


def connecting(url: str) -> Callable[[Env], Awaitable[Repository]]:
    return lambda env: connected(env, url)
