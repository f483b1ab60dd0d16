"""What a journal keeps for stores that are down: all of it, in order, for one worker at a time, within its bound."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec
import pytest

from polystore.errors import Backpressure, VersionConflict
from polystore.model import Commit, Spill, SpillRow, Write
from polystore.protocols import SupportsCommit, SupportsSpill
from polystore.testing.conformance.base import Conformance, commit, put

BOUND = 1 << 20
AWAY_S = 5.0
"""How long taken rows stay away from others."""


class Keeping(SupportsCommit, SupportsSpill, Protocol):
    pass


def spill(n: int, *, store: str = "facts", kind: str = "points", etype: str = "thing", count: int = 1) -> Spill:
    return Spill(store, kind, etype, "", f"r{n}" if kind == "erase" else "", count, b"payload %d" % n)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def payloads(rows: Sequence[SpillRow]) -> list[bytes]:
    return [row.spill.payload for row in rows]


class SpillConformance(Conformance):
    """`spill`, `spilled`, `unspill`, `postpone`, `spills`, `erasing`, and `Commit.spills`."""

    protocol = SupportsSpill
    home = True

    async def test_what_is_kept_comes_back_until_it_is_delivered(self) -> None:
        store: Keeping = await self.open()
        other: Keeping = await self.open()
        given = [spill(1), spill(2, count=7)]
        await store.spill(given, BOUND)
        await store.spill([spill(3, store="other")], BOUND)
        rows = await other.spilled("facts", 100)
        assert [row.spill for row in rows] == given
        assert [row.attempts for row in rows] == [0, 0]
        assert await store.spilled("facts", 100) == [], "somebody has them"
        self.env.forward(AWAY_S + 1)
        assert await store.spilled("facts", 100) == rows
        await store.unspill([row.number for row in rows])
        await store.unspill([row.number for row in rows])
        self.env.forward(AWAY_S + 1)
        assert await other.spilled("facts", 100) == []
        assert payloads(await store.spilled("other", 100)) == [b"payload 3"]

    async def test_rows_come_in_order_and_what_goes_together(self) -> None:
        store: Keeping = await self.open()
        await store.spill([spill(1, count=4), spill(2, count=4)], BOUND)
        await store.spill([spill(3, count=4), spill(4, kind="erase"), spill(5, kind="erase"), spill(6)], BOUND)
        await store.spill([spill(7, etype="other")], BOUND)
        seen: list[list[bytes]] = []
        while rows := await store.spilled("facts", 9):
            seen.append(payloads(rows))
            await store.unspill([row.number for row in rows])
        assert seen == [[b"payload %d" % n for n in run] for run in ([1, 2], [3], [4], [5], [6], [7])]

    async def test_one_row_above_the_limit_comes_alone(self) -> None:
        store: Keeping = await self.open()
        await store.spill([spill(1, count=50), spill(2)], BOUND)
        assert payloads(await store.spilled("facts", 9)) == [b"payload 1"]

    async def test_later_rows_wait_for_the_first(self) -> None:
        store: Keeping = await self.open()
        await store.spill([spill(1, kind="erase")], BOUND)
        (first,) = await store.spilled("facts", 10)
        await store.spill([spill(2)], BOUND)
        assert await store.spilled("facts", 10) == []
        await store.postpone([first.number], 60_000_000, "Unavailable: away", False)
        self.env.forward(AWAY_S + 1)
        assert await store.spilled("facts", 10) == [], "postponed, and the one behind it waits"
        self.env.forward(60)
        (again,) = await store.spilled("facts", 10)
        assert (again.number, again.attempts, again.spill) == (first.number, 1, first.spill)
        await store.unspill([again.number])
        assert payloads(await store.spilled("facts", 10)) == [b"payload 2"]

    async def test_rows_put_aside_hold_up_no_others_and_come_again(self) -> None:
        store: Keeping = await self.open()
        await store.spill([spill(1), spill(2)], BOUND)
        bad, good = await store.spilled("facts", 10)
        await store.postpone([bad.number], 3_600_000_000, "InvalidData: no", True)
        await store.unspill([good.number])
        await store.spill([spill(3)], BOUND)
        assert payloads(await store.spilled("facts", 10)) == [b"payload 3"]
        (count,) = await store.spills()
        assert (count.rows, count.aside, count.error) == (2, 1, "InvalidData: no")
        self.env.forward(3700)
        assert b"payload 1" in payloads(await store.spilled("facts", 10)) + payloads(await store.spilled("facts", 10))

    async def test_counts_by_store(self) -> None:
        store: Keeping = await self.open()
        assert await store.spills() == []
        before = self.env.now_us()
        await store.spill([spill(1, count=3), spill(2, count=4)], BOUND)
        await store.spill([spill(3, store="other")], BOUND)
        facts, other = sorted(await store.spills(), key=lambda one: one.store)
        assert (facts.store, facts.rows, facts.facts, facts.bytes) == ("facts", 2, 7, 18)
        assert before - 1_000_000 <= facts.oldest_us <= self.env.now_us() + 1_000_000, "by the store's clock"
        assert (other.rows, other.facts, other.aside, other.error) == (1, 1, 0, "")

    async def test_beyond_the_bound_nothing_is_kept_and_the_bound_is_named(self) -> None:
        store: Keeping = await self.open()
        await store.spill([spill(1)], 25)
        with pytest.raises(Backpressure, match="spill_bytes_max") as caught:
            await store.spill([spill(2), spill(3)], 25)
        assert "25" in str(caught.value)
        assert sum(one.rows for one in await store.spills()) == 1
        rows = await store.spilled("facts", 10)
        await store.unspill([row.number for row in rows])
        await store.spill([spill(2), spill(3)], 25)
        assert sum(one.rows for one in await store.spills()) == 2

    # -- within a commit --------------------------------------------------------------------------------------

    async def test_a_commit_keeps_its_duties_or_nothing(self) -> None:
        store: Keeping = await self.open()
        duty = [spill(1, kind="erase")]
        await commit(store, put("a"), spills=duty)
        with pytest.raises(VersionConflict):
            await commit(store, put("b"), _stale(put("a")), spills=[spill(2, kind="erase")])
        good, bad = await store.commit(
            [Commit([put("c")], spills=[spill(3, kind="erase")]), Commit([_stale(put("a"))], spills=[spill(4)])]
        )
        assert not isinstance(good, Exception)
        assert isinstance(bad, VersionConflict)
        kept: list[bytes] = []
        while rows := await store.spilled("facts", 100):
            kept += payloads(rows)
            await store.unspill([row.number for row in rows])
        assert kept == [b"payload 1", b"payload 3"]

    async def test_a_record_that_lives_again_when_it_was_to_expire_keeps_its_points(self) -> None:
        """The sweeper comes late: the duty to erase is only that of a commit that did delete the record."""
        store: Keeping = await self.open()
        await commit(store, put("r1"))
        over = Write("expire", put("r1").key, put("r1").h, None)
        await commit(store, over, spills=[spill(1, kind="erase", etype=over.key.etype)])
        assert await store.spilled("facts", 100) == []
        await commit(store, msgspec.structs.replace(put("r1"), ttl_us=60_000_000))
        self.env.forward(61)
        await commit(store, over, spills=[spill(1, kind="erase", etype=over.key.etype)])
        assert [row.spill.id for row in await store.spilled("facts", 100)] == ["r1"]

    async def test_what_is_still_to_be_erased_is_known(self) -> None:
        store: Keeping = await self.open()
        await commit(store, put("a"), spills=[spill(1, kind="erase"), spill(1, kind="erase")])
        await store.spill([spill(2)], BOUND)
        asked = ["r1", "r2", "r3"]
        assert await store.erasing("facts", "thing", "", asked) == ["r1"]
        assert await store.erasing("other", "thing", "", asked) == []
        assert await store.erasing("facts", "other", "", asked) == []
        assert await store.erasing("facts", "thing", "acme", asked) == []
        rows = await store.spilled("facts", 100)
        assert await store.erasing("facts", "thing", "", asked) == ["r1"], "taken is not done"
        while rows:
            await store.unspill([row.number for row in rows])
            rows = await store.spilled("facts", 100)
        assert await store.erasing("facts", "thing", "", asked) == []


def _stale(write: Write) -> Write:
    return msgspec.structs.replace(write, expect_version=1)
