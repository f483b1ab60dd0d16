"""Options of a store on Elasticsearch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from polystore.errors import ConfigurationError

BESIDE = "2-"
"""The end of the second place's prefix."""


class Options(msgspec.Struct, frozen=True):
    """prefix: of the names of all indexes. shards, replicas: of the indexes that `prepare` makes. tombstone_ttl_s: how
    long a deleted record's version is kept against older changes. timeout_s: of one request. client: one of the
    application's, which stays open; the URL is then not used. place: 2 for the indexes beside, where copies are built
    anew."""

    prefix: str = "ps-"
    shards: int = 1
    replicas: int = 0
    tombstone_ttl_s: float = 7 * 86_400.0
    timeout_s: float = 30.0
    client: Any = None
    place: Literal[1, 2] = 1

    @property
    def alias_prefix(self) -> str:
        """Of the names that others ask by, the same in both places."""
        return self.prefix.removesuffix(BESIDE) if self.place == 2 else self.prefix


def parse(options: Mapping[str, Any]) -> tuple[Options, dict[str, Any]]:
    """Ours, and those of the driver. Raises ConfigurationError."""
    ours = {name: value for name, value in options.items() if name in Options.__struct_fields__}
    try:
        known = msgspec.convert(ours, Options)
    except msgspec.ValidationError as e:
        raise ConfigurationError(f"options of an elasticsearch: store: {e}") from None
    prefix = known.prefix
    if not prefix or prefix != prefix.lower() or not prefix.replace("-", "a").isalnum() or prefix.startswith("-"):
        raise ConfigurationError("options of an elasticsearch: store: prefix is small letters, digits and -, not first")
    if known.shards < 1 or known.replicas < 0 or known.timeout_s <= 0 or known.tombstone_ttl_s <= 0:
        raise ConfigurationError("options of an elasticsearch: store: shards, timeout_s, tombstone_ttl_s are above 0")
    if known.place == 2:
        known = msgspec.structs.replace(known, prefix=f"{prefix}{BESIDE}")
    return known, {name: value for name, value in options.items() if name not in ours}
