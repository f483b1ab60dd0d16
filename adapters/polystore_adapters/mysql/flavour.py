"""MariaDB and MySQL: what differs between them, and which of them a server is.

Both have one counter that gives each version once, without a lock that lasts as long as a transaction: MariaDB a
sequence; MySQL the AUTO_INCREMENT of a table whose rows are taken back at once, for the counter never is
(https://dev.mysql.com/doc/refman/8.4/en/innodb-auto-increment-handling.html).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from polystore.errors import ConfigurationError
from polystore.model import FIRST_VERSION


class Flavour(msgspec.Struct, frozen=True):
    """`collation`: texts are equal when their code points are, trailing spaces too, and sort by them. `counter`: the
    statement that makes what versions are drawn from. `newest`: the query of the version drawn last. `draw`: the
    statements that draw so many versions. `drawn`: those versions, ascending, out of the rows of the last of these.
    `go_on`: the statements after which all versions that are drawn are larger than this."""

    name: str
    title: str
    least: tuple[int, int]
    collation: str
    counter: str
    newest: str
    draw: Callable[[int], Sequence[str]]
    drawn: Callable[[Sequence[Sequence[Any]], int], Iterator[int]]
    go_on: Callable[[int], Sequence[str]]
    settings: str = ""
    texts_alone: bool = False
    """Whether an INSERT of several rows, one of which stands already, leaves the words of those before it out of the
    full-text index: MySQL 9.7 does."""

    @property
    def table_options(self) -> str:
        """What stands behind each CREATE TABLE."""
        return f"ENGINE=InnoDB ROW_FORMAT=DYNAMIC CHARSET=utf8mb4 COLLATE={self.collation} COMMENT='polystore'"


def _drawn_of_sequence(rows: Sequence[Sequence[Any]], count: int) -> Iterator[int]:
    return iter(sorted(version for (version,) in rows))


def _draw_of_table(count: int) -> Sequence[str]:
    if not count:
        return []
    return [
        "SAVEPOINT ps_draw",
        f"INSERT INTO ps_version VALUES {','.join(['(NULL)'] * count)}",
        "ROLLBACK TO SAVEPOINT ps_draw",
        "SELECT LAST_INSERT_ID(), @@auto_increment_increment",
    ]


def _drawn_of_table(rows: Sequence[Sequence[Any]], count: int) -> Iterator[int]:
    """One INSERT of known length has numbers in a row."""
    ((first, step),) = rows
    return iter(range(first, first + count * step, step))


MARIADB = Flavour(
    name="mariadb",
    title="MariaDB",
    least=(10, 6),
    collation="utf8mb4_nopad_bin",
    counter=f"CREATE SEQUENCE IF NOT EXISTS ps_version START WITH {FIRST_VERSION + 1} NOCACHE",
    newest="SELECT next_not_cached_value - 1 FROM ps_version",
    draw=lambda count: [f"SELECT NEXTVAL(ps_version) FROM seq_1_to_{count}"] if count else [],
    drawn=_drawn_of_sequence,
    go_on=lambda version: [f"SELECT SETVAL(ps_version, {version})"],
    settings=", in_predicate_conversion_threshold = 0",  # a long list is looked up in the index, as a short one is
)
MYSQL = Flavour(
    name="mysql",
    title="MySQL",
    least=(8, 0),
    collation="utf8mb4_0900_bin",
    counter="CREATE TABLE IF NOT EXISTS ps_version (n BIGINT AUTO_INCREMENT PRIMARY KEY) "
    f"ENGINE=InnoDB AUTO_INCREMENT={FIRST_VERSION + 1}",
    newest="SELECT auto_increment - 1 FROM information_schema.tables WHERE table_schema = DATABASE() "
    "AND table_name = 'ps_version'",
    draw=_draw_of_table,
    drawn=_drawn_of_table,
    go_on=lambda version: [
        "SAVEPOINT ps_draw",
        f"INSERT INTO ps_version VALUES ({version})",
        "ROLLBACK TO SAVEPOINT ps_draw",
    ],
    texts_alone=True,
    settings=", information_schema_stats_expiry = 0",  # what it says of tables is of now
)


def flavour_of(version: str, place: str) -> Flavour:
    """The flavour of a server that calls itself so. Raises ConfigurationError for one that is too old."""
    flavour = MARIADB if "MariaDB" in version else MYSQL
    found = re.match(r"(\d+)\.(\d+)", version)
    if found is None or (int(found[1]), int(found[2])) < flavour.least:
        least = ".".join(map(str, flavour.least))
        raise ConfigurationError(
            f"{place}: the server says that its version is {version}; use {flavour.title} {least} or later"
        )
    return flavour
