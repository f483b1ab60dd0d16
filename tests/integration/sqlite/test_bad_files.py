"""What cannot be a store of polystore, or cannot be written, is said plainly and left as it is."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest
from polystore_adapters.sqlite import connect, embedded_profile
from polystore_adapters.sqlite.errors import translating

from polystore.env import Env
from polystore.errors import (
    ConfigurationError,
    DecodeError,
    PermissionDenied,
    PolystoreError,
    SchemaMismatch,
    StoreCorrupt,
    StoreError,
    StoreFull,
    Unavailable,
)
from polystore.model import HashSpan
from polystore.protocols import Layout
from tests.integration.sqlite.files import ACCOUNT, body, commit, key, opened, write
from tests.integration.sqlite.test_filters import EVERYTHING, make


def contents(directory: Path) -> Mapping[str, bytes]:
    """The files; not what SQLite keeps beside a database while it is open."""
    files = (path for path in directory.iterdir() if not path.name.endswith(("-wal", "-shm")))
    return {path.name: path.read_bytes() for path in files}


async def filled(path: Path, records: int = 300) -> None:
    async with opened(path) as store:
        await commit(store, *(write("put", f"r{i}", body(f"r{i}", "text " * 40)) for i in range(records)))


async def refusal(path: Path) -> PolystoreError:
    with pytest.raises(PolystoreError) as caught:
        async with opened(path):
            pass
    return caught.value


def test_a_text_file_in_its_place_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    path.write_text("id,text\n1,hello\n" * 200)
    before = contents(tmp_path)
    error = asyncio.run(refusal(path))
    assert isinstance(error, StoreCorrupt)
    assert "no SQLite database" in str(error)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("keep", [0.5, 0.99], ids=["half of it", "but for the last bytes"])
def test_a_truncated_database_is_corrupt_and_never_empty(tmp_path: Path, keep: float) -> None:
    path = tmp_path / "app.db"
    asyncio.run(filled(path))
    size = path.stat().st_size
    os.truncate(path, int(size * keep) if keep < 0.9 else size - 100)
    before = contents(tmp_path)
    error = asyncio.run(refusal(path))
    assert isinstance(error, StoreCorrupt)
    assert "restore" in str(error)
    assert contents(tmp_path) == before


def test_a_damaged_page_is_corrupt_when_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    asyncio.run(filled(path))
    data = bytearray(path.read_bytes())
    data[3 * 4096 :] = b"\xff" * (len(data) - 3 * 4096)
    path.write_bytes(data)

    async def main() -> None:
        async with opened(path) as store:
            await store.scan("account", "", HashSpan(), None, 500)

    with pytest.raises(StoreCorrupt):
        asyncio.run(main())


def test_a_database_of_a_newer_schema_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    asyncio.run(filled(path))
    db = sqlite3.connect(path)
    db.execute("UPDATE ps_meta SET v = 99 WHERE k = 'schema'")
    db.commit()
    db.close()
    before = path.read_bytes()
    error = asyncio.run(refusal(path))
    assert isinstance(error, SchemaMismatch)
    assert "schema version 99" in str(error)
    assert "update polystore" in str(error)
    assert path.read_bytes() == before


def test_the_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE account (id TEXT)")
    db.close()
    error = asyncio.run(refusal(path))
    assert isinstance(error, SchemaMismatch)
    assert "another program" in str(error)
    db = sqlite3.connect(path)
    assert db.execute("SELECT count(*) FROM sqlite_master").fetchone() == (1,)
    db.close()


def test_a_file_where_a_directory_must_be(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    error = asyncio.run(refusal(tmp_path / "data" / "app.db"))
    assert isinstance(error, PermissionDenied)
    assert "writable" in str(error)


@pytest.mark.parametrize(
    ("sql", "expected", "told"),
    [
        ("SELECT * FROM gone", SchemaMismatch, "another process has changed them"),
        ("SELECT gone FROM t", SchemaMismatch, "another process has changed them"),
        ("INSERT INTO t (gone) VALUES ('secret')", SchemaMismatch, "another process has changed them"),
        ("CREATE TABLE t (a)", SchemaMismatch, "another process has changed them"),
        ("SELECT * FROM t WHERE 'secret' 'no such table: t'", StoreError, "(syntax error)"),
        ("SELECT gone('secret')", StoreError, "(no such function)"),
        ("SELECT json_extract('{}', 'secret')", StoreError, "(an error of no known kind)"),
        ("SELECT json('{secret')", DecodeError, "no JSON"),
    ],
)
def test_an_error_without_a_code_of_its_own_is_told_by_its_kind_and_quotes_nothing(
    sql: str, expected: type[Exception], told: str
) -> None:
    db = sqlite3.connect(":memory:")
    db.execute("CREATE TABLE t (a)")
    with pytest.raises(PolystoreError) as caught, translating("app.db"):
        db.execute(sql)
    db.close()
    assert type(caught.value) is expected
    assert told in str(caught.value)
    assert "secret" not in str(caught.value)


READ_ONLY = """
import asyncio, os, sys
from pathlib import Path
from polystore.errors import PermissionDenied
from tests.integration.sqlite.files import opened
import polystore_adapters.sqlite.repository

if os.geteuid() == 0:
    os.setuid(65534)  # rights mean nothing to root

async def main() -> None:
    try:
        async with opened(Path(sys.argv[1])):
            print("opened")
    except PermissionDenied as error:
        print("denied:", error)

asyncio.run(main())
"""


@pytest.mark.parametrize("there", [False, True], ids=["new file", "existing file"])
def test_a_directory_that_cannot_be_written(there: bool) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        if there:
            asyncio.run(filled(directory / "app.db"))
        before = contents(directory)
        for path in (*directory.iterdir(), directory):
            path.chmod(0o555)
        found = subprocess.run(
            [sys.executable, "-c", READ_ONLY, str(directory / "app.db")],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONDONTWRITEBYTECODE": "1"},
        )
        directory.chmod(0o700)
        assert found.stdout.startswith("denied:"), found.stderr
        assert "writable" in found.stdout
        assert contents(directory) == before


def test_a_full_disk_says_so_and_keeps_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "app.db"

    async def main() -> list[str]:
        acknowledged: list[str] = []
        async with opened(path, options={"page_limit": 100}) as store:

            async def fill() -> None:
                for i in range(1000):
                    await commit(store, write("put", f"r{i}", body(f"r{i}", "text " * 1000)))
                    acknowledged.append(f"r{i}")

            with pytest.raises(StoreFull, match="full"):
                await fill()
            found = await store.get([key(id) for id in acknowledged])
            assert all(record is not None for record in found)
            assert await store.get([key(f"r{len(acknowledged)}")]) == [None]
            # Small ones still fit, and what was deleted makes room.
            await commit(store, *(write("delete", id) for id in acknowledged[:10]))
            await commit(store, write("put", "after", body("after", "text " * 1000)))
        return acknowledged

    acknowledged = asyncio.run(main())
    assert len(acknowledged) > 20


def test_a_full_disk_fails_a_large_member_of_a_group_and_not_the_small_ones(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path / "app.db", options={"page_limit": 60}) as store:
            large = write("put", "large", body("large", "x" * 500_000))
            answers = await asyncio.gather(
                *(commit(store, write("put", f"s{i}")) for i in range(5)),
                commit(store, large),
                *(commit(store, write("put", f"t{i}")) for i in range(5)),
                return_exceptions=True,
            )
            failed = [answer for answer in answers if isinstance(answer, BaseException)]
            assert [type(answer) for answer in failed] == [StoreFull]
            assert await store.count("account", "", None) == 10

    asyncio.run(main())


def test_a_value_changed_by_hand_is_a_decode_error_and_never_missing(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    asyncio.run(filled(path, 2))

    async def main() -> None:
        async with opened(path, types=[ACCOUNT, EVERYTHING]) as store:
            await store.commit([make("one", {"at": datetime(2024, 1, 1, tzinfo=UTC)})])
            db = sqlite3.connect(path)
            db.execute("UPDATE everything SET at = 'yesterday'")
            db.commit()
            db.close()
            with pytest.raises(DecodeError, match=r"everything 'one'.*'at'"):
                await store.get([make("one", {}).writes[0].key])

    asyncio.run(main())


@pytest.mark.parametrize("url", ["sqlite:", "sqlite:///data/app.db", "sqlite::memory:"])
def test_an_address_without_a_path_says_what_to_write(url: str) -> None:
    with pytest.raises(ConfigurationError, match="for example sqlite:data/app"):
        asyncio.run(connect(url, {}, Env()))


def test_unknown_options_list_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"page_limits.*page_limit, vector_cache_bytes, readers"):
        asyncio.run(connect(f"sqlite:{tmp_path}/app.db", {"page_limits": 3}, Env()))


def test_connecting_makes_nothing_until_something_is_prepared(tmp_path: Path) -> None:
    async def main() -> None:
        store = await connect(f"sqlite:{tmp_path}/new/app.db", {}, Env())
        with pytest.raises(Unavailable, match="prepare"):
            await store.get([key("a")])
        with pytest.raises(SchemaMismatch, match=r"does not exist.*account"):
            await store.prepare([Layout(ACCOUNT, True, frozenset())], create=False)
        assert await store.placements() == {}
        assert (await store.ping()).server == "sqlite"
        await store.aclose()

    asyncio.run(main())
    assert not (tmp_path / "new").exists()


def test_the_embedded_profile_is_a_file_for_each_role() -> None:
    assert embedded_profile("embedded:./.polystore") == {
        "home": {"url": "sqlite:./.polystore/home.db", "roles": ["home", "journal"]},
        "full_text": {"url": "sqlite:./.polystore/full_text.db", "roles": ["full_text"]},
        "vector": {"url": "sqlite:./.polystore/vector.db", "roles": ["vector"]},
        "graph": {"url": "sqlite:./.polystore/graph.db", "roles": ["graph"]},
        "facts": {"url": "sqlite:./.polystore/facts.db", "roles": ["time_series"]},
        "state": {"url": "sqlite:./.polystore/state.db", "roles": ["live_state"]},
        "files": {"url": "file:./.polystore/files", "roles": ["file"]},
    }


def test_an_empty_file_is_a_store_to_come(tmp_path: Path) -> None:
    """What a process leaves that was killed while it made the file."""
    path = tmp_path / "app.db"
    path.touch()

    async def main() -> None:
        store = await connect(f"sqlite:{path}", {}, Env())
        assert (await store.ping()).data_id == ""
        assert await store.placements() == {}
        await store.prepare([Layout(ACCOUNT, True, frozenset())], create=True)
        assert (await store.ping()).data_id
        await store.aclose()

    asyncio.run(main())
