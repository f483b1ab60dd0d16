"""State: small values that change in place, without versions or copies, atomically in the store they live in."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class SupportsState(Protocol):
    """Values with a time to live, counters, rate limits, channels."""
