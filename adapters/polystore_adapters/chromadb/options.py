"""Options of a store on ChromaDB."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple
from urllib.parse import unquote, urlsplit

import msgspec

from polystore.errors import ConfigurationError

SCHEMES = {"chromadb": "http", "chromadbs": "https"}
_OF_SERVERS = ("tenant", "token", "timeout_s", "pool_size", "ca_file", "client")
_PREFIX = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
_SAID = "chromadb://[user:password@]host:port[/database], chromadbs:// with TLS, or chromadb:FOLDER in this process"


class Options(msgspec.Struct, frozen=True):
    """prefix: of the names of all collections. tenant: the server's, which the database belongs to. token: sent as
    `X-Chroma-Token`. ef_search, ef_construction, max_neighbors: of the indexes that `prepare` makes; with more, more is
    found, and it costs more. exact_max: where a collection has no more vectors, all are compared. tombstone_ttl_s: how
    long a deleted record's version is kept against older changes. timeout_s: of one request. pool_size: connections at
    most. ca_file: of who signed the server's certificate. client: an `httpx.AsyncClient` of the application with a
    `base_url`, which stays open; of the URL only the database is used then. place: 2 for the
    collections beside, where copies are built anew."""

    prefix: str = "ps-"
    tenant: str = "default_tenant"
    token: str = ""
    ef_search: int = 100
    ef_construction: int = 100
    max_neighbors: int = 16
    exact_max: int = 1_000
    tombstone_ttl_s: float = 7 * 86_400.0
    timeout_s: float = 30.0
    pool_size: int = 16
    ca_file: str = ""
    client: Any = None
    place: Literal[1, 2] = 1


class Place(NamedTuple):
    """How to reach a database: `url` is the server's, or `folder` is where it lies in this process."""

    url: str
    tls: bool
    auth: tuple[str, str] | None
    database: str
    options: Options
    folder: str = ""


def parse(url: str, options: Mapping[str, Any]) -> Place:
    """Raises ConfigurationError."""
    try:
        known = msgspec.convert(dict(options), type=Options)
    except msgspec.ValidationError as e:
        raise ConfigurationError(f"options of a chromadb: store: {e}") from None
    if strange := sorted(options.keys() - set(Options.__struct_fields__)):
        raise ConfigurationError(f"options of a chromadb: store: {', '.join(strange)} is none of them")
    if not _PREFIX.fullmatch(known.prefix):
        raise ConfigurationError("options of a chromadb: store: prefix is letters, digits, ., _ and -, up to 64")
    if known.place == 2:
        known = msgspec.structs.replace(known, prefix=f"{known.prefix}2-")
    numbers = (known.ef_search, known.ef_construction, known.max_neighbors - 1, known.timeout_s, known.pool_size)
    if min(*numbers, known.tombstone_ttl_s) <= 0 or known.exact_max < 0:
        raise ConfigurationError(
            "options of a chromadb: store: ef_search, ef_construction, timeout_s, pool_size, tombstone_ttl_s are above "
            "0, max_neighbors above 1, exact_max not below 0"
        )
    parts = urlsplit(url)
    if parts.scheme == "chromadb" and not url.startswith("chromadb://"):
        return _in_process(url, known)
    database = unquote(parts.path.strip("/")) or "default_database"
    named = _NAME.fullmatch(database) and _NAME.fullmatch(known.tenant)
    if parts.scheme not in SCHEMES or not parts.hostname or parts.query or parts.fragment or not named:
        raise ConfigurationError(f"not a URL of a ChromaDB server: {_SAID}")
    auth = (unquote(parts.username), unquote(parts.password or "")) if parts.username else None
    host = f"{SCHEMES[parts.scheme]}://{parts.netloc.rpartition('@')[2]}"
    return Place(host, parts.scheme == "chromadbs", auth, database, known)


def _in_process(url: str, known: Options) -> Place:
    folder = url.partition(":")[2]
    if not folder:
        raise ConfigurationError(f"not a URL of a ChromaDB server: {_SAID}")
    strange = [name for name in _OF_SERVERS if getattr(known, name) != getattr(Options(), name)]
    if strange:
        raise ConfigurationError(f"options of a chromadb: store: {', '.join(strange)} is for servers only")
    return Place("", False, None, "default_database", known, folder)
