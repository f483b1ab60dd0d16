"""Group commit, the guard, op ids and unique values, in one process."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from polystore_adapters.sqlite.repository import SqliteRepository

from polystore.env import Env
from polystore.errors import (
    AlreadyExists,
    IntegrityViolation,
    InvalidData,
    NotFound,
    PolystoreError,
    Unavailable,
    VersionConflict,
)
from polystore.model import APPLIED, STALE, Change, Commit, OpId, Settlement, TargetRow, Write
from tests.integration.sqlite.files import body, change, commit, key, opened, write


class Counting(Env):
    """Counts the transactions that were committed."""

    def __init__(self) -> None:
        super().__init__()
        self.commits = 0

    def crashpoint(self, name: str) -> None:
        self.commits += name == "sqlite.commit.after"


def test_what_waits_for_the_writer_shares_one_transaction(tmp_path: Path) -> None:
    async def main() -> None:
        env = Counting()
        async with opened(tmp_path / "app.db", env=env) as store:
            await asyncio.gather(*(commit(store, write("create", f"r{i}")) for i in range(300)))
            assert 1 <= env.commits <= 100
            assert await store.count("account", "", None) == 300

    asyncio.run(main())


def test_members_of_a_group_fail_alone(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path / "app.db") as store:
            await commit(store, write("put", "there", body("there", email="taken")))
            bad: list[tuple[Write, type[Exception]]] = [
                (write("create", "there"), AlreadyExists),
                (write("update", "absent", {"note": "x"}), NotFound),
                (write("put", "there", body("there"), expect_version=1), VersionConflict),
                (write("put", "other", body("other", email="taken")), IntegrityViolation),
                (write("put", "unfit", {**body("unfit"), "note": ["x"]}), InvalidData),
                (write("put", "huge", {**body("huge"), "note": 1 << 63}), InvalidData),
            ]
            for _ in range(20):
                good = [write("put", f"g{random.randrange(1000)}") for _ in range(10)]
                both = [*good, *(one for one, _ in bad)]
                random.shuffle(both)
                answers = await asyncio.gather(*(commit(store, one) for one in both), return_exceptions=True)
                by_key = dict(zip((one.key.id for one in both), answers, strict=True))
                assert all(not isinstance(by_key[one.key.id], BaseException) for one in good)
                for one, error in bad[1:2] + bad[3:]:
                    assert type(by_key[one.key.id]) is error, (one.key.id, by_key[one.key.id])
            assert await store.get([key(id) for id in ("absent", "other", "unfit", "huge")]) == [None] * 4

    asyncio.run(main())


def test_a_commit_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path / "app.db") as store:
            await store.set_target(TargetRow("account", "copy", 0, "active"))
            await commit(store, write("put", "a", body("a", "before")))
            with pytest.raises(NotFound):
                await store_marked(store, write("put", "a", body("a", "after")), write("update", "b", {"note": "x"}))
            (record,) = await store.get([key("a")])
            assert record is not None
            assert record.body is not None
            assert record.body["note"] == "before"
            assert await store.mark("position") is None
            assert (await store.backlog()).outbox == 1

    async def store_marked(store: Any, *writes: Write) -> None:
        (answer,) = await store.commit([Commit(writes, marks={"position": "7"})])
        if isinstance(answer, Exception):
            raise answer

    asyncio.run(main())


def test_a_unique_value_moves_between_records_of_one_commit(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path / "app.db") as store:
            await commit(store, write("put", "a", body("a", email="x")), write("put", "b", body("b", email="y")))
            await commit(
                store,
                write("put", "a", body("a", email="free")),
                write("put", "b", body("b", email="x")),
                write("put", "a", body("a", email="y")),
            )
            with pytest.raises(IntegrityViolation, match=r"account 'a'.*same email"):
                await commit(store, write("put", "a", body("a", email="x")), write("put", "b", body("b", email="y")))
            await commit(store, write("delete", "a"), write("put", "c", body("c", email="y")))
            found = await store.get([key(id) for id in "abc"])
            assert [None if one is None or one.body is None else one.body["email"] for one in found] == [None, "x", "y"]

    asyncio.run(main())


def test_of_many_writers_of_one_unique_value_one_wins(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path / "app.db") as store:
            writes = [write("put", f"r{i}", body(f"r{i}", email="one")) for i in range(40)]
            answers = await asyncio.gather(*(commit(store, one) for one in writes), return_exceptions=True)
            failed = [answer for answer in answers if isinstance(answer, BaseException)]
            assert {type(error) for error in failed} == {IntegrityViolation}
            assert len(failed) == 39
            assert await store.count("account", "", None) == 1

    asyncio.run(main())


def test_counting_up_with_expect_version_loses_nothing(tmp_path: Path) -> None:
    """The classic lost update: everybody reads, adds one, and writes what they made of it."""

    async def main() -> None:
        async with opened(tmp_path / "app.db") as store:
            await commit(store, write("create", "n", body("n", "0")))
            newer: list[bool] = []

            async def add() -> None:
                while True:
                    (record,) = await store.get([key("n")])
                    assert record is not None
                    assert record.body is not None
                    new = body("n", str(int(record.body["note"]) + 1))
                    try:
                        await commit(store, write("put", "n", new, expect_version=record.version))
                        return
                    except VersionConflict as error:
                        newer.append(error.actual > record.version)

            await asyncio.gather(*(add() for _ in range(60)))
            (record,) = await store.get([key("n")])
            assert record is not None
            assert record.body is not None
            assert record.body["note"] == "60"
            assert newer
            assert all(newer)

    asyncio.run(main())


def test_the_same_op_sent_many_times_at_once_is_done_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path / "app.db") as store:
            op = OpId("", "op-1", b"same")
            one = Commit([write("create", "a"), write("delete", "nobody")], op=op)
            answers = [
                answer
                for answers in await asyncio.gather(*(store.commit([one]) for _ in range(30)))
                for answer in answers
            ]
            results = [answer for answer in answers if not isinstance(answer, Exception)]
            assert len(results) == 30
            assert sum(not result.repeated for result in results) == 1
            assert len({tuple((w.version, w.existed) for w in result.written) for result in results}) == 1
            (other,) = await store.commit([Commit([write("put", "b")], op=OpId("", "op-1", b"other"))])
            assert isinstance(other, InvalidData)
            assert await store.get([key("b")]) == [None]

    asyncio.run(main())


def test_a_cancelled_write_is_whole_or_absent_and_the_next_one_works(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path / "app.db") as store:
            for i in range(50):
                task = asyncio.create_task(commit(store, write("put", f"a{i}"), write("put", f"b{i}")))
                for _ in range(i % 4):
                    await asyncio.sleep(0)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            await commit(store, write("put", "last"))
            for i in range(50):
                a, b = await store.get([key(f"a{i}"), key(f"b{i}")])
                assert (a is None) == (b is None)

    asyncio.run(main())


def test_every_write_that_was_asked_for_ends_when_the_store_closes(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path / "app.db") as store:
            tasks = [asyncio.create_task(commit(store, write("put", f"r{i}"))) for i in range(200)]
            await asyncio.sleep(0)
            await asyncio.gather(store.aclose(), store.aclose())
            answers = await asyncio.gather(*tasks, return_exceptions=True)
            done = {f"r{i}" for i, answer in enumerate(answers) if not isinstance(answer, BaseException)}
            assert all(isinstance(answer, Unavailable) for answer in answers if isinstance(answer, BaseException))
            with pytest.raises(Unavailable, match="closed"):
                await commit(store, write("put", "late"))
        async with opened(tmp_path / "app.db") as store:
            for i in range(200):
                (record,) = await store.get([key(f"r{i}")])
                assert (record is not None) == (f"r{i}" in done)

    asyncio.run(main())


def test_random_deliveries_in_any_order_end_in_the_newest(tmp_path: Path) -> None:
    async def main(seed: int) -> None:
        rng = random.Random(seed)
        newest = {f"r{i}": 0 for i in range(8)}
        changes: list[Change] = []
        for version in range(1, 120):
            id = rng.choice(list(newest))
            newest[id] = version
            changes.append(change(id, version, None if version % 5 == 0 else body(id, f"v{version}")))
        late = changes + rng.sample(changes, 60)
        rng.shuffle(late)
        async with opened(tmp_path / f"{seed}.db", home=False) as store:
            batches = [late[i : i + 7] for i in range(0, len(late), 7)]
            for i in range(0, len(batches), 2):  # two share a transaction
                outcomes = await asyncio.gather(*(store.apply(batch) for batch in batches[i : i + 2]))
                assert {one for batch in outcomes for one in batch} <= {APPLIED, STALE}
            for id, version in newest.items():
                (record,) = await store.get([key(id)])
                if version:
                    assert record is not None
                    assert record.version == version
                    assert record.deleted == (version % 5 == 0)

    for seed in range(5):
        asyncio.run(main(seed))


def test_another_programs_lock_is_unavailable_and_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("polystore_adapters.sqlite.database.BUSY_TIMEOUT_S", 0.05)

    async def main() -> None:
        async with opened(tmp_path / "app.db") as store:
            await commit(store, write("put", "a"))
            other = sqlite3.connect(tmp_path / "app.db", isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(Unavailable, match="another program"):
                await commit(store, write("put", "b"))
            assert store.get_now(key("a")) is not None
            other.execute("ROLLBACK")
            other.close()
            await commit(store, write("put", "b"))

    asyncio.run(main())


def test_errors_name_the_record_and_never_its_values(tmp_path: Path) -> None:
    async def main() -> Sequence[PolystoreError]:
        errors: list[PolystoreError] = []
        async with opened(tmp_path / "app.db") as store:
            await commit(store, write("put", "a", body("a", email="secret")))
            for one in (
                write("create", "a"),
                write("update", "gone", {"note": "secret"}),
                write("put", "b", body("b", email="secret")),
                write("put", "c", {**body("c"), "note": ["secret"]}),
                write("put", "d", {**body("d"), "email": ["secret"]}),
            ):
                with pytest.raises(PolystoreError) as caught:
                    await commit(store, one)
                errors.append(caught.value)
        return errors

    for error in asyncio.run(main()):
        assert "secret" not in str(error)


def test_commits_and_deliveries_are_synced_also_after_what_need_not_be(tmp_path: Path) -> None:
    synced: dict[str, set[int]] = {}

    class Watching(Env):
        store: SqliteRepository

        def crashpoint(self, name: str) -> None:
            writer = self.store._db._writer  # pyright: ignore[reportPrivateUsage]
            assert writer is not None
            synced.setdefault(name, set()).add(writer.execute("PRAGMA synchronous").fetchone()[0])

    async def main() -> None:
        env = Watching()
        async with opened(tmp_path / "app.db", env=env) as store:
            env.store = store
            for i in range(3):
                await commit(store, write("put", f"r{i}"))
                await store.settle(Settlement([i]))
                await store.apply([change(f"c{i}", 1, body(f"c{i}"))])
                await store.settle(Settlement([i]))

    asyncio.run(main())
    normal, full = 1, 2  # https://sqlite.org/pragma.html#pragma_synchronous
    assert synced["sqlite.commit.before"] == synced["sqlite.apply.before"] == {full}
    assert synced["sqlite.settle.before"] == {normal}
