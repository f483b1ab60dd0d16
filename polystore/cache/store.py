"""A cache as a store: readers ask it, and the consistency manager knows it as a copy whose every change is an
invalidation."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, ParamSpec, TypeVar, cast

import msgspec
from msgspec import structs

from polystore.cache.entries import Entries, name_of
from polystore.entity import EntityType
from polystore.env import Env
from polystore.errors import PolystoreError
from polystore.layers import tracing
from polystore.layers.together import Together
from polystore.model import APPLIED, Change, Key, Outcome, Placement, Record
from polystore.operations import Method, Operation
from polystore.protocols import Fill, Invalidation, SupportsCache, SupportsInlineCache
from polystore.store import Settings, Store

P = ParamSpec("P")
R = TypeVar("R")

TIMEOUT_S = 0.5
"""A cache that takes longer is slower than doing without. Five such calls in a row open its breaker: then nobody waits
for it any more."""


class Counts(msgspec.Struct):
    """What readers met. bypassed: reads that went on without the cache because it failed, or held what could not be
    read. refused: what was read and not filled in, because a write came between."""

    hits: int = 0
    misses: int = 0
    filled: int = 0
    refused: int = 0
    bypassed: int = 0


class Bypass(Exception):
    """The cache did not do what it was asked: go on without it."""


class CacheStore(Store):
    """The cache in `store`, for these entity types. It has a deadline and a breaker of its own, and nothing is tried
    twice; the repository is the same."""

    def __init__(self, store: Store, types: Mapping[str, EntityType[Any]], env: Env) -> None:
        super().__init__(
            store.name, store.repository, env=env, roles=store.roles, settings=Settings(timeout_s=TIMEOUT_S, attempts=1)
        )
        self.env = env
        self.counts = Counts()
        self.entries = {etype: Entries(one, env) for etype, one in types.items()}
        self.flights: dict[str, asyncio.Future[None]] = {}
        """Name -> done when the reader of this process who has the lease has filled in, or given up."""
        self._filling: set[asyncio.Task[None]] = set()
        self._patient = store
        self._lookups = Together(self._lookup_all, self._lookup_alone)
        inline = self.supports(SupportsInlineCache)
        self._now = cast(SupportsInlineCache, store.repository) if inline else None

    # -- readers ----------------------------------------------------------------------------------------------

    @property
    def inline(self) -> bool:
        """Whether `lookup_now` may find anything."""
        return self._now is not None

    def lookup_now(self, name: str) -> bytes | None:
        """What a cache inside this process holds; None where it is another one, or fails."""
        if self._now is None or self.breaker.open:
            return None
        try:
            found = self._now.lookup_now(name)
        except Exception:  # noqa: BLE001 -- whatever it is, the home has the answer
            self.counts.bypassed += 1
            return None
        if found is not None:
            self.counts.hits += 1
            if tracer := tracing.current.get():
                tracer.record(tracing.Step(self.name, "lookup", 0.0, 1))
        return found

    async def lookup(self, names: Sequence[str]) -> list[bytes | None]:
        """`SupportsCache.lookup`; those of one loop tick travel as one. Raises Bypass, and nothing else."""
        if tracing.current.get() is not None:
            return await self.ask(SupportsCache.lookup, names)
        try:
            return await self._lookups.ask(names)
        except Exception as e:
            raise Bypass from e

    def _lookup_alone(self, names: Sequence[str]) -> Awaitable[list[bytes | None]]:
        return self._run(Operation.of(SupportsCache.lookup, names), self._once)

    async def _lookup_all(self, asked: list[Sequence[str]]) -> Sequence[list[bytes | None] | Exception]:
        names = list(dict.fromkeys(name for one in asked for name in one))
        found = dict(zip(names, await self.call(SupportsCache.lookup, names), strict=True))
        return [[found[name] for name in one] for one in asked]

    async def ask(self, method: Method[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a method of `SupportsCache`. Raises Bypass, and nothing else, when it fails."""
        try:
            return await self.call(method, *args, **kwargs)
        except Exception as e:
            raise Bypass from e

    def fill(self, fills: Sequence[Fill]) -> asyncio.Task[None]:
        """Fill in behind the reader's back: it has its answer already."""
        task = asyncio.create_task(self._fill(fills))
        self._filling.add(task)
        task.add_done_callback(self._filling.discard)
        return task

    async def _fill(self, fills: Sequence[Fill]) -> None:
        try:
            taken = await self.ask(SupportsCache.fill, fills)
        except Bypass:
            self.counts.bypassed += len(fills)
            return
        self.counts.filled += sum(taken)
        self.counts.refused += len(taken) - sum(taken)

    # -- writers ----------------------------------------------------------------------------------------------

    async def deliver(self, changes: Sequence[Change]) -> list[Outcome]:
        """Invalidate what changed, tried once: delivery has retries of its own."""
        operation = Operation.of(SupportsCache.invalidate, [self._invalidation(change) for change in changes])
        await self._run(operation, self._once)
        return [APPLIED] * len(changes)

    async def intend(self, keys: Sequence[Key], writer: int) -> None:
        """Before the commit of a strict write, with the tries and the deadline of the store as it is configured. Raises
        StoreError."""
        await self._patient.call(SupportsCache.intend, [name_of(key) for key in keys], writer)

    async def tell(self, keys: Sequence[Key], changes: Sequence[Change], writer: int) -> bool:
        """After it: what changed, and for the rest of the keys that nothing did. False: the cache has not acknowledged
        that, and the journal goes on telling it."""
        told = [structs.replace(self._invalidation(change), writer=writer) for change in changes]
        changed = {one.name for one in told}
        told += [Invalidation(name, None, writer=writer) for name in map(name_of, keys) if name not in changed]
        try:
            await self._patient.call(SupportsCache.invalidate, told)
        except PolystoreError:
            return False
        return True

    def committed(self, change: Change) -> None:
        """A write of this process is durable: a cache inside the process shows it from now on. Raises nothing, since
        the delivery will say it again."""
        if self._now is None:
            return
        try:
            self._now.invalidate_now([self._invalidation(change)])
        except Exception:  # noqa: BLE001 -- the commit is done, and the journal owes the cache this invalidation
            self.counts.bypassed += 1

    def _invalidation(self, change: Change) -> Invalidation:
        entries = self.entries[change.key.etype]
        record = Record(change.key, change.version, change.body, b"", change.updated_us, change.expires_us)
        ttl_us = entries.ttl_us(record)
        value = entries.encode(record) if ttl_us else None
        return Invalidation(name_of(change.key), change.version, value, ttl_us)

    async def aclose(self) -> None:
        await asyncio.gather(*self._filling, return_exceptions=True)
        await self._lookups.drain()
        await super().aclose()


def open_caches(
    exits: AsyncExitStack,
    stores: Mapping[str, Store],
    types: Mapping[str, EntityType[Any]],
    placements: Mapping[str, Placement],
    env: Env,
) -> tuple[dict[str, CacheStore], CacheStore | None]:
    """Entity type -> its cache, where one is placed and answered; and the cache for results of queries, which is one of
    those or another that is dedicated to it. `exits` closes them."""
    caches: dict[str, CacheStore] = {}
    made: list[CacheStore] = []
    dedicated = [name for name, store in stores.items() if "cache" in store.roles and "home" not in store.roles]
    placed = [placement.cache for placement in placements.values() if placement.cache in stores]
    for name in dict.fromkeys((*placed, *dedicated[:1])):
        cached = {etype: types[etype] for etype, placement in placements.items() if placement.cache == name}
        cache = CacheStore(stores[name], cached, env)
        exits.push_async_callback(cache.aclose)
        made.append(cache)
        caches.update(dict.fromkeys(cached, cache))
    return caches, next(iter(made), None)
