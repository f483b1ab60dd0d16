"""TLS options and certificates reach real servers: both sides are checked, and nobody falls back to plain text."""

from __future__ import annotations

import asyncio
import gc
import importlib
import warnings
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from polystore_adapters import mongodb, mysql, postgresql, redis

from polystore.env import Env
from polystore.errors import PolystoreError
from polystore.protocols import Repository
from tests.mysql import FLAVOURS, run
from tests.tls import Authority, tls_server

Connect = Callable[[str, Mapping[str, Any], Env], Awaitable[Repository]]


def speaks(connect: Connect, url: str, options: Mapping[str, Any] | None = None) -> str:
    """The name of the server that answers."""

    async def main() -> str:
        store = await connect(url, options or {}, Env())
        try:
            return (await store.ping()).server
        finally:
            await store.aclose()

    return asyncio.run(main())


def refused(connect: Connect, url: str, options: Mapping[str, Any] | None = None, says: str = "") -> None:
    gc.freeze()  # what other tests have left is not looked at again
    with warnings.catch_warnings():  # drivers forget a connection whose handshake failed, without closing it
        warnings.simplefilter("ignore", ResourceWarning)
        with pytest.raises(PolystoreError) as caught:
            speaks(connect, url, options)
        told = str(caught.value)
        del caught  # its frames know the connection
        gc.collect()
    gc.unfreeze()
    assert "polystore-test" not in told
    assert says in told


async def create(url: str, database: str) -> None:
    asyncpg: Any = importlib.import_module("asyncpg")
    connection = await asyncpg.connect(url)
    await connection.execute(f"CREATE DATABASE {database}")
    await connection.close()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def stranger(tmp_path: Path) -> Path:
    """The certificate of an authority that signed nothing here."""
    (tmp_path / "stranger").mkdir()
    return Authority(tmp_path / "stranger").ca


@pytest.mark.parametrize("server", FLAVOURS)
def test_mysql(server: str, authority: Authority, stranger: Path) -> None:
    pem, key = authority.issue("client")
    with tls_server(server, authority) as mine:
        run(mine.url, "ALTER USER polystore@'%' REQUIRE X509")
        shown = f"&ssl_cert={pem}&ssl_key={key}"
        assert speaks(mysql.connect, f"{mine.url}?ssl_ca={authority.ca}{shown}") == server
        for query in ("", f"?ssl_ca={authority.ca}"):
            refused(mysql.connect, mine.url + query)
        for query in (f"?ssl_ca={stranger}{shown}", "?ssl=true"):
            refused(mysql.connect, mine.url + query, says="TLS failed: ")


def test_redis(authority: Authority, stranger: Path) -> None:
    pem, key = authority.issue("client")
    with tls_server("redis", authority) as mine:
        url = mine.url.replace("redis://", "rediss://")
        shown = {"ssl_certfile": str(pem), "ssl_keyfile": str(key)}
        assert speaks(redis.connect, url, {"ssl_ca_certs": str(authority.ca), **shown}) == "redis"
        refused(redis.connect, mine.url)
        for options in ({}, {"ssl_ca_certs": str(authority.ca)}, {"ssl_ca_certs": str(stranger), **shown}):
            refused(redis.connect, url, options)


def test_postgresql(authority: Authority, stranger: Path) -> None:
    pem, key = authority.issue("client")
    with tls_server("postgresql", authority) as mine:
        asyncio.run(create(mine.url, "private"))
        url = f"{mine.url.rpartition('/')[0]}/private"
        shown = f"&sslcert={pem}&sslkey={key}"
        checked = "?sslmode=verify-full&sslrootcert="
        assert speaks(postgresql.connect, f"{url}{checked}{authority.ca}{shown}") == "postgresql"
        for query in ("?sslmode=disable", f"{checked}{authority.ca}", f"{checked}{stranger}{shown}"):
            refused(postgresql.connect, url + query)


def test_mongodb(authority: Authority, stranger: Path) -> None:
    pem, key = authority.issue("client")
    both = pem.with_name("client_and_key.pem")
    both.write_bytes(pem.read_bytes() + key.read_bytes())
    with tls_server("mongodb", authority) as mine:
        url = mine.url.replace("/?", "/private?")
        shown = f"&tlsCertificateKeyFile={both}"
        assert speaks(mongodb.connect, f"{url}&tlsCAFile={authority.ca}{shown}") == "ferretdb"
        as_options = {"tls": True, "tlsCAFile": str(authority.ca), "tlsCertificateKeyFile": str(both)}
        assert speaks(mongodb.connect, url, as_options) == "ferretdb"
        for query in ("", f"&tlsCAFile={authority.ca}", f"&tlsCAFile={stranger}{shown}", "&tls=true"):
            refused(mongodb.connect, f"{url}{query}", {"connect_timeout_s": 0.3})
