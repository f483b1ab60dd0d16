"""A home's records that live for a time: absent when it is over, before anybody has deleted them."""

from __future__ import annotations

from typing import Protocol

import msgspec
import pytest

from polystore.errors import NotFound
from polystore.filters import F
from polystore.model import EVERYTHING, TargetRow, Write
from polystore.protocols import Repository, SupportsCommit, SupportsJournal
from polystore.testing.conformance.base import (
    Conformance,
    account,
    change,
    commit,
    delete,
    key_of,
    live,
    put,
    state,
    update,
    write,
)
from polystore.testing.conformance.entities import ACCOUNT, NUMBERED, THING, Account, Thing


class Home(Repository, SupportsCommit, SupportsJournal, Protocol):
    pass


KEY = key_of(THING, "a")
SECOND_US = 1_000_000


def mortal(id: str = "a", *, ttl_s: int = 60, word: str = "short") -> Write:
    return write("put", THING, Thing(id=id, word=word), ttl_us=ttl_s * SECOND_US)


def over(id: str = "a") -> Write:
    return Write("expire", key_of(THING, id), delete(THING, id).h, None)


class ExpiryConformance(Conformance):
    """Time to live: by the home's clock, in every read and for every kind of write."""

    protocol = SupportsCommit
    types = (THING, NUMBERED, ACCOUNT)
    home = True

    async def test_a_record_is_there_until_its_time_is_over_and_not_after(self) -> None:
        store: Home = await self.open()
        (done,) = await commit(store, mortal())
        assert abs(done.expires_us - done.updated_us - 60 * SECOND_US) <= SECOND_US
        record = await state(store, KEY)
        assert record is not None
        assert record.expires_us == done.expires_us
        self.env.forward(59)
        await live(store, KEY)
        self.env.forward(2)
        record = await state(store, KEY)
        assert record is not None
        assert (record.body, record.version) == (None, done.version), "it looks like a deleted record"

    async def test_what_has_expired_is_in_no_page_of_scan(self) -> None:
        store: Home = await self.open()
        await commit(store, mortal("a"), mortal("b", ttl_s=600), put("c"))
        self.env.forward(61)
        page = await store.scan(THING.name, "", EVERYTHING, None, 10)
        assert {stamp.id for stamp in page.stamps} == {"b", "c"}

    async def test_paging_of_scan_goes_on_behind_what_has_expired(self) -> None:
        store: Home = await self.open()
        for i in range(10):
            await commit(store, mortal(f"old{i}"), put(f"new{i}"))
        self.env.forward(61)
        found: list[str] = []
        cursor: str | None = None
        while True:
            page = await store.scan(THING.name, "", EVERYTHING, cursor, 2)
            found += [stamp.id for stamp in page.stamps]
            cursor = page.cursor
            if cursor is None:
                break
        assert sorted(found) == sorted(f"new{i}" for i in range(10))

    async def test_a_whole_write_without_a_time_to_live_is_for_ever(self) -> None:
        store: Home = await self.open()
        await commit(store, mortal())
        (done,) = await commit(store, put("a", word="again"))
        assert done.expires_us == 0
        self.env.forward(1000)
        await live(store, KEY)

    async def test_an_update_keeps_the_time_unless_it_says_another(self) -> None:
        store: Home = await self.open()
        (first,) = await commit(store, mortal())
        (kept,) = await commit(store, update(THING, "a", {"word": "other"}))
        assert kept.expires_us == first.expires_us
        (longer,) = await commit(store, Write("update", KEY, mortal().h, {}, ttl_us=600 * SECOND_US))
        assert longer.version > kept.version
        assert longer.expires_us > first.expires_us + 500 * SECOND_US
        assert longer.body == kept.body, "a write of nothing but the time leaves the content"
        self.env.forward(61)
        await live(store, KEY)

    async def test_the_same_content_with_a_new_time_is_no_repeat(self) -> None:
        store: Home = await self.open()
        (first,) = await commit(store, mortal())
        (same,) = await commit(store, write("skip", THING, Thing(id="a", word="short")))
        assert (same.changed, same.expires_us) == (False, first.expires_us)
        (longer,) = await commit(store, write("skip", THING, Thing(id="a", word="short"), ttl_us=600 * SECOND_US))
        assert longer.changed
        assert longer.expires_us > first.expires_us

    async def test_after_its_time_a_record_is_absent_for_every_write(self) -> None:
        store: Home = await self.open()
        (first,) = await commit(store, mortal())
        self.env.forward(61)
        for impossible in (
            update(THING, "a", {"word": "other"}),
            Write("update", KEY, mortal().h, {}, ttl_us=SECOND_US),
            write("put", THING, Thing(id="a"), expect_version=first.version),
        ):
            with pytest.raises(NotFound):
                await commit(store, impossible)
        (gone,) = await commit(store, delete(THING, "a"))
        assert (gone.existed, gone.changed) == (False, False)
        (created,) = await commit(store, write("create", THING, Thing(id="a", word="new")))
        assert (created.existed, created.changed) == (False, True)
        assert created.version > first.version
        assert (await live(store, KEY))[0] == created.version

    async def test_a_unique_value_is_free_when_its_holder_has_expired(self) -> None:
        store: Home = await self.open()
        await commit(store, write("put", ACCOUNT, Account(id="a", email="e@x"), ttl_us=60 * SECOND_US))
        self.env.forward(61)
        await commit(store, account("b", "e@x"))
        assert (await live(store, key_of(ACCOUNT, "b")))[1]["email"] == "e@x"
        record = await state(store, key_of(ACCOUNT, "a"))
        assert record is None or record.body is None

    async def test_who_lost_a_unique_value_by_its_time_may_be_written_anew_in_the_same_commit(self) -> None:
        store: Home = await self.open()
        await commit(store, write("put", ACCOUNT, Account(id="a", email="a@x"), ttl_us=60 * SECOND_US))
        self.env.forward(61)
        done = await commit(store, account("b", "a@x"), account("a", "b@x"))
        assert [one.existed for one in done] == [False, False]
        found = [await live(store, key_of(ACCOUNT, id)) for id in ("b", "a")]
        assert [body["email"] for _, body in found] == ["a@x", "b@x"]
        assert [version for version, _ in found] == [one.version for one in done]

    async def test_expired_lists_what_is_over_and_the_write_expire_deletes_it(self) -> None:
        store: Home = await self.open()
        await store.set_target(TargetRow(THING.name, "copy", 0, "active"))
        await commit(store, mortal("a"), mortal("b", ttl_s=600), put("c"))
        assert await store.expired([THING.name], 10) == []
        self.env.forward(61)
        assert await store.expired([THING.name], 10) == [KEY]
        assert await store.expired([NUMBERED.name], 10) == []
        (done,) = await commit(store, over())
        assert (done.changed, done.targets, done.body) == (True, 1, None)
        assert await store.expired([THING.name], 10) == []
        record = await state(store, KEY)
        assert record is not None
        assert (record.body, record.version) == (None, done.version)

    async def test_expire_leaves_alone_what_is_not_over(self) -> None:
        store: Home = await self.open()
        await commit(store, mortal("a"), put("b"))
        for id in ("a", "b", "nobody"):
            (done,) = await commit(store, over(id))
            assert not done.changed
        await live(store, KEY)
        await live(store, key_of(THING, "b"))
        self.env.forward(61)
        await commit(store, put("a", word="back"))
        (done,) = await commit(store, over())
        assert not done.changed, "it was written again after its time"

    async def test_of_many_expired_records_as_many_are_listed_as_were_asked_for(self) -> None:
        store: Home = await self.open()
        await commit(store, *(mortal(f"k{i}") for i in range(7)))
        self.env.forward(61)
        assert len(await store.expired([THING.name, NUMBERED.name], 3)) == 3
        assert len(await store.expired([THING.name, NUMBERED.name], 100)) == 7

    async def test_find_and_count_leave_out_what_has_expired(self) -> None:
        store = await self.open()
        await commit(store, mortal("a"), put("b", word="short"))
        where = THING.condition(F.word == "short")
        order = THING.sort(F.id)
        assert await store.count(THING.name, "", where) == 2
        self.env.forward(61)
        assert [one.key.id for one in await store.find(THING.name, "", where, order, 10)] == ["b"]
        assert [one.key.id for one in await store.find(THING.name, "", None, order, 10)] == ["b"]
        assert (await store.count(THING.name, "", where), await store.count(THING.name, "", None)) == (1, 1)


class CopyExpiryConformance(Conformance):
    """A copy knows the time that its records live, and tells nothing of them after it."""

    protocol = Repository

    async def test_a_copy_does_not_show_what_has_expired(self) -> None:
        store: Repository = await self.open()
        one = change(THING, Thing(id="a"), 5)
        ends = self.env.now_us() + 60 * SECOND_US
        await store.apply([msgspec.structs.replace(one, expires_us=ends)])
        record = await state(store, KEY)
        assert record is not None
        assert (record.expires_us, record.deleted) == (ends, False)
        self.env.forward(61)
        record = await state(store, KEY)
        assert record is None or record.deleted
        page = await store.scan(THING.name, "", EVERYTHING, None, 10)
        assert page.stamps == []
        await store.apply([change(THING, Thing(id="a", word="later"), 6)])
        assert (await live(store, KEY))[0] == 6, "a newer version stands whatever the older one's time was"
