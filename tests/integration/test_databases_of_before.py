"""A database that an earlier polystore made: it is told what it lacks, and `polystore init` makes it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import pytest

from polystore import SchemaMismatch
from polystore.env import Env
from polystore.protocols import SupportsJournal, SupportsSchema
from polystore.registry import connect
from tests import mysql, postgresql
from tests.homes import HOMES

Settings = Mapping[str, Any]


def on_sqlite(main: Settings) -> None:
    with closing(sqlite3.connect(main["url"].removeprefix("sqlite:"), isolation_level=None)) as db:
        db.execute("DROP TABLE ps_lease")
        db.execute("UPDATE ps_meta SET v = 2 WHERE k = 'schema'")


def on_postgresql(main: Settings) -> None:
    postgresql.server().run(f"DROP TABLE {main['options']['schema'].partition(',')[0]}.ps_lease")


def on_mysql(main: Settings) -> None:
    name = urlsplit(str(main["url"])).path.strip("/")
    mysql.run(main["url"], f"DROP TABLE {name}.ps_lease")


BEFORE: Mapping[str, Callable[[Settings], None]] = {
    "sqlite": on_sqlite,
    "postgresql": on_postgresql,
    "mariadb": on_mysql,
}
"""Home -> makes of its database one without leases."""


async def leases(main: Settings, *, create: bool) -> bool:
    """Whether a worker gets one."""
    store: Any = await connect(main["url"], main.get("options", {}), Env())
    try:
        await cast(SupportsSchema, store).prepare([], create=create)
        return await cast(SupportsJournal, store).hold_lease("a", "w", 60.0)
    finally:
        await store.aclose()


@pytest.mark.parametrize("home", BEFORE)
def test_leases_are_made_where_there_were_none(home: str, tmp_path: Path) -> None:
    with HOMES[home](tmp_path) as stores:
        main = stores["main"]

        assert asyncio.run(leases(main, create=True))
        BEFORE[home](main)
        with pytest.raises(SchemaMismatch, match="polystore init"):
            asyncio.run(leases(main, create=False))
        assert asyncio.run(leases(main, create=True))
        assert asyncio.run(leases(main, create=False))
