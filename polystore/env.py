"""All time, randomness and ids of polystore come from one `Env`, so that a simulation can replace them."""

from __future__ import annotations

import random
import time
from typing import TypeVar
from uuid import UUID

R = TypeVar("R")


class Env:
    """The real world. `polystore.testing` has the simulated one."""

    def __init__(self) -> None:
        self.random = random.Random()

    def now_us(self) -> int:
        """Microseconds since the Unix epoch."""
        return time.time_ns() // 1000

    def monotonic(self) -> float:
        """Seconds of a clock that never goes back; only differences mean something."""
        return time.monotonic()

    def uuid7(self) -> UUID:
        """A UUID of version 7: sorted by creation time (RFC 9562, section 5.7)."""
        bits = (self.now_us() // 1000) << 80 | self.random.getrandbits(80)
        return UUID(int=bits & ~(0xF << 76) & ~(0x3 << 62) | 0x7 << 76 | 0x2 << 62)

    def crashpoint(self, name: str) -> None:
        """A named place where the fault tests end this process. In the real world: nothing."""

    def connected(self, store: str, repository: R) -> R:
        """The repository that a store of this name is asked through. In the real world: the one that was connected; the
        tests of applications put one in front of it that fails when they say so."""
        return repository


SYSTEM_ENV = Env()


def new_id() -> str:
    """A fresh UUIDv7 in its text form: unique, and sorted by creation time."""
    return str(SYSTEM_ENV.uuid7())
