"""Reading records through a cache. A reader who misses takes a lease, reads at the home, and fills in."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

from polystore.cache.entries import name_of, part
from polystore.cache.store import Bypass, CacheStore
from polystore.entity import EntityType
from polystore.model import Key, Record
from polystore.protocols import Fill, SupportsCache
from polystore.store import Store

T = TypeVar("T")

LOOKS = 3
"""Looks into the cache before a reader who always has to wait reads at the home without filling in."""
WAIT_S = 0.05
"""Pause between looks while a reader of another process has the lease."""


class CachedRecords(Generic[T]):
    """The records of one entity type and tenant, asked of the cache first and then of their home.

    Nothing raises here that the home does not raise. Readers of one process who miss the same record wait for the first
    of them, and look again: none takes over what another has read, which may be older than the reader's own question.
    """

    def __init__(self, cache: CacheStore, home: Store, entity: EntityType[T], tenant: str) -> None:
        self._cache = cache
        self._home = home
        self._entries = cache.entries[entity.name]
        self._entity = entity
        self._tenant = tenant
        self._prefix = f"{part(tenant)}/{part(entity.name)}/"

    async def value(self, id: str) -> T | None:
        """The value, or None when there is no live record. Raises what the home raises, and DecodeError."""
        cache, name = self._cache, self._prefix + part(id)
        entry, missed = cache.lookup_now(name), False
        if not cache.inline:
            try:
                (entry,) = await cache.lookup((name,))
            except Bypass:
                return await self._bypassed(id)
            missed = entry is None
            cache.counts.hits += not missed
        if entry is not None:
            try:
                return self._entries.value(entry)
            except ValueError:
                return await self._bypassed(id)
        return self._value((await self.records((self._key(id),), missed=missed))[0])

    def _key(self, id: str) -> Key:
        return Key(self._tenant, self._entity.name, id)

    def _value(self, record: Record | None) -> T | None:
        return None if record is None or record.body is None else self._entity.decode(record.body)

    async def _bypassed(self, id: str) -> T | None:
        self._cache.counts.bypassed += 1
        return self._value((await self._home.get([self._key(id)]))[0])

    async def records(self, keys: Sequence[Key], *, missed: bool = False) -> list[Record | None]:
        """As `Store.get`. What was absent, and remembered so, comes back as a tombstone. missed: the cache was looked
        into a moment ago, and had none of them."""
        wanted = {name_of(key): key for key in keys}
        found: dict[str, Record | None] = {}
        left = list(wanted)
        try:
            for look in range(LOOKS):
                if look or not missed:
                    left = await self._look(left, wanted, found)
                if left:
                    left = await self._read(left, wanted, found)
                if not left:
                    break
        except Bypass:
            left = [name for name in wanted if name not in found]
            self._cache.counts.bypassed += len(left)
        if left:
            found.update(zip(left, await self._home.get([wanted[name] for name in left]), strict=True))
        return [found[name_of(key)] for key in keys]

    async def _look(
        self, names: Sequence[str], wanted: Mapping[str, Key], found: dict[str, Record | None]
    ) -> list[str]:
        """Which of the names are not in the cache."""
        cache = self._cache
        if cache.inline:
            entries = [cache.lookup_now(name) for name in names]
        else:
            entries = await cache.lookup(names)
            cache.counts.hits += sum(entry is not None for entry in entries)
        for name, entry in zip(names, entries, strict=True):
            if entry is not None:
                found[name] = self._decoded(wanted[name], entry)
        return [name for name, entry in zip(names, entries, strict=True) if entry is None]

    def _decoded(self, key: Key, entry: bytes) -> Record:
        try:
            return self._entries.record(key, entry)
        except ValueError as e:
            raise Bypass from e

    async def _read(
        self, names: Sequence[str], wanted: Mapping[str, Key], found: dict[str, Record | None]
    ) -> list[str]:
        """Read what nobody else is reading. Which of the names others were reading, who are done by now."""
        flights = self._cache.flights
        busy = [name for name in names if name in flights]
        free = [name for name in names if name not in flights]
        others = {flights[name] for name in busy}
        waiting = await self._lead(free, wanted, found) if free else []
        if others:
            await asyncio.wait(others)
        elif waiting:
            await asyncio.sleep(WAIT_S)
        return busy + waiting

    async def _lead(
        self, names: Sequence[str], wanted: Mapping[str, Key], found: dict[str, Record | None]
    ) -> list[str]:
        """Take the leases, read at the home, fill in. Which of the names other processes have the leases of."""
        cache = self._cache
        cache.counts.misses += len(names)
        landed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        cache.flights.update(dict.fromkeys(names, landed))

        def land(_: object = None) -> None:
            for name in names:
                del cache.flights[name]
            landed.set_result(None)

        filling: asyncio.Task[None] | None = None
        try:
            token = cache.env.random.getrandbits(62) + 1
            answers = await cache.ask(SupportsCache.lease, names, token)
            for name, answer in zip(names, answers, strict=True):
                if isinstance(answer, bytes):
                    found[name] = self._decoded(wanted[name], answer)
            reading = [name for name, answer in zip(names, answers, strict=True) if answer in ("leased", "bypass")]
            # Begun after the leases were granted, by a call of our own: what was under way before may be older than a
            # write that the cache was already told of.
            records = await self._home.get([wanted[name] for name in reading]) if reading else []
            found.update(zip(reading, records, strict=True))
            leased = {name for name, answer in zip(names, answers, strict=True) if answer == "leased"}
            fills = [self._fill(name, token, wanted[name], found[name]) for name in reading if name in leased]
            if fills := [fill for fill in fills if fill.ttl_us]:
                filling = cache.fill(fills)
        finally:
            if filling is None:
                land()
            else:
                filling.add_done_callback(land)
        return [name for name, answer in zip(names, answers, strict=True) if answer == "wait"]

    def _fill(self, name: str, token: int, key: Key, record: Record | None) -> Fill:
        one = record or Record(key, 0, None)
        return Fill(name, token, one.version, self._entries.encode(one), self._entries.ttl_us(one))
