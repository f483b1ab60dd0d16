"""How a record lies in its collections.

`<prefix><entity>.records` has an item of every record, whose embedding says nothing. Its URI is a data URI with the
record (MessagePack), from which it is read, and so exactly: the server lays no index over URIs, but one over documents
that costs ten times what the rest of a write does. Fields that are single values are metadata, too, under their own
names. `<prefix><entity>.v<digest>` has an item of every vector of one field, with the same metadata.

id                  <tenant>/<id>, the tenant with %XX; "#" and a hash where that is longer than 512 bytes
ps_version, ps_expires_us (0: never)
ps_tenant (with %XX), ps_id    of a live record only
ps_h, ps_bucket (its first 12 bits), ps_hash, ps_updated_us    in `records`
ps_deleted          of a tombstone, which has no fields
ps_vector           base64, in the other collections: embeddings compared by cosine are not kept as they were sent
"""

from __future__ import annotations

import binascii
import hashlib
import sys
from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import msgspec

from polystore.entity import EntityType
from polystore.errors import InvalidData
from polystore.kinds import INT_MAX, INT_MIN
from polystore.model import Body, Change, Key, Record
from polystore.packed import PackedBodies
from polystore_adapters.chromadb.server import Document

ID_BYTES_MAX = 512
TEXT_MAX = 1_000
"""Characters of a text that is metadata; a longer one is only in the record."""
FLOAT_MAX = sys.float_info.max
"""Stands for the infinity, which JSON has not."""
BUCKET_BITS = 12
PLAIN = frozenset({"str", "int", "float", "bool"})
AS_TEXT = frozenset({"uuid", "date", "decimal"})
_HEAD = "data:application/msgpack;base64,"
_EMPTY = "data:,"
_generic = msgspec.msgpack.Decoder()


def id_of(key: Key) -> str:
    whole = f"{quote(key.tenant, safe='')}/{key.id}"
    return whole if len(whole.encode()) <= ID_BYTES_MAX else f"#{hashlib.sha256(whole.encode()).hexdigest()}"


def bucket_of(h: int) -> int:
    return h >> (32 - BUCKET_BITS)


class Item(msgspec.Struct, frozen=True):
    """What is sent of one change. `fields`: metadata of every collection that the record is in."""

    id: str
    fields: Document
    own: Document
    uri: str

    @property
    def metadata(self) -> Document:
        return self.fields | self.own


class Codec:
    """Records of one entity to and from items."""

    def __init__(self, entity: EntityType[Any]) -> None:
        self._entity = entity
        self._kinds = {name: spec.kind for name, spec in entity.fields.items()}
        self._bodies = PackedBodies(entity)

    def encoded(self, change: Change, kept: Mapping[str, Any]) -> Item:
        """`kept`: values of fields that the class has no more. Raises InvalidData."""
        key, body = change.key, change.body
        live = body is not None
        own = {
            "ps_h": change.h if live else None,
            "ps_bucket": bucket_of(change.h) if live else None,
            "ps_hash": change.hash.hex() if live else None,
            "ps_updated_us": change.updated_us,
            "ps_deleted": None if live else True,
        }
        fields: Document = {
            "ps_tenant": quote(key.tenant, safe="") if live else None,
            "ps_id": key.id if live else None,
            "ps_version": change.version,
            "ps_expires_us": change.expires_us if live else 0,
        }
        try:
            uri = _EMPTY if body is None else packed({**kept, **body})
            return Item(id_of(key), self.shown(body or {}) | fields, own, uri)
        except (ArithmeticError, AttributeError, TypeError, ValueError, msgspec.MsgspecError) as e:
            raise InvalidData(f"{self._entity.name}: the body does not fit the entity: {type(e).__name__}") from None

    def shown(self, body: Body) -> Document:
        """Fields as metadata; None where there is nothing that can be asked for, which removes what was there."""
        return {
            name: None if (value := body.get(name)) is None else _shown(kind.name, value)
            for name, kind in self._kinds.items()
            if kind.name in PLAIN or kind.name in AS_TEXT
        }

    def decode(self, id: str, uri: str | None) -> dict[str, Any]:
        """Raises DecodeError when it is not what this adapter wrote."""
        try:
            whole = _packed(uri)
        except (TypeError, ValueError):
            whole = b""  # which is no body either
        return self._bodies.decode(id, whole)

    def record(self, key: Key, item: Document, now_us: int) -> Record:
        """The record of an item; the tombstone, where it is one or its time is over."""
        about: Document = item["metadatas"]
        version, updated_us = about["ps_version"], about["ps_updated_us"]
        if about.get("ps_deleted") or over(about, now_us):
            return Record(key, version, None, b"", updated_us)
        body = self.decode(key.id, item["uris"])
        return Record(key, version, body, bytes.fromhex(about["ps_hash"]), updated_us, about["ps_expires_us"])


def over(about: Document, now_us: int) -> bool:
    """Whether the time of what is told is over."""
    return 0 < int(about.get("ps_expires_us") or 0) <= now_us


def packed(body: Body) -> str:
    return _HEAD + b64encode(msgspec.msgpack.encode(body)).decode()


def unpacked(uri: str | None) -> dict[str, Any]:
    """A stored body as plain values, whatever the class is."""
    found: dict[str, Any] = _generic.decode(_packed(uri))
    return found


def vector_text(packed: bytes) -> str:
    return b64encode(packed).decode()


def vector_of(about: Document) -> bytes:
    """Empty where it is no vector."""
    try:
        return b64decode(about.get("ps_vector") or "", validate=True)
    except (binascii.Error, TypeError):
        return b""


def _packed(uri: str | None) -> bytes:
    head, text = (uri or "")[: len(_HEAD)], (uri or "")[len(_HEAD) :]
    if head != _HEAD:
        raise ValueError
    return b64decode(text, validate=True)


def _shown(kind: str, value: Any) -> Any:
    match kind:
        case "str":
            return value if len(value) <= TEXT_MAX else None
        case "int":
            return value if INT_MIN <= value <= INT_MAX else None
        case "float":
            return min(max(float(value), -FLOAT_MAX), FLOAT_MAX) + 0.0
        case "bool":
            return value
        case _:
            return str(value)
