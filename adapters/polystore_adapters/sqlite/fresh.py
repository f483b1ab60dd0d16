"""A commit of new records only, as imports send them: nothing stands that would have to be decided upon."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any

from polystore.errors import PolystoreError
from polystore.model import Commit, Written
from polystore_adapters.sqlite.facets import FacetRow
from polystore_adapters.sqlite.records import Tables
from polystore_adapters.sqlite.table import RecordTable

FEW = 16
"""Fewer writes than this are decided one by one: to ask first would cost more than it saves."""
_WHOLE = frozenset({"create", "put", "skip", "insert"})


def insert(
    db: sqlite3.Connection, tables: Tables, masks: Mapping[str, int], commit: Commit, version: int, now_us: int
) -> list[Written] | None:
    """Write the records, with the versions that follow `version`, and the duty to deliver them. None, and nothing is
    written: it is no such commit, or a value of it must be refused, so that each write is to be decided by itself."""
    table = _table(tables, commit)
    if table is None:
        return None
    writes, tenant = commit.writes, commit.writes[0].key.tenant
    ids = {one.key.id for one in writes}
    if len(ids) < len(writes) or table.stored(db, tenant, list(ids), bodies=False):
        return None
    mask = masks.get(table.etype, 0)
    values: list[Any] = []
    written: list[Written] = []
    try:
        for number, one in enumerate(writes, version + 1):
            body, h, hash, ttl_us = one.body or {}, one.h, one.hash, one.ttl_us
            end = None if ttl_us is None else now_us + ttl_us
            values += (tenant, number, h, hash, now_us, end)
            values += table.columns(one.key, body)
            written.append(Written(number, False, True, mask, body, hash, now_us, end or 0))
    except (PolystoreError, AttributeError, TypeError, ValueError):
        return None
    rids = table.insert(db, values, len(writes))
    if table.facets:
        rows = [
            FacetRow(rid, tenant, one.key.id, one.body or {}, {}, new.version)
            for rid, one, new in zip(rids, writes, written, strict=True)
        ]
        for facet in table.facets:
            facet.put(db, rows)
    if mask:
        owner = commit.owner
        db.execute(table.owe_sql, (table.etype, mask, owner, None if owner is None else now_us, rids.start))
    return written


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
