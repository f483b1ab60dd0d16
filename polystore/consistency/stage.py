"""One embedder as the consistency manager asks it: in batches, with a deadline, at a pace, and not while it is down."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from polystore.embedding import Embedder, Purpose, pack
from polystore.env import Env
from polystore.errors import (
    CircuitOpen,
    DimensionMismatch,
    InvalidData,
    PolystoreError,
    StoreError,
    StoreTimeout,
    Unavailable,
)
from polystore.layers.breaker import FAILURES_IN_A_ROW, PROBE_S

HARMLESS = "a"
"""A text that every model takes: who refuses it refuses more than the text at hand."""


class Stage:
    """Open after 5 outages in a row: one call every random(0.5, 1) * 2 s then finds out whether it answers again. A
    `retry_after_s` is kept for all calls. `target` names it in errors."""

    def __init__(self, target: str, embedder: Embedder, env: Env) -> None:
        self.target = target
        self.embedder = embedder
        self._env = env
        self.made = 0
        """Texts that it embedded after commits, in this process."""
        self._failures = 0
        self._rests_until = 0.0
        self._next_call = 0.0

    @property
    def open(self) -> bool:
        """Whether it failed so often that it counts as down."""
        return self._failures >= FAILURES_IN_A_ROW

    def rest_s(self) -> float:
        """Seconds until it may be asked."""
        return max(0.0, self._rests_until - self._env.monotonic())

    async def turn(self) -> None:
        """Wait as `calls_per_minute` of the embedder asks, if it does. Questions need not."""
        most: float | None = getattr(self.embedder, "calls_per_minute", None)
        if most is None:
            return
        now = self._env.monotonic()
        at = max(now, self._next_call)
        self._next_call = at + 60.0 / most
        await asyncio.sleep(at - now)

    async def embed(self, texts: Sequence[str], purpose: Purpose, timeout_s: float) -> list[bytes]:
        """Packed vectors of at most `batch_max` texts.

        Raises Unavailable when the embedder fails or stalls, InvalidData when it refuses a text or makes a vector that
        cannot be kept, DimensionMismatch when its vectors have another dimension than it declares, and what it raises
        itself of PermissionDenied and ConfigurationError.
        """
        if rest := self.rest_s():
            raise CircuitOpen(f"it is asked again in {rest:.1f} s", store=self.target, retry_after_s=rest)
        if self.open:
            self._rest(None)  # who asks now finds out for all
        try:
            vectors = await self._ask([text[: self.embedder.chars_max] for text in texts], purpose, timeout_s)
        except (PolystoreError, TimeoutError) as e:
            raise self._failed(e, timeout_s) from e
        self._failures, self._rests_until = 0, 0.0
        return vectors

    async def _ask(self, texts: Sequence[str], purpose: Purpose, timeout_s: float) -> list[bytes]:
        try:
            async with asyncio.timeout(timeout_s):
                vectors = await self.embedder.embed(texts, purpose=purpose)
        except (PolystoreError, TimeoutError):
            raise
        except Exception as e:  # whatever a client library raises: an embedder's outage is an outage, never poison
            raise Unavailable(f"the embedder failed: {type(e).__name__}") from e
        if len(vectors) != len(texts):
            raise Unavailable(f"the embedder answered with {len(vectors)} vectors for {len(texts)} texts")
        for vector in vectors:
            if len(vector) != self.embedder.dimension:
                raise DimensionMismatch(
                    f"embedder {self.embedder.name!r} made a vector of {len(vector)} components, it is configured with "
                    f"dimension = {self.embedder.dimension}"
                )
        try:
            return [pack(vector) for vector in vectors]
        except (ValueError, TypeError, OverflowError) as e:
            raise InvalidData(f"embedder {self.embedder.name!r} made a vector that cannot be kept: {e}") from None

    def _failed(self, error: PolystoreError | TimeoutError, timeout_s: float) -> PolystoreError:
        if isinstance(error, TimeoutError):
            error = StoreTimeout(f"no answer within {timeout_s:g} s")
        if isinstance(error, StoreError):
            error.store, error.operation = error.store or self.target, error.operation or "embed"
        if isinstance(error, Unavailable):
            self._failures += 1
            if self.open or error.retry_after_s is not None:
                self._rest(error.retry_after_s)
        return error

    def _rest(self, asked_s: float | None) -> None:
        seconds = self._env.random.uniform(0.5, 1) * PROBE_S if asked_s is None else asked_s
        self._rests_until = max(self._rests_until, self._env.monotonic() + seconds)

    async def each(self, texts: Sequence[str], timeout_s: float) -> list[bytes | PolystoreError]:
        """For each text its vector, or why there is none: InvalidData where this one text is refused, else an outage,
        which is nobody's fault and passes."""
        out: list[bytes | PolystoreError] = []
        size = self.embedder.batch_max
        for start in range(0, len(texts), size):
            out += await self._part(texts[start : start + size], timeout_s, tried=False)
        return out

    async def _part(self, texts: Sequence[str], timeout_s: float, *, tried: bool) -> list[bytes | PolystoreError]:
        """A batch; where a text of it is refused, halves of it, down to that text."""
        try:
            await self.turn()
            vectors = await self.embed(texts, "document", timeout_s)
            self.made += len(vectors)
            return list(vectors)
        except InvalidData as e:
            if not tried and (outage := await self._refuses_all(e, timeout_s)):
                return [outage] * len(texts)
            if len(texts) == 1:
                return [e]
        except Unavailable as e:
            return [e] * len(texts)
        except PolystoreError as e:  # a key, a model, an address that is wrong: no record's fault
            return [_outage(e, self.target)] * len(texts)
        half = len(texts) // 2
        return [
            *await self._part(texts[:half], timeout_s, tried=True),
            *await self._part(texts[half:], timeout_s, tried=True),
        ]

    async def _refuses_all(self, error: InvalidData, timeout_s: float) -> Unavailable | None:
        try:
            await self.turn()
            await self.embed([HARMLESS], "document", timeout_s)
        except PolystoreError:
            return _outage(error, self.target)
        return None


def _outage(error: PolystoreError, target: str) -> Unavailable:
    return Unavailable(f"nothing can be embedded: {error}", store=target, operation="embed", retry_after_s=PROBE_S)
