"""A commit of new records only, as imports send them: nothing stands that would have to be decided upon."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from polystore.errors import PolystoreError
from polystore.model import Commit, Write, Written
from polystore_adapters.sqlite import records
from polystore_adapters.sqlite.facets import FacetRow
from polystore_adapters.sqlite.records import Tables
from polystore_adapters.sqlite.table import RecordTable

FEW = 16
"""Fewer writes than this are decided one by one: to ask first would cost more than it saves."""
_WHOLE = frozenset({"create", "put", "skip", "insert"})


class Inserted(NamedTuple):
    """What became of the writes, and the rows of the outbox."""

    written: Sequence[Written]
    outbox: Sequence[tuple[object, ...]]


def insert(
    db: sqlite3.Connection, tables: Tables, masks: Mapping[str, int], commit: Commit, version: int, now_us: int
) -> Inserted | None:
    """Write the records, with the versions that follow `version`. None, and nothing is written: it is no such commit,
    or a value of it must be refused, so that each write is to be decided by itself."""
    table = _table(tables, commit)
    if table is None:
        return None
    writes, tenant = commit.writes, commit.writes[0].key.tenant
    ids = {one.key.id for one in writes}
    if len(ids) < len(writes) or table.stored(db, tenant, list(ids), bodies=False):
        return None
    ends = [None if one.ttl_us is None else now_us + one.ttl_us for one in writes]
    try:
        columns = [records.columns_of(table, one.key, one.body or {}) for one in writes]
    except PolystoreError:
        return None
    versions = range(version + 1, version + 1 + len(writes))
    rids = table.insert(
        db,
        [
            (tenant, number, one.h, one.hash, now_us, end, *values)
            for number, one, end, values in zip(versions, writes, ends, columns, strict=True)
        ],
    )
    if table.facets:
        rows = [
            FacetRow(rid, tenant, one.key.id, one.body or {}, {}, number)
            for rid, one, number in zip(rids, writes, versions, strict=True)
        ]
        for facet in table.facets:
            facet.put(db, rows)
    mask = masks.get(table.etype, 0)
    return Inserted(
        [
            Written(number, False, True, mask, one.body, one.hash, now_us, end or 0)
            for number, one, end in zip(versions, writes, ends, strict=True)
        ],
        _owed(writes, versions, mask, commit.owner, now_us) if mask else (),
    )


def _table(tables: Tables, commit: Commit) -> RecordTable | None:
    """The table that all the writes are of, when its rows and facets are all there is to write."""
    if len(commit.writes) < FEW or commit.op is not None or commit.spills:
        return None
    first = commit.writes[0].key
    table = tables[first.etype]
    if not table.plain:
        return None
    for one in commit.writes:
        key = one.key
        if one.kind not in _WHOLE or one.expect_version is not None:
            return None
        if key.etype != first.etype or key.tenant != first.tenant:
            return None
    return table


def _owed(
    writes: Sequence[Write], versions: Sequence[int], mask: int, owner: str | None, now_us: int
) -> list[tuple[object, ...]]:
    claimed = None if owner is None else now_us
    return [
        (number, one.key.tenant, one.key.etype, one.key.id, one.h, mask, owner, claimed, 0, now_us)
        for number, one in zip(versions, writes, strict=True)
    ]
