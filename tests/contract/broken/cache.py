"""Caches, broken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar, cast

from msgspec.structs import replace
from polystore_adapters.memory import MemoryRepository, MemoryServer
from polystore_adapters.memory.cache import Cache
from polystore_adapters.memory.lease import Control, Held

from polystore.env import Env
from polystore.protocols import Fill, Invalidation, Leased
from polystore.testing.conformance import CacheConformance, InlineCacheConformance
from tests.contract.broken.registry import fails

C = TypeVar("C", bound=type[Cache])


def cache_fails(test: str, /, **given: object) -> Callable[[C], C]:
    """Makes of the cache below a memory server with it, on which this test of the kit must fail."""

    def register(broken: C) -> C:
        class Server(MemoryServer):
            def __init__(self, env: Env) -> None:
                super().__init__(env)
                self.cache = broken(env)

        Server.__name__ = broken.__name__
        return cast(C, fails(CacheConformance, test, **given)(Server))

    return register


@cache_fails("test_nothing_is_filled_in_without_the_lease")
class LeaseIgnoredAtFill(Cache):
    """Set on a miss, as nearly every cache-aside does."""

    def _fill(self, fill: Fill, now_us: int) -> bool:
        self.lease([fill.name], fill.token)
        return super()._fill(fill, now_us)


@cache_fails("test_a_lease_is_good_for_one_fill")
class LeaseKept(Cache):
    def _fill(self, fill: Fill, now_us: int) -> bool:
        taken = super()._fill(fill, now_us)
        _, control = self._standing(fill.name, now_us)
        if taken:
            self._keep(fill.name, replace(control, token=fill.token, leased_until_us=now_us + 10**9), now_us)
        return taken


@cache_fails("test_a_lease_is_over_after_two_seconds_and_somebody_else_gets_it")
class LeaseForEver(Cache):
    """Who died with the lease has it still."""

    def _lease(self, name: str, token: int, now_us: int) -> Leased:
        return super()._lease(name, token, 0)


@cache_fails("test_one_reader_has_the_lease_and_still_has_it_when_it_asks_again")
class LeaseForEverybody(Cache):
    def _lease(self, name: str, token: int, now_us: int) -> Leased:
        _, control = self._standing(name, now_us)
        self._keep(name, replace(control, token=0), now_us)
        return super()._lease(name, token, now_us)


@cache_fails("test_a_replica_that_is_behind_cannot_fill_in_under_a_new_lease")
class FloorIgnored(Cache):
    def _standing(self, name: str, now_us: int) -> tuple[Held | None, Control]:
        held, control = super()._standing(name, now_us)
        return held, replace(control, floor=0)


@cache_fails("test_an_older_value_goes_and_a_newer_one_stays")
class FloorGoesDown(Cache):
    def _invalidate(self, one: Invalidation, now_us: int) -> None:
        super()._invalidate(one, now_us)
        _, control = self._standing(one.name, now_us)
        self._keep(one.name, replace(control, floor=one.version or 0), now_us)


@cache_fails("test_an_invalidation_revokes_the_lease_whatever_the_version")
class LeaseOutlivesInvalidation(Cache):
    def _invalidate(self, one: Invalidation, now_us: int) -> None:
        _, before = self._standing(one.name, now_us)
        super()._invalidate(one, now_us)
        _, after = self._standing(one.name, now_us)
        lease = replace(after, token=before.token, leased_until_us=before.leased_until_us)
        self._keep(one.name, lease, now_us)


@cache_fails("test_what_is_known_to_be_absent_gives_way_to_a_write")
class AbsentForGood(Cache):
    """A negative entry has no version, so nothing seems newer."""

    def _invalidate(self, one: Invalidation, now_us: int) -> None:
        held = self.values.entries.get(one.name)
        if held is None or held.version:
            super()._invalidate(one, now_us)


@cache_fails("test_two_late_invalidations_bring_nothing_back")
class WrittenThrough(Cache):
    def _invalidate(self, one: Invalidation, now_us: int) -> None:
        super()._invalidate(one, now_us)
        if one.value is not None and one.version is not None and one.name not in self.values.entries:
            self.values.put(one.name, Held(one.version, one.value, now_us + one.ttl_us))


@cache_fails("test_a_new_value_takes_the_place_of_an_older_one_and_of_nothing_else")
class OldTimeToLive(Cache):
    """The new value lives as long as the old one would have."""

    def _invalidate(self, one: Invalidation, now_us: int) -> None:
        super()._invalidate(replace(one, ttl_us=60_000_000), now_us)


@cache_fails("test_a_value_goes_when_its_time_is_over")
class Immortal(Cache):
    def lookup_now(self, name: str) -> bytes | None:
        held = self.values.get(name)
        return None if held is None else held.value


@cache_fails("test_no_reader_finds_what_is_older_than_an_acknowledged_invalidation", seed=0)
class InvalidatedLater(Cache):
    """What is told is done with the next thing that is told."""

    def invalidate(self, invalidations: Sequence[Invalidation]) -> None:
        waiting = self.__dict__.setdefault("waiting", [])
        super().invalidate(waiting)
        waiting[:] = invalidations


@cache_fails("test_from_its_intent_to_its_invalidation_a_strict_write_keeps_everybody_out")
class AnyWriterEndsTheIntent(Cache):
    def _invalidate(self, one: Invalidation, now_us: int) -> None:
        _, control = self._standing(one.name, now_us)
        self._keep(one.name, replace(control, intents=()), now_us)
        super()._invalidate(one, now_us)


@cache_fails("test_the_intent_of_a_dead_writer_times_out")
class IntentForEver(Cache):
    def _lease(self, name: str, token: int, now_us: int) -> Leased:
        _, control = self._standing(name, 0)
        return "bypass" if control.intents else super()._lease(name, token, now_us)


@cache_fails("test_forget_removes_the_values_and_leases_of_one_entity")
class LeasesRemembered(Cache):
    def forget(self, etype: str) -> None:
        controls = dict(self.controls.entries)
        super().forget(etype)
        for name, entry in controls.items():
            self.controls.put(name, entry)


@fails(InlineCacheConformance, "test_finds_at_once_what_lookup_finds")
class NothingAtOnce(MemoryRepository):
    def lookup_now(self, name: str) -> bytes | None:
        return None


@fails(InlineCacheConformance, "test_an_invalidation_at_once_does_what_one_that_is_waited_for_does")
class AtOnceLater(MemoryRepository):
    def invalidate_now(self, invalidations: Sequence[Invalidation]) -> None:
        """It is told in a moment, when the writer has gone on."""
