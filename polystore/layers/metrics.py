"""Counts and durations per verb. What one call costs here is part of every operation, so it is little."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from polystore.operations import Call, Operation

R = TypeVar("R")

_BUCKETS = 32


class VerbMetrics:
    """What calls of one verb did. `histogram[i]` counts the calls of less than 2^i microseconds (and not less than
    2^(i-1)); the last bucket holds all longer ones, from 18 minutes on."""

    __slots__ = ("count", "errors", "histogram", "ms_max", "ms_total")

    def __init__(self) -> None:
        self.count = 0
        self.errors = 0
        self.ms_total = 0.0
        self.ms_max = 0.0
        self.histogram = [0] * _BUCKETS

    def add(self, seconds: float, failed: bool) -> None:
        ms = seconds * 1000
        self.count += 1
        self.errors += failed
        self.ms_total += ms
        if ms > self.ms_max:
            self.ms_max = ms
        bucket = int(seconds * 1_000_000).bit_length()
        self.histogram[bucket if bucket < _BUCKETS else -1] += 1

    def quantile_ms(self, q: float) -> float:
        """The duration that the fraction `q` of the calls did not exceed, from above: exact to a factor of two."""
        rest = q * self.count
        for i, count in enumerate(self.histogram[:-1]):
            rest -= count
            if rest <= 0:
                return float(min(2**i / 1000, self.ms_max))
        return self.ms_max


class Metrics:
    """Count every call; one that was cancelled is no error."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.verbs: dict[str, VerbMetrics] = {}
        self._clock = clock

    def of(self, verb: str) -> VerbMetrics:
        """The verb's metrics, zero before its first call."""
        found = self.verbs.get(verb)
        if found is None:
            found = self.verbs[verb] = VerbMetrics()
        return found

    async def call(self, operation: Operation[R], inner: Call) -> R:
        clock = self._clock
        started = clock()
        failed = False
        try:
            return await inner(operation)
        except Exception:
            failed = True
            raise
        finally:
            self.of(operation.verb).add(clock() - started, failed)
