"""The cache of the simulation: a server that judges every hit in the moment in which it is given, and its readers."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote

from polystore_adapters.memory.cache import Cache

from polystore.cache import CachedRecords, CacheStore
from polystore.env import Env
from polystore.errors import PolystoreError
from polystore.model import Key, key_hash
from polystore.protocols import Invalidation
from polystore.store import Store
from polystore.testing.simulation.history import CachedRead, History, Hit, State
from polystore.testing.simulation.servers import TYPES, SimServer

CACHE = "cache"


class SimCache(Cache):
    """A cache under observation. `told` is the newest version of each record that it has acknowledged."""

    def __init__(self, env: Env, seen: History, home: SimServer) -> None:
        super().__init__(env)
        self.told: dict[Key, int] = {}
        self._seen = seen
        self._home = home

    def lookup_now(self, name: str) -> bytes | None:
        held = self.values.entries.get(name)
        found = super().lookup_now(name)
        if held is not None and found is not None:
            key = _key(name)
            newest = self._home.version(key)
            stale = held.version < newest
            pairs = [(key_hash(key.tenant, key.etype, key.id), newest)]
            owed = stale and self._home.pending(key.etype, CACHE, pairs)
            self._seen.hits.append(Hit(key, held.version, newest, self.told.get(key, 0), owed))
            self._seen.covered["cache hit, outdated" if stale else "cache hit"] += 1
            self._seen.note(f"{CACHE} {key.id} found at {held.version}, the home is at {newest}")
        return found

    def invalidate(self, invalidations: Sequence[Invalidation]) -> None:
        super().invalidate(invalidations)
        for one in invalidations:
            key = _key(one.name)
            self.told[key] = max(one.version or 0, self.told.get(key, 0))
            self._seen.note(f"{CACHE} {key.id} was told of {one.version}")

    def forget(self, etype: str) -> None:
        """Nothing that was committed before can be filled in after it: as if it had been told of everything."""
        super().forget(etype)
        for key, state in self._home.contents().items():
            if key.etype == etype:
                self.told[key] = max(state.version, self.told.get(key, 0))

    def evict(self, r: random.Random) -> None:
        """Lose a value or a control, as a cache may at any time."""
        room: Any = r.choice((self.values, self.controls))
        if room.entries:
            room.drop(r.choice(list(room.entries)))
            self._seen.covered["cache eviction"] += 1


class SimCacheServer(SimServer):
    """The server behind it. What it holds of a record is what it was told of it."""

    def __init__(self, env: Env, seen: History, home: SimServer) -> None:
        super().__init__(CACHE, env, seen, refuses=False)
        self.cache: SimCache = SimCache(env, seen, home)

    def version(self, key: Key) -> int:
        return self.cache.told.get(key, 0)

    def contents(self) -> dict[Key, State]:
        return {
            _key(name): State(held.version, False)
            for name, held in self.cache.values.entries.items()
            if held.until_us > self.env.now_us()
        }


def _key(name: str) -> Key:
    return Key(*(unquote(part) for part in name.split("/")))


async def evictions(server: SimCacheServer, r: random.Random) -> None:
    """Until it is cancelled."""
    while True:
        await asyncio.sleep(r.expovariate(1 / 0.1))
        server.cache.evict(r)


class CacheReader:
    """Reads of one process through the cache."""

    def __init__(self, process: str, cache: CacheStore, home: Store, server: SimCacheServer, seen: History) -> None:
        self._process = process
        self._cache = cache
        self._home = home
        self._server = server
        self._seen = seen

    async def read(self, keys: Sequence[Key], *, past: bool) -> None:
        """Read records of one type and tenant, and note what is found against what the cache knew before. `past`: as
        with a token, without the cache."""
        told, began_us = [self._server.version(key) for key in keys], self._cache.env.now_us()
        records = CachedRecords[Any](self._cache, self._home, TYPES[keys[0].etype], keys[0].tenant)
        try:
            found = await (self._home.get(keys) if past else records.records(keys))
        except PolystoreError as e:
            self._seen.note(f"{self._process} reads {keys}: {type(e).__name__}")
            return
        for key, wanted, record in zip(keys, told, found, strict=True):
            version = 0 if record is None else record.version
            body = None if record is None else record.body
            n = None if body is None else int(body["n"])
            now_us = self._cache.env.now_us()
            self._seen.cached_reads.append(CachedRead(self._process, key, wanted, version, n, began_us, now_us))
