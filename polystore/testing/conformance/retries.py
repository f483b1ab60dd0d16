"""The journal of a home, second half: retry rows, dead letters, and what a copy still misses."""

from __future__ import annotations

from typing import Any

from polystore.model import (
    Done,
    RetryRow,
    Settlement,
    TargetRow,
    key_hash,
)
from polystore.testing.conformance.base import (
    commit,
    key_of,
    put,
    write,
)
from polystore.testing.conformance.entities import NUMBERED, THING, Numbered
from polystore.testing.conformance.outbox import HOUR_US, TYPES, Journal, JournalCase, owed


class RetriesConformance(JournalCase):
    """Retry rows and dead letters."""

    async def due_ids(self, store: Journal, target: str = "copy", *, ahead_us: int = 0) -> list[str]:
        rows = await store.due(target, TYPES, self.env.now_us() + ahead_us, 100)
        return [row.key.id for row in rows]

    async def test_what_a_copy_is_owed_comes_back_as_it_was_told(self) -> None:
        store = await self.journal()
        now = self.env.now_us()
        row = owed(
            "copy",
            "가",
            9,
            min_version=3,
            attempts=2,
            hard_fails=1,
            first_us=now - 9,
            next_us=now - 5,
            error_class="StoreTimeout",
            error="search apply: no answer",
        )
        await store.settle(Settlement(owed=[row]))
        assert await store.due("copy", TYPES, now, 10) == [row]
        assert await store.due("other", TYPES, now, 10) == []
        assert await store.due("copy", [NUMBERED.name], now + HOUR_US, 10) == []

    async def test_owed_rows_of_one_record_are_merged(self) -> None:
        """Amounts only grow; the time of the next attempt and the error are those of the newer version."""
        store = await self.journal()
        now = self.env.now_us()

        def told(version: int, min_version: int, next_us: int, attempts: int, **fields: Any) -> RetryRow:
            fields |= {"min_version": min_version, "next_us": next_us, "attempts": attempts, "error": f"of {version}"}
            return owed("copy", "a", version, **fields)

        for row in (
            told(5, 5, now - 20, 4, hard_fails=1, first_us=now - 100),
            told(7, 6, now - 30, 1, first_us=now - 50),
            told(6, 2, now - 10, 2),
            told(7, 7, now - 25, 3),
        ):
            await store.settle(Settlement(owed=[row]))
        other = key_of(THING, "a", "acme")
        await store.settle(Settlement(owed=[owed("copy", "a", 1, key=other, next_us=now - 40)]))
        await store.settle(Settlement(owed=[owed("search", "a", 4, next_us=now - 40)]))
        assert [r.key for r in await store.due("copy", TYPES, now - 26, 10)] == [other]
        assert await store.due("copy", TYPES, now, 10) == [
            told(7, 2, now - 25, 4, hard_fails=1, first_us=now - 100, state="r")
        ]

    async def test_done_removes_what_is_owed_up_to_the_applied_version(self) -> None:
        store = await self.journal()
        key, now = key_of(THING, "a"), self.env.now_us()
        await store.settle(Settlement(owed=[owed("copy", "a", 5), owed("search", "a", 5), owed("copy", "b", 5)]))
        await store.settle(Settlement(done=[Done("copy", key, 4), Done("copy", key_of(THING, "a", "acme"), 9)]))
        assert (await store.backlog()).retry == {"copy": 2, "search": 1}
        await store.settle(Settlement(owed=[owed("copy", "c", 3), owed("copy", "d", 1, state="p")]))
        assert (await store.backlog()).oldest == {(THING.name, "copy"): 3, (THING.name, "search"): 5}
        await store.settle(Settlement(done=[Done("copy", key_of(THING, "c"), 3), Done("copy", key_of(THING, "d"), 1)]))
        assert (await store.backlog()).oldest == {(THING.name, "copy"): 5, (THING.name, "search"): 5}
        await store.settle(Settlement(done=[Done("copy", key, 5)]))
        await store.settle(Settlement(done=[Done("copy", key, 5)]))
        assert (await store.backlog()).retry == {"copy": 1, "search": 1}
        await store.settle(Settlement(owed=[owed("copy", "b", 6, state="p", next_us=now)]))
        await store.settle(Settlement(done=[Done("copy", key_of(THING, "b"), 6)]))
        assert (await store.backlog()).parked == {}

    async def test_a_parked_row_stays_parked_until_something_newer_is_owed(self) -> None:
        store = await self.journal()
        await store.settle(Settlement(owed=[owed("copy", "a", 5, state="p", hard_fails=3)]))
        for version in (5, 4):
            await store.settle(Settlement(owed=[owed("copy", "a", version)]))
            assert await self.due_ids(store) == []
            ((row,), _) = await store.parked(None, None, 10)
            assert (row.state, row.version, row.min_version) == ("p", 5, version)
        await store.settle(Settlement(owed=[owed("copy", "a", 6)]))
        assert await store.parked(None, None, 10) == ([], None)
        (row,) = await store.due("copy", TYPES, self.env.now_us(), 10)
        assert (row.state, row.version, row.min_version) == ("r", 6, 4)
        await store.settle(Settlement(owed=[owed("copy", "a", 6, state="p")]))
        assert (await store.backlog()).parked == {"copy": 1}

    # -- retry rows -------------------------------------------------------------------------------------------

    async def test_due_rows_come_oldest_first_and_stay_away_for_five_seconds(self) -> None:
        store = await self.journal()
        now = self.env.now_us()
        rows = [owed("copy", f"{i}", i + 1, next_us=now - 100 + 10 * ((i * 7) % 10)) for i in range(10)]
        await store.settle(Settlement(owed=[*rows, owed("copy", "later", 1, next_us=now + 1_000_000)]))
        oldest = [r.key.id for r in sorted(rows, key=lambda r: r.next_us)]
        assert [r.key.id for r in await store.due("copy", TYPES, now, 4)] == oldest[:4]
        assert [r.key.id for r in await store.due("copy", TYPES, now, 100)] == oldest[4:]
        assert await store.due("copy", TYPES, now + 900_000, 100) == []
        assert await store.due("copy", TYPES, now + 4_900_000, 100) != []
        assert len(await store.due("copy", TYPES, now + 5_100_000, 100)) == 10
        assert (await store.backlog()).retry == {"copy": 11}

    async def test_waiting_rows_are_awakened_at_once_or_spread(self) -> None:
        store = await self.journal()
        far = self.env.now_us() + HOUR_US
        rows = [owed("copy", f"{i}", 1, next_us=far) for i in range(40)]
        await store.settle(Settlement(owed=[*rows, owed("copy", "p", 1, state="p", next_us=far)]))
        await store.settle(Settlement(owed=[owed("other", "a", 1, next_us=far)]))
        assert await self.due_ids(store) == []
        assert await store.awaken("copy", [key_of(THING, "3"), key_of(THING, "absent"), key_of(THING, "p")], 0) == 1
        assert await self.due_ids(store) == ["3"]
        assert await store.awaken("copy", None, 10_000_000) == 40
        soon = len(await self.due_ids(store, ahead_us=5_000_000))
        assert 0 < soon < 40
        assert len(await self.due_ids(store, ahead_us=11_000_000)) >= 40 - soon
        assert await self.due_ids(store, "other") == []

    async def test_pending_tells_what_a_copy_still_misses(self) -> None:
        store = await self.journal(
            TargetRow(THING.name, "copy", 2, "active"),
            TargetRow(THING.name, "search", 3, "active"),
            TargetRow(NUMBERED.name, "search", 3, "active"),
        )
        (first,) = await commit(store, put("a"))
        h = key_hash("", THING.name, "a")
        pair = (h, first.version)

        async def pending(*pairs: tuple[int, int]) -> list[bool]:
            return [await store.pending(THING.name, target, pairs) for target in ("copy", "search")]

        assert await pending(pair) == [True, True]
        assert await pending() == await pending((h, first.version + 1)) == [False, False]
        row = owed("search", "a", first.version, state="p")
        await store.settle(Settlement(delivered=[first.version], owed=[row]))
        assert await pending(pair) == await pending((h + 1, 1), pair) == [False, True]
        assert await pending((h, first.version + 1)) == [False, True]
        assert await pending((h, first.version - 1)) == await pending((h + 1, first.version)) == [False, False]
        assert not await store.pending(NUMBERED.name, "search", [pair])
        await store.settle(Settlement(done=[Done("search", key_of(THING, "a"), first.version)]))
        assert await pending(pair) == [False, False]

    async def test_a_copy_that_is_not_active_may_lack_anything(self) -> None:
        store = await self.journal(
            TargetRow(THING.name, "filling", 2, "backfilling"),
            TargetRow(THING.name, "out", 3, "off"),
            TargetRow(NUMBERED.name, "other", 3, "active"),
        )
        (first,) = await commit(store, put("a"))
        pair = (key_hash("", THING.name, "a"), first.version)
        await store.settle(Settlement(delivered=[first.version]))
        for target in ("filling", "out", "other"):
            assert await store.pending(THING.name, target, [pair]), target
        await store.set_target(TargetRow(THING.name, "filling", 2, "active"))
        assert not await store.pending(THING.name, "filling", [pair])

    # -- dead letters -----------------------------------------------------------------------------------------

    async def test_dead_letters_are_listed_page_by_page_by_target_and_key(self) -> None:
        store = await self.journal()
        rows = [
            owed(target, id, 1, key=key_of(THING, id, tenant), state="p", error_class="DecodeError", error="why")
            for target in ("copy", "search")
            for tenant in ("", "acme")
            for id in ("a", "b", "가", "B")
        ]
        await store.settle(Settlement(owed=[*rows, owed("copy", "waiting", 1)]))
        wanted = sorted(rows, key=lambda r: (r.target, r.key.tenant, r.key.etype, r.key.id))
        for target in (None, "copy", "nobody"):
            for limit in (1, 3, 100):
                assert await letters(store, target, limit) == [r for r in wanted if target in (None, r.target)]

    async def test_dead_letters_are_redriven_and_dropped(self) -> None:
        store = await self.journal()
        rows = [owed(t, id, 1, state="p", hard_fails=3) for t in ("copy", "search") for id in "abcd"]
        await store.settle(Settlement(owed=[*rows, owed("copy", "r", 1, next_us=self.env.now_us() + HOUR_US)]))
        keys = [key_of(THING, id) for id in ("a", "absent", "r")]
        assert await store.redrive("copy", keys) == 1
        (row,) = await store.due("copy", TYPES, self.env.now_us(), 10)
        assert (row.key.id, row.state, row.hard_fails) == ("a", "o", 0)
        assert await store.drop("search", keys) == 1
        assert await store.drop("nobody", None) == await store.redrive("nobody", None) == 0
        assert (await store.backlog()).parked == {"copy": 3, "search": 3}
        assert await store.drop(None, [key_of(THING, "b")]) == 2
        assert await store.redrive("copy", None) == 2
        assert sorted(await self.due_ids(store)) == ["c", "d"]
        assert await store.drop(None, None) == 2
        assert (await store.backlog()).retry == {"copy": 4}

    async def test_the_backlog_counts_what_is_owed(self) -> None:
        store = await self.journal()
        empty = await store.backlog()
        assert (empty.outbox, empty.oldest_us, empty.retry, empty.parked) == (0, None, {}, {})
        before = self.env.now_us()
        a, b = await commit(store, put("a"), put("b"))
        self.env.forward(100)
        await commit(store, put("c"))
        await store.settle(Settlement(owed=[owed("copy", "a", 1), owed("search", "b", 1, state="p")]))
        backlog = await store.backlog()
        assert (backlog.outbox, backlog.retry, backlog.parked) == (3, {"copy": 1}, {"search": 1})
        assert (backlog.owed, backlog.unsent) == ({(THING.name, "copy"): 1}, {THING.name: min(a.version, b.version)})
        assert backlog.oldest_us is not None
        assert before - 1_000_000 <= backlog.oldest_us <= before + 50_000_000
        await store.set_target(TargetRow(NUMBERED.name, "copy", 0, "active"))
        number = write("put", NUMBERED, Numbered(7))
        (late,) = await commit(store, number)
        other = owed("copy", "7", late.version, key=number.key)
        await store.settle(Settlement([a.version, b.version], [other, owed("copy", "b", 2)]))
        backlog = await store.backlog()
        assert backlog.owed == {(THING.name, "copy"): 2, (NUMBERED.name, "copy"): 1}
        assert backlog.oldest == {(THING.name, "copy"): 1, (NUMBERED.name, "copy"): late.version}
        assert backlog.unsent.keys() == {THING.name, NUMBERED.name}
        assert max(a.version, b.version) < backlog.unsent[THING.name] < backlog.unsent[NUMBERED.name] == late.version


async def letters(store: Journal, target: str | None, limit: int) -> list[RetryRow]:
    """All dead letters, over as many pages as it takes."""
    out: list[RetryRow] = []
    cursor: str | None = None
    while True:
        rows, cursor = await store.parked(target, cursor, limit)
        assert len(rows) <= limit
        out += rows
        if cursor is None:
            return out
