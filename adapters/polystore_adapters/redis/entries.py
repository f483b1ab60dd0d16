"""How a record lies under its key: 14 hex digits of its version, and then JSON, which any program can read:

    {"updated_us": 1700000000000000, "expires_us": 0, "hash": "9f...", "body": {"id": "a", ...}}

Fields stand under their own names: texts, numbers and booleans as such, times and dates in ISO 8601, Decimal and UUID
as text, bytes in base64. A tombstone has `updated_us` and nothing else. Versions are compared as text.
"""

from __future__ import annotations

from typing import Any

import msgspec

from polystore.entity import EntityType
from polystore.errors import DecodeError, InvalidData
from polystore.kinds import INT_MIN
from polystore.model import UNREADABLE, Body, Change, Key, Record, Stamp
from polystore.packed import body_type

DIGITS = 14


def digits(version: int) -> str:
    return f"{version:0{DIGITS}x}"


NOTHING = msgspec.Raw(b"null")


class Entry(msgspec.Struct, omit_defaults=True):
    """What stands behind the version."""

    updated_us: int
    expires_us: int = 0
    hash: str = ""
    body: msgspec.Raw = NOTHING

    @property
    def deleted(self) -> bool:
        return bytes(self.body) == b"null"


_entries = msgspec.json.Decoder(Entry)
_plain = msgspec.json.Decoder(dict[str, Any])
_encoder = msgspec.json.Encoder()


class Codec:
    """Records of one entity to and from what is stored."""

    def __init__(self, entity: EntityType[Any]) -> None:
        self.entity = entity
        self._kinds = {name: spec.kind for name, spec in entity.fields.items()}
        self._numbers = self._kinds[entity.key].name == "int"
        self._bodies: msgspec.json.Decoder[dict[str, Any]] = msgspec.json.Decoder(body_type(entity))

    def ordered(self, id: str) -> str:
        """A text that stands, byte by byte, where the key stands among the keys of its type."""
        return f"{int(id) - INT_MIN:016x}" if self._numbers else id

    def id_of(self, ordered: bytes) -> str:
        return str(int(ordered, 16) + INT_MIN) if self._numbers else ordered.decode()

    def encoded(self, change: Change) -> bytes:
        """What stands behind the version after the change. Raises InvalidData."""
        if change.body is None:
            return _encoder.encode(Entry(change.updated_us))
        return self.entry(change.body, change.hash, change.updated_us, change.expires_us)

    def entry(self, body: Body, hash: bytes, updated_us: int, expires_us: int) -> bytes:
        try:
            packed = msgspec.Raw(_encoder.encode(body))
        except (TypeError, ValueError, ArithmeticError, msgspec.MsgspecError) as e:
            raise InvalidData(f"{self.entity.name}: the body does not fit the entity: {type(e).__name__}") from None
        return _encoder.encode(Entry(updated_us, expires_us, hash.hex(), packed))

    def record(self, key: Key, stored: bytes, now_us: int) -> Record:
        """The record, or the tombstone, which it is too when its time is over. Raises DecodeError."""
        try:
            version, entry = int(stored[:DIGITS], 16), _entries.decode(stored[DIGITS:])
            if entry.deleted or 0 < entry.expires_us <= now_us:
                return Record(key, version, None, b"", entry.updated_us)
            body, hash = self._bodies.decode(entry.body), bytes.fromhex(entry.hash)
        except (msgspec.DecodeError, ValueError):
            raise _damaged(self.entity.name, key.id) from None
        for name, kind in self._kinds.items():
            if body.get(name) is None:
                if kind.optional or kind.shape == "any":
                    body[name] = None
                else:
                    raise _damaged(self.entity.name, key.id)
        return Record(key, version, body, hash, entry.updated_us, entry.expires_us)

    def stamp(self, key: Key, h: int, stored: bytes, now_us: int) -> Stamp | None:
        """What `verify` compares; None of a tombstone."""
        try:
            record = self.record(key, stored, now_us)
        except DecodeError:
            return Stamp(key.id, h, _version(stored), b"", fault=UNREADABLE)
        if record.body is None:
            return None
        return Stamp(key.id, h, record.version, self.entity.content_hash(record.body))


def opened(stored: bytes, etype: str, id: str) -> tuple[bytes, Entry, dict[str, Any] | None]:
    """Version, entry, and body as plain values, whatever the class is. Raises DecodeError."""
    try:
        entry = _entries.decode(stored[DIGITS:])
        return stored[:DIGITS], entry, None if entry.deleted else _plain.decode(entry.body)
    except msgspec.DecodeError:
        raise _damaged(etype, id) from None


def _version(stored: bytes) -> int:
    """0 where it is damaged, too."""
    try:
        return int(stored[:DIGITS], 16)
    except ValueError:
        return 0


def _damaged(etype: str, id: str) -> DecodeError:
    return DecodeError(
        f"{etype} {id!r}: what is stored is not what was written; write the record again, or delete its key and repair"
    )
