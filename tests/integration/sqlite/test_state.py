"""Live state in a SQLite file: what lies in it, what is given back, and what is damaged."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from polystore_adapters.memory import MemoryRepository, MemoryServer
from polystore_adapters.sqlite import connect
from polystore_adapters.sqlite.repository import SqliteRepository

from polystore.errors import SchemaMismatch, StoreCorrupt
from polystore.model import Key
from polystore.rates import Rate
from polystore.testing.conformance import MovableEnv

KEY = Key("", "session", "a")
RATE = Rate("sliding_window", 3, 60_000_000, 3)


def opened(path: Path, test: Callable[[SqliteRepository, MovableEnv], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        env = MovableEnv()
        repository = await connect(f"sqlite:{path}", {}, env)
        try:
            await repository.prepare([], create=True)
            await test(repository, env)
        finally:
            await repository.aclose()

    asyncio.run(main())


def execute(path: Path, sql: str, *parameters: object) -> list[Any]:
    db = sqlite3.connect(path)
    try:
        with db:
            return db.execute(sql, parameters).fetchall()
    finally:
        db.close()


def test_other_programs_can_read_the_values(tmp_path: Path) -> None:
    async def put(repository: SqliteRepository, env: MovableEnv) -> None:
        await repository.put_state(KEY, {"id": b'"a"', "user": '"민지"'.encode()}, None)

    opened(tmp_path / "a.db", put)
    sql = "SELECT tenant, etype, id, json_extract(fields, '$.user'), expires_at FROM ps_state"
    assert execute(tmp_path / "a.db", sql) == [("", "session", "a", "민지", None)]


def test_what_has_expired_is_removed_by_later_writes(tmp_path: Path) -> None:
    async def write(repository: SqliteRepository, env: MovableEnv) -> None:
        for n in range(100):
            await repository.put_state(Key("", "session", str(n)), {}, 1_000_000)
            await repository.take_allowance(Key("", "login", str(n)), RATE, 1)
        env.forward(100)
        for _ in range(6):
            await repository.put_state(KEY, {}, None)
            await repository.take_allowance(KEY, RATE, 1)

    opened(tmp_path / "a.db", write)
    assert execute(tmp_path / "a.db", "SELECT id FROM ps_state") == [("a",)]
    assert execute(tmp_path / "a.db", "SELECT id FROM ps_limit") == [("a",)]


def test_memory_gives_the_room_back_too() -> None:
    async def main() -> None:
        env = MovableEnv()
        server = MemoryServer(env)
        repository = MemoryRepository(server, env)
        for n in range(5_000):
            await repository.put_state(Key("", "session", str(n)), {}, 1_000_000)
            await repository.take_allowance(Key("", "login", str(n)), RATE, 1)
            env.forward(0.1)
        assert len(server._values) + len(server._taken) < 3_000  # pyright: ignore[reportPrivateUsage]

    asyncio.run(main())


def test_time_is_that_of_the_server_and_not_of_its_callers() -> None:
    async def main() -> None:
        clock, ahead = MovableEnv(), MovableEnv()
        ahead.forward(3_600)
        server = MemoryServer(clock)
        one, other = MemoryRepository(server, clock), MemoryRepository(server, ahead)
        await other.put_state(KEY, {"n": b"1"}, 60_000_000)
        for caller in (one, other):
            (found,) = await caller.get_state([KEY])
            assert found is not None
            assert 50_000_000 < (found.ttl_us or 0) <= 60_000_000
        assert (await one.take_allowance(KEY, RATE, 3)).allowed
        assert not (await other.take_allowance(KEY, RATE, 1)).allowed
        clock.forward(61)
        assert await other.get_state([KEY]) == [None]

    asyncio.run(main())


@pytest.mark.parametrize("damage", ["{", "[]", '{"a"}', "null"])
def test_a_damaged_row_is_an_error_and_not_missing(tmp_path: Path, damage: str) -> None:
    async def put(repository: SqliteRepository, env: MovableEnv) -> None:
        await repository.put_state(KEY, {"n": b"1"}, None)

    async def get(repository: SqliteRepository, env: MovableEnv) -> None:
        with pytest.raises(StoreCorrupt, match="session 'a' in ps_state"):
            await repository.get_state([KEY])
        with pytest.raises(StoreCorrupt, match="session 'a' in ps_state"):
            await repository.increment(KEY, "n", 1, 0, {}, None)

    opened(tmp_path / "a.db", put)
    execute(tmp_path / "a.db", "UPDATE ps_state SET fields = ?", damage)
    opened(tmp_path / "a.db", get)


@pytest.mark.parametrize("damage", ["[", "[1]", '["a", 1]'])
def test_a_damaged_row_of_a_limit_is_an_error_and_not_a_fresh_allowance(tmp_path: Path, damage: str) -> None:
    async def take(repository: SqliteRepository, env: MovableEnv) -> None:
        await repository.take_allowance(KEY, RATE, 1)

    async def look(repository: SqliteRepository, env: MovableEnv) -> None:
        with pytest.raises(StoreCorrupt, match="session 'a' in ps_limit"):
            await repository.take_allowance(KEY, RATE, 1)
        with pytest.raises(StoreCorrupt, match="session 'a' in ps_limit"):
            await repository.peek_allowance(KEY, RATE)

    opened(tmp_path / "a.db", take)
    execute(tmp_path / "a.db", "UPDATE ps_limit SET past = ?", damage)
    opened(tmp_path / "a.db", look)


def test_a_file_of_before_there_was_state_gets_its_tables(tmp_path: Path) -> None:
    async def nothing(repository: SqliteRepository, env: MovableEnv) -> None:
        pass

    async def validate() -> None:
        repository = await connect(f"sqlite:{tmp_path}/a.db", {}, MovableEnv())
        try:
            await repository.prepare([], create=False)
        finally:
            await repository.aclose()

    async def put(repository: SqliteRepository, env: MovableEnv) -> None:
        await repository.put_state(KEY, {"n": b"1"}, None)

    opened(tmp_path / "a.db", nothing)
    for table in ("ps_state", "ps_limit"):
        execute(tmp_path / "a.db", f"DROP TABLE {table}")
    execute(tmp_path / "a.db", "UPDATE ps_meta SET v = 1 WHERE k = 'schema'")
    with pytest.raises(SchemaMismatch, match="run `polystore init`"):
        asyncio.run(validate())
    opened(tmp_path / "a.db", put)
    asyncio.run(validate())
