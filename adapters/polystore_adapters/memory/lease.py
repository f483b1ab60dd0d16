"""The steps of the cache protocol for one name: from what stands to what stands then. Pure, so that the test of the
protocol (tests/unit/cache) walks through every order in which they can happen."""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from polystore.protocols.cache import INTENT_US, LEASE_US, Fill, Invalidation, Leased


class Held(msgspec.Struct, frozen=True, gc=False):
    """A value, until its time is over."""

    version: int
    value: bytes
    until_us: int


class Control(msgspec.Struct, frozen=True):
    """What is known of a name beside its value. token 0: nobody has the lease. intents: (writer, until when)."""

    floor: int = 0
    token: int = 0
    leased_until_us: int = 0
    intents: tuple[tuple[int, int], ...] = ()

    def dirty(self, now_us: int) -> bool:
        """Whether a strict write may be under way."""
        return any(until_us > now_us for _, until_us in self.intents)


NOTHING = Control()


def leased(held: Held | None, control: Control, token: int, now_us: int) -> tuple[Control, Leased]:
    """A reader missed, some time ago."""
    if held is not None:
        return control, held.value
    if control.dirty(now_us):
        return control, "bypass"
    if control.token not in (0, token) and control.leased_until_us > now_us:
        return control, "wait"
    return replace(control, token=token, leased_until_us=now_us + LEASE_US), "leased"


def filled(held: Held | None, control: Control, fill: Fill, now_us: int) -> tuple[Held | None, Control, bool]:
    """A reader brings what it found at the home."""
    if control.token != fill.token or control.leased_until_us <= now_us:
        return held, control, False
    newer_known = fill.version < control.floor or (held is not None and held.version > fill.version)
    control = replace(control, token=0, leased_until_us=0)
    if newer_known or control.dirty(now_us):
        return held, control, False
    return Held(fill.version, fill.value, now_us + fill.ttl_us), control, True


def invalidated(
    held: Held | None, control: Control, invalidation: Invalidation, now_us: int
) -> tuple[Held | None, Control]:
    """A writer, or whoever repairs what it left, says what changed. What is no newer than the floor was said before,
    and the lease that stands was granted after that: it stays."""
    version = invalidation.version
    if held is not None and (version is None or held.version < version):
        held = None
        if version is not None and invalidation.value is not None:
            held = Held(version, invalidation.value, now_us + invalidation.ttl_us)
    intents = tuple(one for one in control.intents if one[0] != invalidation.writer and one[1] > now_us)
    if version is not None and version <= control.floor:
        return held, replace(control, intents=intents)
    return held, Control(max(control.floor, version or 0), intents=intents)


def intended(control: Control, writer: int, now_us: int) -> Control:
    """A strict writer is about to commit: no value, no lease, until it is done."""
    others = tuple(one for one in control.intents if one[0] != writer and one[1] > now_us)
    return Control(control.floor, intents=(*others, (writer, now_us + INTENT_US)))
