"""Elasticsearch: a prefix for each test, whose indexes are removed after it."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import httpx

from polystore.testing.places import Place, Places, fresh_name


@contextmanager
def own_prefix(url: str) -> Generator[str]:
    prefix = f"{fresh_name().replace('_', '-')}-"
    yield prefix
    with httpx.Client(base_url=f"http{url.removeprefix('elasticsearch')}", timeout=30) as client:
        names: dict[str, Any] = client.get(f"/{prefix}*").json()
        for name in names:
            client.delete(f"/{name}").raise_for_status()


def places(url: str) -> Places:
    @contextmanager
    def made() -> Generator[Place]:
        with own_prefix(url) as prefix:
            yield Place(url, {"prefix": prefix})

    return made
