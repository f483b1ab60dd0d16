"""Elasticsearch: a prefix for each test. Its indexes are removed later, those of many prefixes at once: each removal
by itself takes the server longer than most tests."""

from __future__ import annotations

import atexit
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Any

import httpx

from polystore.testing.places import Place, Places, fresh_name

TOGETHER = 16
"""Prefixes whose indexes are removed in one request; the others at the end of the process."""
_left: dict[str, list[str]] = {}


@contextmanager
def own_prefix(url: str) -> Generator[str]:
    prefix = f"{fresh_name().replace('_', '-')}-"
    if not _left:
        atexit.register(remove)
    try:
        yield prefix
    finally:
        left = _left.setdefault(url, [])
        left.append(prefix)
        if len(left) >= TOGETHER:
            remove()


def remove() -> None:
    """What tests that have ended left."""
    while _left:
        url, prefixes = _left.popitem()
        client = httpx.Client(base_url=f"http{url.removeprefix('elasticsearch')}", timeout=60)
        with suppress(httpx.ConnectError), client:  # a server that went with its test took them along
            asked = ",".join(f"{prefix}*" for prefix in prefixes)
            names: dict[str, Any] = client.get(f"/{asked}/_alias").raise_for_status().json()
            if names:
                client.delete(f"/{','.join(names)}").raise_for_status()


def places(url: str) -> Places:
    @contextmanager
    def made() -> Generator[Place]:
        with own_prefix(url) as prefix:
            yield Place(url, {"prefix": prefix})

    return made
