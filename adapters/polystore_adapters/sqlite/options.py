"""The options of a SQLite store in the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from polystore.errors import ConfigurationError

CACHE_BYTES = 256 << 20


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """page_limit: most pages of 4 KiB that the file may have; none by default. vector_cache_bytes: memory for vectors
    of one entity type that are compared at once; beyond it they are read in parts. readers: threads that read.
    place: 2 for the file beside, where a copy is built anew."""

    page_limit: int | None = None
    vector_cache_bytes: int = CACHE_BYTES
    readers: int = 2
    place: Literal[1, 2] = 1


def parse(options: Mapping[str, Any]) -> Options:
    """Raises ConfigurationError for an unknown option or a value of another type."""
    try:
        return msgspec.convert(dict(options), Options)
    except msgspec.ValidationError as e:
        known = ", ".join(Options.__struct_fields__)
        raise ConfigurationError(f"options of a sqlite: store: {e}; known: {known}") from None
