"""What the tests of the Redis adapter share: the servers, a prefix for each test, and time that goes by at once."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from polystore_adapters.redis import RedisRepository, connect
from polystore_adapters.redis.urls import make_client
from redis import Redis, RedisCluster
from redis.asyncio import RedisCluster as AsyncCluster
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.sentinel import Sentinel

from polystore.env import Env

SERVERS = ("redis", "valkey", "redis-sentinel", "redis-cluster")


class Place:
    """A prefix of its own on a server; what is under it is removed when the test ends."""

    def __init__(self, url: str, prefix: str | None = None) -> None:
        self.url = url
        self.prefix = prefix or f"ps-test-{uuid.uuid4().hex[:12]}"

    async def connect(self, env: Env, options: Mapping[str, Any] = {}) -> RedisRepository:
        return await connect(self.url, {"prefix": self.prefix, **options}, env)

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
        return drivers.Redis.from_url(self.url)

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
