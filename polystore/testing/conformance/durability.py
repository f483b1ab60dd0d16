"""What a store keeps when all its connections end: everything that it ever said was done."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from polystore.errors import InvalidData, OutcomeUnknown, StoreError
from polystore.model import Commit, Committed, OpId, Settlement, StoredVector, TargetRow, text_hash
from polystore.protocols import Repository, SupportsCommit, SupportsJournal
from polystore.testing.conformance.base import (
    Conformance,
    commit,
    committed,
    delete,
    key_of,
    live,
    put,
    removal,
    state,
    write,
)
from polystore.testing.conformance.entities import SPOT, THING, Spot
from polystore.testing.conformance.outbox import HOUR_US, TYPES, Journal, owed
from polystore.testing.conformance.records import pages, thing


class DurabilityConformance(Conformance):
    """Close and connect again: for stores that keep what they hold. As a copy; with `home = True` as a home."""

    protocol = Repository

    async def test_records_and_tombstones_are_there_again(self) -> None:
        store: Repository = await self.open()
        versions = await self.write(store, [thing("a", 1, word="가"), thing("b", 2), thing("c", 3)])
        versions |= await self.write(store, [removal(key_of(THING, "b"), 9)])
        stamps, newest, data_id = await pages(store), await store.newest(THING.name), (await store.ping()).data_id
        assert newest == max(versions.values())
        await store.aclose()
        store = await self.open()
        assert (await store.newest(THING.name), (await store.ping()).data_id) == (newest, data_id)
        assert (await live(store, key_of(THING, "a")))[1]["word"] == "가"
        gone = await state(store, key_of(THING, "b"))
        assert gone is not None
        assert (gone.version, gone.deleted) == (versions[gone.key], True)
        assert await pages(store) == stamps
        if not self.home:
            assert [o.status for o in await store.apply([thing("b", 8), thing("a", 1)])] == ["stale", "stale"]

    async def test_what_was_done_when_the_end_came_is_there_and_nothing_in_halves(self) -> None:
        store: Repository = await self.open()
        batches = [[thing(f"{n}-{i}", 10 + n) for i in range(20)] for n in range(20)]
        tasks = [asyncio.create_task(self.write(store, batch)) for batch in batches]
        for _ in range(5):
            await asyncio.sleep(0)
        await store.aclose()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        store = await self.open()
        for batch, answer in zip(batches, answers, strict=True):
            there = [record is not None for record in await store.get([c.key for c in batch])]
            if isinstance(answer, BaseException):
                assert isinstance(answer, StoreError), repr(answer)
                if self.home:
                    assert not any(there) or (isinstance(answer, OutcomeUnknown) and all(there))
            else:
                assert all(there)


class HomeDurabilityConformance(Conformance):
    """Close and connect again: versions go on, and the journal owes what it owed."""

    protocol = SupportsJournal
    home = True
    types = (THING, SPOT)

    async def again(self, store: Journal) -> Journal:
        await store.aclose()
        reopened: Journal = await self.open()
        return reopened

    async def test_versions_go_on_where_they_were(self) -> None:
        store: Journal = await self.open()
        assert SupportsCommit in store.capabilities
        last = 0
        for _ in range(3):
            for one in (put("a"), delete(THING, "a"), put("b")):
                (written,) = await commit(store, one)
                assert written.version > last
                last = written.version
            store = await self.again(store)

    async def test_the_journal_owes_what_it_owed(self) -> None:
        store: Journal = await self.open()
        target = TargetRow(THING.name, "copy", 3, "active", "here", "data-1")
        await store.set_target(target)
        await store.remember(THING.name, '{"home": "main"}')
        mine = await committed(store, Commit([put("a")], owner="w1", marks={"import": "7"}))
        (free,) = await commit(store, put("b"))
        rows = [owed("copy", "r", 5, next_us=self.env.now_us() + HOUR_US), owed("copy", "p", 6, state="p", error="why")]
        await store.settle(Settlement(owed=rows))
        vector = StoredVector(key_of(SPOT, "s"), "text", "kit", text_hash("one"), b"\1" * 16)
        await commit(store, write("put", SPOT, Spot(id="s", text="one")))
        await store.put_vectors([vector])
        before = await store.backlog()
        store = await self.again(store)
        assert await store.backlog() == before
        assert (await store.targets(), await store.placements()) == ([target], {THING.name: '{"home": "main"}'})
        assert await store.mark("import") == "7"
        assert await store.vectors([vector.key]) == [vector]
        claimed = await store.claim("w2", frozenset({"w1", "w2"}), TYPES, 10)
        assert [r.version for r in claimed] == [free.version]
        own = await store.claimed("w1", self.env.now_us() + HOUR_US, 10)
        assert [r.version for r in own] == [mine.written[0].version]
        assert await store.parked(None, None, 10) == ([rows[1]], None)
        assert await store.due("copy", TYPES, rows[0].next_us, 10) == [rows[0]]

    async def test_operation_ids_are_remembered(self) -> None:
        store: Journal = await self.open()
        one = Commit([put("a", number=1)], op=OpId("", "op", b"content"))
        first = await committed(store, one)
        store = await self.again(store)
        again = await committed(store, one)
        assert (again.repeated, again.written[0].version) == (True, first.written[0].version)
        with pytest.raises(InvalidData):
            await committed(store, Commit([put("a")], op=OpId("", "op", b"other")))

    async def test_a_commit_is_known_to_whoever_asks_again_after_the_end(self) -> None:
        """The end comes while commits are under way: each, sent again with its op_id, is carried out exactly once."""
        store: Journal = await self.open()
        commits = [Commit([put(f"{i}", number=i)], op=OpId("", f"op-{i}", b"c")) for i in range(20)]
        tasks = [asyncio.create_task(store.commit([one])) for one in commits]
        for _ in range(4):
            await asyncio.sleep(0)
        store = await self.again(store)
        answers: list[Any] = await asyncio.gather(*tasks, return_exceptions=True)
        for one, answer in zip(commits, answers, strict=True):
            done = await committed(store, one)
            version, body = await live(store, one.writes[0].key)
            assert (version, body["number"]) == (done.written[0].version, (one.writes[0].body or {})["number"])
            if isinstance(answer, list):
                (first,) = answer  # pyright: ignore[reportUnknownVariableType]
                assert isinstance(first, Committed)
                assert (done.repeated, first.written[0].version) == (True, version)
            else:
                assert isinstance(answer, StoreError), repr(answer)

    async def test_a_worker_whose_connection_ended_is_dead(self) -> None:
        first: Journal = await self.open()
        second: Journal = await self.open()
        await first.beat("w1")
        assert {"w1", "w2"} <= await second.beat("w2")
        await first.aclose()
        self.env.forward(6)
        assert await second.beat("w2") == {"w2"}
