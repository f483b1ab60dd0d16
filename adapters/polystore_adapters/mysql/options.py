"""The options of a MariaDB store in the configuration, and its URL."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any, Literal

import msgspec
import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError

from polystore.errors import ConfigurationError


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """pool_size: most connections at once. connect_timeout_s: for one connection. lock_timeout_s: how long a write
    waits for another one of the same record. exact_vectors_max: most vectors of one field and
    tenant that a search compares one by one. place: 2 for the database beside, of the name with _2 behind it, where
    copies are built anew."""

    pool_size: int = 10
    connect_timeout_s: float = 5.0
    lock_timeout_s: int = 10
    exact_vectors_max: int = 1_000_000
    place: Literal[1, 2] = 1

    def __post_init__(self) -> None:
        if min(self.pool_size, self.lock_timeout_s) < 1 or self.connect_timeout_s <= 0:
            raise ValueError("pool_size, connect_timeout_s and lock_timeout_s must be more than 0")


def parse(options: Mapping[str, Any]) -> Options:
    """Raises ConfigurationError for an unknown option or a value of another type."""
    try:
        return msgspec.convert(dict(options), Options)
    except msgspec.ValidationError as e:
        known = ", ".join(Options.__struct_fields__)
        raise ConfigurationError(f"options of a mysql: store: {e}; known: {known}") from None


class Address(msgspec.Struct, frozen=True):
    """place: where the store is, without user and password, as errors name it. arguments: what asyncmy is given."""

    place: str
    arguments: Mapping[str, Any]


def address(url: str, place: int = 1) -> Address:
    """Raises ConfigurationError."""
    try:
        parts = sa.make_url(url)
    except (ArgumentError, ValueError):
        raise ConfigurationError(
            "the URL of a mysql: store cannot be read; mysql://user:password@host/database"
        ) from None
    server = f"mysql {parts.host or 'localhost'}:{parts.port or 3306}"
    if not parts.database:
        raise ConfigurationError(f"{server}/: the URL names no database; mysql://user:password@host/database")
    database = parts.database if place == 1 else f"{parts.database}_{place}"
    where = f"{server}/{database}"
    query = {name: str(value) for name, value in parts.query.items()}
    arguments: dict[str, Any] = {
        "host": parts.host or "localhost",
        "port": parts.port or 3306,
        "user": parts.username,
        "password": (parts.password or "").encode(),  # a text would go out in Latin-1
        "database": database,
    }
    if "unix_socket" in query:
        arguments["unix_socket"] = query.pop("unix_socket")
    files: dict[str, str] = {name: query.pop(name) for name in ("ssl_ca", "ssl_cert", "ssl_key") if name in query}
    tls = query.pop("ssl", "true" if files else "false")
    if tls not in ("true", "false") or (files and tls == "false"):
        raise ConfigurationError(f"{where}: ssl is true or false, and files of TLS do not go with false")
    if tls == "true":
        arguments["ssl"] = _tls(where, files)
    if query:
        raise ConfigurationError(
            f"{where}: the URL has unknown parameters: {', '.join(sorted(query))}; known: unix_socket, ssl, ssl_ca, "
            "ssl_cert, ssl_key"
        )
    return Address(where, arguments)


def _tls(place: str, files: Mapping[str, str]) -> ssl.SSLContext:
    if ("ssl_cert" in files) is not ("ssl_key" in files):
        raise ConfigurationError(f"{place}: ssl_cert and ssl_key go together")
    try:
        context = ssl.create_default_context(cafile=files.get("ssl_ca"))
        if "ssl_cert" in files:
            context.load_cert_chain(files["ssl_cert"], files["ssl_key"])
    except (OSError, ssl.SSLError) as e:
        raise ConfigurationError(f"{place}: the files of ssl_ca, ssl_cert or ssl_key cannot be used: {e}") from None
    return context
