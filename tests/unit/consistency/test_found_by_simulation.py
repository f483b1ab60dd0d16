"""What the simulation found once, each in the smallest form that shows it."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from polystore.errors import InvalidData, OutcomeUnknown, StoreFull, Unavailable
from polystore.model import Key, Placement, RetryRow, Settlement, TargetRow, Write, key_hash
from tests.unit.consistency.world import World, simulated, until

REFUSED = InvalidData("a document that the index refuses")


def test_an_outage_does_not_park_what_was_refused_before() -> None:
    async def test(world: World) -> None:
        manager = await world.manager()
        search = world.copies["search"]
        search.refuses = lambda change: REFUSED if change.body and change.body["text"] == "독" else None
        await world.put(manager, "a", "독")
        await until(lambda: bool(world.servers["home"].backlog().parked))
        search.down = Unavailable("gone")
        await world.put(manager, "a", "나무")
        await asyncio.sleep(60)
        assert world.servers["home"].backlog().parked == {}
        search.down = None
        await manager.settle(60)
        assert world.text("search", "a") == "나무"

    simulated(test)


def test_a_dead_letter_older_than_its_record_is_tried_again() -> None:
    """A retry that had loaded the refused content may end, and park it, after the next one was delivered."""

    async def test(world: World) -> None:
        manager = await world.manager()
        old = await world.put(manager, "a", "독", ack="applied")
        new = await world.put(manager, "a", "나무", ack="applied")
        assert old.version is not None
        h = key_hash("", "note", "a")
        late = RetryRow("search", Key("", "note", "a"), h, old.version, old.version, "p", attempts=3, hard_fails=3)
        world.servers["home"].settle(Settlement(owed=[late]))
        await until(lambda: not world.servers["home"].backlog().parked, 30)
        await manager.settle(10)
        await manager.caught_up("note", "search", new.token)

    simulated(test)


def test_a_dead_letter_of_what_the_home_still_holds_stays_one() -> None:
    async def test(world: World) -> None:
        manager = await world.manager()
        world.copies["search"].refuses = lambda change: REFUSED
        await world.put(manager, "a", "독")
        await until(lambda: bool(world.servers["home"].backlog().parked))
        calls = world.copies["search"].calls
        await asyncio.sleep(120)
        assert world.copies["search"].calls == calls
        assert world.servers["home"].backlog().parked == {"search": 1}

    simulated(test)


def test_a_write_that_changed_nothing_does_not_say_that_copies_hold_it() -> None:
    async def test(world: World) -> None:
        manager = await world.manager()
        world.copies["search"].down = Unavailable("gone")
        first = await world.put(manager, "a", "나무")
        (again,) = await manager.write("note", [_skipping(world, "a", "나무")])
        assert (again.version, again.changed) == (first.version, False)
        assert again.stores["search"] == "pending"
        (waited,) = await manager.write("note", [_skipping(world, "a", "나무")], ack="applied", ack_timeout_s=1.0)
        assert waited.stores == {"home": "committed", "search": "pending", "vectors": "applied"}

    simulated(test)


def _skipping(world: World, id: str, text: str) -> Write:
    return replace(world.write(world.managers[0], id, text), kind="skip")


def test_a_queue_smaller_than_a_batch_takes_over_what_the_dead_left() -> None:
    async def test(world: World) -> None:
        first = await world.manager()
        for line in first.lines.values():
            await line.stop()
        for i in range(12):
            await world.put(first, f"n{i}", "하나")
        await world.manager(queue_max=5, batch_max=500)
        await until(lambda: all(world.text("search", f"n{i}") == "하나" for i in range(12)))

    simulated(test)


def test_leaving_a_home_that_takes_nothing_is_still_leaving() -> None:
    async def test(world: World) -> None:
        manager = await world.manager()

        async def full(worker: str) -> None:
            raise StoreFull("disk full")

        world.home.retire = full  # type: ignore[method-assign]
        await manager.stop()
        del world.home.retire
        assert any("disk full" in problem for problem in manager.problems)

    simulated(test)


def test_a_wait_for_copies_outlives_any_answer_of_the_journal() -> None:
    async def test(world: World) -> None:
        manager = await world.manager()
        world.copies["search"].down = Unavailable("gone")

        async def broken(*_args: object) -> bool:
            raise OutcomeUnknown("the connection broke")

        world.home.pending = broken  # type: ignore[method-assign, assignment]
        result = await world.put(manager, "a", "나무", ack="applied", ack_timeout_s=1.0)
        del world.home.pending
        assert result.stores["search"] == "pending"

    simulated(test)


def test_room_is_given_back_by_a_commit_that_failed() -> None:
    async def test(world: World) -> None:
        manager = await world.manager(queue_max=4, batch_max=4)
        gate = asyncio.Event()

        async def refused(_commits: object) -> None:
            await gate.wait()
            raise StoreFull("disk full")

        world.home.commit = refused  # type: ignore[method-assign, assignment]
        writing = asyncio.gather(*(world.put(manager, f"n{i}", "하나") for i in range(4)), return_exceptions=True)
        await until(lambda: manager.lines["home"].reserved == 4)
        waiting = asyncio.create_task(manager.room("note"))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        gate.set()
        await writing
        del world.home.commit
        await asyncio.wait_for(waiting, 30)

    simulated(test)


@pytest.mark.parametrize("forgotten", [False, True])
@pytest.mark.parametrize("others", [0, 7])
def test_a_copy_that_comes_back_loses_what_was_deleted_meanwhile(forgotten: bool, others: int) -> None:
    """Also when the home itself has purged the tombstone, and when it has no other record left to fill in."""

    async def test(world: World) -> None:
        first = await world.manager()
        for id in ("gone", "again", *(f"n{i}" for i in range(others))):
            await world.put(first, id, "나무", ack="applied")
        await first.stop()
        without = await world.manager(placement=Placement("note", "home", {"vector": "vectors"}))
        for id in ("gone", "again"):
            await world.put(without, id, None, ack="applied")
        await without.settle(30)
        await without.stop()
        if forgotten:
            assert world.servers["home"].purge(world.env.now_us() + 1, 0) == 2
        back = await world.manager(batch_max=3)
        with pytest.raises(Unavailable, match="still being filled"):
            back.readable("note", "search")
        new = await world.put(back, "again", "숲")
        await until(lambda: all(row.status == "active" for row in back.lines["home"].targets.rows()))
        await back.settle(30)
        assert world.text("search", "gone") is None
        assert world.text("search", "again") == "숲"
        held = world.held("search", "again")
        assert held is not None
        assert held.version == new.version
        assert all(world.text("search", f"n{i}") == "나무" for i in range(others))

    simulated(test)


def test_a_commit_that_names_a_copy_thought_to_be_off_is_delivered_to_it() -> None:
    """Another process has put the copy back since this one looked at the journal."""

    async def test(world: World) -> None:
        without = await world.manager(placement=Placement("note", "home", {"vector": "vectors"}), poll_s=3600.0)
        home = world.servers["home"]
        home.set_target(TargetRow("note", "search", 7, "off"))
        await without.lines["home"].targets.refresh()
        home.set_target(TargetRow("note", "search", 7, "active"))
        await world.put(without, "a", "나무")
        await until(lambda: world.text("search", "a") == "나무", 5)

    simulated(test)


def test_a_copy_out_of_service_is_not_read_and_its_debts_hold_up_nobody() -> None:
    async def test(world: World) -> None:
        first = await world.manager(poll_s=3600.0)
        world.copies["search"].down = Unavailable("gone")
        await world.put(first, "a", "나무")
        await asyncio.sleep(3)
        without = await world.manager(placement=Placement("note", "home", {"vector": "vectors"}))
        assert world.servers["home"].backlog().retry == {"search": 1}
        await without.settle(5)
        await first.lines["home"].targets.refresh()
        with pytest.raises(Unavailable, match="another process"):
            first.readable("note", "search")

    simulated(test)


def test_an_embedder_that_only_others_have_is_left_to_them() -> None:
    async def test(world: World) -> None:
        world.servers["home"].set_target(TargetRow("note", "embed:theirs", 9, "active"))
        manager = await world.manager()
        world.servers["home"].set_target(TargetRow("note", "embed:theirs", 9, "active"))  # they start after us
        await world.put(manager, "a", "나무")
        await asyncio.sleep(5)
        assert world.servers["home"].backlog().retry == {"embed:theirs": 1}
        assert manager.problems == {}

    simulated(test)


def test_a_copy_is_in_service_as_long_as_one_process_is_configured_with_it() -> None:
    """One with an older configuration that starts late, or a request of it that arrives late, takes it out for good."""

    async def test(world: World) -> None:
        current = await world.manager()
        await world.put(current, "a", "나무", ack="applied")
        older = await world.manager(placement=Placement("note", "home", {"vector": "vectors"}))
        missed = await world.put(older, "a", None, ack="applied")
        await world.put(older, "b", "숲", ack="applied")
        assert world.text("search", "a") == "나무"
        await until(lambda: world.text("search", "a") is None and world.text("search", "b") == "숲", 10)
        await until(lambda: all(row.status == "active" for row in current.lines["home"].targets.rows()), 10)
        await current.caught_up("note", "search", missed.token)
        assert any("put back" in problem for problem in current.problems)

    simulated(test)


def test_a_new_copy_that_does_not_answer_holds_up_no_other_new_copy() -> None:
    async def test(world: World) -> None:
        before = await world.manager(placement=Placement("note", "home", {}))
        for i in range(5):
            await world.put(before, f"n{i}", "나무")
        await before.stop()
        after = await world.manager()

        async def gone(etype: str) -> list[str]:
            raise Unavailable("gone")

        world.copies["search"].tenants = gone  # type: ignore[attr-defined]
        await until(
            lambda: {row.status for row in after.lines["home"].targets.rows() if row.name == "vectors"} == {"active"},
            20,
        )
        with pytest.raises(Unavailable, match="still being filled"):
            after.readable("note", "search")
        del world.copies["search"].tenants  # pyright: ignore[reportAttributeAccessIssue]
        await until(lambda: all(row.status == "active" for row in after.lines["home"].targets.rows()), 20)

    simulated(test)


def test_many_rows_that_were_lost_track_of_are_found_one_poll_after_the_other() -> None:
    """As after an import's commit that was carried out, though its connection broke."""

    async def test(world: World) -> None:
        manager = await world.manager(batch_max=5)
        line = manager.lines["home"]
        line.take = lambda task: False  # type: ignore[method-assign]
        for i in range(50):
            await world.put(manager, f"n{i}", "나무")
        del line.take
        await until(lambda: not world.servers["home"].backlog().outbox, 35)
        assert all(world.text("search", f"n{i}") == "나무" for i in range(50))

    simulated(test)
