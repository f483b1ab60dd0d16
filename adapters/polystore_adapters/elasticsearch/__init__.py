"""Elasticsearch 8: copies of records, found by words. Read `documents.py` first (what lies in an index), then
`conditions.py` (questions as queries), `records.py` (the guard), `prepare.py`; `server.py` is the driver's client.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from polystore.env import Env

if TYPE_CHECKING:
    from polystore_adapters.elasticsearch.repository import ElasticsearchRepository

__all__ = ["connect"]


async def connect(url: str, options: Mapping[str, Any], env: Env) -> ElasticsearchRepository:
    """`elasticsearch://[USER:PASSWORD@]HOST:PORT[,HOST:PORT]`, `elasticsearchs://` with TLS. Options: see `Options`;
    all others are the driver's own. Nothing is sent before the first call. Raises ConfigurationError."""
    from polystore_adapters.elasticsearch.options import parse
    from polystore_adapters.elasticsearch.repository import ElasticsearchRepository  # imports the driver
    from polystore_adapters.elasticsearch.server import Server

    known, theirs = parse(options)
    return ElasticsearchRepository(Server(url, known, theirs, env))
