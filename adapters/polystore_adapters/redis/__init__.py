"""Redis, and servers that speak its protocol: live state, caches, and records whose journal is another store.

`urls.py` makes the driver's client, `runs.py` looks at its connections, `server.py` sends commands and scripts through
it and `cluster.py` to the nodes of a cluster, `keys.py` says what is kept where; `state.py`, `limits.py`, `channels.py`
and `cache.py` are the protocols, one Lua script for each step, and so are `records.py` (with `entries.py`, `finding.py`
and `prepare.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from redis.asyncio import Redis, RedisCluster

from polystore.env import Env
from polystore.errors import ConfigurationError
from polystore_adapters.redis.keys import Keys
from polystore_adapters.redis.options import split
from polystore_adapters.redis.repository import RedisRepository
from polystore_adapters.redis.runs import watch_runs
from polystore_adapters.redis.server import Server
from polystore_adapters.redis.urls import make_client

__all__ = ["RedisRepository", "connect"]


async def connect(url: str, options: Mapping[str, Any], env: Env) -> RedisRepository:
    """A connection to a server that has answered.

    options: those of `Options` (of `connections` as many again are left to who uses the driver's own object; with
    `client`, which stays open, the URL is not used), `sentinel_kwargs`, and what the driver's `Connection` takes.
    Raises ConfigurationError, PermissionDenied, Unavailable.
    """
    known, given = split(dict(options))
    client = known.client
    if client is not None and (not isinstance(client, Redis | RedisCluster) or client.get_encoder().decode_responses):
        raise ConfigurationError("the option client is a redis.asyncio.Redis or RedisCluster that answers in bytes")
    keys = Keys(known.prefix)
    made = client or make_client(url, given, 2 * known.connections + 1)
    server = Server(made, keys, known.connections, owned=client is None)
    if client is None:
        watch_runs(made, keys)
    repository = RedisRepository(server, env, known)
    try:
        await repository.ping()
    except BaseException:
        await repository.aclose()
        raise
    return repository
