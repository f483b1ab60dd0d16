"""The explicit-state check of the cache protocol: the steps that the memory adapter takes are safe in every order, and
each way in which caches are known to go wrong is found when it is built in."""

from __future__ import annotations

from dataclasses import replace

import pytest
from msgspec.structs import replace as changed
from polystore_adapters.memory.lease import Control, Held, filled, intended, invalidated, leased

from polystore.protocols.cache import Fill, Invalidation, Leased
from tests.unit.cache.protocol import Setting, Steps, Walk

NO_EVICTION = Setting(value_evictions=0, control_evictions=0)
FOR_GOOD = {"resurrected", "stale for good"}

SAFE = {
    "two writers and readers, evictions of both kinds, a death": Setting(),
    "the same without replacing": Setting(replaces=False),
    "each reads twice": Setting(writers=1, reads=2),
    "each reads twice, two writers": Setting(reads=2, value_evictions=0, crashes=0),
    "three writers": Setting(writers=3, crashes=0, value_evictions=0),
    "strict, a death": replace(NO_EVICTION, strict=True),
    "strict, a death, answered at the commit": replace(NO_EVICTION, strict=True, replies_early=True),
    "strict, values evicted, answered at the commit": Setting(strict=True, replies_early=True, control_evictions=0),
    "strict, controls evicted": Setting(strict=True, value_evictions=0, crashes=0),
    "joining an earlier read, nothing evicted": replace(NO_EVICTION, joins=True),
    "a home that lags, nothing evicted": replace(NO_EVICTION, lags=True),
    "a home that lags and tells again, nothing evicted": replace(NO_EVICTION, lags=True, tells_again=True),
}


@pytest.mark.parametrize("setting", SAFE.values(), ids=SAFE.keys())
def test_no_order_of_the_steps_goes_wrong(setting: Setting) -> None:
    walk = Walk(setting)
    assert walk.wrong == {}
    assert len(walk.seen) > 2_000


# -- ways in which caches go wrong --------------------------------------------------------------------------------


def taken_always(held: Held | None, control: Control, fill: Fill, now_us: int) -> tuple[Held, Control, bool]:
    """Set on a miss, delete on a write: what nearly every cache-aside does."""
    return Held(fill.version, fill.value, now_us + fill.ttl_us), control, True


def taken_above_the_floor(
    held: Held | None, control: Control, fill: Fill, now_us: int
) -> tuple[Held | None, Control, bool]:
    """Version tombstones and nothing else: no lease is asked for."""
    if fill.version < control.floor or (held is not None and held.version > fill.version):
        return held, control, False
    return taken_always(held, control, fill, now_us)


def floor_ignored(held: Held | None, control: Control, fill: Fill, now_us: int) -> tuple[Held | None, Control, bool]:
    return filled(held, changed(control, floor=0), fill, now_us)


def lease_stays(held: Held | None, control: Control, one: Invalidation, now_us: int) -> tuple[Held | None, Control]:
    held, after = invalidated(held, control, one, now_us)
    return held, changed(after, token=control.token, leased_until_us=control.leased_until_us)


def written_through(held: Held | None, control: Control, one: Invalidation, now_us: int) -> tuple[Held | None, Control]:
    """Set if newer than what is there, also when nothing is there."""
    held, control = invalidated(held, control, one, now_us)
    if held is None and one.version is not None and one.value is not None:
        held = Held(one.version, one.value, now_us + one.ttl_us)
    return held, control


def intent_overlooked(held: Held | None, control: Control, token: int, now_us: int) -> tuple[Control, Leased]:
    """A reader gets the lease while a strict write is under way."""
    after, answer = leased(held, changed(control, intents=()), token, now_us)
    return changed(after, intents=control.intents), answer


def filled_in_spite_of_it(
    held: Held | None, control: Control, fill: Fill, now_us: int
) -> tuple[Held | None, Control, bool]:
    held, after, taken = filled(held, changed(control, intents=()), fill, now_us)
    return held, changed(after, intents=control.intents), taken


def intended_later(control: Control, writer: int, now_us: int) -> Control:
    """The intent is forgotten at once."""
    return changed(intended(control, writer, now_us), intents=())


UNSAFE = {
    "set on miss, delete on write": (
        replace(NO_EVICTION, crashes=0, steps=Steps(fill=taken_always)),
        FOR_GOOD,
    ),
    "version tombstones only, evicted": (Setting(crashes=0, steps=Steps(fill=taken_above_the_floor)), FOR_GOOD),
    "write-through if newer, evicted": (
        Setting(control_evictions=0, crashes=0, steps=Steps(invalidate=written_through)),
        FOR_GOOD,
    ),
    "neither floor nor revoked lease": (
        replace(NO_EVICTION, crashes=0, steps=Steps(fill=floor_ignored, invalidate=lease_stays)),
        FOR_GOOD,
    ),
    "no floor, and a home that lags": (
        replace(NO_EVICTION, crashes=0, lags=True, steps=Steps(fill=floor_ignored)),
        FOR_GOOD,
    ),
    "a leased reader joins an earlier read, controls evicted": (
        replace(NO_EVICTION, crashes=0, control_evictions=1, joins=True),
        FOR_GOOD,
    ),
    "a home that lags, controls evicted": (replace(NO_EVICTION, control_evictions=1, lags=True), FOR_GOOD),
    "the cache fails over to a standby that is behind": (replace(NO_EVICTION, crashes=0, failovers=1), FOR_GOOD),
    "strict, and a lease in spite of the intent": (
        replace(
            NO_EVICTION,
            strict=True,
            replies_early=True,
            steps=Steps(lease=intent_overlooked, fill=filled_in_spite_of_it),
        ),
        {"stale after the reply"},
    ),
    "strict, controls evicted, answered at the commit": (
        Setting(strict=True, replies_early=True, value_evictions=0, crashes=0),
        {"stale after the reply"},
    ),
    "strict, and no intent": (
        replace(NO_EVICTION, strict=True, replies_early=True, steps=Steps(intend=intended_later)),
        {"stale after the reply"},
    ),
}


@pytest.mark.parametrize(("setting", "wrong"), UNSAFE.values(), ids=UNSAFE.keys())
def test_what_is_known_to_go_wrong_is_found(setting: Setting, wrong: set[str]) -> None:
    walk = Walk(setting, frozenset(wrong))
    assert wrong <= walk.wrong.keys(), walk.wrong


def test_version_tombstones_are_enough_where_nothing_is_evicted() -> None:
    assert Walk(replace(NO_EVICTION, steps=Steps(fill=taken_above_the_floor))).wrong == {}


def test_a_home_that_tells_again_when_it_has_caught_up_is_never_wrong_for_good() -> None:
    walk = Walk(Setting(lags=True, tells_again=True, value_evictions=0, crashes=0))
    assert "stale for good" not in walk.wrong
    assert "resurrected" in walk.wrong, "for a moment it is, and caching.md says so"
