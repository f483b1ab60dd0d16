"""Writes of types with cache="strict": their cache is told before the commit and after it, and only then is the write
done. A writer that dies in between leaves an intent that keeps everybody out of the cache until the journal's own
delivery has repeated the invalidation, or the intent's time is over."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from polystore.consistency.settings import Settings
from polystore.env import Env
from polystore.errors import ConfigurationError, PolystoreError
from polystore.model import Change, Committed, Key, Write
from polystore.results import StoreStatus


class StrictCache(Protocol):
    """What the cache of a strict type does beside being told of deliveries."""

    name: str

    async def intend(self, keys: Sequence[Key], writer: int) -> None:
        """Raises what the store raises: then it may or may not keep everybody out."""
        ...

    async def tell(self, keys: Sequence[Key], changes: Sequence[Change], writer: int) -> bool:
        """The intents for these keys end, and nothing older than the changes is found. False: not acknowledged."""
        ...


def check_strict(etype: str, cache: str, stores: Collection[str], settings: Settings) -> None:
    """Raises ConfigurationError when the cache did not answer: nothing could be written."""
    if cache and cache not in stores and not settings.strict_bypass:
        raise ConfigurationError(
            f"{etype}: its cache {cache!r} does not answer, and with cache='strict' every write waits for it; start "
            "it, or set strict_bypass in the settings to write without it"
        )


class StrictWrites:
    """`bypass`: a write goes on when its cache does not answer; a hit may then be older."""

    def __init__(self, env: Env, caches: Mapping[str, StrictCache], *, bypass: bool) -> None:
        self._env = env
        self._caches = caches
        self._bypass = bypass

    def writer(self, writes: Sequence[Write]) -> int:
        """Who these writes are to their caches; 0: none of them is strict."""
        if not self._caches or self._caches.keys().isdisjoint(write.key.etype for write in writes):
            return 0
        return self._env.random.getrandbits(62) + 1

    def _by_cache(self, writes: Sequence[Write]) -> list[tuple[StrictCache, list[int]]]:
        by_name: dict[str, tuple[StrictCache, list[int]]] = {}
        for i, write in enumerate(writes):
            if cache := self._caches.get(write.key.etype):
                by_name.setdefault(cache.name, (cache, []))[1].append(i)
        return list(by_name.values())

    async def intend(self, writes: Sequence[Write], writer: int) -> None:
        """Before the commit. Raises what a cache raises that does not answer: nothing is written then."""
        for cache, mine in self._by_cache(writes):
            try:
                await cache.intend([writes[i].key for i in mine], writer)
            except PolystoreError:
                if not self._bypass:
                    raise

    async def withdraw(self, writes: Sequence[Write], writer: int) -> None:
        """The commit was refused: nothing has changed."""
        for cache, mine in self._by_cache(writes):
            await cache.tell([writes[i].key for i in mine], [], writer)

    async def tell(
        self, writes: Sequence[Write], committed: Committed, changes: Mapping[int, Change], writer: int
    ) -> dict[int, dict[str, StoreStatus]]:
        """After the commit. What became of each strict write at its cache; nothing raises."""
        statuses: dict[int, dict[str, StoreStatus]] = {}
        for cache, mine in self._by_cache(writes):
            told = await cache.tell([writes[i].key for i in mine], [changes[i] for i in mine if i in changes], writer)
            statuses |= {
                i: {cache.name: "applied" if told else "pending"} for i in mine if committed.written[i].version
            }
        return statuses


def merged(
    some: Mapping[int, Mapping[str, StoreStatus]], others: Mapping[int, Mapping[str, StoreStatus]]
) -> dict[int, Mapping[str, StoreStatus]]:
    """By write and store; the others win."""
    out = dict(some)
    for i, statuses in others.items():
        out[i] = dict[str, StoreStatus]({**out.get(i, {}), **statuses})
    return out
