"""Redis and what speaks its protocol: a prefix for each test, under which time goes by at once."""

from __future__ import annotations

import functools
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from polystore_adapters.redis import RedisRepository, connect
from polystore_adapters.redis.urls import PLAIN, make_client
from redis import Redis, RedisCluster
from redis.asyncio import RedisCluster as AsyncCluster
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.sentinel import Sentinel

from polystore.env import Env
from polystore.testing.conformance import CacheConformance, LimitConformance, StateConformance
from polystore.testing.places import Place, Places, fresh_name


class Prefix(Place):
    """What is under it is removed by `clear`."""

    def __init__(self, url: str, prefix: str | None = None) -> None:
        self.prefix = prefix or fresh_name()
        super().__init__(url, {"prefix": self.prefix})

    async def connect(self, env: Env, options: Mapping[str, Any] = {}) -> RedisRepository:
        return await connect(self.url, {**self.options, **options}, env)

    def hooks(self, cls: type[Any]) -> Mapping[str, Any]:
        """What is stored grows older. A limiter reckons with the time of its caller too."""
        place = self

        async def forward(self: LimitConformance, units: float) -> None:
            self.env.forward(units * self.unit_s)
            place.age(units * self.unit_s)

        async def time_passes(self: StateConformance, units: float) -> None:
            place.age(units * self.unit_s)

        async def later(self: CacheConformance, seconds: float) -> None:
            place.age(seconds)

        if issubclass(cls, LimitConformance):
            return {"time_passes": forward}
        if issubclass(cls, StateConformance):
            return {"time_passes": time_passes}
        return {"later": later} if issubclass(cls, CacheConformance) else {}

    @functools.cached_property
    def client(self) -> Any:
        """One that waits for its answers: a test's loop ends with it, and this goes on."""
        drivers: Any = SimpleNamespace(Redis=Redis, RedisCluster=RedisCluster, Sentinel=Sentinel)  # says no types
        client: Any = make_client(self.url, {}, 10)
        if isinstance(client, AsyncCluster):
            node: Any = next(iter(client.nodes_manager.startup_nodes.values()))
            return drivers.RedisCluster(node.host, node.port, password=client.connection_kwargs["password"])
        pool: Any = client.connection_pool
        if isinstance(client.connection_pool, SentinelConnectionPool):
            secret = {"password": pool.connection_kwargs["password"]}
            first = pool.sentinel_manager.sentinels[0].connection_pool.connection_kwargs
            sentinel = drivers.Sentinel([(first["host"], first["port"])], sentinel_kwargs=secret, **secret)
            return sentinel.master_for(pool.service_name)
        scheme, _, rest = self.url.partition(":")
        return drivers.Redis.from_url(f"{PLAIN.get(scheme, scheme)}:{rest}")

    def keys(self) -> list[bytes]:
        return sorted(self.client.scan_iter(match=f"{self.prefix}:*", count=10_000))

    def age(self, seconds: float) -> None:
        """So much time goes by for all that is under the prefix: times to live shrink, and stored times recede."""
        for key in self.keys():
            _older(self.client, key, int(seconds * 1e6))

    def clear(self) -> None:
        for key in self.keys():
            self.client.unlink(key)
        self.client.close()


def _older(client: Any, key: bytes, by_us: int) -> None:
    kind = key.split(b":")[1]
    if kind == b"c":
        for name, value in client.hgetall(key).items():
            if name == b"d" or name.startswith(b"w:"):
                client.hset(key, name, int(value) - by_us)
    if kind == b"l":
        name, *numbers = client.get(key).split()
        times = [3] if name == b"token_bucket" else range(0, len(numbers), 2)
        for i in times:
            numbers[i] = b"%d" % (int(numbers[i]) - by_us)
        client.set(key, b" ".join([name, *numbers]), keepttl=True)
    ttl_ms = client.pttl(key)
    if ttl_ms >= 0:
        client.pexpire(key, max(ttl_ms - by_us // 1000, 0))


def places(url: str) -> Places:
    @contextmanager
    def made() -> Generator[Place]:
        place = Prefix(url)
        place.keys()  # connected before the test, whose time it would take
        try:
            yield place
        finally:
            place.clear()

    return made
