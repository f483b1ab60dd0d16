"""Rate limits and channels."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import NamedTuple, cast

import pytest

from polystore.errors import Unavailable
from polystore.model import Key
from polystore.protocols import Repository, SupportsState
from polystore.rates import MERGED, Rate, RateKind
from polystore.testing.conformance.entities import WORDS
from polystore.testing.conformance.state import LiveConformance, fields

ARRIVES_S = 5.0


class Taken(NamedTuple):
    """An answer that was asked for at `before_us` and had come by `after_us`."""

    before_us: int
    after_us: int
    cost: int


def key_of(id: str = "a", tenant: str = "", name: str = "login") -> Key:
    return Key(tenant, name, id)


class LimitConformance(LiveConformance):
    def rate(self, kind: RateKind, limit: int = 3, burst: int | None = None) -> Rate:
        return Rate(kind, limit, self.unit_us(), limit if burst is None else burst)

    async def ask(self, store: SupportsState, rate: Rate, cost: int) -> tuple[bool, Taken]:
        before_us = self.env.now_us()
        allowed = (await store.take_allowance(key_of(), rate, cost)).allowed
        return allowed, Taken(before_us, self.env.now_us(), cost)

    @pytest.mark.parametrize("seed", range(4))
    async def test_no_window_ever_holds_more_than_the_limit(self, seed: int) -> None:
        store, r = await self.open(), random.Random(seed)
        rate = self.rate("sliding_window", limit=r.choice((1, 3, 10)))
        taken: list[Taken] = []
        for _ in range(80):
            allowed, one = await self.ask(store, rate, r.choice((1, 1, 1, min(2, rate.limit))))
            if allowed:
                taken.append(one)
                check_windows(rate, taken)
            else:
                longest_us = rate.per_us + rate.per_us // MERGED + 1
                near = sum(other.cost for other in taken if other.after_us > one.before_us - longest_us)
                assert near + one.cost > rate.limit, "refused, though there was room"
            await self.time_passes(r.choice((0, 0, 0, 0.004, 0.1, 0.3, 0.99)))

    @pytest.mark.parametrize("seed", range(4))
    async def test_a_bucket_gives_its_burst_and_its_rate_and_no_more(self, seed: int) -> None:
        store, r = await self.open(), random.Random(seed)
        rate = self.rate("token_bucket", r.choice((1, 3, 10)), burst=r.choice((1, 4)))
        taken: list[Taken] = []
        surely, last_us = float(rate.burst), self.env.now_us()
        for _ in range(80):
            allowed, one = await self.ask(store, rate, r.randint(1, min(2, rate.burst)))
            surely = min(float(rate.burst), surely + max(one.before_us - last_us, 0) * rate.limit / rate.per_us)
            last_us = one.after_us
            if allowed:
                taken.append(one)
                surely = max(surely - one.cost, 0.0)
                check_bursts(rate, taken)
            else:
                assert surely < one.cost, "refused, though there were tokens"
            await self.time_passes(r.choice((0, 0, 0, 0.004, 0.1, 0.3, 2)))

    @pytest.mark.parametrize("kind", ["sliding_window", "token_bucket"])
    async def test_a_limit_holds_while_real_time_runs(self, kind: RateKind) -> None:
        store, taken = await self.open(), list[Taken]()
        rate = Rate(kind, 4, 30_000, 4)
        while len(taken) < 20:
            allowed, one = await self.ask(store, rate, 1)
            if allowed:
                taken.append(one)
            (check_windows if kind == "sliding_window" else check_bursts)(rate, taken)
            await asyncio.sleep(0.001)

    async def test_a_window_slides_and_does_not_begin_anew_at_a_boundary(self) -> None:
        store, rate = await self.open(), self.rate("sliding_window")
        for phase in "abcd":
            key = key_of(phase)
            assert (await store.take_allowance(key, rate, 3)).allowed
            await self.time_passes(0.7)
            refused = await store.take_allowance(key, rate, 1)
            assert (refused.allowed, refused.remaining) == (False, 0)
            assert 0 < refused.retry_after_s <= 0.31 * self.unit_s
            await self.time_passes(0.35)
            assert (await store.take_allowance(key, rate, 3)).allowed
            await self.time_passes(0.25)

    @pytest.mark.parametrize("kind", ["sliding_window", "token_bucket"])
    async def test_takers_at_once_get_the_limit_and_no_more(self, kind: RateKind) -> None:
        stores = [await self.open(), await self.open()]
        rate = self.rate(kind, limit=17)
        answers = await asyncio.gather(*(stores[n % 2].take_allowance(key_of(), rate, 1) for n in range(60)))
        assert sorted(one.remaining for one in answers if one.allowed) == list(range(17))
        assert all(one.remaining == 0 for one in answers if not one.allowed)

    @pytest.mark.parametrize("kind", ["sliding_window", "token_bucket"])
    async def test_what_is_refused_is_not_taken_and_peeking_takes_nothing(self, kind: RateKind) -> None:
        store, rate = await self.open(), self.rate(kind)
        for _ in range(5):
            peeked = await store.peek_allowance(key_of(), rate)
            assert (peeked.allowed, peeked.remaining, peeked.retry_after_s) == (True, 3, 0.0)
        assert (await store.take_allowance(key_of(), rate, 2)).remaining == 1
        for _ in range(5):
            assert not (await store.take_allowance(key_of(), rate, 2)).allowed
        assert (await store.take_allowance(key_of(), rate, 1)).allowed
        refused, peeked = await store.take_allowance(key_of(), rate, 1), await store.peek_allowance(key_of(), rate)
        assert (peeked.allowed, peeked.remaining) == (refused.allowed, refused.remaining) == (False, 0)
        assert 0 < peeked.retry_after_s <= self.unit_s

    async def test_every_tenant_name_and_key_has_an_allowance_of_its_own(self) -> None:
        store, rate = await self.open(), self.rate("sliding_window", limit=1)
        places = [key_of(word) for word in WORDS if word]
        places += [key_of(tenant="acme"), key_of(name="log"), key_of(name="kit_session"), key_of("loga", name="in")]
        for place in places:
            assert (await store.take_allowance(place, rate, 1)).allowed, place
        for place in places:
            assert not (await store.take_allowance(place, rate, 1)).allowed, place
        await store.reset_allowance(places[0])
        assert (await store.peek_allowance(places[0], rate)).allowed
        assert not (await store.peek_allowance(places[1], rate)).allowed

    async def test_limits_and_values_of_the_same_key_never_meet(self) -> None:
        store, rate = await self.open(), self.rate("sliding_window", limit=1)
        key = key_of(name="kit_session")
        await store.put_state(key, {"id": b'"a"'}, None)
        assert (await store.take_allowance(key, rate, 1)).allowed
        assert await fields(store, key) == {"id": b'"a"'}
        await store.delete_state(key)
        assert not (await store.take_allowance(key, rate, 1)).allowed
        assert await store.state_keys("kit_session", "", None, 10) == ([], None)

    async def test_the_rate_may_change_and_another_kind_begins_anew(self) -> None:
        store = await self.open()
        assert (await store.take_allowance(key_of(), self.rate("sliding_window", 10), 8)).allowed
        assert not (await store.take_allowance(key_of(), self.rate("sliding_window", 5), 1)).allowed
        assert (await store.take_allowance(key_of(), self.rate("sliding_window", 9), 1)).allowed
        assert (await store.take_allowance(key_of(), self.rate("token_bucket", 5), 5)).allowed
        await store.reset_allowance(key_of())
        assert (await store.peek_allowance(key_of(), self.rate("sliding_window", 5))).remaining == 5
        assert (await store.peek_allowance(key_of(), self.rate("token_bucket", 5))).remaining == 5


def check_windows(rate: Rate, taken: list[Taken]) -> None:
    """What was certainly taken within one window that ends with the last take."""
    last = taken[-1]
    inside = sum(one.cost for one in taken if one.before_us > last.after_us - rate.per_us)
    assert inside <= rate.limit, f"{inside} within one window, the limit is {rate.limit}"


def check_bursts(rate: Rate, taken: list[Taken]) -> None:
    """From any take to the last one no more than a full bucket and what it gained since."""
    sum_of = 0
    for one in reversed(taken):
        sum_of += one.cost
        gained = (taken[-1].after_us - one.before_us) * rate.limit / rate.per_us
        assert sum_of <= rate.burst + gained + 1e-6, "more than the bucket can have held"


class ChannelConformance(LiveConformance):
    async def test_who_listens_gets_each_message_once_and_in_order(self) -> None:
        store, other = await self.open(), await self.open()
        await store.publish("", "channel", b"too early")
        got: list[list[bytes | None]] = [[], []]
        for mine in got:
            await store.subscribe("", "channel", mine.append)
        sent = [b"%d" % n for n in range(50)] + [b"", bytes(range(256)), b"x" * 1_000_000]
        for n, message in enumerate(sent):
            await (store if n < 25 else other).publish("", "channel", message)
            if n == 24:
                await until(lambda: all(len(mine) >= 25 for mine in got))
        await until(lambda: all(len(mine) >= len(sent) for mine in got))
        assert got == [sent, sent]

    async def test_channels_of_other_tenants_and_names_are_not_heard(self) -> None:
        store = await self.open()
        got: list[bytes | None] = []
        await store.subscribe("a", "b", got.append)
        for tenant, name in (("", "b"), ("a", ""), ("a", "bb"), ("ab", ""), ("b", "a"), ("a", "*"), ("a", "B")):
            await store.publish(tenant, name, b"of another")
        await store.publish("a", "b", b"mine")
        await until(lambda: bool(got))
        assert got == [b"mine"]

    async def test_who_left_is_not_called_again(self) -> None:
        store = await self.open()
        left: list[bytes | None] = []
        stays: list[bytes | None] = []
        leave = await store.subscribe("", "channel", left.append)
        await store.subscribe("", "channel", stays.append)
        await leave()
        await leave()
        await store.publish("", "channel", b"1")
        await until(lambda: bool(stays))
        assert (left, stays) == ([], [b"1"])

    async def test_closing_tells_its_listeners_once_and_no_others(self) -> None:
        store, other = await self.open(), await self.open()
        mine: list[bytes | None] = []
        theirs: list[bytes | None] = []
        await store.subscribe("", "channel", mine.append)
        await other.subscribe("", "channel", theirs.append)
        for _ in range(2):
            await cast(Repository, store).aclose()
        await until(lambda: bool(mine))
        await other.publish("", "channel", b"1")
        await until(lambda: bool(theirs))
        assert (mine, theirs) == ([None], [b"1"])
        with pytest.raises(Unavailable):
            await store.subscribe("", "channel", mine.append)


async def until(true: Callable[[], bool]) -> None:
    """A server's messages arrive when they arrive."""
    ends = time.monotonic() + ARRIVES_S
    while not true():  # a store calls a function, it sets no event
        assert time.monotonic() < ends, f"nothing has come within {ARRIVES_S} s"
        await asyncio.sleep(0.001)
