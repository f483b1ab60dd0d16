"""Rate limits that all processes share."""

from __future__ import annotations

from uuid import UUID

from polystore.collection.scope import KeyValue
from polystore.errors import ConfigurationError, InvalidData
from polystore.kinds import encode_reference
from polystore.model import Key
from polystore.protocols import SupportsState
from polystore.rates import LIMIT_MAX, PER_S_MAX, Allowance, Rate, RateKind
from polystore.store import Store


class Limiter:
    """A rate limit by name, of one tenant: made by `hda.limiter`. Each key has an allowance of its own, which all
    processes that use the store share; time is the store's.

    sliding_window: at most `limit` in any `per_s` seconds, never more; a take counts up to 1 % longer than that.
    token_bucket: `limit` in `per_s` seconds on average, and up to `burst` at once after a pause.
    """

    def __init__(self, store: Store, tenant: str, name: str, rate: Rate) -> None:
        self._store = store
        self._tenant = tenant
        self._name = name
        self._rate = rate

    def __repr__(self) -> str:
        return f"Limiter({self._name!r} of tenant {self._tenant!r} in {self._store.name})"

    async def take(self, key: KeyValue, cost: int = 1) -> Allowance:
        """Take `cost` from what is left for this key; all of it or nothing.

        What is not allowed is an answer and no error: `allowed` is False, nothing was taken, and `retry_after_s` says
        when to come again. Raises InvalidData for a cost that could never be allowed; Unavailable when the store does
        not answer, and OutcomeUnknown when it may have counted: whether to go on then is the application's choice.
        """
        most = self._rate.burst
        if type(cost) is not int or not 1 <= cost <= most:
            raise InvalidData(f"limiter {self._name!r}: cost= is an int from 1 to {most}, more is never allowed")
        return await self._store.call(SupportsState.take_allowance, self._key(key), self._rate, cost)

    async def peek(self, key: KeyValue) -> Allowance:
        """What `take(key)` would answer, without taking: `remaining` is what is left now."""
        return await self._store.call(SupportsState.peek_allowance, self._key(key), self._rate)

    async def reset(self, key: KeyValue) -> None:
        """Give the key its whole allowance back."""
        await self._store.call(SupportsState.reset_allowance, self._key(key))

    def _key(self, key: KeyValue) -> Key:
        if type(key) not in (str, int, UUID):
            raise InvalidData(f"limiter {self._name!r}: a key is str, int or UUID, not {type(key).__name__}")
        return Key(self._tenant, self._name, encode_reference(str(key)))


def rate_of(name: str, limit: int, per_s: float, kind: RateKind, burst: int | None) -> Rate:
    """The declared rate. Raises ConfigurationError."""
    where = f"limiter {name!r}"
    if kind not in ("sliding_window", "token_bucket"):
        raise ConfigurationError(f"{where}: kind={kind!r}: use 'sliding_window' or 'token_bucket'")
    for words, number in (("limit", limit), ("burst", limit if burst is None else burst)):
        if type(number) is not int or not 1 <= number <= LIMIT_MAX:
            raise ConfigurationError(f"{where}: {words}= is an int from 1 to {LIMIT_MAX}")
    if type(per_s) not in (int, float) or not 0.001 <= per_s <= PER_S_MAX:
        raise ConfigurationError(f"{where}: per_s= is a number of seconds from 0.001 to {PER_S_MAX}")
    if burst is not None and kind == "sliding_window":
        raise ConfigurationError(f"{where}: a sliding window has no burst=; use kind='token_bucket', or drop it")
    return Rate(kind, limit, round(per_s * 1e6), limit if burst is None else burst)
