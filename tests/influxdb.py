"""What the tests of the InfluxDB adapter share: a bucket for each test."""

import contextlib
from collections.abc import Generator
from typing import Any
from uuid import uuid4

import httpx
from polystore_adapters.influxdb.options import read_options


@contextlib.contextmanager
def own_bucket(url: str) -> Generator[str]:
    """A bucket for one test, which is removed with all that is in it."""
    name = f"test-{uuid4()}"
    yield f"{url}/{name}"
    place = read_options(url, {})
    headers = {"Authorization": f"Token {place.options.token}"}
    with httpx.Client(base_url=place.server, headers=headers) as client:
        found: list[dict[str, Any]] = client.get("/api/v2/buckets", params={"name": name}).json().get("buckets", [])
        for one in found:
            client.delete(f"/api/v2/buckets/{one['id']}").raise_for_status()
