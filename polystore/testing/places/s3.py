"""MinIO and S3: the beginning of all keys for each test."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import obstore
from polystore_adapters.s3.options import read_options

from polystore.testing.places import Place, Places, fresh_name


@contextmanager
def own_objects(url: str) -> Generator[str]:
    """The URL of a prefix in the bucket; what is below it is removed."""
    fresh = f"{url.rstrip('/')}/{fresh_name()}"
    try:
        yield fresh
    finally:
        place = read_options(fresh, {})
        found: Any = obstore.list(place.store(), place.prefix)  # pyright: ignore[reportUnknownMemberType]
        obstore.delete(place.store(), [one["path"] for one in found.collect()])


def places(url: str) -> Places:
    @contextmanager
    def made() -> Generator[Place]:
        with own_objects(url) as fresh:
            yield Place(fresh, {})

    return made
