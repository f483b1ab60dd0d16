"""The journal of a home, first half: what a commit owes, and who delivers it."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from msgspec.structs import replace

from polystore.model import (
    Commit,
    OpId,
    RetryRow,
    Settlement,
    TargetRow,
    key_hash,
)
from polystore.protocols import Repository, SupportsCommit, SupportsJournal
from polystore.testing.conformance.base import (
    Conformance,
    account,
    commit,
    committed,
    delete,
    key_of,
    live,
    put,
    update,
    write,
)
from polystore.testing.conformance.entities import ACCOUNT, NUMBERED, SPOT, THING, Numbered, Spot, Thing

HOUR_US = 3600 * 1_000_000
TYPES = (THING.name, NUMBERED.name, ACCOUNT.name, SPOT.name)


class Journal(Repository, SupportsCommit, SupportsJournal, Protocol):
    pass


def owed(target: str, id: str, version: int, **fields: Any) -> RetryRow:
    key = fields.pop("key", key_of(THING, id))
    fields.setdefault("state", "r")
    fields.setdefault("min_version", version)
    return RetryRow(target, key, key_hash(key.tenant, key.etype, key.id), version, **fields)


class JournalCase(Conformance):
    """A home with a journal."""

    protocol = SupportsJournal
    types = (THING, NUMBERED, ACCOUNT, SPOT)
    home = True

    async def journal(self, *targets: TargetRow) -> Journal:
        store: Journal = await self.open()
        for target in targets or (TargetRow(THING.name, "copy", 0, "active"),):
            await store.set_target(target)
        return store


class OutboxConformance(JournalCase):
    """Outbox rows, workers, targets and marks."""

    # -- outbox: owed by the commit itself --------------------------------------------------------------------

    async def test_a_commit_owes_every_change_to_all_copies_that_are_not_off(self) -> None:
        store = await self.journal(
            TargetRow(THING.name, "one", 0, "active"),
            TargetRow(THING.name, "two", 5, "backfilling"),
            TargetRow(THING.name, "embed:kit", 40, "active"),
            TargetRow(THING.name, "three", 7, "off"),
            TargetRow(NUMBERED.name, "one", 3, "active"),
        )
        mask = 1 | 1 << 5 | 1 << 40
        written = await commit(store, put("a"), write("put", NUMBERED, Numbered(1)), account("x", "x@y"))
        assert [w.targets for w in written] == [mask, 1 << 3, 0]
        (changed,) = await commit(store, update(THING, "a", {"word": "x"}))
        (gone,) = await commit(store, delete(THING, "a"))
        rows = await store.claim("w", frozenset({"w"}), TYPES, 100)
        assert [(r.version, r.key, r.h, r.targets, r.claims) for r in rows] == [
            (written[0].version, key_of(THING, "a"), key_hash("", THING.name, "a"), mask, 0),
            (written[1].version, key_of(NUMBERED, 1), key_hash("", NUMBERED.name, "1"), 1 << 3, 0),
            (changed.version, key_of(THING, "a"), key_hash("", THING.name, "a"), mask, 0),
            (gone.version, key_of(THING, "a"), key_hash("", THING.name, "a"), mask, 0),
        ]

    async def test_what_changes_nothing_and_what_fails_owes_nothing(self) -> None:
        store = await self.journal()
        (first,) = await commit(store, put("a"))
        same = write("skip", THING, Thing(id="a"))
        answers = await commit(store, same, write("insert", THING, Thing(id="a")), delete(THING, "absent"))
        assert [(w.changed, w.targets) for w in answers] == [(False, 0)] * 3
        await store.commit([Commit([put("b"), update(THING, "absent", {"word": "x"})], marks={"at": "7"})])
        assert await store.mark("at") is None
        rows = await store.claim("w", frozenset({"w"}), TYPES, 100)
        assert [r.version for r in rows] == [first.version]

    async def test_marks_become_durable_with_their_commit(self) -> None:
        store = await self.journal()
        assert await store.mark("import") is None
        for position in ("1", "2", "가"):
            await committed(store, Commit([put("a")], marks={"import": position, "other": "x"}))
            assert await store.mark("import") == position
        await committed(store, Commit([], marks={"import": "end"}))
        assert (await store.mark("import"), await store.mark("other")) == ("end", "x")

    # -- leases -----------------------------------------------------------------------------------------------

    async def test_one_worker_at_a_time_has_a_lease_and_may_go_on_holding_it(self) -> None:
        stores = [await self.journal(), await self.journal()]
        workers = [f"w{i}" for i in range(8)]
        asked = (stores[i % 2].hold_lease("a", worker, 60.0) for i, worker in enumerate(workers))
        owner = [worker for worker, has in zip(workers, await asyncio.gather(*asked), strict=True) if has]
        assert len(owner) == 1
        for store in stores:
            assert [worker for worker in workers if await store.hold_lease("a", worker, 60.0)] == owner
        assert await stores[1].hold_lease("b", "other", 60.0), "leases of other names are others"

    async def test_a_lease_that_is_given_up_is_anybodys_at_once(self) -> None:
        store = await self.journal()
        assert await store.hold_lease("a", "w1", 60.0)
        assert not await store.hold_lease("a", "w2", 0.0), "of others nobody gives it up"
        assert await store.hold_lease("a", "w1", 0.0)
        assert await store.hold_lease("a", "w2", 60.0)
        await store.retire("w2")
        assert not await store.hold_lease("a", "w1", 60.0), "who leaves may have sent something that is under way"

    async def test_a_lease_lasts_as_long_as_it_was_asked_for_last(self) -> None:
        store = await self.journal()
        assert await store.hold_lease("a", "w1", 0.02)
        assert await store.hold_lease("a", "w1", 60.0)
        await asyncio.sleep(0.03)
        assert not await store.hold_lease("a", "w2", 60.0)
        assert await store.hold_lease("a", "w1", 0.02)
        async with asyncio.timeout(10.0):
            while not await store.hold_lease("a", "w2", 60.0):  # noqa: ASYNC110 -- by the store's clock
                await asyncio.sleep(0.005)
        assert not await store.hold_lease("a", "w1", 60.0)

    # -- outbox: who delivers ---------------------------------------------------------------------------------

    async def test_rows_without_an_owner_are_claimed_once_oldest_first(self) -> None:
        store = await self.journal()
        written = await commit(store, *(put(f"{i}") for i in range(10)), account("x", "x@y"))
        both = frozenset({"w1", "w2"})
        await store.set_target(TargetRow(ACCOUNT.name, "copy", 0, "active"))
        await commit(store, account("x", "x@z"))
        first = await store.claim("w1", both, [THING.name], 4)
        second = await store.claim("w2", both, [THING.name], 100)
        assert [r.version for r in (*first, *second)] == [w.version for w in written[:10]]
        assert len(first) == 4
        assert await store.claim("w1", both, [THING.name], 100) == []
        assert await store.claim("w1", both, [], 100) == []
        assert [r.key for r in await store.claim("w1", both, TYPES, 100)] == [key_of(ACCOUNT, "x")]

    async def test_many_claimers_at_once_share_the_rows(self) -> None:
        stores = [await self.journal(), await self.journal()]
        written = await commit(stores[0], *(put(f"{i}") for i in range(60)))
        workers = frozenset(f"w{i}" for i in range(6))

        async def claimer(number: int) -> list[int]:
            got: list[int] = []
            while rows := await stores[number % 2].claim(f"w{number}", workers, TYPES, 7):
                got += [r.version for r in rows]
                assert len(got) <= len(written), "rows are handed out again"
            return got

        parts = await asyncio.gather(*(claimer(i) for i in range(6)))
        assert sorted(v for part in parts for v in part) == [w.version for w in written]

    async def test_rows_of_the_dead_are_taken_over_and_counted_and_those_of_the_living_are_not(self) -> None:
        store = await self.journal()
        (a,) = (await committed(store, Commit([put("a")], owner="w1"))).written
        (b,) = (await committed(store, Commit([put("b")], owner="w2"))).written
        assert await store.claim("w3", frozenset({"w1", "w2", "w3"}), TYPES, 100) == []
        (taken,) = await store.claim("w3", frozenset({"w2", "w3"}), TYPES, 100)
        assert (taken.version, taken.claims) == (a.version, 1)
        (again,) = await store.claim("w2", frozenset({"w2"}), TYPES, 100)
        assert (again.version, again.claims) == (a.version, 2)
        both = await store.claim("w4", frozenset({"w4"}), TYPES, 100)
        assert [(r.version, r.claims) for r in both] == [(a.version, 3), (b.version, 1)]

    async def test_rows_claimed_more_than_a_minute_ago_are_anybodys(self) -> None:
        store = await self.journal()
        (a,) = (await committed(store, Commit([put("a")], owner="w1"))).written
        both = frozenset({"w1", "w2"})
        self.env.forward(30)
        assert await store.claim("w2", both, TYPES, 100) == []
        self.env.forward(40)
        (taken,) = await store.claim("w2", both, TYPES, 100)
        assert (taken.version, taken.claims) == (a.version, 0), "its owner lives: this is no crash"
        assert await store.claim("w1", both, TYPES, 100) == []

    async def test_a_worker_finds_its_own_rows_again(self) -> None:
        store = await self.journal()
        (a,) = (await committed(store, Commit([put("a")], owner="w1"))).written
        await committed(store, Commit([put("b")], owner="w2"))
        self.env.forward(100)
        (c,) = (await committed(store, Commit([put("c")], owner="w1"))).written
        now = self.env.now_us()
        assert [r.version for r in await store.claimed("w1", now - 50_000_000, 100)] == [a.version]
        assert [r.version for r in await store.claimed("w1", now + 5_000_000, 100)] == [a.version, c.version]
        assert len(await store.claimed("w1", now + 5_000_000, 1)) == 1

    async def test_a_worker_that_retires_leaves_its_rows_to_the_others(self) -> None:
        store = await self.journal()
        assert "w1" in await store.beat("w1")
        assert {"w1", "w2"} <= await store.beat("w2")
        assert {"w1", "w2"} <= await store.beat("w1")
        await committed(store, Commit([put("a")], owner="w1"))
        await store.retire("w1")
        live = await store.beat("w2")
        assert "w1" not in live
        (row,) = await store.claim("w2", live | {"w1"}, TYPES, 100)
        assert (row.key, row.claims) == (key_of(THING, "a"), 0)
        await store.retire("w1")

    # -- settle -----------------------------------------------------------------------------------------------

    async def test_settle_removes_the_claimed_rows_and_no_other_and_may_be_repeated(self) -> None:
        store = await self.journal()
        first, second, third = await commit(store, put("a"), put("b"), put("c"))
        for _ in range(2):
            await store.settle(Settlement(delivered=[first.version, third.version]))
            rows = await store.claim("w", frozenset(), TYPES, 100)
            assert [r.version for r in rows] == [second.version]
            assert (await store.backlog()).outbox == 1
            await store.retire("w")
        await store.settle(Settlement())
        await store.settle(Settlement(delivered=range(1, 2_000)))
        assert (await store.backlog()).outbox == 1

    # -- targets, placements, backfill ------------------------------------------------------------------------

    async def test_targets_and_placements_are_remembered(self) -> None:
        store = await self.journal(TargetRow(THING.name, "copy", 0, "backfilling", "here"))
        await store.set_target(TargetRow(NUMBERED.name, "copy", 0, "off"))
        await store.set_target(TargetRow(THING.name, "search", 1, "active"))
        await store.set_target(TargetRow(THING.name, "copy", 0, "active", ""))
        assert sorted(await store.targets(), key=lambda t: (t.etype, t.name)) == [
            TargetRow(NUMBERED.name, "copy", 0, "off"),
            TargetRow(THING.name, "copy", 0, "active", ""),
            TargetRow(THING.name, "search", 1, "active"),
        ]
        search = TargetRow(THING.name, "search", 1, "active")
        await store.set_target(
            TargetRow(THING.name, "search", 1, "off"), TargetRow(THING.name, "search", 1, "backfilling")
        )
        assert search in await store.targets(), "decided on another state than stands"
        await store.set_target(TargetRow(THING.name, "search", 1, "off"), search)
        assert search not in await store.targets()
        graph = TargetRow(THING.name, "graph", 2, "backfilling")
        await store.set_target(graph, TargetRow(THING.name, "graph", 2, "active"))
        assert graph not in await store.targets()
        absent = TargetRow(THING.name, "graph", 2, "off")
        await store.set_target(graph, absent)
        assert graph in await store.targets(), "there was no such copy"
        await store.set_target(TargetRow(THING.name, "graph", 2, "active"), absent)
        assert graph in await store.targets(), "by now there is one"
        assert await store.placements() == {}
        for placement in ('{"home": "a"}', '{"home": "나"}'):
            await store.remember(THING.name, placement)
            await store.remember(NUMBERED.name, "{}")
            assert await store.placements() == {THING.name: placement, NUMBERED.name: "{}"}
        assert not await store.remember(THING.name, '{"home": "c"}', '{"home": "a"}'), (
            "decided on another one than stands"
        )
        assert (await store.placements())[THING.name] == '{"home": "나"}'
        for _ in range(2):
            assert await store.remember(THING.name, '{"home": "c"}', '{"home": "나"}'), "and may be repeated"
        assert (await store.placements())[THING.name] == '{"home": "c"}'

    async def test_a_backfill_owes_every_record_once_and_remembers_how_far_it_is(self) -> None:
        store = await self.journal(TargetRow(NUMBERED.name, "copy", 0, "active"))
        things = [write("put", THING, Thing(id=f"{i}"), tenant=f"t{i % 3}") for i in range(25)]
        written = await commit(store, *things)
        await commit(store, put("gone"), write("put", NUMBERED, Numbered(1)))
        await commit(store, delete(THING, "gone"))
        target = TargetRow(THING.name, "copy", 1, "backfilling")
        await store.set_target(target)
        newer = owed("copy", "0", written[0].version + 100, key=things[0].key, next_us=0)
        await store.settle(Settlement(owed=[newer]))
        cursors: list[str | None] = []
        while target.cursor != "":
            target = await store.backfill(target, 10)
            cursors.append(target.cursor)
            assert target in await store.targets()
            assert len(cursors) <= 4
        assert len(set(cursors)) == len(cursors) >= 3
        soon = self.env.now_us() + HOUR_US  # the clock of the store may be ahead of this one
        rows = {r.key: r for r in await store.due("copy", TYPES, soon, 100)}
        assert rows.keys() - {key_of(THING, "gone")} == {w.key for w in things}
        for one, done in zip(things[1:], written[1:], strict=True):
            assert (rows[one.key].state, rows[one.key].version, rows[one.key].h) == ("b", done.version, one.h)
        assert rows[things[0].key].version == newer.version
        anew = replace(target, cursor=None)  # it began anew, which somebody has not heard of
        await store.set_target(anew)
        assert await store.backfill(replace(target, cursor=cursors[0]), 10) == anew
        assert anew in await store.targets()

    # -- what was written lately ------------------------------------------------------------------------------

    async def test_what_was_written_since_a_version_is_listed_with_its_tombstones_in_the_order_of_versions(
        self,
    ) -> None:
        store = await self.journal()
        first = await commit(store, put("a"), put("b"), put("c"), write("put", SPOT, Spot(id="s", text="x")))
        (acme,) = await commit(store, write("put", THING, Thing(id="a"), tenant="acme"))
        (gone,) = await commit(store, delete(THING, "b"))
        (again,) = await commit(store, put("a", word="again"))
        wanted = [
            (first[2].version, key_of(THING, "c")),
            (acme.version, key_of(THING, "a", "acme")),
            (gone.version, key_of(THING, "b")),
            (again.version, key_of(THING, "a")),
        ]
        found = await store.written_since(THING.name, 0, 100)
        assert [(row.version, row.key) for row in found] == wanted
        assert [(row.h, row.targets) for row in found] == [(key_hash(k.tenant, k.etype, k.id), 0) for _, k in wanted]
        later = await store.written_since(THING.name, acme.version, 2)
        assert [(row.version, row.key) for row in later] == wanted[1:3]
        assert await store.written_since(THING.name, again.version + 1, 100) == []

    # -- tidying ----------------------------------------------------------------------------------------------

    async def test_old_tombstones_go_only_when_nothing_waits_for_them(self) -> None:
        store = await self.journal()
        await commit(store, put("settled"), put("owed"), put("failed"), put("parked"))
        gone = await commit(store, *(delete(THING, id) for id in ("settled", "owed", "failed", "parked")))
        rows = await store.claim("w", frozenset(), TYPES, 100)
        owing = {r.version for r in rows} - {gone[1].version}
        failed = owed("copy", "failed", gone[2].version), owed("copy", "parked", gone[3].version, state="p")
        await store.settle(Settlement(delivered=sorted(owing), owed=failed))
        assert await store.purge(self.env.now_us(), HOUR_US) == 0
        self.env.forward(3601)
        assert await store.purge(self.env.now_us(), HOUR_US) == 1
        left = await store.get([key_of(THING, id) for id in ("settled", "owed", "failed", "parked")])
        assert [r and r.version for r in left] == [None, *(w.version for w in gone[1:])]
        (again,) = await commit(store, put("settled"))
        assert again.version > gone[0].version
        assert (await live(store, key_of(THING, "settled")))[0] == again.version

    async def test_operation_ids_are_remembered_for_a_day(self) -> None:
        store = await self.journal()
        one = Commit([put("a")], op=OpId("", "op", b"content"))
        await committed(store, one)
        self.env.forward(23 * 3600)
        await store.purge(self.env.now_us(), HOUR_US)
        assert (await committed(store, one)).repeated
        self.env.forward(2 * 3600)
        assert await store.purge(self.env.now_us(), HOUR_US) == 1
        assert not (await committed(store, one)).repeated
