"""The URL goes through the driver's own parser: what it would say holds, TLS and secrets most of all."""

from __future__ import annotations

import ssl
from typing import Any

import pytest
from polystore_adapters.redis.urls import make_client
from redis.asyncio import RedisCluster
from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection


def pool_of(url: str, options: dict[str, Any]) -> Any:
    client: Any = make_client(url, options, 5)
    return client.connection_pool


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("redis://u:p%40ss@h:7000/3", Connection),
        ("valkey://u:p%40ss@h:7000/3", Connection),
        ("keydb://u:p%40ss@h:7000/3", Connection),
        ("rediss://u:p%40ss@h:7000/3?ssl_cert_reqs=required&ssl_check_hostname=true", SSLConnection),
        ("valkeys://u:p%40ss@h:7000/3", SSLConnection),
        ("unix://u:p%40ss@/run/redis.sock?db=3", UnixDomainSocketConnection),
    ],
)
def test_one_server(url: str, kind: type) -> None:
    pool = pool_of(url, {"client_name": "app"})
    assert pool.connection_class is kind
    made = pool.make_connection()
    assert (made.username, made.password, made.db, made.client_name) == ("u", "p@ss", 3, "app")
    assert made.retry.get_retries() == 0, "the store's layers try again, and nobody else"
    if kind is SSLConnection:
        assert made.cert_reqs == ssl.CERT_REQUIRED


def test_sentinels() -> None:
    options = {"ssl_ca_certs": "ca.pem", "sentinel_kwargs": {"password": "other"}}
    pool = pool_of("rediss+sentinel://u:p@a:1,b:2,c/main/3", options)
    assert pool.service_name == "main"
    assert issubclass(pool.connection_class, SSLConnection)
    made = pool.make_connection()
    assert (made.password, made.db) == ("p", 3)
    theirs = [one.connection_pool for one in pool.sentinel_manager.sentinels]
    addresses = [(one.connection_kwargs["host"], one.connection_kwargs["port"]) for one in theirs]
    assert addresses == [("a", 1), ("b", 2), ("c", 26379)]
    assert {(one.connection_class, one.connection_kwargs["password"]) for one in theirs} == {(SSLConnection, "other")}


def test_a_cluster() -> None:
    client: Any = make_client("rediss+cluster://u:p@a:1,b:2", {"ssl_ca_certs": "ca.pem"}, 5)
    assert isinstance(client, RedisCluster)
    assert sorted(client.nodes_manager.startup_nodes) == ["a:1", "b:2"]
    assert client.connection_kwargs["password"] == "p"
    assert issubclass(client.connection_kwargs["connection_class"], SSLConnection)
    assert client.retry.get_retries() == 0
