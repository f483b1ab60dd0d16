"""Trying again, where that may help and cannot harm."""

from __future__ import annotations

import asyncio
from typing import TypeVar

from polystore.env import Env
from polystore.errors import PolystoreError
from polystore.operations import Call, Operation

R = TypeVar("R")

BASE_S = 0.05
CAP_S = 30.0


class Retry:
    """Repeat a call that failed with a retryable error; one of unknown outcome only if it is idempotent.

    At most `attempts` calls; the last error is raised, also when the pause before the next call would reach beyond
    `timeout_s`. Pauses are random(0, min(30 s, 50 ms * 2^n)) [full jitter, as the AWS SDK's FullJitterBackoffStrategy],
    but not shorter than the store asked for (`retry_after_s`).
    """

    def __init__(self, env: Env, attempts: int, timeout_s: float) -> None:
        self._env = env
        self._attempts = attempts
        self._timeout_s = timeout_s

    async def call(self, operation: Operation[R], inner: Call) -> R:
        deadline = self._env.monotonic() + self._timeout_s
        failed = 0
        while True:
            try:
                return await inner(operation)
            except PolystoreError as error:
                if not error.retryable or (error.outcome_unknown and not operation.idempotent):
                    raise
                pause_s = self._pause_s(failed, error)
                failed += 1
                if failed >= self._attempts or self._env.monotonic() + pause_s >= deadline:
                    raise
            await asyncio.sleep(pause_s)

    def _pause_s(self, failed: int, error: PolystoreError) -> float:
        jitter_s = self._env.random.uniform(0, min(CAP_S, BASE_S * 2**failed))
        return max(jitter_s, getattr(error, "retry_after_s", None) or 0.0)
