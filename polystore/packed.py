"""Bodies that a store keeps whole, each in one value."""

from __future__ import annotations

from typing import Any, TypedDict

import msgspec

from polystore.entity import EntityType
from polystore.errors import DecodeError
from polystore.kinds import TYPES


def body_type(entity: EntityType[Any]) -> Any:
    """What msgspec's decoders read a body as: every field of its kind or None, and any of them may be missing."""
    make: Any = TypedDict
    hints = {name: TYPES.get(spec.kind.name, Any) for name, spec in entity.fields.items()}
    return make("body", {name: one if one is Any else one | None for name, one in hints.items()}, total=False)


class PackedBodies:
    """Bodies of one entity in MessagePack, as `msgspec.msgpack.encode` writes them."""

    def __init__(self, entity: EntityType[Any]) -> None:
        self._entity = entity
        self._nullable = {name: spec.kind.optional or spec.kind.shape == "any" for name, spec in entity.fields.items()}
        self._decoder: msgspec.msgpack.Decoder[dict[str, Any]] = msgspec.msgpack.Decoder(body_type(entity))

    def decode(self, id: str, packed: bytes) -> dict[str, Any]:
        """A field that may be None is, where it is missing; any other is left out: its default takes its place, or it
        is reported. Raises DecodeError for what was not written so."""
        try:
            found = self._decoder.decode(packed)
        except (msgspec.DecodeError, TypeError):
            raise DecodeError(
                f"{self._entity.name} {id!r}: the stored body is not what was written; repair the record by writing it "
                "again, or rebuild this store from its home"
            ) from None
        for name, nullable in self._nullable.items():
            if found.get(name) is None:
                if nullable:
                    found[name] = None
                else:
                    found.pop(name, None)
        return found
