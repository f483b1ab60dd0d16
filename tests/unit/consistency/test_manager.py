"""What the consistency manager promises, one behaviour a test, on stores that fail as told and in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest

from polystore.consistency import Settings
from polystore.embedding import pack, unpack
from polystore.errors import (
    Backpressure,
    ConfigurationError,
    InvalidData,
    SchemaMismatch,
    StalenessTimeout,
    Unavailable,
)
from polystore.model import EVERYTHING, Key, Placement, Settlement, StoredVector, text_hash, vector_digest
from polystore.protocols import Layout, SupportsJournal, VectorSpec
from tests.unit.consistency.world import World, simulated, until

HOUR_S = 3600.0


def test_a_write_waits_for_its_copies_only_when_asked() -> None:
    async def test(world: World) -> None:
        manager = await world.manager()
        world.copies["search"].stall_s = 0.2
        fast = await world.put(manager, "a", "나무")
        assert fast.stores == {"home": "committed", "search": "pending", "vectors": "pending"}
        assert world.text("search", "a") is None
        slow = await world.put(manager, "a", "숲", ack="applied")
        assert slow.stores == {"home": "committed", "search": "applied", "vectors": "applied"}
        assert world.text("search", "a") == world.text("vectors", "a") == "숲"
        one = await world.put(manager, "b", "산", ack=["vectors"])
        assert one.stores["vectors"] == "applied"
        assert one.stores["search"] == "pending"

    simulated(test)


def test_an_ack_that_times_out_says_pending_and_raises_nothing() -> None:
    async def test(world: World) -> None:
        manager = await world.manager()
        world.copies["search"].down = Unavailable("gone")
        result = await world.put(manager, "a", "나무", ack="applied", ack_timeout_s=1.0)
        assert result.stores == {"home": "committed", "search": "pending", "vectors": "applied"}
        assert result.version is not None

    simulated(test)


def test_an_ack_for_an_unknown_store_is_refused_before_anything_is_written() -> None:
    async def test(world: World) -> None:
        manager = await world.manager()
        with pytest.raises(ConfigurationError, match="serach"):
            await world.put(manager, "a", "나무", ack=["serach"])
        assert world.held("home", "a") is None

    simulated(test)


def test_a_delete_reaches_the_copies_as_a_tombstone() -> None:
    async def test(world: World) -> None:
        manager = await world.manager()
        await world.put(manager, "a", "나무", ack="applied")
        gone = await world.put(manager, "a", None, ack="applied")
        assert gone.existed
        for store in ("home", "search", "vectors"):
            record = world.held(store, "a")
            assert record is not None
            assert record.deleted
            assert record.version == gone.version
        again = await world.put(manager, "a", None)
        assert not again.existed
        assert again.version is None

    simulated(test)


def test_an_outage_of_two_hours_parks_nothing_and_heals_by_itself() -> None:
    async def test(world: World) -> None:
        manager = await world.manager()
        world.copies["search"].down = Unavailable("gone")
        for i in range(20):
            await world.put(manager, f"n{i}", "하나")
            await world.put(manager, f"n{i}", "둘")
        await asyncio.sleep(2 * HOUR_S)
        journal = world.servers["home"]
        assert journal.backlog().parked == {}
        assert journal.backlog().retry == {"search": 20}  # one row per record, not per write
        assert journal.backlog().outbox == 0
        assert world.text("vectors", "n7") == "둘"
        world.copies["search"].down = None
        await manager.settle(60)
        assert {world.text("search", f"n{i}") for i in range(20)} == {"둘"}

    simulated(test)


def test_a_dead_copy_is_not_called_while_its_breaker_is_open() -> None:
    async def test(world: World) -> None:
        manager = await world.manager()
        world.copies["search"].down = Unavailable("gone")
        for i in range(8):
            await world.put(manager, f"n{i}", "하나")
            await asyncio.sleep(0.1)
        await until(lambda: manager.stores["search"].breaker.open)
        before = world.copies["search"].calls
        await world.put(manager, "late", "둘")
        await asyncio.sleep(10)
        assert world.copies["search"].calls == before
        world.copies["search"].down = None
        await manager.settle(60)
        assert world.text("search", "late") == "둘"

    simulated(test)


def test_a_refused_record_is_parked_after_three_tries_and_holds_up_no_other() -> None:
    async def test(world: World) -> None:
        manager = await world.manager()
        world.copies["search"].refuses = lambda c: InvalidData("too strange") if c.key.id == "bad" else None
        bad = await world.put(manager, "bad", "독", ack="applied", ack_timeout_s=60)
        assert bad.stores["search"] == "failed"
        good = await world.put(manager, "good", "약", ack="applied")
        assert good.stores["search"] == "applied"
        (letter,), cursor = world.servers["home"].parked(None, None, 10)
        assert (letter.target, letter.key.id, letter.hard_fails, cursor) == ("search", "bad", 3, None)
        assert letter.error_class == "permanent:InvalidData"
        await manager.settle(5)  # parked is settled

    simulated(test)


def test_a_dead_letter_is_tried_again_by_redrive_and_by_a_newer_write() -> None:
    async def test(world: World) -> None:
        manager = await world.manager()
        world.copies["search"].refuses = lambda c: (
            InvalidData("too strange") if "독" in (c.body or {})["text"] else None
        )
        await world.put(manager, "a", "독", ack="applied", ack_timeout_s=60)
        await world.put(manager, "b", "독", ack="applied", ack_timeout_s=60)
        assert world.servers["home"].backlog().parked == {"search": 2}
        healed = await world.put(manager, "a", "약", ack="applied")
        assert healed.stores["search"] == "applied"
        await until(lambda: world.servers["home"].backlog().parked == {"search": 1})
        world.copies["search"].refuses = lambda c: None
        assert world.servers["home"].redrive("search", None) == 1
        await manager.settle(30)
        assert world.text("search", "b") == "독"

    simulated(test)


def test_a_call_that_fails_as_a_whole_is_bisected_to_the_bad_record() -> None:
    async def test(world: World) -> None:
        manager = await world.manager(lanes=1)
        world.copies["search"].poison = lambda c: c.key.id == "n13"
        writes = [world.write(manager, f"n{i}", "하나") for i in range(32)]
        await manager.write("note", writes)
        await until(lambda: sum(world.text("search", f"n{i}") == "하나" for i in range(32)) == 31)
        assert world.text("search", "n13") is None
        assert world.servers["home"].backlog().retry == {"search": 1}

    simulated(test)


def test_a_slow_copy_is_left_behind_and_does_not_delay_the_others() -> None:
    async def test(world: World) -> None:
        manager = await world.manager(lanes=1)
        for i in range(10):
            await world.put(manager, f"warm{i}", "하나", ack="applied")
        world.copies["search"].stall_s = 2.0
        started = world.env.monotonic()
        await world.put(manager, "a", "둘")
        await asyncio.sleep(0.01)
        after = await world.put(manager, "b", "셋", ack=["vectors"])
        assert after.stores["vectors"] == "applied"
        assert world.env.monotonic() - started < 1.0
        world.copies["search"].stall_s = 0.0
        await manager.settle(60)
        assert world.text("search", "a") == "둘"

    simulated(test)


def test_a_copy_that_was_left_behind_is_owed_what_it_has_not_brought_yet_and_sent_nothing_twice() -> None:
    async def test(world: World) -> None:
        manager = await world.manager(lanes=1)
        for i in range(10):
            await world.put(manager, f"warm{i}", "하나", ack="applied")
        calls = world.copies["search"].calls
        world.copies["search"].stall_s = 5.0
        for i in range(10):
            await world.put(manager, f"n{i}", "둘", ack=["vectors"])
        assert world.copies["search"].calls <= calls + 2, "calls pile up at a slow copy"
        await manager.settle(60)
        brought = [id for batch in world.copies["search"].batches for id in batch if id.startswith("n")]
        assert sorted(brought) == [f"n{i}" for i in range(10)]

    simulated(test)


def test_a_home_that_is_down_when_a_copy_that_was_left_behind_ends_is_told_of_and_survived() -> None:
    async def test(world: World) -> None:
        manager = await world.manager(lanes=1)
        for i in range(10):
            await world.put(manager, f"warm{i}", "하나", ack="applied")
        search, right, down = world.copies["search"], world.home.awaken, True

        async def awaken(*given: Any) -> int:
            if down:
                raise Unavailable("no route")
            return await right(*given)

        cast(Any, world.home).awaken = awaken
        search.stall_s = 5.0
        search.refuses = lambda change: Unavailable("full")
        await world.put(manager, "a", "둘", ack=["vectors"])
        await until(lambda: any("left behind" in problem for problem in manager.problems))
        search.stall_s, down = 0.0, False
        search.refuses = lambda change: None
        await manager.settle(120)
        assert world.text("search", "a") == "둘"

    simulated(test)


def test_retries_outlive_a_home_that_is_down_while_they_look_for_what_others_prepared() -> None:
    async def test(world: World) -> None:
        manager = await world.manager()
        line, search = manager.lines["home"], world.copies["search"]
        retries: Any = line.retries
        right, follow = retries._round, line.delivery.follow
        tried: list[str] = []

        async def unfit(name: str) -> bool:
            tried.append(name)
            raise SchemaMismatch("by somebody else")

        async def cut_off() -> bool:
            raise Unavailable("no route")

        retries._round, line.delivery.follow = unfit, cut_off
        line.retries.wake("search")
        await until(lambda: "search" in tried)
        retries._round, line.delivery.follow = right, follow
        search.down = Unavailable("gone")
        await world.put(manager, "a", "둘")
        await until(lambda: search.calls > 0)
        search.down = None
        await manager.settle(120)
        assert world.text("search", "a") == "둘"

    simulated(test)


def test_changes_of_one_record_are_coalesced_to_the_newest() -> None:
    async def test(world: World) -> None:
        manager = await world.manager()
        world.copies["search"].stall_s = 0.5
        for i in range(50):
            await world.put(manager, "a", f"글 {i}")
        await manager.settle(30)
        assert world.text("search", "a") == "글 49"
        assert sum(batch.count("a") for batch in world.copies["search"].batches) < 10

    simulated(test)


def test_what_a_dead_process_committed_is_delivered_by_another() -> None:
    async def test(world: World) -> None:
        first = await world.manager()
        second = await world.manager()
        for line in first.lines.values():  # dies: no lanes, no relay, no farewell
            await line.stop()
        await world.put(first, "a", "나무")
        assert world.text("search", "a") is None
        started = world.env.monotonic()
        await until(lambda: world.text("search", "a") == "나무")
        assert world.env.monotonic() - started < 7.5
        await second.settle(10)

    simulated(test)


def test_what_was_cut_off_after_the_commit_is_found_by_the_sweep() -> None:
    async def test(world: World) -> None:
        manager = await world.manager()
        line = manager.lines["home"]
        line.take = lambda task: False  # type: ignore[method-assign]  # the queue item is lost
        await world.put(manager, "a", "나무")
        del line.take
        assert world.servers["home"].backlog().outbox == 1
        await until(lambda: world.text("search", "a") == "나무")
        await manager.settle(10)

    simulated(test)


def test_a_full_queue_leaves_rows_to_the_relay_and_loses_none() -> None:
    async def test(world: World) -> None:
        manager = await world.manager(queue_max=5, batch_max=5)
        world.copies["search"].stall_s = 0.05
        writes = [world.write(manager, f"n{i}", "하나") for i in range(40)]
        for write in writes:
            await manager.write("note", [write])
        assert len(manager.lines["home"].in_hand) <= 5
        await manager.settle(120)
        assert all(world.text("search", f"n{i}") == "하나" for i in range(40))

    simulated(test)


def test_too_large_a_backlog_refuses_writes_and_writes_nothing() -> None:
    async def test(world: World) -> None:
        manager = await world.manager(backlog_soft=5, backlog_hard=10)
        for line in manager.lines.values():
            await line.lanes.stop()
        for i in range(12):
            await world.put(manager, f"n{i}", "하나")
        await until(lambda: manager.lines["home"].backlog.outbox == 12)
        with pytest.raises(Backpressure, match="home owes 12"):
            await world.put(manager, "more", "하나")
        assert world.held("home", "more") is None

    simulated(test)


def test_drain_delivers_what_is_in_hand_and_leaves_the_rest_ownerless() -> None:
    async def test(world: World) -> None:
        manager = await world.manager()
        world.copies["search"].stall_s = 0.2
        for i in range(10):
            await world.put(manager, f"n{i}", "하나")
        await manager.drain()
        assert world.servers["home"].backlog().outbox == 0
        await world.put(manager, "late", "둘")
        await manager.stop()
        other = await world.manager()
        started = world.env.monotonic()
        await other.settle(10)
        assert world.text("search", "late") == "둘"
        assert world.env.monotonic() - started < 3  # at once: nobody had to be seen dead first

    simulated(test)


def test_a_read_with_a_token_waits_for_the_copy_or_says_that_it_cannot() -> None:
    async def test(world: World) -> None:
        manager, other = await world.manager(), await world.manager()
        world.copies["search"].stall_s = 0.3
        result = await world.put(manager, "a", "나무")
        await other.caught_up("note", "search", result.token)
        assert world.text("search", "a") == "나무"
        world.copies["search"].down = Unavailable("gone")
        result = await world.put(manager, "a", "숲")
        for one in (manager, other):
            with pytest.raises(StalenessTimeout, match="search"):
                await one.caught_up("note", "search", result.token, timeout_s=1.0)
        await manager.caught_up("note", "home", result.token)

    simulated(test)


def test_a_new_copy_is_filled_and_only_then_asked() -> None:
    async def test(world: World) -> None:
        before = await world.manager(placement=Placement("note", "home", {"full_text": "search"}))
        for i in range(30):
            await world.put(before, f"n{i}", f"글 {i}")
        await world.put(before, "n3", None)
        await before.settle(10)
        await before.stop()
        after = await world.manager(backfill_chunk=7)
        with pytest.raises(Unavailable, match="still being filled"):
            after.readable("note", "vectors")
        after.readable("note", "search")
        await world.put(after, "n4", "새 글")
        await after.settle(60)
        after.readable("note", "vectors")
        assert world.text("vectors", "n4") == "새 글"
        assert [world.text("vectors", f"n{i}") for i in (0, 3, 29)] == ["글 0", None, "글 29"]

    simulated(test)


def test_a_copy_that_is_no_longer_placed_is_owed_nothing() -> None:
    async def test(world: World) -> None:
        first = await world.manager()
        await world.put(first, "a", "나무", ack="applied")
        await first.stop()
        second = await world.manager(placement=Placement("note", "home", {"full_text": "search"}))
        result = await world.put(second, "a", "숲", ack="applied")
        assert set(result.stores) == {"home", "search"}
        await second.settle(10)
        assert world.text("vectors", "a") == "나무"

    simulated(test)


class Service:
    """An embedder outside the process: slow, down, wrong, as told."""

    name, dimension, batch_max, chars_max = "service-1", 4, 3, 100

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.down = False
        self.stall_s = 0.05
        self.answer_dimension = 4

    async def embed(self, texts: Sequence[str], *, purpose: str) -> list[list[float]]:
        await asyncio.sleep(self.stall_s)
        if self.down:
            raise ConnectionError("refused")
        self.calls.append(list(texts))
        return [[float(len(text)), 1.0, 0.0, float(i)][: self.answer_dimension] for i, text in enumerate(texts)]


def test_an_embedder_outside_the_process_blocks_neither_commit_nor_other_copies() -> None:
    service = Service()

    async def test(world: World) -> None:
        service.stall_s = 30.0
        manager = await world.manager()
        result = await world.put(manager, "a", "나무", ack=["search"])
        assert result.stores["search"] == "applied"
        assert world.held("vectors", "a") is None  # never a record without its vector
        service.stall_s = 0.0
        await manager.settle(300)
        record = world.servers["vectors"].scan("note", "", EVERYTHING, None, 10).stamps[0]
        assert record.vectors

    simulated(test, embedder=service)


def test_unchanged_text_is_never_embedded_again() -> None:
    service = Service()

    async def test(world: World) -> None:
        manager = await world.manager()
        for _ in range(3):
            await world.put(manager, "a", "나무", ack="applied", ack_timeout_s=60)
        assert [text for call in service.calls for text in call] == ["나무"]
        await world.put(manager, "a", "숲", ack="applied", ack_timeout_s=60)
        assert [text for call in service.calls for text in call] == ["나무", "숲"]

    simulated(test, embedder=service)


def test_an_embedder_that_is_down_for_hours_is_an_outage_and_parks_nothing() -> None:
    service = Service()

    async def test(world: World) -> None:
        service.down = True
        manager = await world.manager()
        for i in range(10):
            await world.put(manager, f"n{i}", f"글 {i}")
        await asyncio.sleep(2 * HOUR_S)
        assert world.servers["home"].backlog().parked == {}
        assert world.text("search", "n3") == "글 3"
        service.down = False
        await manager.settle(120)
        assert world.text("vectors", "n3") == "글 3"
        assert max(map(len, service.calls)) <= service.batch_max

    simulated(test, embedder=service)


def test_a_text_that_changes_while_it_is_embedded_never_gets_the_old_vector() -> None:
    service = Service()

    async def test(world: World) -> None:
        service.stall_s = 2.0
        manager = await world.manager()
        await world.put(manager, "a", "일")
        await asyncio.sleep(1.0)
        await world.put(manager, "a", "이삼사오")
        await manager.settle(60)
        (stored,) = world.servers["home"].vectors([_key("a")])
        assert stored.text_hash == text_hash("이삼사오")
        assert unpack(stored.vector)[0] == 4.0
        (stamp,) = world.servers["vectors"].scan("note", "", EVERYTHING, None, 10).stamps
        assert stamp.vectors == {"text": vector_digest(pack(unpack(stored.vector)))}

    simulated(test, embedder=service)


def test_settings_that_contradict_one_another_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="batch_deadline_s < worker_dead_s"):
        Settings(batch_deadline_s=6.0)
    with pytest.raises(ConfigurationError, match="tombstone_ttl_s"):
        Settings(tombstone_ttl_s=60.0)


def test_the_journal_of_a_stopped_manager_has_no_worker_of_it() -> None:
    async def test(world: World) -> None:
        manager = await world.manager()
        other = await world.manager()
        await manager.stop()
        await manager.stop()  # twice is once
        live = await other.lines["home"].home.call(SupportsJournal.beat, other.worker)
        assert live == {other.worker}

    simulated(test)


def _key(id: str) -> Key:
    return Key("", "note", id)


def test_a_vector_stored_while_its_copy_was_tried_is_not_slept_over() -> None:
    """The copy misses the vector, the embedder stores it and awakens the row, the copy puts the row to sleep."""
    service = Service()

    async def test(world: World) -> None:
        service.stall_s = 3600.0
        manager = await world.manager()
        await world.put(manager, "a", "나무", ack=["search"])
        line = manager.lines["home"]
        inner = line.delivery.settle
        stored = StoredVector(_key("a"), "text", "service-1:4", text_hash("나무"), pack([1.0, 0.0, 0.0, 0.0]))

        async def settle(settlement: Settlement) -> None:
            if any(row.target == "vectors" for row in settlement.owed):
                world.servers["home"].put_vectors([stored])
                world.servers["home"].awaken("vectors", [_key("a")], 0)
            await inner(settlement)

        line.delivery.settle = settle  # type: ignore[method-assign]
        world.servers["home"].awaken("vectors", [_key("a")], 0)
        line.retries.wake("vectors")
        started = world.env.monotonic()
        await until(lambda: world.text("vectors", "a") == "나무")
        assert world.env.monotonic() - started < 1.0

    simulated(test, embedder=service)


def test_an_ack_waits_for_the_embedder_of_a_home_that_serves_vectors_itself() -> None:
    service = Service()

    async def test(world: World) -> None:
        note = world.types["note"]
        spec = {"text": VectorSpec(4, "cosine", "service-1:4")}
        world.servers["home"].prepare([Layout(note, True, frozenset({"vector"}), spec)], create=True)
        manager = await world.manager(placement=Placement("note", "home", {"vector": "home"}))
        fast = await world.put(manager, "a", "나무")
        assert fast.stores == {"home": "committed"}
        slow = await world.put(manager, "b", "숲", ack="applied")
        assert slow.stores == {"home": "committed", "embed:service-1:4": "applied"}
        found = world.servers["home"].similar("note", "", "text", pack([1.0, 1.0, 0.0, 0.0]), None, 10)
        assert "b" in [match.id for match in found]

    simulated(test, embedder=service)


def test_an_impossible_wait_is_refused_before_anything_is_written() -> None:
    async def test(world: World) -> None:
        manager = await world.manager()
        impossible: list[dict[str, Any]] = [
            {"ack": "applied", "ack_timeout_s": None},
            {"ack": "applied", "ack_timeout_s": "1"},
            {"ack": "applied", "ack_timeout_s": -1},
            {"ack": None},
            {"ack": 5},
            {"ack": "all"},
        ]
        for options in impossible:
            with pytest.raises(ConfigurationError, match="ack"):
                await world.put(manager, "a", "나무", **options)
        assert world.held("home", "a") is None

    simulated(test)
