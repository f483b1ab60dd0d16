"""How a record lies in the graph.

(:PsEntity:person {ps_key, ...}) is a record, or the end of a relationship of which no record is known yet (a stub), or
what is left of a deleted record (`ps_live` null). Its fields that are single values stand under their own names, for
whoever looks at the graph; the record itself is read from `ps_record`, and so exactly. That is one property: a reader
sees the properties of a node that is written at this moment one by one, some as they were before.

ps_key              <tenant>/<entity>/<id>, tenant with %XX; unique
ps_tenant, ps_etype, ps_id
ps_record           MessagePack: version, updated_us, expires_us (0: never), hash, body as MessagePack; not of stubs
ps_version, ps_h, ps_updated_us, ps_expires_us, ps_live      to choose by; not of stubs

(a)-[:KNOWS {ps_properties, ...}]->(b) is an edge of the record a; `ps_properties` has its properties as JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import quote

import msgspec

from polystore.entity import EdgeRow, EntityType
from polystore.errors import DecodeError, InvalidData
from polystore.kinds import INT_MAX, INT_MIN
from polystore.model import Body, Change, Key, Record
from polystore.packed import PackedBodies
from polystore.walking import Node
from polystore_adapters.neo4j.server import Row

TEXT_MAX = 4_000
"""Characters of a text that is shown as a property."""
_PLAIN = frozenset({"str", "int", "float", "bool"})
_AS_TEXT = frozenset({"date", "decimal", "uuid"})
_OWN = (
    *("ps_key", "ps_tenant", "ps_etype", "ps_id"),
    *("ps_version", "ps_h", "ps_updated_us", "ps_expires_us", "ps_live", "ps_record"),
)
_generic = msgspec.msgpack.Decoder()


def key_of(tenant: str, node: Node) -> str:
    return f"{quote(tenant, safe='')}/{node[0]}/{node[1]}"


class Codec:
    """Records of one entity to and from nodes."""

    def __init__(self, entity: EntityType[Any]) -> None:
        self._entity = entity
        self._kinds = {name: spec.kind for name, spec in entity.fields.items()}
        self._bodies = PackedBodies(entity)
        self.names = tuple(dict.fromkeys((*_OWN, *self._kinds)))
        """What properties a node of it may have, `ps_key` first."""

    def encoded(self, change: Change, kept: Mapping[str, Any]) -> Row:
        """The properties of the node after the change; `kept`: values of fields that the class has no more. Raises
        InvalidData."""
        key, body = change.key, change.body
        node: Row = {
            "ps_key": key_of(key.tenant, (key.etype, key.id)),
            "ps_tenant": key.tenant,
            "ps_etype": key.etype,
            "ps_id": key.id,
            "ps_version": change.version,
            "ps_h": change.h,
            "ps_updated_us": change.updated_us,
        }
        if body is None:
            packed = msgspec.msgpack.encode((change.version, change.updated_us, 0, b"", None))
            return node | {"ps_record": packed}
        try:
            packed = msgspec.msgpack.encode({**kept, **body})
            shown = self.shown(body)
        except (ArithmeticError, AttributeError, TypeError, ValueError, msgspec.MsgspecError) as e:
            raise InvalidData(f"{self._entity.name}: the body does not fit the entity: {type(e).__name__}") from None
        times = change.updated_us, change.expires_us
        record = msgspec.msgpack.encode((change.version, *times, change.hash, packed))
        return shown | node | {"ps_live": True, "ps_expires_us": change.expires_us, "ps_record": record}

    def shown(self, body: Body) -> Row:
        """Fields as properties, where the server has a type for them."""
        found: Row = {}
        for name, kind in self._kinds.items():
            value = body.get(name)
            if value is None:
                continue
            if kind.name in _PLAIN:
                if (isinstance(value, str) and len(value) > TEXT_MAX) or (
                    isinstance(value, int) and not INT_MIN <= value <= INT_MAX
                ):
                    continue
                found[name] = value
            elif isinstance(value, datetime):
                found[name] = value.isoformat()
            elif kind.name in _AS_TEXT:
                found[name] = str(value)
        return found

    def decode(self, id: str, packed: bytes) -> dict[str, Any]:
        """Raises DecodeError when it is not what this adapter wrote."""
        return self._bodies.decode(id, packed)

    def record(self, key: Key, packed: bytes, now_us: int) -> Record:
        """The record of what is in a node; the tombstone, where it is one or its time is over. Raises DecodeError."""
        found = opened(packed, key.id)
        if found.body is None or 0 < found.expires_us <= now_us:
            return Record(key, found.version, None, b"", found.updated_us)
        body = self.decode(key.id, found.body)
        return Record(key, found.version, body, found.hash, found.updated_us, found.expires_us)


class Packed(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What `ps_record` holds."""

    version: int
    updated_us: int
    expires_us: int
    hash: bytes
    body: bytes | None


_packed = msgspec.msgpack.Decoder(Packed)


def opened(packed: bytes, id: str) -> Packed:
    """Raises DecodeError when it is not what this adapter wrote."""
    try:
        return _packed.decode(packed)
    except (msgspec.DecodeError, TypeError):  # also what is no bytes at all
        raise DecodeError(
            f"{id!r}: what is stored is not what was written; repair the record by writing it again, or rebuild this "
            "store from its home"
        ) from None


def unpacked(packed: bytes, id: str) -> dict[str, Any]:
    """The body in a `ps_record` as plain values, whatever the class is; empty of a tombstone. Raises DecodeError."""
    body = opened(packed, id).body
    found: dict[str, Any] = {} if body is None else _generic.decode(body)
    return found


def edge_properties(edge: EdgeRow) -> Row:
    """Of the relationship of an edge: all as JSON, and those that the server has a type for, to look at."""
    shown = {
        name: value
        for name, value in edge.properties.items()
        if isinstance(value, str | float | bool) or (isinstance(value, int) and INT_MIN <= value <= INT_MAX)
    }
    own = {"ps_properties": msgspec.json.encode(edge.properties).decode()}
    return {name: value for name, value in shown.items() if name and "\0" not in name} | own
