"""What is kept under which name, as bytes: no two callers ever share an object."""

from __future__ import annotations

import zlib
from typing import Any, Generic, TypedDict, TypeVar
from urllib.parse import quote

import msgspec

from polystore.entity import EntityType
from polystore.env import Env
from polystore.evolution import describe
from polystore.kinds import TYPES
from polystore.model import Body, Key, Record

T = TypeVar("T")
B = TypeVar("B")

HARD_TTL_S = 300.0
"""How long a value may be served at most if nobody tells the cache that it changed; each lives up to a tenth more or
less, so that those of one moment do not all go in another."""
ABSENT_TTL_S = 30.0
"""The same for "there is no such record"."""
RESULT_TTL_S = 5.0
"""The same for the result of a query."""
SPREAD = 0.1


def name_of(key: Key) -> str:
    """The name of a record in a cache."""
    return f"{part(key.tenant)}/{part(key.etype)}/{part(key.id)}"


def part(text: str) -> str:
    """A part of a name, percent-encoded; ids are mostly letters, digits and hyphens, and so need nothing."""
    return text if not text or (text.isascii() and text.replace("-", "a").isalnum()) else quote(text, safe="")


class Entry(msgspec.Struct, Generic[B], frozen=True, array_like=True, gc=False):
    """A record with its version and its own expiry. `shape` is that of the class which wrote it: another process may
    know the class by other fields. `body` None: no such record."""

    shape: int
    version: int
    updated_us: int
    expires_us: int
    body: B | None


class Entries(Generic[T]):
    """The entries of one entity type."""

    def __init__(self, entity: EntityType[T], env: Env) -> None:
        self._entity = entity
        self._env = env
        self._shape = zlib.crc32(msgspec.json.encode(describe(entity)))
        kinds = {name: TYPES.get(spec.kind.name, Any) for name, spec in entity.fields.items()}
        hints = {name: one if one is Any else one | None for name, one in kinds.items()}
        entry: Any = Entry
        self._decoder: msgspec.msgpack.Decoder[Entry[Body]] = msgspec.msgpack.Decoder(entry[_typed_dict(hints)])
        self._encoder = msgspec.msgpack.Encoder()

    def encode(self, record: Record) -> bytes:
        return self._encoder.encode(
            Entry(self._shape, record.version, record.updated_us, record.expires_us, record.body)
        )

    def record(self, key: Key, entry: bytes) -> Record:
        """Raises ValueError for what this class cannot read."""
        one = self._decode(entry)
        body = one.body if self._lives(one) else None
        return Record(key, one.version, body, b"", one.updated_us, one.expires_us)

    def value(self, entry: bytes) -> T | None:
        """The value, or None where there is no such record. Raises ValueError; DecodeError when it is damaged."""
        one = self._decode(entry)
        return None if one.body is None or not self._lives(one) else self._entity.decode(one.body)

    def _lives(self, entry: Entry[Body]) -> bool:
        """Whether the record has not expired. The cache was told how long it may be kept, and not since when: what was
        on its way for a while would stay too long."""
        return not entry.expires_us or entry.expires_us > self._env.now_us()

    def _decode(self, entry: bytes) -> Entry[Body]:
        one = self._decoder.decode(entry)
        if one.shape != self._shape:
            raise ValueError(f"written by a class {self._entity.cls.__name__} with other fields")
        return one

    def ttl_us(self, record: Record) -> int:
        """How long the record may be kept; 0: not at all, it is about to expire."""
        seconds = ABSENT_TTL_S if record.body is None else HARD_TTL_S
        ttl_us = spread_us(seconds, self._env)
        return min(ttl_us, max(0, record.expires_us - self._env.now_us())) if record.expires_us else ttl_us


def _typed_dict(hints: dict[str, Any]) -> Any:
    """A dict with these keys and types of values, for msgspec."""
    make: Any = TypedDict
    return make("body", hints)


def spread_us(seconds: float, env: Env) -> int:
    return int(seconds * 1e6 * env.random.uniform(1 - SPREAD, 1 + SPREAD))
