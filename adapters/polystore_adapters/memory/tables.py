"""The records of a memory server: what is live, what is deleted, and what the facets made of it."""

from __future__ import annotations

import itertools
import json
from array import array
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec

from polystore.embedding import pack, unpack
from polystore.entity import EdgeRow
from polystore.env import Env
from polystore.errors import InvalidData, PolystoreError, SchemaMismatch
from polystore.model import (
    APPLIED,
    STALE,
    Body,
    Change,
    HashSpan,
    Key,
    Outcome,
    Page,
    Record,
    Stamp,
    Vectors,
    vector_digest,
)
from polystore.protocols import Layout
from polystore.text import TermIndex, terms

_PLAIN = (bytes, datetime, date, Decimal, UUID)


def copied(body: Body) -> dict[str, Any]:
    """The body with nested lists and dicts of its own."""
    own: dict[str, Any] = msgspec.to_builtins(body, builtin_types=_PLAIN)
    return own


class Row(msgspec.Struct, frozen=True):
    """A live record, and what its facets are made of. Rows are replaced, never changed."""

    version: int
    h: int
    body: Body
    hash: bytes
    updated_us: int
    terms: Sequence[str]
    vectors: Mapping[str, array[float]]
    edges: Sequence[EdgeRow]
    expires_us: int = 0


class Tombstone(msgspec.Struct, frozen=True):
    """A deleted record: holds against older changes until it is purged."""

    version: int
    h: int
    updated_us: int


class Part:
    """One tenant's records of one type."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.tombstones: dict[str, Tombstone] = {}
        self.words = TermIndex[str]()
        self.holders: dict[tuple[str, Any], str] = {}
        """(unique field, value) -> the id that holds it."""

    def standing(self, id: str) -> Row | Tombstone | None:
        return self.rows.get(id) or self.tombstones.get(id)


class Tables:
    """Records by type and tenant. Every method is one atomic step."""

    def __init__(self, env: Env) -> None:
        self.env = env
        self.layouts: dict[str, Layout] = {}
        self._newest: dict[str, int] = {}
        self.retired: dict[str, frozenset[str]] = {}
        """Fields that a type has no more; their values stay, unread (`polystore.evolution`)."""
        self._parts: dict[tuple[str, str], Part] = {}
        self.incoming: dict[Key, dict[tuple[Key, str], EdgeRow]] = {}
        """End of edges -> (the record that has the edge, relation type) -> the edge."""

    def layout(self, etype: str) -> Layout:
        try:
            return self.layouts[etype]
        except KeyError:
            raise SchemaMismatch(f"nothing is prepared for {etype!r}: prepare it with create=True first") from None

    def part(self, etype: str, tenant: str) -> Part:
        part = self._parts.get((etype, tenant))
        if part is None:
            self.layout(etype)
            part = self._parts[etype, tenant] = Part()
        return part

    def parts(self, etype: str) -> list[tuple[str, Part]]:
        """(tenant, part) sorted by tenant."""
        self.layout(etype)
        return sorted((tenant, part) for (name, tenant), part in self._parts.items() if name == etype)

    # -- reading ----------------------------------------------------------------------------------------------

    def get(self, keys: Sequence[Key]) -> list[Record | None]:
        return [self.get_now(key) for key in keys]

    def get_now(self, key: Key) -> Record | None:
        match self.part(key.etype, key.tenant).standing(key.id):
            case Row() as row if self.expired(row):
                return Record(key, row.version, None, updated_us=row.updated_us)
            case Row() as row:
                return self.record(key, row)
            case Tombstone(version, _, updated_us):
                return Record(key, version, None, updated_us=updated_us)
            case None:
                return None

    def record(self, key: Key, row: Row) -> Record:
        body = copied(row.body)
        for field in self.retired.get(key.etype, ()):
            body.pop(field, None)
        return Record(key, row.version, body, row.hash, row.updated_us, row.expires_us)

    def expired(self, row: Row) -> bool:
        """Its time is over: it is absent, though the sweeper has not come yet."""
        return 0 < row.expires_us <= self.env.now_us()

    def alive(self, etype: str, tenant: str) -> dict[str, Row]:
        """The records that are there."""
        rows = self.part(etype, tenant).rows
        return {id: row for id, row in rows.items() if not self.expired(row)}

    def expired_keys(self, etypes: Sequence[str], limit: int) -> list[Key]:
        """See `SupportsJournal.expired`."""
        found = (
            Key(tenant, etype, id)
            for etype in etypes
            for tenant, part in self.parts(etype)
            for id, row in part.rows.items()
            if self.expired(row)
        )
        return list(itertools.islice(found, limit))

    def scan(self, etype: str, tenant: str, span: HashSpan, cursor: str | None, limit: int) -> Page:
        after = (-1, "") if cursor is None else tuple(json.loads(cursor))
        inside = sorted(
            (row.h, id)
            for id, row in self.alive(etype, tenant).items()
            if span.low <= row.h < span.high and (row.h, id) > after
        )
        stamps = [self._stamp(Key(tenant, etype, id)) for _, id in inside[:limit]]
        return Page(stamps, json.dumps(inside[limit - 1]) if len(inside) > limit else None)

    def _stamp(self, key: Key) -> Stamp:
        row = self.part(key.etype, key.tenant).rows[key.id]
        digests = {field: vector_digest(pack(vector)) for field, vector in row.vectors.items()}
        content = self.layout(key.etype).entity.content_hash(row.body)
        return Stamp(key.id, row.h, row.version, content, vectors=digests)

    def tenants(self, etype: str) -> list[str]:
        return [tenant for tenant, part in self.parts(etype) if part.rows]

    def newest(self, etype: str) -> int:
        """Of a copy; a home has its own."""
        return self._newest.get(etype, 0)

    # -- changing ---------------------------------------------------------------------------------------------

    def apply(self, changes: Sequence[Change]) -> list[Outcome]:
        return [self._apply(change) for change in changes]

    def _apply(self, change: Change) -> Outcome:
        """The guard: a change counts only when it is newer than what stands, be that a record or a tombstone."""
        key = change.key
        try:
            standing = self.part(key.etype, key.tenant).standing(key.id)
            if standing is not None and not change.replaces(standing.version):
                return STALE
            if change.body is None:
                state: Row | Tombstone = Tombstone(change.version, change.h, change.updated_us)
            else:
                layout = self.layout(key.etype)
                row = draft(layout, key, change.version, change.h, change.body, change.hash, change.updated_us)
                row = msgspec.structs.replace(row, expires_us=change.expires_us)
                state = with_vectors(layout, row, change.vectors)
        except PolystoreError as e:
            return Outcome("rejected", e)
        self.install(key, state)
        self._newest[key.etype] = max(change.version, self.newest(key.etype))
        return APPLIED

    def install(self, key: Key, state: Row | Tombstone) -> None:
        """Put the state in the place of what stood. Cannot fail."""
        part = self.remove(key)
        if isinstance(state, Row):
            part.rows[key.id] = state
            self._link(key, part, state)
        else:
            part.tombstones[key.id] = state

    def remove(self, key: Key) -> Part:
        """Take away what stands, without a trace."""
        part = self.part(key.etype, key.tenant)
        old = part.rows.pop(key.id, None)
        if old is not None:
            self._unlink(key, part, old)
        part.tombstones.pop(key.id, None)
        return part

    def _link(self, key: Key, part: Part, row: Row) -> None:
        layout = self.layout(key.etype)
        for value in self.unique_values(key.etype, row.body):
            part.holders[value] = key.id
        if "full_text" in layout.facets:
            part.words.add(key.id, row.terms)
        for edge in row.edges:
            end = Key(key.tenant, edge.to_etype, edge.to_id)
            self.incoming.setdefault(end, {})[key, edge.type] = edge

    def _unlink(self, key: Key, part: Part, row: Row) -> None:
        for value in self.unique_values(key.etype, row.body):
            if part.holders.get(value) == key.id:  # else another record of the same commit has taken it over
                del part.holders[value]
        part.words.remove(key.id)
        for edge in row.edges:
            end = Key(key.tenant, edge.to_etype, edge.to_id)
            edges = self.incoming[end]
            del edges[key, edge.type]
            if not edges:
                del self.incoming[end]

    def unique_values(self, etype: str, body: Body) -> Iterator[tuple[str, Any]]:
        """(field, value) of the unique fields that have one. Only `commit` holds records to them."""
        for field in self.layout(etype).entity.unique:
            value = body.get(field)
            if value is not None:
                yield field, value


def draft(layout: Layout, key: Key, version: int, h: int, body: Body, hash: bytes, updated_us: int) -> Row:
    """A row that stands nowhere yet. All that can fail about a record fails here: raises InvalidData."""
    texts = layout.entity.full_text if "full_text" in layout.facets else ()
    try:
        own = copied(body)
        words = terms("\n".join(own[field] for field in texts if own.get(field)))
        edges = layout.entity.edges(own) if "graph" in layout.facets else []
    except (TypeError, KeyError) as e:
        raise InvalidData(f"{key.etype} {key.id!r}: the body does not fit the entity: {e!r}") from e
    return Row(version, h, own, hash, updated_us, words, {}, edges)


def with_vectors(layout: Layout, row: Row, vectors: Vectors) -> Row:
    """The row with these vectors, of the fields whose vectors this store serves, beside those it has. Raises
    DimensionMismatch."""
    added = {field: unpack(packed) for field, packed in layout.served(vectors).items()}
    return msgspec.structs.replace(row, vectors={**row.vectors, **added}) if added else row
