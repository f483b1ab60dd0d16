"""A cache: nothing older than the last invalidation is ever found, whatever is late, repeated or forgotten."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import ClassVar, Protocol

import pytest

from polystore.protocols import Fill, Invalidation, Leased, Repository, SupportsCache, SupportsInlineCache
from polystore.protocols.cache import INTENT_US, LEASE_US
from polystore.testing.conformance.base import Conformance

MINUTE_US = 60_000_000
NAME, OTHER = "acme/kit_thing/a", "acme/kit_thing/b"
VALUES = (b"", b"x", b"\x00\xff\x80", "이별".encode(), bytes(range(256)) * 200)


class CacheStore(SupportsCache, Repository, Protocol): ...


class InlineCacheStore(SupportsCache, SupportsInlineCache, Repository, Protocol): ...


class CacheConformance(Conformance):
    """The protocol of `SupportsCache`."""

    protocol: ClassVar[type] = SupportsCache
    types = ()

    async def later(self, seconds: float) -> None:
        """So much time goes by for the cache. Override it where the server has a clock of its own."""
        self.env.forward(seconds)

    # -- values -----------------------------------------------------------------------------------------------

    async def test_what_is_filled_in_under_its_lease_is_found_as_it_was(self) -> None:
        cache: CacheStore = await self.open()
        names = [f"acme/kit_thing/{i}" for i in range(len(VALUES))]
        assert await cache.lookup(names) == [None] * len(names)
        assert await cache.lease(names, 7) == ["leased"] * len(names)
        fills = [Fill(name, 7, 5, value, MINUTE_US) for name, value in zip(names, VALUES, strict=True)]
        assert await cache.fill(fills) == [True] * len(names)
        assert await cache.lookup([*reversed(names), OTHER, names[1]]) == [*reversed(VALUES), None, VALUES[1]]
        assert await cache.lookup([]) == []

    @pytest.mark.parametrize("name", ["a/b/c", "/kit_thing/%ea%b0%80", "a%2Fb/kit_thing/c%7B", "acme//front%20page"])
    async def test_names_are_told_apart(self, name: str) -> None:
        cache: CacheStore = await self.open()
        near = [name.upper(), name + "%", name[1:], "b" + name]
        await self.filled(cache, name, 5)
        assert await cache.lookup([name, *near]) == [b"5", None, None, None, None]

    async def test_a_value_goes_when_its_time_is_over(self) -> None:
        cache: CacheStore = await self.open()
        await self.filled(cache, NAME, 5, ttl_us=10_000_000)
        await self.later(9)
        assert await cache.lookup([NAME]) == [b"5"]
        await self.later(2)
        assert await cache.lookup([NAME]) == [None]
        assert await cache.lease([NAME], 3) == ["leased"]

    # -- leases -----------------------------------------------------------------------------------------------

    async def test_one_reader_has_the_lease_and_still_has_it_when_it_asks_again(self) -> None:
        cache: CacheStore = await self.open()
        assert await cache.lease([NAME], 1) == ["leased"]
        assert await cache.lease([NAME, OTHER], 2) == ["wait", "leased"]
        assert await cache.lease([NAME], 1) == ["leased"]
        assert await cache.fill([Fill(NAME, 1, 5, b"5", MINUTE_US)]) == [True]
        assert await cache.lease([NAME], 2) == [b"5"], "what was filled in meanwhile is the answer"

    async def test_nothing_is_filled_in_without_the_lease(self) -> None:
        cache: CacheStore = await self.open()
        assert await cache.fill([Fill(NAME, 1, 5, b"5", MINUTE_US)]) == [False]
        await cache.lease([NAME], 1)
        assert await cache.fill([Fill(NAME, 2, 5, b"5", MINUTE_US)]) == [False]
        assert await cache.lookup([NAME]) == [None]

    async def test_a_lease_is_good_for_one_fill(self) -> None:
        cache: CacheStore = await self.open()
        await self.filled(cache, NAME, 5, token=1)
        assert await cache.fill([Fill(NAME, 1, 6, b"6", MINUTE_US)]) == [False]
        assert await cache.lookup([NAME]) == [b"5"]

    async def test_a_lease_is_over_after_two_seconds_and_somebody_else_gets_it(self) -> None:
        cache: CacheStore = await self.open()
        await cache.lease([NAME, OTHER], 1)
        await self.later(LEASE_US / 1e6 + 0.1)
        assert await cache.lease([NAME], 2) == ["leased"]
        late = [Fill(NAME, 1, 5, b"5", MINUTE_US), Fill(OTHER, 1, 5, b"5", MINUTE_US)]
        assert await cache.fill(late) == [False, False]
        assert await cache.lookup([NAME, OTHER]) == [None, None]

    # -- invalidations ----------------------------------------------------------------------------------------

    async def test_what_was_read_before_a_write_is_not_filled_in_after_it(self) -> None:
        cache: CacheStore = await self.open()
        await cache.lease([NAME], 1)
        await cache.invalidate([Invalidation(NAME, 6)])
        assert await cache.fill([Fill(NAME, 1, 5, b"5", MINUTE_US)]) == [False]
        assert await cache.lookup([NAME]) == [None]

    async def test_an_invalidation_revokes_the_lease_whatever_the_version(self) -> None:
        """For names without versions, such as those that applications choose, there is no floor to help."""
        cache: CacheStore = await self.open()
        await cache.lease([NAME], 1)
        await cache.invalidate([Invalidation(NAME, None)])
        assert await cache.fill([Fill(NAME, 1, 0, b"0", MINUTE_US)]) == [False]
        assert await cache.lookup([NAME]) == [None]
        assert await cache.lease([NAME], 2) == ["leased"]
        assert await cache.fill([Fill(NAME, 2, 0, b"0", MINUTE_US)]) == [True], "a floor was left behind"
        await cache.invalidate([Invalidation(NAME, None)])
        assert await cache.lookup([NAME]) == [None]

    async def test_a_replica_that_is_behind_cannot_fill_in_under_a_new_lease(self) -> None:
        cache: CacheStore = await self.open()
        await cache.invalidate([Invalidation(NAME, 6)])
        assert await cache.lease([NAME], 1) == ["leased"]
        assert await cache.fill([Fill(NAME, 1, 5, b"5", MINUTE_US)]) == [False]
        await self.filled(cache, NAME, 6)
        assert await cache.lookup([NAME]) == [b"6"]

    async def test_an_older_value_goes_and_a_newer_one_stays(self) -> None:
        cache: CacheStore = await self.open()
        await self.filled(cache, NAME, 5)
        await self.filled(cache, OTHER, 7)
        await cache.invalidate([Invalidation(NAME, 6), Invalidation(OTHER, 6), Invalidation(OTHER, 7)])
        assert await cache.lookup([NAME, OTHER]) == [None, b"7"]
        await cache.invalidate([Invalidation(OTHER, 8), Invalidation(OTHER, 6)])
        assert await cache.lookup([OTHER]) == [None]
        await cache.lease([OTHER], 1)
        assert await cache.fill([Fill(OTHER, 1, 7, b"7", MINUTE_US)]) == [False], "the floor went down"

    async def test_what_is_known_to_be_absent_gives_way_to_a_write(self) -> None:
        cache: CacheStore = await self.open()
        await self.filled(cache, NAME, 0)
        await self.filled(cache, OTHER, 4)
        await cache.invalidate([Invalidation(NAME, 5), Invalidation(OTHER, 5)])
        assert await cache.lookup([NAME, OTHER]) == [None, None]

    async def test_a_new_value_takes_the_place_of_an_older_one_and_of_nothing_else(self) -> None:
        cache: CacheStore = await self.open()
        await self.filled(cache, NAME, 5)
        await cache.invalidate([Invalidation(NAME, 6, b"6", 10_000_000), Invalidation(OTHER, 6, b"6", MINUTE_US)])
        assert await cache.lookup([NAME, OTHER]) == [b"6", None]
        await cache.invalidate([Invalidation(NAME, 5, b"5", MINUTE_US)])
        assert await cache.lookup([NAME]) == [b"6"]
        await self.later(11)
        assert await cache.lookup([NAME]) == [None], "it has the time to live that it came with"

    async def test_two_late_invalidations_bring_nothing_back(self) -> None:
        """Write-through of what is not there would: between the two, the newer one may have been evicted."""
        cache: CacheStore = await self.open()
        await cache.invalidate([Invalidation(NAME, 7, b"7", MINUTE_US)])
        await cache.invalidate([Invalidation(NAME, 6, b"6", MINUTE_US)])
        assert await cache.lookup([NAME]) == [None]

    async def test_each_of_many_invalidations_in_one_call_is_its_own(self) -> None:
        cache: CacheStore = await self.open()
        names = [f"acme/kit_thing/{i}" for i in range(120)]
        fills = [Fill(name, 7, 5, b"5", MINUTE_US) for name in names]
        assert await cache.lease(names, 7) == ["leased"] * len(names)
        assert await cache.fill(fills) == [True] * len(names)
        kinds: list[tuple[int | None, bytes | None]] = [(6, b"6"), (6, None), (4, b"4"), (None, None)]
        told = [(one, *kinds[i % 4]) for i, one in enumerate(names)]
        await cache.invalidate([Invalidation(name, version, value, MINUTE_US) for name, version, value in told])
        assert await cache.lookup(names) == [b"6", None, b"5", None] * 30
        gone = [fill for i, fill in enumerate(fills) if i % 4 in (1, 3)]
        assert await cache.lease([fill.name for fill in gone], 7) == ["leased"] * len(gone)
        assert await cache.fill(gone) == [False, True] * 30

    # -- strict writes ----------------------------------------------------------------------------------------

    async def test_from_its_intent_to_its_invalidation_a_strict_write_keeps_everybody_out(self) -> None:
        cache: CacheStore = await self.open()
        await self.filled(cache, NAME, 5)
        await cache.lease([OTHER], 1)
        await cache.intend([NAME, OTHER], 40)
        assert await cache.lookup([NAME]) == [None]
        assert await cache.fill([Fill(OTHER, 1, 5, b"5", MINUTE_US)]) == [False]
        assert await cache.lease([NAME, OTHER], 2) == ["bypass", "bypass"]
        await cache.invalidate([Invalidation(NAME, 6, writer=41)])
        assert await cache.lease([NAME], 2) == ["bypass"], "the intent is another writer's"
        await cache.invalidate([Invalidation(NAME, 7, writer=40)])
        assert await cache.lease([NAME, OTHER], 2) == ["leased", "bypass"]

    async def test_the_intent_of_a_dead_writer_times_out(self) -> None:
        cache: CacheStore = await self.open()
        await cache.intend([NAME], 40)
        await self.later(INTENT_US / 1e6 - 1)
        assert await cache.lease([NAME], 1) == ["bypass"]
        await self.later(2)
        assert await cache.lease([NAME], 1) == ["leased"]

    # -- all of an entity -------------------------------------------------------------------------------------

    async def test_forget_removes_the_values_and_leases_of_one_entity(self) -> None:
        cache: CacheStore = await self.open()
        names = ["acme/kit_thing/a", "/kit_thing/b", "acme/kit_other/a", "kit_thing/kit_other/kit_thing"]
        for name in names:
            await self.filled(cache, name, 5)
        await cache.lease([OTHER, "acme/kit_other/b"], 1)
        await cache.forget("kit_thing")
        assert await cache.lookup(names) == [None, None, b"5", b"5"]
        late = [Fill(OTHER, 1, 5, b"5", MINUTE_US), Fill("acme/kit_other/b", 1, 5, b"5", MINUTE_US)]
        assert await cache.fill(late) == [False, True]

    # -- all at once ------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("seed", range(5))
    async def test_no_reader_finds_what_is_older_than_an_acknowledged_invalidation(self, seed: int) -> None:
        """Readers and writers of ten records, each step of each at a random time."""
        cache: CacheStore = await self.open()
        r = random.Random(seed)
        names = [f"acme/kit_thing/{i}" for i in range(10)]
        home, told = dict.fromkeys(names, 1), dict.fromkeys(names, 0)
        hits = 0

        async def write() -> None:
            name = r.choice(names)
            home[name] += 1
            version = home[name]
            await _pause(r)
            value = b"%d" % version if r.random() < 0.5 else None
            await cache.invalidate([Invalidation(name, version, value, MINUTE_US)])
            told[name] = max(told[name], version)

        async def read(token: int) -> None:
            nonlocal hits
            some = r.sample(names, 3)
            known = [told[name] for name in some]
            found = await cache.lookup(some)
            for name, floor, value in zip(some, known, found, strict=True):
                if value is not None:
                    hits += 1
                    assert int(value) >= floor, f"{name}: {value!r} was found after {floor} was invalidated"
            missed = [name for name, value in zip(some, found, strict=True) if value is None]
            await _pause(r)
            answers: Sequence[Leased] = await cache.lease(missed, token)
            leased = [name for name, answer in zip(missed, answers, strict=True) if answer == "leased"]
            await _pause(r)
            fills = [Fill(name, token, home[name], b"%d" % home[name], MINUTE_US) for name in leased]
            await _pause(r)
            await cache.fill(fills)

        async def work(worker: int) -> None:
            for i in range(80):
                if r.random() < 0.3:
                    await write()
                else:
                    await read(1 + worker * 1000 + i)

        await asyncio.gather(*map(work, range(6)))
        assert hits > 50

    async def filled(
        self, cache: SupportsCache, name: str, version: int, *, token: int = 999, ttl_us: int = MINUTE_US
    ) -> None:
        """The value of this version is there: its number, as text."""
        assert await cache.lease([name], token) == ["leased"]
        assert await cache.fill([Fill(name, token, version, b"%d" % version, ttl_us)]) == [True]


async def _pause(r: random.Random) -> None:
    for _ in range(r.choice((0, 0, 1, 5, 20))):
        await asyncio.sleep(0)


class InlineCacheConformance(CacheConformance):
    """A cache inside the process, which is asked and told without waiting."""

    protocol = SupportsInlineCache

    async def test_finds_at_once_what_lookup_finds(self) -> None:
        cache: InlineCacheStore = await self.open()
        assert cache.lookup_now(NAME) is None
        await self.filled(cache, NAME, 5, ttl_us=10_000_000)
        assert cache.lookup_now(NAME) == b"5"
        await self.later(11)
        assert cache.lookup_now(NAME) is None

    async def test_an_invalidation_at_once_does_what_one_that_is_waited_for_does(self) -> None:
        cache: InlineCacheStore = await self.open()
        await self.filled(cache, NAME, 5)
        await cache.lease([OTHER], 1)
        cache.invalidate_now([Invalidation(NAME, 6, b"6", MINUTE_US), Invalidation(OTHER, 6)])
        assert cache.lookup_now(NAME) == b"6"
        assert await cache.fill([Fill(OTHER, 1, 5, b"5", MINUTE_US)]) == [False]
