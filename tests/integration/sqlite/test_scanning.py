"""Ranges of key hashes, which are indexed segment by segment."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest
from polystore_adapters.sqlite.definition import SEGMENT_BITS
from polystore_adapters.sqlite.repository import SqliteRepository

from polystore.errors import SchemaMismatch
from polystore.model import EVERYTHING, HASH_SPACE, Commit, HashSpan, Write, key_hash
from tests.integration.sqlite.files import body, key, opened, write

COUNTS: Mapping[str, int] = {"": 120, "small": 3}
"""Tenant -> records."""


async def filled(path: Path) -> dict[str, list[tuple[int, str]]]:
    """Tenant -> (hash, id) of its records in order. Their rows are of some hundred segments, half of them empty."""
    writes = [
        Write("put", key(f"{i}", tenant), key_hash(tenant, "account", f"{i}"), body(f"{i}"), bytes(16))
        for tenant, count in COUNTS.items()
        for i in range(count)
    ]
    async with opened(path) as store:
        await store.commit([Commit(writes)])
    with closing(sqlite3.connect(path)) as db:
        # From the last one on, so that no number is taken.
        db.execute("CREATE TEMP TABLE far AS SELECT ps_rid FROM account ORDER BY ps_rid DESC")
        for (rid,) in db.execute("SELECT ps_rid FROM far").fetchall():
            db.execute("UPDATE account SET ps_rid = ? WHERE ps_rid = ?", (2 * rid << SEGMENT_BITS, rid))
        db.commit()
    return {tenant: sorted((one.h, one.key.id) for one in writes if one.key.tenant == tenant) for tenant in COUNTS}


async def scanned(store: SqliteRepository, tenant: str, span: HashSpan, limit: int) -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    cursor = None
    while True:
        page = await store.scan("account", tenant, span, cursor, limit)
        found += [(one.h, one.id) for one in page.stamps]
        cursor = page.cursor
        if cursor is None:
            return found
        assert len(page.stamps) == limit


@pytest.mark.parametrize("limit", [1, 7, 1_000])
def test_rows_of_many_segments_are_found_in_the_order_of_their_hashes(tmp_path: Path, limit: int) -> None:
    async def main() -> None:
        wanted = await filled(tmp_path / "app.db")
        async with opened(tmp_path / "app.db") as store:
            for tenant, of_tenant in wanted.items():
                assert await scanned(store, tenant, EVERYTHING, limit) == of_tenant
            low, high = HASH_SPACE // 3, HASH_SPACE // 2
            inside = [one for one in wanted[""] if low <= one[0] < high]
            assert await scanned(store, "", HashSpan(low, high), limit) == inside

    asyncio.run(main())


def test_no_scan_looks_at_rows_outside_its_range(tmp_path: Path) -> None:
    async def main() -> None:
        await filled(tmp_path / "app.db")
        async with opened(tmp_path / "app.db") as store:
            table = store._tables["account"]  # pyright: ignore[reportPrivateUsage]
        statements: list[str] = []
        with closing(sqlite3.connect(tmp_path / "app.db")) as db:
            db.set_trace_callback(statements.append)
            assert len(table.scan(db, "", 0, HASH_SPACE, (-1, ""), 5)) == 5
            db.set_trace_callback(None)
            plans = [str(db.execute(f"EXPLAIN QUERY PLAN {one}").fetchall()) for one in statements]
        assert "USING INDEX ps_scan_account (<expr>=? AND ps_tenant=? AND ps_h>? AND ps_h<?)" in plans[-1]
        assert not any("SCAN account" in one and "COVERING INDEX ps_scan_account" not in one for one in plans), plans

    asyncio.run(main())


def test_a_file_with_one_index_of_all_hashes_gets_the_other(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "app.db"
        async with opened(path) as store:
            await store.commit([Commit([write("put", "a")])])
        with closing(sqlite3.connect(path)) as db:
            db.executescript(
                "DROP INDEX ps_scan_account; CREATE INDEX ps_h_account ON account (ps_tenant, ps_h); "
                "UPDATE ps_meta SET v = 3 WHERE k = 'schema'"
            )
        with pytest.raises(SchemaMismatch, match="polystore init"):
            async with opened(path, create=False):
                pass
        async with opened(path, types=[]):  # of a program that knows no such entity
            pass
        async with opened(path) as store:
            assert [id for _, id in await scanned(store, "", EVERYTHING, 5)] == ["a"]
        async with opened(path, create=False):
            pass
        with closing(sqlite3.connect(path)) as db:
            found = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE name GLOB 'ps_*_account'")}
        assert "ps_scan_account" in found
        assert "ps_h_account" not in found

    asyncio.run(main())
