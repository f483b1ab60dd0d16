"""Bodies of one entity to and from the columns of its table."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from polystore.entity import EntityType
from polystore.errors import DecodeError, InvalidData
from polystore.model import Body

Forms = Mapping[str, Callable[[Any], Any]]
"""Kind of a field -> from one form of its values to the other; kinds left out are the same in both."""


class Codec:
    """In the order of the fields. A store says by what its columns differ from plain values: `encoders`, `decoders`."""

    encoders: Forms
    decoders: Forms

    def __init__(self, entity: EntityType[Any]) -> None:
        self._entity = entity
        self.names = tuple(entity.fields)
        kinds = [(name, spec.kind) for name, spec in entity.fields.items()]
        encoders, decoders = self.encoders, self.decoders
        self._encoders = [(i, encoders[kind.name]) for i, (_, kind) in enumerate(kinds) if kind.name in encoders]
        self._decoders = [(name, decoders[kind.name]) for name, kind in kinds if kind.name in decoders]
        self._needed = [name for name, kind in kinds if not kind.optional and kind.shape != "any"]
        self._decimals = [name for name, kind in kinds if kind.name == "decimal"]

    def encode(self, body: Body) -> list[Any]:
        """The columns' values. Raises InvalidData for a body whose values are not of their fields' kinds."""
        values: list[Any] = list(map(body.get, self.names))
        try:
            for i, encode in self._encoders:
                if (value := values[i]) is not None:
                    values[i] = encode(value)
        except (AttributeError, TypeError, ValueError, ArithmeticError) as e:
            raise InvalidData(f"{self._entity.name}: the body does not fit the entity: {type(e).__name__}") from e
        return values

    def decode(self, id: str, values: Sequence[Any]) -> dict[str, Any]:
        """The body. Raises DecodeError naming the field when a value is not what this adapter wrote."""
        body = dict(zip(self.names, values, strict=False))
        for name, decode in self._decoders:
            value = body[name]
            if value is not None:
                try:
                    body[name] = decode(value)
                except (ValueError, TypeError, AttributeError, ArithmeticError, msgspec.DecodeError) as e:
                    raise DecodeError(
                        f"{self._entity.name} {id!r}: the stored value of {name!r} is no "
                        f"{self._entity.fields[name].kind.name}; repair the record by writing it again, or rebuild "
                        "this store from its home"
                    ) from e
        if None in body.values():
            # A missing value of a field that must have one is left out: its default takes its place, or it is reported.
            for name in self._needed:
                if body[name] is None:
                    del body[name]
        return body

    def sealed(self, id: str, values: Sequence[Any]) -> tuple[dict[str, Any], bytes] | None:
        """The body and its content hash; None where they cannot be read."""
        try:
            body = self.decode(id, values)
            return body, self._entity.content_hash(body)
        except (DecodeError, TypeError):  # TypeError: a value that no field can have
            return None


_decode_exact = msgspec.json.Decoder(dict[str, str]).decode


class ExactCodec(Codec, ABC):
    """With one more column, `ps_exact`: the decimals that the database does not give back as they were, as JSON."""

    @staticmethod
    @abstractmethod
    def given_back(value: Decimal) -> bool:
        """Whether the database gives it back as it is."""

    def encode(self, body: Body) -> list[Any]:
        values = super().encode(body)
        values.append(self.exact(body) if self._decimals else None)
        return values

    def exact(self, body: Body) -> str | None:
        """What stands in `ps_exact`. Raises InvalidData."""
        decimals = {name: body.get(name) for name in self._decimals}
        try:
            kept = {name: str(one) for name, one in decimals.items() if one is not None and not self.given_back(one)}
        except (AttributeError, TypeError, ValueError, ArithmeticError) as e:
            raise InvalidData(f"{self._entity.name}: the body does not fit the entity: {type(e).__name__}") from e
        return msgspec.json.encode(kept).decode() if kept else None

    def decode(self, id: str, values: Sequence[Any]) -> dict[str, Any]:
        body = super().decode(id, values)
        if values[-1] is not None:
            try:
                exact = {name: Decimal(text) for name, text in _decode_exact(values[-1]).items()}
            except (msgspec.DecodeError, TypeError, ArithmeticError) as e:
                raise DecodeError(f"{self._entity.name} {id!r}: what its ps_exact says of decimals is damaged") from e
            for name, value in exact.items():
                if body.get(name) is not None and body[name] == value:
                    body[name] = value  # unless somebody else changed the column
        return body
