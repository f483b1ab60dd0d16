"""Several processes on one file: nobody's write is lost, and the dead are known as dead."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from polystore_adapters.sqlite.liveness import Liveness
from polystore_adapters.sqlite.locks import FileLock

from polystore.errors import Unavailable, VersionConflict
from polystore.model import Commit, TargetRow
from tests.integration.sqlite.files import body, commit, key, opened, write

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="on Windows one process uses a file")

SPAWN = multiprocessing.get_context("spawn")
WRITES = 60


def soon(true: Callable[[], bool], bound_s: float = 10.0) -> bool:
    until = time.monotonic() + bound_s
    while not true():
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


def _count_up(path: Path, ready: Any) -> None:
    async def main() -> None:
        async with opened(path) as store:
            ready.wait()
            for i in range(WRITES):
                await commit(store, write("put", f"{os.getpid()}-{i}"))
                while True:
                    (record,) = await store.get([key("counter")])
                    assert record is not None
                    assert record.body is not None
                    new = body("counter", str(int(record.body["note"]) + 1))
                    try:
                        await commit(store, write("put", "counter", new, expect_version=record.version))
                        break
                    except VersionConflict:
                        continue

    asyncio.run(main())


def test_processes_that_write_one_file_lose_no_update(tmp_path: Path) -> None:
    path = tmp_path / "app.db"

    async def prepare() -> None:
        async with opened(path) as store:
            await commit(store, write("put", "counter", body("counter", "0")))

    asyncio.run(prepare())
    ready = SPAWN.Barrier(3)
    children = [SPAWN.Process(target=_count_up, args=(path, ready)) for _ in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join(120)
    assert [child.exitcode for child in children] == [0, 0, 0]

    async def check() -> None:
        async with opened(path) as store:
            (record,) = await store.get([key("counter")])
            assert record is not None
            assert record.body is not None
            assert record.body["note"] == str(3 * WRITES)
            assert await store.count("account", "", None) == 1 + 3 * WRITES

    asyncio.run(check())


def _write_for_ever(path: Path, out: Connection) -> None:
    async def main() -> None:
        async with opened(path) as store:
            await store.set_target(TargetRow("account", "copy", 0, "active"))

            async def one(task: int) -> None:
                for i in range(1_000_000):
                    await commit(store, write("put", f"{task}-{i}"), write("put", f"{task}-{i}-twin"))
                    out.send(f"{task}-{i}")

            await asyncio.gather(*(one(task) for task in range(4)))

    asyncio.run(main())


@pytest.mark.parametrize("moment", range(4))
def test_a_killed_writer_loses_nothing_that_it_acknowledged(tmp_path: Path, moment: int) -> None:
    path = tmp_path / "app.db"
    receive, send = SPAWN.Pipe(duplex=False)
    child = SPAWN.Process(target=_write_for_ever, args=(path, send))
    child.start()
    send.close()
    acknowledged = [receive.recv() for _ in range(20 + 37 * moment)]
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    with contextlib.suppress(EOFError):
        while True:
            acknowledged.append(receive.recv())

    async def check() -> None:
        async with opened(path) as store:
            found = await store.get([key(id) for name in acknowledged for id in (name, f"{name}-twin")])
            assert all(found)
            # Half a commit is nowhere: every record has its twin and its duty to deliver.
            records = await store.count("account", "", None)
            assert records % 2 == 0
            assert (await store.backlog()).outbox == records
            await commit(store, write("put", "after"))

    asyncio.run(check())


def _be_alive(database: str, worker: str, out: Connection) -> None:
    liveness = Liveness(database)
    liveness.register(worker)
    out.send(sorted(liveness.live()))
    time.sleep(600)


def test_a_killed_worker_is_dead_at_once_and_its_file_goes(tmp_path: Path) -> None:
    database = str(tmp_path / "app.db")
    receive, send = SPAWN.Pipe(duplex=False)
    child = SPAWN.Process(target=_be_alive, args=(database, "other", send))
    child.start()
    assert receive.recv() == ["other"]
    mine = Liveness(database)
    mine.register("mine")
    assert mine.live() == {"mine", "other"}
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    assert mine.live() == {"mine"}
    assert [path.name for path in (tmp_path / "app.db.workers").iterdir()] == ["mine"]
    mine.release("mine")
    assert not list((tmp_path / "app.db.workers").iterdir())


def test_a_forked_child_does_not_keep_its_dead_parent_alive(tmp_path: Path) -> None:
    """The child inherits the lock's descriptor; if it kept it, the parent would seem alive for as long as the child."""
    database = str(tmp_path / "app.db")
    liveness = Liveness(database)
    liveness.register("parent")
    child = os.fork()
    if child == 0:
        time.sleep(600)
        os._exit(0)
    try:
        liveness.close()  # as the parent's death would
        assert soon(lambda: Liveness(database).live() == set(), 5)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_forked_child_cannot_use_the_parents_connections(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path / "app.db") as store:
            await commit(store, write("put", "a"))
            child = os.fork()
            if child == 0:
                try:
                    store.get_now(key("a"))
                except Unavailable as error:
                    os._exit(7 if "before a fork" in str(error) else 1)
                os._exit(2)
            _, status = await asyncio.to_thread(os.waitpid, child, 0)
            assert os.waitstatus_to_exitcode(status) == 7
            await commit(store, write("put", "b"))
            assert store.get_now(key("b")) is not None

    asyncio.run(main())


def test_closing_does_not_wait_for_ever_for_a_stopped_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("polystore_adapters.sqlite.database.CLOSE_TIMEOUT_S", 0.05)

    async def main() -> None:
        async with opened(tmp_path / "app.db") as store:
            stopped = FileLock(tmp_path / "app.db.lock")
            stopped.acquire()
            waiting = asyncio.create_task(commit(store, write("put", "a")))
            await asyncio.sleep(0)
            await store.aclose()
            assert not waiting.done()
            stopped.close()
            await waiting  # the lock is free again: it is carried out after all

    asyncio.run(main())


def test_rows_of_a_dead_worker_are_claimed_by_the_living(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "app.db"
        async with opened(path) as dying, opened(path) as living:
            await dying.set_target(TargetRow("account", "copy", 0, "active"))
            assert await dying.beat("dying") == {"dying"}
            assert await living.beat("living") == {"dying", "living"}
            await dying.commit([Commit([write("put", "a")], owner="dying"), Commit([write("put", "b")])])
            live = await living.beat("living")
            assert [row.key.id for row in await living.claim("living", live, ["account"], 10)] == ["b"]
            await dying.aclose()  # without `retire`: as a crash
            live = await living.beat("living")
            assert live == {"living"}
            (row,) = await living.claim("living", live, ["account"], 10)
            assert (row.key.id, row.claims) == ("a", 1)
            assert await living.claim("living", live, ["account"], 10) == []

    asyncio.run(main())
