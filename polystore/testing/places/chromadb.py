"""ChromaDB: a prefix for each test, whose collections are removed after it; in this process, a folder of its own."""

from __future__ import annotations

import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from polystore.testing.places import Place, Places, fresh_name


def http(url: str) -> str:
    """The address of the server."""
    parts = urlsplit(url)
    return f"http{parts.scheme.removeprefix('chromadb')}://{parts.netloc}"


def collections(url: str) -> str:
    """The path of the database's collections."""
    database = urlsplit(url).path.strip("/") or "default_database"
    return f"/api/v2/tenants/default_tenant/databases/{database}/collections"


@contextmanager
def own_prefix(url: str) -> Generator[str]:
    prefix = f"{fresh_name().replace('_', '-')}-"
    try:
        yield prefix
    finally:
        _remove(url, prefix)


def _remove(url: str, prefix: str) -> None:
    path = collections(url)
    with httpx.Client(base_url=http(url), timeout=30) as client:
        there: list[dict[str, Any]] = client.get(path).json()
        for name in [one["name"] for one in there if one["name"].startswith(prefix)]:
            client.delete(f"{path}/{name}").raise_for_status()


@contextmanager
def _folder(url: str) -> Generator[Place]:
    path = Path(url.partition(":")[2]) / fresh_name()
    try:
        yield Place(f"chromadb:{path}", {})
    finally:
        shutil.rmtree(path, ignore_errors=True)


def places(url: str) -> Places:
    if "://" not in url:
        return lambda: _folder(url)

    @contextmanager
    def made() -> Generator[Place]:
        with own_prefix(url) as prefix:
            yield Place(url, {"prefix": prefix})

    return made
