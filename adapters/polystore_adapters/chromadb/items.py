"""How a record lies in its collections.

A record with a vector is one item, in `<prefix><entity>.v<digest>`, the collection of that field. Where a class has
several such fields, it lies in that of the first by name, the main one; the others have an item of its vector there.
`<prefix><entity>.records` has what has no such vector, whose embedding says nothing: other records, and tombstones.

An item's URI is a data URI with what is kept (MessagePack, `Kept`): the server lays no index over URIs, but one over
documents that costs ten times what the rest of a write does. Metadata, of which each costs the server a row in three
trees, are what is asked by, and the fields that are single values, under their own names.

id                  <tenant>/<id>, the tenant with %XX; "#" and a hash where that is longer than 512 bytes
ps_version
ps_tenant (with %XX) of live records
ps_at               of the whole record, when it is live: its tenant and the first 12 bits of its hash
ps_id               where the id is a hash
ps_deleted_us       of a tombstone, which has no more
"""

from __future__ import annotations

import hashlib
import math
import sys
import zlib
from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any, cast
from urllib.parse import quote, unquote

import msgspec

from polystore.embedding import pack, unpack
from polystore.entity import EntityType
from polystore.errors import DecodeError, InvalidData
from polystore.facets import Metric
from polystore.kinds import INT_MAX, INT_MIN
from polystore.model import Body, Change, Key, Record, key_hash
from polystore.packed import PackedBodies
from polystore.protocols import VectorSpec
from polystore_adapters.chromadb.server import Document

ID_BYTES_MAX = 512
TEXT_MAX = 200
"""Characters of a text that is metadata; a longer one is only in the record."""
FLOAT_MAX = sys.float_info.max
"""Stands for the infinity, which JSON has not."""
BUCKET_BITS = 12
PLAIN = frozenset({"str", "int", "float", "bool"})
AS_TEXT = frozenset({"uuid", "date", "decimal"})
SPACES: Mapping[Metric, str] = {"cosine": "ip", "l2": "l2", "ip": "ip"}
"""How the server compares: what it compares by cosine it does not give back bit by bit, but what has length 1 has the
same order by inner product."""
UNIT = 1e-6
"""A vector whose length is no further from 1 is sent as it is."""
RECORDS = ""
"""The place of records without a vector; the other places are the fields."""
EMPTY = "data:,"
_HEAD = "data:application/msgpack;base64,"
NO_VECTOR = pack([0.0])
"""The embedding of what has none."""
_DELETED = "ps_deleted_us"
_generic = msgspec.msgpack.Decoder(dict[str, Any])
DAMAGED = (TypeError, ValueError, msgspec.DecodeError)
"""What reading an item raises that is not what was written."""


def id_of(key: Key) -> str:
    whole = f"{quote(key.tenant, safe='')}/{key.id}"
    return whole if len(whole.encode()) <= ID_BYTES_MAX else f"#{hashlib.sha256(whole.encode()).hexdigest()}"


def bucket_of(h: int) -> int:
    return h >> (32 - BUCKET_BITS)


def at_of(tenant: str, bucket: int) -> str:
    """`tenant` with %XX."""
    return f"{tenant}/{bucket:x}"


class Item(msgspec.Struct, frozen=True):
    """What is sent of one record to one collection. In `metadata`, None is for what is not there."""

    id: str
    metadata: Document
    uri: str
    embedding: bytes

    @property
    def size(self) -> int:
        """Bytes of a request, about."""
        return len(self.uri) + 2 * len(self.embedding)


class Kept(msgspec.Struct, array_like=True, frozen=True):
    """What is kept of an item. `check`: CRC-32 of the embedding that was sent. `vector`: that of the record, where it
    is neither the embedding nor a list in the body. `field`: where that list is the vector, its name; the body has it
    unless it is the embedding's. `body`: of the item that is the whole record, else nil."""

    check: int
    vector: bytes | None
    field: str
    updated_us: int
    expires_us: int
    hash: bytes
    body: msgspec.Raw


_kept = msgspec.msgpack.Decoder(Kept)


class Codec:
    """Records of one entity to and from items."""

    def __init__(self, entity: EntityType[Any], vectors: Mapping[str, VectorSpec]) -> None:
        self._entity = entity
        self._kinds = {name: spec.kind for name, spec in entity.fields.items()}
        self._bodies = PackedBodies(entity)
        self._vectors = vectors
        self.main = main_of(vectors)

    def encoded(self, change: Change, vectors: Mapping[str, bytes], more: Mapping[str, Any]) -> dict[str, Item]:
        """Place -> the item there. `more`: values of fields that the class has no more. Raises InvalidData."""
        id, body = id_of(change.key), change.body
        if body is None:
            about: Document = {"ps_version": change.version, "ps_deleted_us": change.updated_us}
            return {RECORDS: Item(id, {"ps_tenant": None, "ps_at": None, "ps_id": None, **about}, EMPTY, NO_VECTOR)}
        try:
            about, whole = self.about(change.key, change.h, change.version, body), {**more, **body}
            found = {field: self._item(id, change, field, packed, about, whole) for field, packed in vectors.items()}
            if self.main not in vectors:
                found[RECORDS] = Item(id, self.told(RECORDS, about), _uri(change, 0, None, "", whole), NO_VECTOR)
        except (ArithmeticError, AttributeError, TypeError, ValueError, msgspec.MsgspecError) as e:
            raise InvalidData(f"{self._entity.name}: the body does not fit the entity: {type(e).__name__}") from None
        return found

    def _item(self, id: str, change: Change, field: str, packed: bytes, about: Document, body: Body) -> Item:
        """Of a vector, and with the record where it is the main one."""
        embedding = compared(packed, self._vectors[field].metric)
        same = embedding == packed
        check, own = zlib.crc32(embedding), None if same else packed
        if field != self.main:
            return Item(id, self.told(field, about), _uri(change, check, own, "", None), embedding)
        if not _is_list(body.get(field), packed):
            return Item(id, about, _uri(change, check, own, "", body), embedding)
        if same and unpack(packed).tolist() == body[field]:
            body = {name: value for name, value in body.items() if name != field}
        return Item(id, about, _uri(change, check, None, field, body), embedding)

    def about(self, key: Key, h: int, version: int, body: Body) -> Document:
        """The metadata of the whole record; None for what is not there."""
        tenant = quote(key.tenant, safe="")
        return {
            **self.shown(body),
            "ps_version": version,
            "ps_tenant": tenant,
            "ps_at": at_of(tenant, bucket_of(h)),
            "ps_id": key.id if id_of(key)[:1] == "#" else None,
        }

    def told(self, place: str, about: Document) -> Document:
        """What of that an item there has."""
        if place == RECORDS:
            return {name: about[name] for name in ("ps_version", "ps_tenant", "ps_at", "ps_id")} | {_DELETED: None}
        return about if place == self.main else {**about, "ps_at": None}

    def shown(self, body: Body) -> Document:
        """Fields as metadata; None where there is nothing that can be asked for, which removes what was there."""
        return {
            name: None if (value := body.get(name)) is None else _shown(kind.name, value)
            for name, kind in self._kinds.items()
            if kind.name in PLAIN or kind.name in AS_TEXT
        }

    def decode(self, item: Document) -> dict[str, Any]:
        """The body. Raises DecodeError when the item is not what this adapter wrote."""
        return self.typed(key_of(self._entity.name, item).id, self.plain(item))

    def typed(self, id: str, plain: Body) -> dict[str, Any]:
        """The body of plain values. Raises DecodeError."""
        return self._bodies.decode(id, msgspec.msgpack.encode(plain))

    def plain(self, item: Document) -> dict[str, Any]:
        """The stored body as plain values, whatever the class is. Raises DecodeError."""
        try:
            return plain_body(item)
        except DAMAGED:
            id = key_of(self._entity.name, item).id
            raise DecodeError(
                f"{self._entity.name} {id!r}: the stored item is not what was written; repair the record by writing it "
                "again, or rebuild this store from its home"
            ) from None

    def record(self, key: Key, item: Document, now_us: int) -> Record:
        """The record of an item; the tombstone, where it is one or its time is over."""
        about: Document = item["metadatas"]
        if "ps_deleted_us" in about:
            return Record(key, about["ps_version"], None, b"", about["ps_deleted_us"])
        body, kept = self.decode(item), kept_of(item)
        if over(kept, now_us):
            return Record(key, about["ps_version"], None, b"", kept.updated_us)
        return Record(key, about["ps_version"], body, kept.hash, kept.updated_us, kept.expires_us)


def main_of(vectors: Mapping[str, VectorSpec]) -> str:
    """The field in whose collection records lie; RECORDS where there is none."""
    return min(vectors, default=RECORDS)


def key_of(etype: str, item: Document) -> Key:
    """Whose item it is."""
    tenant, _, id = item["id"].partition("/")
    about: Document = item["metadatas"]
    return Key(unquote(about.get("ps_tenant", tenant)), etype, about.get("ps_id", id))


def h_of(key: Key) -> int:
    return key_hash(key.tenant, key.etype, key.id)


def kept_of(item: Document) -> Kept:
    """Raises one of DAMAGED where the item has none."""
    found: Kept | None = item.get("kept")
    if found is None:
        uri = item["uris"] or ""
        if not uri.startswith(_HEAD):
            raise ValueError
        found = item["kept"] = _kept.decode(b64decode(uri[len(_HEAD) :], validate=True))
    return found


def plain_body(item: Document) -> dict[str, Any]:
    """The stored body as plain values, whatever the class is. Raises one of DAMAGED where it has
    none."""
    kept = kept_of(item)
    found = _generic.decode(kept.body)
    if kept.field and kept.field not in found:
        packed = pack(item["embeddings"])
        if zlib.crc32(packed) != kept.check:
            raise ValueError("the embedding is not the one that was written")
        found[kept.field] = unpack(packed).tolist()
    return found


def vector_of(item: Document) -> bytes:
    """The record's vector. What cannot be read has the embedding, which is about the same."""
    try:
        kept = kept_of(item)
        if kept.vector is not None:
            return kept.vector
        listed = plain_body(item)[kept.field] if kept.field else None
    except (KeyError, *DAMAGED):
        listed = None
    return pack(item["embeddings"] if listed is None else listed)


def over(kept: Kept, now_us: int) -> bool:
    """Whether the time of what is kept is over."""
    return 0 < kept.expires_us <= now_us


def compared(packed: bytes, metric: Metric) -> bytes:
    """The embedding of a vector."""
    if metric != "cosine":
        return packed
    vector = unpack(packed)
    length = math.hypot(*vector)
    return packed if not length or abs(length - 1) <= UNIT else pack([one / length for one in vector])


def _is_list(value: Any, packed: bytes) -> bool:
    return isinstance(value, list) and pack(cast(list[float], value)) == packed


def _uri(change: Change, check: int, vector: bytes | None, field: str, body: Body | None) -> str:
    raw = msgspec.Raw(msgspec.msgpack.encode(body))
    kept = Kept(check, vector, field, change.updated_us, change.expires_us, change.hash, raw)
    return _HEAD + b64encode(msgspec.msgpack.encode(kept)).decode()


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
