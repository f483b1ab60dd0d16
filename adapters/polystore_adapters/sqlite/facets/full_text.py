"""Full text in SQLite: an FTS5 table of terms that polystore made, ranked by BM25."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from polystore.entity import EntityType
from polystore.model import Body, Match
from polystore.text import FTS5_TOKENIZE, Phrase, fts5_match, terms

from . import FacetRow
from .tables import follow, json_list


class FullTextFacet:
    """The full-text fields of one entity type.

    One column per field holds its terms joined with spaces; the rowid is `ps_rid`. FTS5 keeps the terms themselves, so
    that it can delete an entry without being told its old text. Columns are named `f_<field>`, since FTS5 reserves
    names such as `rank`.
    """

    def __init__(self, entity: EntityType[Any]) -> None:
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
        # The scores are computed once per hit and before the join: `f.rank` in three places would run BM25 three times.
        self._search = (
            f'WITH hit AS MATERIALIZED (SELECT rowid AS rid, -rank AS score FROM "{self._name}" '
            f'WHERE "{self._name}" MATCH ?) '
            f'SELECT CAST(t."{entity.key}" AS TEXT) AS ps_id, hit.score, t.ps_version '
            f'FROM hit CROSS JOIN "{entity.name}" AS t ON t.ps_rid = hit.rid WHERE t.ps_tenant = ?'
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
        """See `SupportsTextSearch.search`; `where` is SQL over the entity's table as `t`, with its parameters."""
        if not phrases or limit <= 0:
            return []
        sql = self._search
        parameters: list[Any] = [fts5_match(phrases), tenant]
        if where is not None:
            sql += f" AND ({where[0]})"
            parameters += where[1]
        if after is not None:
            sql += " AND (hit.score < ? OR (hit.score = ? AND ps_id > ?))"
            parameters += (after[0], after[0], after[1])
        sql += " ORDER BY hit.score DESC, ps_id LIMIT ?"
        return [Match(id, score, version) for id, score, version in db.execute(sql, (*parameters, limit))]

    def _terms(self, body: Body) -> list[str]:
        return [" ".join(terms(body.get(field) or "")) for field in self._fields]
