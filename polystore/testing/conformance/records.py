"""Records at a home or in a copy: every value, every key, every tenant, through pages, cancellation and close."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import math
import unicodedata
from decimal import Decimal
from typing import Any, Protocol, cast

import msgspec
import pytest

from polystore.errors import StoreError, Unavailable
from polystore.model import EVERYTHING, HASH_SPACE, Change, HashSpan, Key, Page, Stamp, key_hash
from polystore.protocols import Repository, SupportsInlineGet
from polystore.testing.conformance.base import Conformance, change, chunks, key_of, live, removal, same, state, turns
from polystore.testing.conformance.entities import (
    CODED,
    NFC,
    NFD,
    NUMBERED,
    THING,
    UUIDS,
    VALUES,
    Coded,
    Numbered,
    Thing,
)

HOSTILE_IDS = (
    *("a", "A", "a ", " a", "á", "%", "_", "a%", "a_", "\\", "'", '"', "`", ";", "'; DROP TABLE ps_tombstone; --"),
    *("a/b", "a.b", "a:b", "a,b", "a|b", "a\tb", "a\nb", "..", "/", "$name", "{id}", "null", "0", "00", "0x0", "-"),
    *("가나다", NFC, "👩\u200d👩\u200d👧", "\U0010ffff", "\uffff", "\x01", "\x7f", "x" * 512, "가" * 170),
)
"""Each is another key."""
COLLIDING = ("fee72ef6c8dd", "547c1be46ecd")
"""Two ids whose keys have one hash."""


def thing(id: str, version: int, *, tenant: str = "", **fields: Any) -> Change:
    return change(THING, Thing(id=id, **fields), version, tenant=tenant)


async def pages(
    repository: Repository, *, tenant: str = "", span: HashSpan = EVERYTHING, limit: int = 7, etype: str = THING.name
) -> list[Stamp]:
    """All stamps of a span, over as many pages as it takes."""
    stamps: list[Stamp] = []
    cursor: str | None = None
    while True:
        page: Page = await repository.scan(etype, tenant, span, cursor, limit)
        assert len(page.stamps) <= limit
        stamps.extend(page.stamps)
        if page.cursor is None:
            return stamps
        assert page.cursor != cursor, "the cursor does not move"
        cursor = page.cursor


class RecordsConformance(Conformance):
    """What is written comes back: subclass it for the copy, and with `home = True` for the home."""

    protocol = Repository
    types = (THING,)

    # -- get --------------------------------------------------------------------------------------------------

    async def test_get_answers_in_the_order_asked_with_repeats_and_gaps(self) -> None:
        store: Repository = await self.open()
        await self.write(store, [thing(id, i, word=id) for i, id in enumerate("abcde", 1)])
        asked = ["e", "nobody", "a", "e", "", "c", "a"]
        records = await store.get([Key("", THING.name, id) for id in asked])
        assert [r and r.key.id for r in records] == ["e", None, "a", "e", None, "c", "a"]
        assert [r and r.body and r.body["word"] for r in records] == ["e", None, "a", "e", None, "c", "a"]

    async def test_nothing_asked_is_nothing_answered(self) -> None:
        store: Repository = await self.open()
        assert await store.get([]) == []

    async def test_get_takes_more_keys_than_a_batch_of_changes(self) -> None:
        store: Repository = await self.open()
        await self.write(store, [thing("first", 1), thing("last", 2)])
        many = [key_of(THING, f"absent-{i}") for i in range(2_500)]
        records = await store.get([key_of(THING, "first"), *many, key_of(THING, "last")])
        assert [r and r.key.id for r in (records[0], records[-1])] == ["first", "last"]
        assert records[1:-1] == [None] * len(many)

    async def test_keys_that_look_alike_or_hurt_are_all_different(self) -> None:
        store: Repository = await self.open()
        versions = await self.write(store, [thing(id, i, number=i) for i, id in enumerate(HOSTILE_IDS, 1)])
        keys = [Key("", THING.name, id) for id in HOSTILE_IDS]
        records = await store.get(keys)
        assert [(r.key, r.version, r.body and r.body["id"]) for r in records if r] == [
            (key, versions[key], key.id) for key in keys
        ]
        assert sorted(s.id for s in await pages(store)) == sorted(HOSTILE_IDS)

    async def test_integer_and_uuid_keys_come_back_as_what_they_were(self) -> None:
        store: Repository = await self.open(NUMBERED, CODED)
        numbers = [0, -1, 9, 10, (1 << 63) - 1, -(1 << 63)]
        await self.write(store, [change(NUMBERED, Numbered(n, str(n)), i) for i, n in enumerate(numbers, 1)])
        await self.write(store, [change(CODED, Coded(u, str(u)), i) for i, u in enumerate(UUIDS, 1)])
        for n in numbers:
            assert same(dict((await live(store, key_of(NUMBERED, n)))[1]), {"number": n, "word": str(n)})
        for u in UUIDS:
            assert same(dict((await live(store, key_of(CODED, u)))[1]), {"code": u, "word": str(u)})

    async def test_every_value_comes_back_exactly(self) -> None:
        store: Repository = await self.open()
        changes = [
            thing(f"{field}-{i}", version, **{field: value})
            for version, (field, i, value) in enumerate(((f, i, v) for f in VALUES for i, v in enumerate(VALUES[f])), 1)
        ]
        versions = await self.write(store, changes)
        records = [r for part in chunks(changes, 200) for r in await store.get([c.key for c in part])]
        for wanted, record in zip(changes, records, strict=True):
            field = wanted.key.id.partition("-")[0]
            assert record is not None
            assert record.body is not None
            assert wanted.body is not None
            found = record.body[field]
            assert same(found, wanted.body[field]), f"{field}: {wanted.body[field]!r:.100} came back as {found!r:.100}"
            assert record.body.keys() == THING.fields.keys()
            assert THING.content_hash(record.body) == wanted.hash == record.hash
            assert record.version == versions[wanted.key]
            assert self.home or record.updated_us == wanted.updated_us
        assert {s.id: s.hash for s in await pages(store, limit=100)} == {c.key.id: c.hash for c in changes}

    async def test_negative_zero_is_zero_and_texts_keep_their_form(self) -> None:
        store: Repository = await self.open()
        await self.write(store, [thing("a", 1, ratio=-0.0, word=NFD, extra={"x": [-0.0, NFD]})])
        _, body = await live(store, key_of(THING, "a"))
        assert math.copysign(1, body["ratio"]) == math.copysign(1, body["extra"]["x"][0]) == 1
        assert body["word"] == body["extra"]["x"][1] == NFD != unicodedata.normalize("NFC", NFD)

    async def test_values_given_are_not_kept_and_values_returned_belong_to_the_caller(self) -> None:
        store: Repository = await self.open()
        given = thing("a", 1, tags=["x"], extra={"list": [1]})
        await self.write(store, [given])
        cast(dict[str, Any], given.body)["tags"].append("afterwards")
        for _ in range(2):
            _, body = await live(store, given.key)
            assert (body["tags"], body["extra"]) == (["x"], {"list": [1]})
            body["tags"].append("mine")
            body["extra"]["list"].clear()

    async def test_tenants_do_not_see_each_other(self) -> None:
        store: Repository = await self.open(NUMBERED)
        tenants = ("", "acme", "ACME", "acme ", "a%", "가", "x" * 128)
        changes = [thing("same", i, tenant=t, word=t) for i, t in enumerate(tenants, 1)]
        versions = {key: v for one in changes for key, v in (await self.write(store, [one])).items()}
        await self.write(store, [removal(changes[1].key, 100)])
        for one in (changes[0], *changes[2:]):
            version, body = await live(store, one.key)
            assert (version, body["word"]) == (versions[one.key], one.key.tenant)
            (stamp,) = await pages(store, tenant=one.key.tenant)
            assert stamp.hash == one.hash
        assert await pages(store, tenant="acme") == await pages(store, tenant="nobody") == []
        assert await store.get([Key("nobody", THING.name, "same")]) == [None]
        assert await store.tenants(THING.name) == sorted({*tenants} - {"acme"})
        assert await store.tenants(NUMBERED.name) == []

    # -- scan -------------------------------------------------------------------------------------------------

    async def test_scan_lists_live_records_by_hash_and_id_over_any_page_size(self) -> None:
        store: Repository = await self.open()
        ids = [*COLLIDING, *(f"id-{i}" for i in range(40))]
        changes = [thing(id, i, number=i) for i, id in enumerate(ids, 1)]
        versions = await self.write(store, changes)
        await self.write(store, [removal(changes[-1].key, 1000)])
        wanted = sorted((c.h, c.key.id, versions[c.key], c.hash) for c in changes[:-1])
        assert changes[0].h == changes[1].h
        for limit in (1, 2, 7, 41, 1000):
            found = await pages(store, limit=limit)
            assert [(s.h, s.id, s.version, s.hash) for s in found] == wanted
            assert not any(s.deleted or s.fault for s in found)

    async def test_scan_computes_the_hash_from_what_is_stored(self) -> None:
        """So that damage shows: a hash that came with the record says only what was once meant."""
        store: Repository = await self.open()
        given = thing("a", 1, word="가", price=Decimal("1.10"), tags=["x"])
        await self.write(store, [msgspec.structs.replace(given, hash=b"\1" * 16)])
        (stamp,) = await pages(store)
        assert stamp.hash == given.hash

    async def test_scan_keeps_to_the_span(self) -> None:
        store: Repository = await self.open(NUMBERED)
        changes = [thing(f"id-{i}", i + 1) for i in range(40)]
        await self.write(store, changes)
        hashes = sorted(c.h for c in changes)
        low, high = hashes[10], hashes[30]
        found = await pages(store, span=HashSpan(low, high), limit=3)
        assert [s.h for s in found] == [h for h in hashes if low <= h < high]
        assert await pages(store, span=HashSpan(low, low)) == []
        halves = [HashSpan(0, 1 << 31), HashSpan(1 << 31, HASH_SPACE)]
        assert [s.h for span in halves for s in await pages(store, span=span)] == hashes
        assert await pages(store, etype=NUMBERED.name) == []

    async def test_scan_misses_nothing_that_stands_still_while_others_change(self) -> None:
        store: Repository = await self.open()
        await self.write(store, [thing(f"id-{i}", i + 1) for i in range(30)])
        seen: list[str] = []
        cursor: str | None = None
        for turn in range(100):
            page = await store.scan(THING.name, "", EVERYTHING, cursor, 2)
            seen += [s.id for s in page.stamps]
            cursor = page.cursor
            if cursor is None:
                break
            await self.write(store, [thing(f"new-{turn}", 500 + turn)])
        assert len(seen) == len(set(seen))
        assert {f"id-{i}" for i in range(30)} <= set(seen)

    # -- connections ------------------------------------------------------------------------------------------

    async def test_a_second_connection_sees_the_same_data(self) -> None:
        first: Repository = await self.open()
        second: Repository = await self.open()
        versions = await self.write(first, [thing("a", 1, word="first")])
        assert (await live(second, key_of(THING, "a")))[0] == versions[key_of(THING, "a")]
        await self.write(second, [thing("a", 2, word="second")])
        assert (await live(first, key_of(THING, "a")))[1]["word"] == "second"

    async def test_a_cancelled_call_leaves_nothing_broken(self) -> None:
        store: Repository = await self.open()
        for turn in turns(40, 20):
            task = asyncio.create_task(self.write(store, [thing("a", 2 * turn + 1, number=turn), thing(f"{turn}", 1)]))
            for _ in range(turn % 10):
                await asyncio.sleep(0)
            if task.cancel():
                with pytest.raises(asyncio.CancelledError):
                    await task
            versions = await self.write(store, [thing("a", 2 * turn + 2, number=-turn)])
            version, body = await live(store, key_of(THING, "a"))
            assert (version, body["number"]) == (versions[key_of(THING, "a")], -turn)

    async def test_cancelled_reads_leave_nothing_broken(self) -> None:
        store: Repository = await self.open()
        await self.write(store, [thing(f"id-{i}", i + 1) for i in range(20)])
        keys = [key_of(THING, f"id-{i}") for i in range(20)]
        held = await self.versions(store, keys)
        for turn in turns(40, 20):
            reads: list[asyncio.Task[Any]] = [asyncio.create_task(store.get(keys)), asyncio.create_task(pages(store))]
            for _ in range(turn % 10):
                await asyncio.sleep(0)
            for read in reads:
                read.cancel()
            await asyncio.gather(*reads, return_exceptions=True)
            assert [r and r.version for r in await store.get(keys)] == held
        assert await self.versions(store, keys) == held

    async def versions(self, store: Repository, keys: list[Key]) -> list[int]:
        return [(await live(store, key))[0] for key in keys]

    async def test_close_may_come_twice_and_under_way(self) -> None:
        store: Repository = await self.open()
        await self.write(store, [thing(f"id-{i}", i + 1) for i in range(20)])
        keys = [key_of(THING, f"id-{i}") for i in range(20)]
        under_way = [asyncio.create_task(store.get(keys)) for _ in range(5)]
        await asyncio.sleep(0)
        await asyncio.gather(store.aclose(), store.aclose())
        await store.aclose()
        for answer in await asyncio.gather(*under_way, return_exceptions=True):
            _whole_or_error(answer)
        (late,) = await asyncio.gather(store.get(keys), return_exceptions=True)
        _whole_or_error(late)


def _whole_or_error(answer: object) -> None:
    """A call that meets the end has its result, or an error of the tree; never a part, never "not found"."""
    if isinstance(answer, list):
        assert len(cast(list[object], answer)) == 20
        assert all(cast(list[object], answer))
    else:
        assert isinstance(answer, StoreError), repr(answer)


class InlineGet(Repository, SupportsInlineGet, Protocol):
    pass


class InlineGetConformance(Conformance):
    """`get_now` is `get` of one key, or Unavailable."""

    protocol = SupportsInlineGet

    async def test_answers_as_get_does_and_sees_own_writes(self) -> None:
        store: InlineGet = await self.open()
        key = key_of(THING, "a")
        for wanted in (None, thing("a", 1, word="가", tags=["x"]), thing("a", 2), removal(key, 3), thing("a", 4)):
            if wanted is not None:
                await self.write(store, [wanted])
            expected = await state(store, key)
            for _ in range(2):
                found = await self._now(store, key)
                assert found == expected
                if found is not None and found.body is not None:
                    found.body["tags"].append("mine")
        assert await self._now(store, key_of(THING, "a", "acme")) is None

    async def _now(self, store: InlineGet, key: Key) -> Any:
        """What `get_now` says; where it keeps refusing, what `get` says, as callers do."""
        for _ in range(100):
            try:
                return copy.copy(store.get_now(key))
            except Unavailable:
                await asyncio.sleep(0.001)
        raise AssertionError("get_now never answers though nothing else is going on")

    async def test_raises_after_close_and_never_says_missing(self) -> None:
        store: InlineGet = await self.open()
        await self.write(store, [thing("a", 1)])
        await store.aclose()
        with contextlib.suppress(Unavailable):
            assert store.get_now(key_of(THING, "a")) is not None


assert key_hash("", THING.name, COLLIDING[0]) == key_hash("", THING.name, COLLIDING[1])
