"""The rooms of the memory adapter's cache: bounded in bytes, each for itself."""

from __future__ import annotations

from polystore_adapters.memory.cache import ENTRY_BYTES, Cache

from polystore.protocols import Fill, Invalidation
from polystore.testing.conformance import MovableEnv

MINUTE_US = 60_000_000


def fill(cache: Cache, name: str, value: bytes) -> bool:
    assert cache.lease([name], 1) == ["leased"]
    return cache.fill([Fill(name, 1, 5, value, MINUTE_US)]) == [True]


def test_values_take_no_more_than_their_room_and_the_one_unused_longest_goes_first() -> None:
    room = 10 * (ENTRY_BYTES + 2 + 100)
    cache = Cache(MovableEnv(), room)
    for i in range(10):
        assert fill(cache, f"k{i}", bytes(100))
    assert cache.values.bytes == room
    assert cache.lookup_now("k0") is not None  # used just now
    assert fill(cache, "ka", bytes(100))
    assert cache.lookup(["k0", "k1", "k2", "ka"]) == [bytes(100), None, bytes(100), bytes(100)]
    assert fill(cache, "kb", bytes(500))
    assert cache.values.bytes <= room
    cache.invalidate([Invalidation(f"k{i}", 6) for i in range(10)])
    cache.invalidate([Invalidation(f"k{c}", 6) for c in "ab"])
    assert cache.values.bytes == 0


def test_a_value_larger_than_the_room_is_refused_and_a_replacement_counts() -> None:
    cache = Cache(MovableEnv(), 2000)
    assert not fill(cache, "a", bytes(3000))
    assert cache.values.bytes == 0
    assert fill(cache, "b", bytes(10))
    cache.invalidate([Invalidation("b", 6, bytes(1500), MINUTE_US)])
    assert cache.values.bytes == ENTRY_BYTES + 1 + 1500
    cache.invalidate([Invalidation("b", 7, bytes(3000), MINUTE_US)])
    assert cache.lookup(["b"]) == [None]
    assert cache.values.bytes == 0


def test_controls_are_bounded_apart_from_values_and_losing_one_refuses_its_fill() -> None:
    cache = Cache(MovableEnv(), 16 * (ENTRY_BYTES + 5))
    assert fill(cache, "value", b"")
    assert cache.lease(["first"], 1) == ["leased"]
    for i in range(10):
        assert cache.lease([f"k{i}"], 1) == ["leased"]
    assert cache.controls.bytes <= 2 * (ENTRY_BYTES + 5)
    assert cache.fill([Fill("first", 1, 5, b"", MINUTE_US)]) == [False]
    assert cache.lookup(["value"]) == [b""], "no value was evicted for a control"


def test_what_is_over_takes_no_room_once_it_was_asked_for() -> None:
    env = MovableEnv()
    cache = Cache(env, 10_000)
    assert fill(cache, "a", b"x")
    env.forward(61)
    assert cache.lookup(["a"]) == [None]
    assert cache.values.bytes == 0
