"""What a failure means: when to try again, and when to stop trying."""

from __future__ import annotations

import random
from typing import Literal

from polystore.consistency.settings import Settings
from polystore.errors import IntegrityViolation, InvalidData, PolystoreError, UnsupportedOperation
from polystore.model import Change, RetryRow

ErrorClass = Literal["transient", "permanent", "unknown"]

_PERMANENT = (InvalidData, IntegrityViolation, UnsupportedOperation)


def classify(error: Exception) -> ErrorClass:
    """transient: an outage, never parked. permanent: the copy refuses this record. unknown: neither is certain."""
    if isinstance(error, PolystoreError) and error.retryable:
        return "transient"
    return "permanent" if isinstance(error, _PERMANENT) else "unknown"


def delay_s(attempts: int, settings: Settings, rng: random.Random, retry_after_s: float | None = None) -> float:
    """Seconds until the next attempt: full jitter under an exponential bound, never earlier than the store asked
    (AWS SDK `FullJitterBackoffStrategy`)."""
    bound = min(settings.retry_max_s, settings.retry_base_s * 2 ** min(attempts, 16))
    return max(rng.uniform(0, bound), retry_after_s or 0.0)


def owed(
    target: str,
    change: Change,
    version: int,
    error: Exception,
    *,
    settings: Settings,
    rng: random.Random,
    now_us: int,
    previous: RetryRow | None = None,
) -> RetryRow:
    """The retry row after a failed attempt to bring `target` to `change`; `version` is the version claimed.

    Parked (dead letter) after `hard_fails_max` permanent failures, or after `unknown_fails_max` unknown ones that span
    `unknown_age_s`. An outage alone never parks a row: an outage longer than any counter must not become data loss.
    """
    kind = classify(error)
    attempts = (previous.attempts if previous else 0) + 1
    hard = (previous.hard_fails if previous else 0) + (kind == "permanent")
    first_us = previous.first_us if previous and previous.first_us else now_us
    old_unknown = attempts >= settings.unknown_fails_max and now_us - first_us >= settings.unknown_age_s * 1e6
    park = (kind == "permanent" and hard >= settings.hard_fails_max) or (kind == "unknown" and old_unknown)
    wait = delay_s(attempts, settings, rng, getattr(error, "retry_after_s", None))
    return RetryRow(
        target=target,
        key=change.key,
        h=change.h,
        version=max(change.version, version),
        min_version=min(version, previous.min_version if previous else version),
        state="p" if park else "r",
        attempts=attempts,
        hard_fails=hard,
        first_us=first_us,
        next_us=now_us + int(wait * 1e6),
        error_class=f"{kind}:{type(error).__name__}",
        error=str(error)[:500],
    )
