"""Full text in SQLite: an FTS5 table of terms that polystore made, ranked by BM25."""

from __future__ import annotations

import math
import sqlite3
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

from polystore.entity import EntityType
from polystore.model import Body, Match
from polystore.text import FTS5_TOKENIZE, Phrase, fts5_match, terms

from . import FacetRow
from .tables import follow, json_list, snapshot

_AHEAD = 6
"""Hits looked up beyond a page, to see where its last score ends."""


def _quoted(name: str) -> str:
    return f'"{name}"'


class FullTextFacet:
    """The full-text fields of one entity type.

    One column per field holds its terms joined with spaces; the rowid is `ps_rid`. FTS5 keeps the terms themselves, so
    that it can delete an entry without being told its old text. Columns are named `f_<field>`, since FTS5 reserves
    names such as `rank`.
    """

    def __init__(self, entity: EntityType[Any], source: str = "") -> None:
        self._fields = entity.full_text
        self._name = f"ps_text_{entity.name}"
        columns = [f"f_{field}" for field in self._fields]
        names = ", ".join(columns)
        self._create = f"CREATE VIRTUAL TABLE \"{self._name}\" USING fts5({names}, tokenize = '{FTS5_TOKENIZE}')"
        self._put = (
            f'INSERT OR REPLACE INTO "{self._name}" (rowid, {names}) VALUES ({", ".join("?" * (1 + len(columns)))})'
        )
        self._remove = f'DELETE FROM "{self._name}" WHERE rowid = ?'
        self._read = f'SELECT rowid, {names} FROM "{self._name}" WHERE rowid IN (SELECT value FROM json_each(?))'
        # The plus leaves sorting to SQLite: FTS5, which would sort by `rank` itself, computes every score twice then.
        self._hits = f'SELECT rowid, rank FROM "{self._name}" WHERE "{self._name}" MATCH ? ORDER BY +rank'
        self._records = (
            f'SELECT t.ps_rid, CAST(t."{entity.key}" AS TEXT), t.ps_version FROM json_each(?) AS hit '
            f"CROSS JOIN {source or _quoted(entity.name)} AS t ON t.ps_rid = hit.value WHERE t.ps_tenant = ?"
        )

    def create(self, db: sqlite3.Connection) -> bool:
        return follow(db, self._name, [self._create])

    def remove(self, db: sqlite3.Connection, rids: Sequence[int]) -> None:
        db.executemany(self._remove, [(rid,) for rid in rids])

    def put(self, db: sqlite3.Connection, rows: Sequence[FacetRow]) -> None:
        db.executemany(self._put, [(row.rid, *self._terms(row.body)) for row in rows])

    def faults(self, db: sqlite3.Connection, rows: Sequence[FacetRow]) -> Mapping[int, str]:
        stored = {rid: columns for rid, *columns in db.execute(self._read, (json_list(row.rid for row in rows),))}
        faults: dict[int, str] = {}
        for row in rows:
            wanted = self._terms(row.body)
            if row.rid not in stored:
                faults[row.rid] = "full text: the record is not in the index"
            elif stored[row.rid] != wanted:
                pairs = zip(self._fields, stored[row.rid], wanted, strict=True)
                wrong = ", ".join(field for field, found, right in pairs if found != right)
                faults[row.rid] = f"full text: the indexed terms of {wrong} are not those of the text"
        return faults

    def search(
        self,
        db: sqlite3.Connection,
        tenant: str,
        phrases: Sequence[Phrase],
        where: tuple[str, Sequence[Any]] | None,
        limit: int,
        after: tuple[float, str] | None,
    ) -> list[Match]:
        """See `SupportsTextSearch.search`; `where` is SQL over the entity's table as `t`, with its parameters.

        Records are looked up for the best hits only, in growing pieces, until the page is full and the next hit is
        worse than its last: among equals the id decides.
        """
        if not phrases or limit <= 0:
            return []
        condition, parameters = where or ("TRUE", ())
        sql = f"{self._records} AND ({condition})"
        last = (-math.inf, "", 0) if after is None else (-after[0], after[1], sys.maxsize)
        page: list[tuple[float, str, int]] = []
        with snapshot(db), closing(db.execute(self._hits, (fts5_match(phrases),))) as hits:
            size = limit + _AHEAD
            while chunk := hits.fetchmany(size):
                ranks = {rid: rank for rid, rank in chunk if rank >= last[0]}
                records = db.execute(sql, (json_list(ranks), tenant, *parameters))
                page += [one for rid, id, version in records if (one := (ranks[rid], id, version)) > last]
                page.sort()
                if len(page) >= limit and chunk[-1][1] > page[limit - 1][0]:
                    break
                size *= 2
        return [Match(id, -rank, version) for rank, id, version in page[:limit]]

    def _terms(self, body: Body) -> list[str]:
        return [" ".join(terms(body.get(field) or "")) for field in self._fields]
