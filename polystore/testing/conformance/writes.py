"""A home's writes: what each kind does, and to which version."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec
import pytest

from polystore.errors import AlreadyExists, NotFound, VersionConflict
from polystore.model import Key, Write
from polystore.protocols import Repository, SupportsCommit
from polystore.testing.conformance.base import (
    Conformance,
    commit,
    delete,
    key_of,
    live,
    put,
    same,
    state,
    update,
    write,
)
from polystore.testing.conformance.entities import ACCOUNT, NUMBERED, THING, VALUES, Thing


class Home(Repository, SupportsCommit, Protocol):
    pass


KEY = key_of(THING, "a")


class WritesConformance(Conformance):
    """What a home answers to each kind of write, and what then stands there."""

    protocol = SupportsCommit
    types = (THING, NUMBERED, ACCOUNT)
    home = True

    async def _gone(self, store: Home, key: Key = KEY) -> bool:
        record = await state(store, key)
        return record is None or record.deleted

    # -- the kinds of write -----------------------------------------------------------------------------------

    async def test_create_writes_once(self) -> None:
        store: Home = await self.open()
        first = write("create", THING, Thing(id="a", word="first"))
        (done,) = await commit(store, first)
        assert (done.existed, done.changed, done.body, done.hash) == (False, True, first.body, first.hash)
        assert 0 < done.version < 1 << 53
        with pytest.raises(AlreadyExists):
            await commit(store, write("create", THING, Thing(id="a", word="second")))
        record = await state(store, KEY)
        assert record is not None
        assert (record.version, record.body, record.hash) == (done.version, first.body, first.hash)
        assert record.updated_us == done.updated_us
        assert abs(record.updated_us - self.env.now_us()) < 60e6, "updated_us is the time of the write"

    async def test_put_inserts_and_replaces_the_whole_record(self) -> None:
        store: Home = await self.open()
        (first,) = await commit(store, put("a", word="first", maybe_word="there"))
        (second,) = await commit(store, put("a", number=2))
        assert (first.existed, second.existed) == (False, True)
        assert second.version > first.version
        version, body = await live(store, KEY)
        assert version == second.version
        assert same(dict(body), THING.encode(Thing(id="a", number=2)))

    async def test_put_writes_even_when_nothing_differs(self) -> None:
        store: Home = await self.open()
        (first,) = await commit(store, put("a", word="same"))
        (second,) = await commit(store, put("a", word="same"))
        assert second.changed
        assert second.version > first.version

    async def test_update_changes_the_named_fields_exactly_and_no_other(self) -> None:
        store: Home = await self.open()
        before = Thing(id="a", word="before", number=7, maybe_word="x", tags=["t"], extra={"e": 1})
        await commit(store, write("put", THING, before))
        body = THING.encode(before)
        for field, values in VALUES.items():
            for value in (*values[-3:], *values[:1]):
                body |= THING.encode_patch({field: value})
                (done,) = await commit(store, update(THING, "a", {field: value}))
                version, found = await live(store, KEY)
                assert same(dict(found), body), field
                assert done.body is not None
                assert same(dict(done.body), body), field
                assert (done.version, done.hash) == (version, THING.content_hash(body))

    async def test_update_needs_a_live_record(self) -> None:
        store: Home = await self.open()
        with pytest.raises(NotFound):
            await commit(store, update(THING, "a", {"word": "x"}))
        await commit(store, put("a"), put("b"))
        await commit(store, delete(THING, "a"))
        with pytest.raises(NotFound):
            await commit(store, update(THING, "a", {"word": "x"}))
        with pytest.raises(NotFound):
            await commit(store, update(THING, "b", {"word": "x"}, tenant="acme"))
        assert await self._gone(store)

    async def test_delete_leaves_a_tombstone_and_a_recreated_record_is_newer(self) -> None:
        store: Home = await self.open()
        (first,) = await commit(store, put("a", word="first"))
        (gone,) = await commit(store, delete(THING, "a"))
        assert (gone.existed, gone.changed, gone.body) == (True, True, None)
        record = await state(store, KEY)
        assert record is not None
        assert (record.version, record.body) == (gone.version, None)
        (again,) = await commit(store, write("create", THING, Thing(id="a", word="again")))
        assert not again.existed
        assert first.version < gone.version < again.version
        assert (await live(store, KEY))[1]["word"] == "again"

    async def test_delete_of_an_absent_record_is_no_write(self) -> None:
        store: Home = await self.open()
        await commit(store, put("b"))
        (never,) = await commit(store, delete(THING, "a"))
        assert (never.existed, never.changed, never.targets, never.version) == (False, False, 0, 0)
        assert await state(store, KEY) is None
        (gone,) = await commit(store, delete(THING, "b"))
        (repeated,) = await commit(store, delete(THING, "b"))
        assert (repeated.existed, repeated.changed) == (False, False)
        record = await state(store, key_of(THING, "b"))
        assert record is not None
        assert record.version == gone.version

    async def test_skip_leaves_equal_content_alone_and_writes_all_else(self) -> None:
        store: Home = await self.open()
        same_again = write("skip", THING, Thing(id="a", word="same"))
        (first,) = await commit(store, same_again)
        (second,) = await commit(store, same_again)
        (third,) = await commit(store, write("skip", THING, Thing(id="a", word="other")))
        assert [(w.existed, w.changed) for w in (first, second, third)] == [(False, True), (True, False), (True, True)]
        assert second.version == first.version < third.version
        await commit(store, update(THING, "a", {"word": "same"}))
        (fourth,) = await commit(store, same_again)
        assert not fourth.changed, "an update keeps the hash of the whole content"
        await commit(store, delete(THING, "a"))
        (fifth,) = await commit(store, same_again)
        assert (fifth.existed, fifth.changed) == (False, True)

    async def test_insert_leaves_a_live_record_alone(self) -> None:
        store: Home = await self.open()
        (first,) = await commit(store, write("insert", THING, Thing(id="a", word="first")))
        (second,) = await commit(store, write("insert", THING, Thing(id="a", word="second")))
        assert (first.existed, first.changed) == (False, True)
        assert (second.existed, second.changed, second.version) == (True, False, first.version)
        assert (await live(store, KEY))[1]["word"] == "first"
        await commit(store, delete(THING, "a"))
        (third,) = await commit(store, write("insert", THING, Thing(id="a", word="third")))
        assert third.changed
        assert (await live(store, KEY))[1]["word"] == "third"

    async def test_many_new_records_in_one_commit_are_as_if_each_came_alone(self) -> None:
        store: Home = await self.open()
        kinds = ("create", "put", "skip", "insert")
        writes = [write(kinds[i % 4], THING, Thing(id=f"m{i}", number=i)) for i in range(32)]
        writes[5] = write("put", THING, Thing(id="m5", number=5), ttl_us=3_600_000_000)
        done = await commit(store, *writes)
        versions = [one.version for one in done]
        assert versions == sorted(set(versions))
        assert all((one.existed, one.changed) == (False, True) for one in done)
        assert [one.number for one in await self._numbers(store, writes)] == [*range(32)]
        record = await state(store, writes[5].key)
        assert record is not None
        assert record.expires_us > record.updated_us
        assert [one.expires_us for one in done if one.expires_us] == [record.expires_us]

    async def test_a_record_that_stands_counts_among_many_new_ones(self) -> None:
        store: Home = await self.open()
        (first,) = await commit(store, put("m7", number=70))
        writes = [write("create", THING, Thing(id=f"m{i}", number=i)) for i in range(32)]
        with pytest.raises(AlreadyExists):
            await commit(store, *writes)
        assert await state(store, writes[0].key) is None
        done = await commit(store, *(msgspec.structs.replace(one, kind="insert") for one in writes))
        assert [one.version == first.version for one in done].index(True) == 7
        assert [one.changed for one in done].count(False) == 1
        twice = [write("put", THING, Thing(id=f"n{i % 31}", number=i)) for i in range(32)]
        done = await commit(store, *twice)
        assert [one.existed for one in done] == [False] * 31 + [True]
        assert (await live(store, twice[0].key))[1]["number"] == 31

    async def _numbers(self, store: Home, writes: Sequence[Write]) -> list[Thing]:
        records = await store.get([one.key for one in writes])
        return [THING.decode(one.body) for one in records if one is not None and one.body is not None]

    # -- conditions -------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("kind", ["put", "update", "delete"])
    async def test_a_write_with_an_expected_version_meets_exactly_that_version(self, kind: str) -> None:
        store: Home = await self.open()

        def expecting(version: int) -> Write:
            if kind == "put":
                return write("put", THING, Thing(id="a", word="new"), expect_version=version)
            if kind == "update":
                return update(THING, "a", {"word": "new"}, expect_version=version)
            return delete(THING, "a", expect_version=version)

        with pytest.raises(NotFound):
            await commit(store, expecting(1))
        assert await state(store, KEY) is None, "a write with an expected version never inserts"
        (first,) = await commit(store, put("a", word="old"))
        for wrong in (0, first.version - 1, first.version + 1):
            with pytest.raises(VersionConflict) as conflict:
                await commit(store, expecting(wrong))
            assert conflict.value.actual == first.version
        assert (await live(store, KEY))[1]["word"] == "old"
        (second,) = await commit(store, expecting(first.version))
        assert (second.existed, second.changed) == (True, True)
        assert second.version > first.version
        assert await self._gone(store) == (kind == "delete")
        (gone,) = await commit(store, delete(THING, "a"))
        record = await state(store, KEY)
        assert record is not None
        for version in (record.version, gone.version):
            with pytest.raises(NotFound):
                await commit(store, expecting(version))

    async def test_the_expected_version_is_judged_before_the_kind_of_the_write(self) -> None:
        store: Home = await self.open()
        (first,) = await commit(store, put("a", word="old"))
        for kind in ("create", "skip", "insert"):
            with pytest.raises(NotFound):
                await commit(store, write(kind, THING, Thing(id="absent"), expect_version=first.version))
            with pytest.raises(VersionConflict):
                await commit(store, write(kind, THING, Thing(id="a", word="old"), expect_version=first.version + 1))
        with pytest.raises(AlreadyExists):
            await commit(store, write("create", THING, Thing(id="a"), expect_version=first.version))
        for kind in ("skip", "insert"):
            (done,) = await commit(store, write(kind, THING, Thing(id="a", word="old"), expect_version=first.version))
            assert (done.changed, done.version) == (False, first.version)
