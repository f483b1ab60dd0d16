"""The options that are not the driver's."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from polystore.errors import ConfigurationError

Positive = Annotated[int, msgspec.Meta(ge=1)]


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """prefix: of all keys and channels. connections: most that calls use at once. client: one of the application's.
    tombstone_ttl_s: after this time the server removes what is left of a deleted record. find_max: among how many
    records of a type and tenant is looked for what a condition or an order other than by key means."""

    prefix: Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9_-]+\\Z")] = "ps"
    connections: Positive = 16
    client: Any = None
    tombstone_ttl_s: Annotated[float, msgspec.Meta(gt=0)] = 7 * 86_400.0
    find_max: Positive = 10_000


def split(options: dict[str, Any]) -> tuple[Options, dict[str, Any]]:
    """These, and the driver's own. Raises ConfigurationError."""
    known = {name: options[name] for name in Options.__struct_fields__ if name in options}
    try:
        return msgspec.convert(known, Options), {name: one for name, one in options.items() if name not in known}
    except msgspec.ValidationError as e:
        raise ConfigurationError(f"options of a redis: store: {e}") from None
