"""URL and options -> the driver's client. The driver parses the URL; what it has no form for is taken off before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from redis.asyncio import ConnectionPool, Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig

from polystore.errors import ConfigurationError
from polystore_adapters.redis.cluster import look_at_connections

Client = Redis | RedisCluster

PLAIN = {"valkey": "redis", "valkeys": "rediss", "keydb": "redis"}
"""Schemes of servers that speak the same protocol."""
OURS: Mapping[str, Any] = {"decode_responses": False, "encoding": "utf-8"}
NO_DEADLINE: Mapping[str, Any] = {"socket_timeout": None}
"""The store's layers have one; the driver's own, for each packet, takes a quarter of the time of a call."""
SENTINEL_DEADLINE: Mapping[str, Any] = {"socket_timeout": 1.0}
"""Another sentinel is asked while one does not answer."""


def make_client(url: str, options: Mapping[str, Any], connections: int) -> Client:
    """A client that has not connected yet, and never tries anything twice: the store's layers do. Raises
    ConfigurationError, without the URL."""
    scheme, _, rest = url.partition(":")
    scheme, _, kind = scheme.lower().partition("+")
    plain = f"{PLAIN.get(scheme, scheme)}:{rest}"
    try:
        if kind == "sentinel":
            return _sentinel(plain, options, connections)
        if kind == "cluster":
            return _cluster(plain, options, connections)
        pool: Any = ConnectionPool(max_connections=connections, **{**NO_DEADLINE, **_known(plain, options)})
        pool.make_connection()  # says whether it knows all options
        return Redis.from_pool(pool)
    except (ValueError, TypeError, LookupError) as e:
        raise ConfigurationError(
            "not a URL of a Redis server, or an option that the driver does not know. Known are "
            "redis://[user:password@]host:port/db, rediss:// (TLS), unix:///path?db=0, "
            "redis+sentinel://host:port,host:port/service/db and redis+cluster://host:port,host:port; and as options "
            f"what redis.asyncio.Connection takes ({type(e).__name__})"
        ) from None


def _known(url: str, options: Mapping[str, Any]) -> dict[str, Any]:
    parsed = dict(parse_url(url))
    for name in (*parsed, *options):
        if name in OURS or name in ("retry", "max_connections", "redis_connect_func"):
            raise ConfigurationError(f"the driver's option {name} is polystore's own to set")
    # While the driver listens for such notices it takes a connection that the server has closed for one in order.
    unnoticed = MaintNotificationsConfig(enabled=False)
    return {**parsed, **OURS, "retry": Retry(NoBackoff(), 0), "maint_notifications_config": unnoticed, **options}


def _split(url: str) -> tuple[str, list[tuple[str, int]], list[str]]:
    """A URL with the first of its hosts and no path; all hosts; the parts of the path."""
    parts = urlsplit(url)
    credentials, at, hosts = parts.netloc.rpartition("@")
    addresses = [urlsplit(f"//{host}") for host in hosts.split(",")]
    first = parts._replace(netloc=f"{credentials}{at}{hosts.split(',')[0]}", path="").geturl()
    path = [part for part in parts.path.split("/") if part]
    return first, [(one.hostname or "localhost", one.port or 26379) for one in addresses], path


def _sentinel(url: str, options: Mapping[str, Any], connections: int) -> Redis:
    """The master of the service that the path names; the sentinels take the same credentials and TLS, unless the option
    `sentinel_kwargs` says otherwise."""
    first, addresses, (service, *db) = _split(url)
    known = _known(first, {name: value for name, value in options.items() if name != "sentinel_kwargs"})
    secured = known.pop("connection_class", None) is SSLConnection
    shared = {name: value for name, value in known.items() if name not in ("host", "port", "db")}
    if secured:
        shared["ssl"] = True
    theirs = {**SENTINEL_DEADLINE, **shared, **options.get("sentinel_kwargs", {})}
    sentinels: Any = Sentinel  # the driver does not say its types
    made = sentinels(addresses, sentinel_kwargs=theirs, **{**NO_DEADLINE, **shared})
    client: Redis = made.master_for(service, max_connections=connections, db=int(db[0]) if db else known.get("db", 0))
    return client


def _cluster(url: str, options: Mapping[str, Any], connections: int) -> RedisCluster:
    first, addresses, _ = _split(url)
    known = _known(first, options)
    secured = known.pop("connection_class", None) is SSLConnection
    known = {name: value for name, value in known.items() if name not in ("host", "port", "db")}
    nodes = [ClusterNode(host, port) for host, port in addresses]
    client = RedisCluster(startup_nodes=nodes, max_connections=connections, ssl=secured, **known)
    look_at_connections(client, secured=secured)
    return client
