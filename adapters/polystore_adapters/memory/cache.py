"""The cache of a memory server: values and controls in two rooms, each of which drops what was used longest ago."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar
from urllib.parse import quote

from polystore.env import Env
from polystore.protocols.cache import CONTROL_US, Fill, Invalidation, Leased

from .lease import NOTHING, Control, Held, filled, intended, invalidated, leased

V = TypeVar("V")

CACHE_BYTES = 64 << 20
"""Room for values; an eighth as much is for controls."""
ENTRY_BYTES = 200
"""What an entry takes beside its name and its value: measured on CPython 3.11, rounded up."""


class Room(Generic[V]):
    """Entries of a weight in bytes, together at most `bytes_max`; the one used longest ago goes first."""

    def __init__(self, bytes_max: int, weight: Callable[[str, V], int]) -> None:
        self.bytes_max = bytes_max
        self.bytes = 0
        self.entries = OrderedDict[str, V]()
        self._weight = weight

    def get(self, name: str) -> V | None:
        entry = self.entries.get(name)
        if entry is not None:
            self.entries.move_to_end(name)
        return entry

    def put(self, name: str, entry: V | None) -> None:
        """Keep the entry as the newest; None: keep nothing."""
        self.drop(name)
        if entry is None:
            return
        self.entries[name] = entry
        self.bytes += self._weight(name, entry)
        while self.bytes > self.bytes_max:
            self.drop(next(iter(self.entries)))

    def drop(self, name: str) -> None:
        entry = self.entries.pop(name, None)
        if entry is not None:
            self.bytes -= self._weight(name, entry)


class Cache:
    """`SupportsCache` as atomic steps, see `MemoryServer`."""

    def __init__(self, env: Env, bytes_max: int = CACHE_BYTES) -> None:
        self._env = env
        self.values = Room[Held](bytes_max, lambda name, held: len(name) + len(held.value) + ENTRY_BYTES)
        self.controls = Room[tuple[Control, int]](bytes_max // 8, lambda name, _: len(name) + ENTRY_BYTES)
        """With the time until which each is kept."""

    def lookup(self, names: Sequence[str]) -> list[bytes | None]:
        return [self.lookup_now(name) for name in names]

    def lookup_now(self, name: str) -> bytes | None:
        held = self.values.get(name)
        if held is None:
            return None
        if held.until_us <= self._env.now_us():
            self.values.drop(name)
            return None
        return held.value

    def lease(self, names: Sequence[str], token: int) -> list[Leased]:
        return [self._lease(name, token, self._env.now_us()) for name in names]

    def _lease(self, name: str, token: int, now_us: int) -> Leased:
        control, answer = leased(*self._standing(name, now_us), token, now_us)
        self._keep(name, control, now_us)
        return answer

    def fill(self, fills: Sequence[Fill]) -> list[bool]:
        return [self._fill(fill, self._env.now_us()) for fill in fills]

    def _fill(self, fill: Fill, now_us: int) -> bool:
        held, control, taken = filled(*self._standing(fill.name, now_us), fill, now_us)
        self._keep(fill.name, control, now_us)
        if taken:
            self.values.put(fill.name, held)
        return taken and fill.name in self.values.entries

    def invalidate(self, invalidations: Sequence[Invalidation]) -> None:
        for one in invalidations:
            self._invalidate(one, self._env.now_us())

    def _invalidate(self, one: Invalidation, now_us: int) -> None:
        before, standing = self._standing(one.name, now_us)
        held, control = invalidated(before, standing, one, now_us)
        self._keep(one.name, control, now_us)
        if held is not before:
            self.values.put(one.name, held)

    def intend(self, names: Sequence[str], writer: int) -> None:
        now_us = self._env.now_us()
        for name in names:
            _, control = self._standing(name, now_us)
            self._keep(name, intended(control, writer, now_us), now_us)
            self.values.drop(name)

    def forget(self, etype: str) -> None:
        part = quote(etype, safe="")
        for room in (self.values, self.controls):
            for name in [name for name in room.entries if name.split("/")[1] == part]:
                room.drop(name)

    # -- one name ---------------------------------------------------------------------------------------------

    def _standing(self, name: str, now_us: int) -> tuple[Held | None, Control]:
        """What of value and control is not over."""
        held = self.values.entries.get(name)
        if held is not None and held.until_us <= now_us:
            self.values.drop(name)
            held = None
        control, until_us = self.controls.entries.get(name, (NOTHING, 0))
        return held, control if until_us > now_us else NOTHING

    def _keep(self, name: str, control: Control, now_us: int) -> None:
        self.controls.put(name, None if control == NOTHING else (control, now_us + CONTROL_US))
