"""Redis, and servers that speak its protocol: live state and caches.

`urls.py` makes the driver's client, `server.py` sends commands and scripts through it, `keys.py` says what is kept
where; `state.py`, `limits.py`, `channels.py` and `cache.py` are the protocols, one Lua script for each step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from redis.asyncio import Redis, RedisCluster

from polystore.env import Env
from polystore.errors import ConfigurationError
from polystore_adapters.redis.keys import Keys
from polystore_adapters.redis.repository import RedisRepository
from polystore_adapters.redis.runs import watch_runs
from polystore_adapters.redis.server import Server
from polystore_adapters.redis.urls import make_client

__all__ = ["RedisRepository", "connect"]

CONNECTIONS = 16


async def connect(url: str, options: Mapping[str, Any], env: Env) -> RedisRepository:
    """A connection to a server that has answered.

    options: `prefix` of all keys and channels ("ps"), `connections` (16; as many again are left to who uses the
    driver's own object), `client` (one of the application's, which stays open; the URL is then not used),
    `sentinel_kwargs`, and what the driver's `Connection` takes. Raises ConfigurationError, PermissionDenied,
    Unavailable.
    """
    given = dict(options)
    prefix, connections = given.pop("prefix", "ps"), given.pop("connections", CONNECTIONS)
    if not isinstance(prefix, str) or not prefix.replace("-", "a").replace("_", "a").isalnum() or not prefix.isascii():
        raise ConfigurationError("the option prefix is letters, digits, - and _")
    if type(connections) is not int or connections < 1:
        raise ConfigurationError("the option connections is a number from 1 up")
    client = given.pop("client", None)
    if client is not None and (not isinstance(client, Redis | RedisCluster) or client.get_encoder().decode_responses):
        raise ConfigurationError("the option client is a redis.asyncio.Redis or RedisCluster that answers in bytes")
    keys = Keys(prefix)
    made = client or make_client(url, given, 2 * connections + 1)
    server = Server(made, keys, connections, owned=client is None)
    if client is None:
        watch_runs(made, keys)
    repository = RedisRepository(server, env)
    try:
        await repository.ping()
    except BaseException:
        await repository.aclose()
        raise
    return repository
