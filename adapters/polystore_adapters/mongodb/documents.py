"""How a record lies in its collection: its fields under their own names, in the types that MongoDB has for them, and
polystore's own beside them.

str, int, float, bool, bytes    string, int or long, double, bool, binary
datetime                        date, which ends at milliseconds; the microseconds beyond stand in `ps_us_FIELD`
date                            date, at midnight UTC
Decimal                         Decimal128: 34 digits, exactly as written
UUID                            binary, subtype 4
list, dict, nested classes      array, document; inside them JSON-like values, see `polystore.kinds`

_id                 {tenant, id}: the key as text
ps_tenant           of a live record only
ps_version, ps_h, ps_hash, ps_updated_us, ps_expires_us (microseconds since the epoch; without it: never)
ps_terms, ps_line, ps_length    of the full text
ps_deleted, ps_purge_at         of a tombstone, which has no fields
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import bson
from bson import Decimal128, Int64
from bson.errors import BSONError

from polystore.entity import EntityType
from polystore.errors import DecodeError, InvalidData, ValueTooLarge
from polystore.kinds import INT_MAX, INT_MIN
from polystore.model import Body, Change, Key, Record
from polystore_adapters.mongodb.driver import PLAIN, RAW, Document, packed, unpacked
from polystore_adapters.mongodb.full_text import FullText

DOCUMENT_BYTES_MAX = (16 << 20) - (16 << 10)
"""A document ends at 16 MiB (https://www.mongodb.com/docs/manual/reference/limits/), the statement with it at 16 KiB
more."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def micros_field(field: str) -> str:
    """Where the microseconds of a field are that its date has not."""
    return f"ps_us_{field}"


def whole_and_rest(value: datetime) -> tuple[datetime, int]:
    """The milliseconds of a time, and the microseconds beyond, 0 to 999."""
    rest = (value - _EPOCH) // _MICROSECOND % 1000
    return value - rest * _MICROSECOND, rest


def _midnight(value: date) -> datetime:
    return datetime.combine(value, time(), UTC)


def _int(value: int) -> int:
    if not INT_MIN <= value <= INT_MAX:
        raise OverflowError
    return Int64(value)


ENCODERS: Mapping[str, Callable[[Any], Any]] = {
    "int": _int,
    "float": float,
    "date": _midnight,
    "decimal": Decimal128,
    "uuid": lambda value: UUID(bytes=value.bytes),
}
"""Kind of a field -> its value in the document; a datetime is two."""
_TYPES: Mapping[str, type] = {
    "str": str,
    "int": int,
    "float": float,
    "bool": bool,
    "bytes": bytes,
    "datetime": datetime,
    "date": datetime,
    "decimal": Decimal,
    "uuid": UUID,
}


def id_of(key: Key) -> Document:
    return {"tenant": key.tenant, "id": key.id}


def version_of(document: Document) -> int:
    """-1: it has none, and any change replaces it."""
    version = document.get("ps_version")
    return version if isinstance(version, int) else -1


class Codec:
    """Records of one entity to and from documents."""

    def __init__(self, entity: EntityType[Any], full_text: FullText | None) -> None:
        self._entity = entity
        self._full_text = full_text
        self._kinds = {name: spec.kind.name for name, spec in entity.fields.items()}
        optional = {name for name, spec in entity.fields.items() if spec.kind.optional or spec.kind.shape == "any"}
        self._needed = self._kinds.keys() - optional

    def field(self, name: str, value: Any) -> Document:
        """A field's part of the document. Raises what `encoded` translates."""
        kind = self._kinds[name]
        if kind == "datetime":
            whole, rest = (None, None) if value is None else whole_and_rest(value)
            return {name: whole, micros_field(name): rest}
        encode = ENCODERS.get(kind)
        return {name: value if value is None or encode is None else encode(value)}

    def live(self, change: Change, body: Body) -> Document:
        document: Document = {"_id": id_of(change.key)}
        for name in self._kinds:
            document |= self.field(name, body.get(name))
        document |= self._own(change) | {"ps_tenant": change.key.tenant, "ps_hash": change.hash}
        if change.expires_us:
            document["ps_expires_us"] = Int64(change.expires_us)
        if self._full_text is not None:
            document |= self._full_text.fields(body)
        return document

    def tombstone(self, change: Change, purge_us: int) -> Document:
        gone = {"ps_deleted": True, "ps_purge_at": _EPOCH + timedelta(microseconds=purge_us)}
        return {"_id": id_of(change.key)} | self._own(change) | gone

    def _own(self, change: Change) -> Document:
        updated = Int64(change.updated_us)
        return {"ps_version": Int64(change.version), "ps_h": Int64(change.h), "ps_updated_us": updated}

    def encoded(self, change: Change, purge_us: int) -> bytes:
        """The document of a change. Raises InvalidData, ValueTooLarge."""
        try:
            body = change.body
            document = self.tombstone(change, purge_us) if body is None else self.live(change, body)
            found = bson.encode(document, codec_options=RAW)
        except (BSONError, ArithmeticError, AttributeError, TypeError, ValueError) as e:
            raise InvalidData(f"{self._entity.name}: the body does not fit the entity: {type(e).__name__}") from None
        if len(found) > DOCUMENT_BYTES_MAX:
            raise ValueTooLarge(
                f"{self._entity.name} {change.key.id!r}: the document has {len(found)} bytes, MongoDB takes 16 MiB; "
                "save large values as files"
            )
        return found

    def decode(self, document: Document) -> dict[str, Any]:
        """The body. Raises DecodeError naming the field when a value is not what this adapter wrote."""
        body: dict[str, Any] = {}
        for name, kind in self._kinds.items():
            value = document.get(name)
            if value is not None:
                body[name] = self._decoded(document, name, kind, value)
            elif name not in self._needed:
                body[name] = None
            # A missing value of a field that must have one is left out: its default takes its place, or it is reported.
        return body

    def _decoded(self, document: Document, name: str, kind: str, value: Any) -> Any:
        wanted = _TYPES.get(kind)
        if wanted is not None and type(value) is not wanted:
            raise DecodeError(
                f"{self._entity.name} {document['_id']['id']!r}: the stored value of {name!r} is no {kind}; repair the "
                "record by writing it again, or rebuild this store from its home"
            )
        match kind:
            case "datetime":
                return value + (document.get(micros_field(name)) or 0) * _MICROSECOND
            case "date":
                return value.date()
            case _:
                return value

    def record(self, etype: str, document: Document, now_us: int) -> Record:
        """The record of a document; the tombstone, where it is one or its time is over."""

        def own(name: str, kind: str = "int", usual: Any = None) -> Any:
            return self._decoded(document, name, kind, document.get(name, usual))

        key = Key(document["_id"]["tenant"], etype, document["_id"]["id"])
        version, updated_us, expires_us = own("ps_version"), own("ps_updated_us"), own("ps_expires_us", usual=0)
        if document.get("ps_deleted") or 0 < expires_us <= now_us:
            return Record(key, version, None, b"", updated_us)
        return Record(key, version, self.decode(document), own("ps_hash", "bytes"), updated_us, expires_us)

    def made_anew(self, raw: Document) -> Document:
        """A raw document whose fields are as they shall be, with what is made of them."""
        body = self.decode(unpacked(packed(raw), PLAIN))
        kept = {name: value for name, value in raw.items() if name not in FullText.names}
        facets = {} if self._full_text is None else self._full_text.fields(body)
        return kept | {"ps_hash": self._entity.content_hash(body)} | facets
