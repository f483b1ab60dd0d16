"""How a record lies in its index.

Its fields stand under their own names: text, numbers and truths as JSON has them; a time, date, decimal, UUID and bytes
as the text that JSON has for them; lists, dicts and nested classes as they are. What the server makes of them is for
questions only (`conditions.py`); the record is read from the document as it was sent, and so exactly.

_id                 <tenant>/<id>, the tenant with %XX; "#" and a hash where that is longer than 512 bytes
ps_tenant, ps_id    of a live record only
ps_version          the version of the document, too: the server refuses older ones
ps_h, ps_hash, ps_updated_us, ps_expires_us (0: never)
ps_long             the fields whose text is too long to be compared as a whole
ps_terms            of the full text: terms in order, a space between
ps_deleted, ps_purge_us    of a tombstone, which has no fields
ps_at_us            of the line of a log; lines never change, and are all of version 1
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import quote
from uuid import UUID

import msgspec

from polystore.entity import EntityType
from polystore.errors import DecodeError, InvalidData
from polystore.model import Body, Change, Key, Line, Record, key_hash
from polystore.text import terms
from polystore_adapters.elasticsearch import nori
from polystore_adapters.elasticsearch.server import Document

ID_BYTES_MAX = 512
"""https://www.elastic.co/docs/reference/elasticsearch/mapping-reference/mapping-id-field"""
TEXT_MAX = 1_000
"""Characters of a text that is compared as a whole: Lucene's terms end at 32,766 bytes."""

LINE_VERSION = 1
AT = "ps_at_us"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

_TO_JSON: Mapping[str, Callable[[Any], Any]] = {
    "bytes": lambda value: base64.b64encode(value).decode(),
    "datetime": datetime.isoformat,
    "date": date.isoformat,
    "decimal": str,
    "uuid": str,
    "float": lambda value: value if math.isfinite(value) else repr(value),
}
_FROM_JSON: Mapping[str, Callable[[Any], Any]] = {
    "str": lambda value: _of(str, value),
    "bool": lambda value: _of(bool, value),
    "int": lambda value: _of(int, value),
    "float": lambda value: float(value) if not isinstance(value, bool) else _of(float, value),
    "bytes": lambda value: base64.b64decode(value, validate=True),
    "datetime": lambda value: datetime.fromisoformat(value).astimezone(UTC),
    "date": date.fromisoformat,
    "decimal": lambda value: Decimal(_of(str, value)),
    "uuid": lambda value: UUID(_of(str, value)),
}
_MAPPINGS: Mapping[str, Document] = {
    "str": {"type": "keyword", "ignore_above": TEXT_MAX},
    "uuid": {"type": "keyword"},
    "int": {"type": "long", "ignore_malformed": True},
    "bool": {"type": "boolean"},
    "date": {"type": "date", "format": "strict_date"},
    "datetime": {"type": "date", "format": "strict_date_optional_time_nanos"},
}
"""What is asked by the server. Others are read from the documents that it finds; so are those of an int that became a
float."""


def _of(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise TypeError
    return value


def id_of(key: Key) -> str:
    whole = f"{quote(key.tenant, safe='')}/{key.id}"
    return whole if len(whole.encode()) <= ID_BYTES_MAX else f"#{hashlib.sha256(whole.encode()).hexdigest()}"


def microseconds(at: datetime) -> int:
    """Since 1970, exactly."""
    return (at - _EPOCH) // _MICROSECOND


class Codec:
    """Records of one entity, or the lines of a log, to and from documents."""

    def __init__(self, entity: EntityType[Any], full_text: bool, fact: bool = False) -> None:
        self._entity = entity
        self._fact = fact
        self.texts = tuple(entity.full_text) if full_text else ()
        self.kinds = {name: spec.kind for name, spec in entity.fields.items()}

    def mapping(self, by_nori: bool = False) -> Document:
        """The properties of the index."""
        number = {"type": "long"}
        plain = {"type": "keyword"}
        found: Document = {
            "ps_tenant": plain,
            "ps_id": plain,
            "ps_version": number,
            "ps_h": number,
            "ps_hash": {"type": "keyword", "index": False, "doc_values": False},
            "ps_updated_us": number,
            "ps_expires_us": number,
            "ps_long": plain,
            "ps_terms": {"type": "text", "analyzer": "whitespace", "norms": True},
            "ps_deleted": {"type": "boolean"},
            "ps_purge_us": number,
        }
        if self._fact:
            found[AT] = number
        for name, kind in self.kinds.items():
            found[name] = _MAPPINGS.get(kind.name, {"type": "object", "enabled": False})
        for name in self.texts if by_nori else ():
            found[name] = nori.mapping(found[name])
        return found

    def live(self, change: Change, body: Body) -> Document:
        document = {name: self.json(name, body.get(name)) for name in self.kinds}
        document |= _own(change) | {"ps_expires_us": change.expires_us}
        document |= {"ps_tenant": change.key.tenant, "ps_id": change.key.id, "ps_hash": change.hash.hex()}
        return document | self.made(document, body)

    def made(self, fields: Document, body: Body) -> Document:
        """What the fields of a document are made into."""
        long = [name for name in self.kinds if isinstance(text := fields.get(name), str) and len(text) > TEXT_MAX]
        of_lines = {AT: microseconds(body["at"])} if self._fact else {}
        return {"ps_long": long} | ({"ps_terms": self.terms(body)} if self.texts else {}) | of_lines

    def terms(self, body: Body) -> str:
        """Of all full-text fields together, as `polystore.text` has them."""
        return " ".join(terms("\n".join(body.get(field) or "" for field in self.texts)))

    def tombstone(self, change: Change, purge_us: int) -> Document:
        return _own(change) | {"ps_deleted": True, "ps_purge_us": purge_us}

    def json(self, name: str, value: Any) -> Any:
        """A field's value as it stands in the document."""
        encode = _TO_JSON.get(self.kinds[name].name)
        return value if value is None or encode is None else encode(value)

    def encoded(self, change: Change, purge_us: int) -> bytes:
        """The document of a change. Raises InvalidData."""
        try:
            body = change.body
            return msgspec.json.encode(self.tombstone(change, purge_us) if body is None else self.live(change, body))
        except (ArithmeticError, AttributeError, TypeError, ValueError, msgspec.MsgspecError) as e:
            raise InvalidData(f"{self._entity.name}: the body does not fit the entity: {type(e).__name__}") from None

    def line(self, tenant: str, line: Line) -> bytes:
        """The document of a line. Raises InvalidData."""
        key = Key(tenant, self._entity.name, line.id)
        h = key_hash(tenant, self._entity.name, line.id)
        return self.encoded(Change(key, LINE_VERSION, h, line.body, b"", 0), 0)

    def decode(self, source: Document) -> dict[str, Any]:
        """The body. Raises DecodeError naming the field when a value is not what this adapter wrote."""
        body: dict[str, Any] = {}
        for name, kind in self.kinds.items():
            value = source.get(name)
            if value is not None:
                body[name] = self._decoded(source, name, kind.name, value)
            elif kind.optional or kind.shape == "any":
                body[name] = None
            # A missing value of a field that must have one is left out: its default takes its place, or it is reported.
        return body

    def _decoded(self, source: Document, name: str, kind: str, value: Any) -> Any:
        decode = _FROM_JSON.get(kind)
        try:
            return value if decode is None else decode(value)
        except (ArithmeticError, TypeError, ValueError):
            raise DecodeError(
                f"{self._entity.name} {source.get('ps_id')!r}: the stored value of {name!r} is no {kind}; repair the "
                "record by writing it again, or rebuild this store from its home"
            ) from None

    def record(self, key: Key, source: Document, now_us: int) -> Record:
        """The record of a document; the tombstone, where it is one or its time is over."""
        version, updated_us, expires_us = source["ps_version"], source["ps_updated_us"], source.get("ps_expires_us", 0)
        if source.get("ps_deleted") or 0 < expires_us <= now_us:
            return Record(key, version, None, b"", updated_us)
        return Record(key, version, self.decode(source), bytes.fromhex(source["ps_hash"]), updated_us, expires_us)


def _own(change: Change) -> Document:
    return {"ps_version": change.version, "ps_h": change.h, "ps_updated_us": change.updated_us}
