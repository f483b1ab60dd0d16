"""State, limits and channels, broken."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import msgspec
from polystore_adapters.memory import MemoryRepository, MemoryServer

from polystore.channels import Hub, Receive
from polystore.env import Env
from polystore.model import Key
from polystore.protocols import Changed, Fields, Leave, Number, StateRow
from polystore.rates import Allowance, Rate
from polystore.testing.conformance import ChannelConformance, LimitConformance, StateConformance
from tests.contract.broken.registry import fails

HOUR_US = 3_600_000_000

# -- values -------------------------------------------------------------------------------------------------------


@fails(StateConformance, "test_sums_are_exact_however_many_count_at_once")
class ReadsThenWrites(MemoryRepository):
    """Counts in two steps."""

    async def increment(
        self, key: Key, field: str, by: Number, base: Number, start: Fields | None, ttl_us: int | None
    ) -> Number | None:
        (row,) = await self.get_state([key])
        if row is None and start is None:
            return None
        fields = dict(row.fields if row is not None else start or {})
        total = msgspec.json.decode(fields[field]) + by if field in fields else base + by
        await self.put_state(key, {**fields, field: msgspec.json.encode(total)}, ttl_us)
        return total


@fails(StateConformance, "test_numbers_to_the_last_bit")
class CountsInFloats(MemoryServer):
    """As Lua does: integers beyond 2^53 lose their last bits."""

    def increment(
        self, key: Key, field: str, by: Number, base: Number, start: Fields | None, ttl_us: int | None
    ) -> Number | None:
        total = super().increment(key, field, by, base, start, ttl_us)
        if total is None:
            return None
        rounded = type(by)(float(total))
        self.change_state(key, {field: msgspec.json.encode(rounded)}, None, None)
        return rounded


@fails(StateConformance, "test_a_put_sets_the_time_to_live_and_a_change_or_a_count_leaves_it")
class CountingProlongs(MemoryServer):
    def increment(
        self, key: Key, field: str, by: Number, base: Number, start: Fields | None, ttl_us: int | None
    ) -> Number | None:
        total = super().increment(key, field, by, base, start, ttl_us)
        self.touch_state(key, ttl_us)
        return total


@fails(StateConformance, "test_a_touch_counts_from_now_and_calls_nothing_back")
class TouchRevives(MemoryServer):
    def touch_state(self, key: Key, ttl_us: int | None) -> bool:
        value = self._values.get(key)
        if value is not None:
            self._values[key] = msgspec.structs.replace(value, expires_us=self._ends_at(ttl_us))
        return value is not None


@fails(StateConformance, "test_what_has_expired_is_absent_to_every_call")
class CallersClock(MemoryServer):
    """The end is computed by a caller whose clock is an hour ahead of the store's."""

    def _ends_at(self, ttl_us: int | None) -> int | None:
        return None if ttl_us is None else self.env.now_us() + HOUR_US + ttl_us


@fails(StateConformance, "test_what_has_expired_is_absent_to_every_call")
class ExpiredIsListed(MemoryServer):
    def state_keys(self, etype: str, tenant: str, cursor: str | None, limit: int) -> tuple[list[str], str | None]:
        return sorted(key.id for key in self._values if (key.etype, key.tenant) == (etype, tenant)), None


@fails(StateConformance, "test_two_tenants_and_two_types_never_meet")
class TenantIgnored(MemoryServer):
    def get_state(self, keys: Sequence[Key]) -> list[StateRow | None]:
        return super().get_state([Key("", key.etype, key.id) for key in keys])

    def _put_value(self, key: Key, fields: Fields, expires_us: int | None) -> Any:
        return super()._put_value(Key("", key.etype, key.id), fields, expires_us)

    def _live_value(self, key: Key) -> Any:
        return super()._live_value(Key("", key.etype, key.id))


@fails(StateConformance, "test_add_puts_only_what_is_not_there")
class AddPuts(MemoryRepository):
    """Looks, and then puts."""

    async def add_state(self, key: Key, fields: Fields, ttl_us: int | None) -> bool:
        if await self.get_state([key]) != [None]:
            return False
        await self.put_state(key, fields, ttl_us)
        return True


@fails(StateConformance, "test_eight_who_read_and_change_at_once_lose_nothing")
class TagIgnored(MemoryServer):
    def change_state(self, key: Key, fields: Fields, tag: int | None, ttl_us: int | None) -> Changed:
        return super().change_state(key, fields, None, ttl_us)


@fails(StateConformance, "test_a_change_with_a_tag_fails_after_any_write_of_the_value")
class TagBeginsAnew(MemoryServer):
    """A count of the writes, kept beside the value and deleted with it."""

    def _put_value(self, key: Key, fields: Fields, expires_us: int | None) -> Any:
        old = self._values.get(key)
        value = super()._put_value(key, fields, expires_us)
        value = self._values[key] = msgspec.structs.replace(value, tag=1 if old is None else old.tag + 1)
        return value


@fails(StateConformance, "test_changes_of_other_fields_at_once_all_stand")
class ChangesTheWhole(MemoryRepository):
    """A change of some fields as a write of the whole that was read before."""

    async def change_state(self, key: Key, fields: Fields, tag: int | None, ttl_us: int | None) -> Changed:
        (row,) = await self.get_state([key])
        if row is None:
            return Changed(False, None)
        return await super().change_state(key, {**row.fields, **fields}, tag, ttl_us)


@fails(StateConformance, "test_values_are_neither_kept_nor_shared")
class KeepsWhatItWasGiven(MemoryServer):
    def _put_value(self, key: Key, fields: Fields, expires_us: int | None) -> Any:
        value = super()._put_value(key, fields, expires_us)
        value = self._values[key] = msgspec.structs.replace(value, fields=fields)
        return value


@fails(StateConformance, "test_pages_of_keys_hold_all_that_lives_all_the_while")
class PagesByPosition(MemoryServer):
    """The cursor counts, so a deletion before it hides a value."""

    def state_keys(self, etype: str, tenant: str, cursor: str | None, limit: int) -> tuple[list[str], str | None]:
        ids, _ = super().state_keys(etype, tenant, None, 1_000_000)
        start = int(cursor or 0)
        end = start + limit
        return ids[start:end], str(end) if len(ids) > end else None


# -- limits -------------------------------------------------------------------------------------------------------


@fails(LimitConformance, "test_no_window_ever_holds_more_than_the_limit", seed=0)
class WindowBeginsAnew(MemoryServer):
    """A fixed window: what was taken is forgotten at its boundary."""

    def take_allowance(self, key: Key, rate: Rate, cost: int) -> Allowance:
        if rate.kind == "token_bucket":
            return super().take_allowance(key, rate, cost)
        counts: dict[tuple[Key, int], int] = self.__dict__.setdefault("counts", {})
        place = (key, self.env.now_us() // rate.per_us)
        free = rate.limit - counts.get(place, 0)
        if cost > free:
            return Allowance(False, free, 1.0)
        counts[place] = counts.get(place, 0) + cost
        return Allowance(True, free - cost, 0.0)


@fails(LimitConformance, "test_a_bucket_gives_its_burst_and_its_rate_and_no_more", seed=0)
class BucketOverflows(MemoryServer):
    """What it gains is not held to its size."""

    def take_allowance(self, key: Key, rate: Rate, cost: int) -> Allowance:
        return super().take_allowance(key, Rate(rate.kind, rate.limit, rate.per_us, rate.burst + 1), cost)


@fails(LimitConformance, "test_a_limit_holds_while_real_time_runs", kind="sliding_window")
class ClockTooFast(MemoryServer):
    def take_allowance(self, key: Key, rate: Rate, cost: int) -> Allowance:
        return super().take_allowance(key, Rate(rate.kind, rate.limit, rate.per_us // 2, rate.burst), cost)


@fails(LimitConformance, "test_takers_at_once_get_the_limit_and_no_more", kind="sliding_window")
class LooksThenTakes(MemoryRepository):
    async def take_allowance(self, key: Key, rate: Rate, cost: int) -> Allowance:
        seen = await self.peek_allowance(key, rate)
        if seen.remaining < cost:
            return seen
        await asyncio.sleep(0)
        await super().take_allowance(key, Rate(rate.kind, 1_000, rate.per_us, 1_000), cost)
        return Allowance(True, seen.remaining - cost, 0.0)


@fails(LimitConformance, "test_what_is_refused_is_not_taken_and_peeking_takes_nothing", kind="sliding_window")
class RefusedCounts(MemoryServer):
    """Counts first, then judges."""

    def take_allowance(self, key: Key, rate: Rate, cost: int) -> Allowance:
        answer = super().take_allowance(key, rate, cost)
        if not answer.allowed and answer.remaining:
            super().take_allowance(key, rate, answer.remaining)
        return answer


@fails(LimitConformance, "test_every_tenant_name_and_key_has_an_allowance_of_its_own")
class NameAndKeyRunTogether(MemoryServer):
    def take_allowance(self, key: Key, rate: Rate, cost: int) -> Allowance:
        return super().take_allowance(Key(key.tenant, "", key.etype + key.id), rate, cost)


@fails(LimitConformance, "test_limits_and_values_of_the_same_key_never_meet")
class DeleteForgetsLimits(MemoryServer):
    def delete_state(self, key: Key) -> bool:
        self.reset_allowance(key)
        return super().delete_state(key)


# -- channels -----------------------------------------------------------------------------------------------------


class _Echo(Hub):
    def publish(self, channel: Hashable, message: bytes) -> None:
        super().publish(channel, message)
        super().publish(channel, message)


@fails(ChannelConformance, "test_who_listens_gets_each_message_once_and_in_order")
class MessagesTwice(MemoryServer):
    def __init__(self, env: Env) -> None:
        super().__init__(env)
        self.hub = _Echo()


class _NamesOnly(Hub):
    def publish(self, channel: Any, message: bytes) -> None:
        super().publish(channel[1], message)

    def subscribe(self, owner: object, channel: Any, receive: Receive) -> Callable[[], None]:
        return super().subscribe(owner, channel[1], receive)


@fails(ChannelConformance, "test_channels_of_other_tenants_and_names_are_not_heard")
class AllTenantsHear(MemoryServer):
    def __init__(self, env: Env) -> None:
        super().__init__(env)
        self.hub = _NamesOnly()


@fails(ChannelConformance, "test_who_left_is_not_called_again")
class NobodyLeaves(MemoryRepository):
    async def subscribe(self, tenant: str, name: str, receive: Receive) -> Leave:
        await super().subscribe(tenant, name, receive)

        async def leave() -> None:
            pass

        return leave


class _Endless(Hub):
    def end(self, owner: object) -> None:
        pass


@fails(ChannelConformance, "test_closing_tells_its_listeners_once_and_no_others")
class ListenersWaitForEver(MemoryServer):
    def __init__(self, env: Env) -> None:
        super().__init__(env)
        self.hub = _Endless()
