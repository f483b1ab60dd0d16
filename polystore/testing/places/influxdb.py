"""InfluxDB: a bucket for each test."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import httpx
from polystore_adapters.influxdb.options import read_options

from polystore.testing.places import Place, Places, fresh_name


@contextmanager
def own_bucket(url: str) -> Generator[str]:
    """The URL of a bucket that is removed with all that is in it."""
    name = fresh_name()
    try:
        yield f"{url.rstrip('/')}/{name}"
    finally:
        _remove(url, name)


def _remove(url: str, name: str) -> None:
    place = read_options(url, {})
    headers = {"Authorization": f"Token {place.options.token}"}
    with httpx.Client(base_url=place.server, headers=headers) as client:
        found: list[dict[str, Any]] = client.get("/api/v2/buckets", params={"name": name}).json().get("buckets", [])
        for one in found:
            client.delete(f"/api/v2/buckets/{one['id']}").raise_for_status()


def places(url: str) -> Places:
    @contextmanager
    def made() -> Generator[Place]:
        with own_bucket(url) as fresh:
            yield Place(fresh, {})

    return made
