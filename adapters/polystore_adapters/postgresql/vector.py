"""Vectors in columns of the record's own row, and the nearest of them: by pgvector (`pgvector.py`) or, where they are
plain bytes, by a look at each of them here. Scores are always worked out here, from the vectors themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from polystore.errors import DimensionMismatch, StoreCorrupt, WorkLimitExceeded
from polystore.model import Match
from polystore.relational.scores import scorer
from polystore_adapters.postgresql.dialect import ident
from polystore_adapters.postgresql.options import Options
from polystore_adapters.postgresql.pgvector import WIDTH_MAX, VectorColumn, search_begin
from polystore_adapters.postgresql.placeholders import shifted
from polystore_adapters.postgresql.pool import Pool, Session
from polystore_adapters.postgresql.table import RecordTable

CHUNK = 2_000
"""Vectors in memory at once."""
Where = tuple[str, Sequence[object]]


async def similar(
    pool: Pool, table: RecordTable, tenant: str, field: str, vector: bytes, where: Where, limit: int, options: Options
) -> list[Match]:
    """See `SupportsVectorSearch.similar`. Raises DimensionMismatch, WorkLimitExceeded."""
    spec = table.layout.vectors[field]
    if len(vector) != 4 * spec.dimension:
        raise DimensionMismatch(
            f"{table.etype}.{field}: the vector has {len(vector) // 4} components, the field has {spec.dimension}"
        )
    if limit <= 0:
        return []
    column = table.vectors[field]
    if column.kept.form == "bytes":
        async with pool.transaction(begin="BEGIN READ ONLY") as db:
            search = _Search(db, table, column, tenant, vector, where, limit)
            return await search.of_bytes(options.exact_vectors_max)
    width = min(max(options.hnsw_ef_search, limit), WIDTH_MAX)
    async with pool.transaction(begin=search_begin(width)) as db:
        search = _Search(db, table, column, tenant, vector, where, limit)
        asks_index = column.indexed and any(vector) and await search.more_than(max(options.approximate_min, limit))
        return (asks_index and await search.by_index()) or await search.exactly()


class _Search:
    """One search in one transaction."""

    def __init__(
        self,
        db: Session,
        table: RecordTable,
        column: VectorColumn,
        tenant: str,
        vector: bytes,
        where: Where,
        limit: int,
    ) -> None:
        self._db = db
        self._table = table
        self._column = column
        self._tenant = tenant
        self._vector = vector
        self._asked = column.sent(vector)
        self._where = where
        self._limit = limit

    def _condition(self, parameters: int) -> tuple[str, str, str]:
        """Key, source and condition after so many parameters."""
        return ident(self._table.key), self._table.source, shifted(self._where[0], parameters)

    async def of_bytes(self, exact_max: int) -> list[Match]:
        key, source, condition = self._condition(1)
        column = self._column.name
        sql = (
            f"SELECT t.{key}::text, t.ps_version, t.{column} FROM {source} t WHERE t.ps_tenant = $1 "
            f"AND t.{column} IS NOT NULL AND ({condition})"
        )
        best: list[Match] = []
        seen = 0
        # The driver's own cursor leaves a prepared statement behind, on which another process stumbles behind a pooler.
        await self._db.run(f"DECLARE ps_vectors NO SCROLL CURSOR FOR {sql}", self._tenant, *self._where[1])
        while rows := await self._db.fetch(f"FETCH {CHUNK:d} FROM ps_vectors"):
            seen += len(rows)
            if seen > exact_max:
                raise WorkLimitExceeded(
                    f"{self._place}: more than {exact_max} vectors to compare one by one; narrow the condition, keep "
                    "them in pgvector's columns (the option vectors), or raise exact_vectors_max"
                )
            best = await self._best(best, rows)
        return best

    async def more_than(self, count: int) -> bool:
        """Whether more vectors than this satisfy the condition."""
        _, source, condition = self._condition(1)
        sql = (
            f"SELECT count(*) FROM (SELECT 1 FROM {source} t WHERE t.ps_tenant = $1 AND "
            f"t.{self._column.name} IS NOT NULL AND ({condition}) LIMIT {count + 1:d}) AS one"
        )
        found: int = await self._db.value(sql, self._tenant, *self._where[1])
        return found > count

    async def by_index(self) -> list[Match]:
        """The nearest as the index finds them; none where it did not find enough."""
        sql = self._column.nearest_sql(*self._condition(3))
        rows = await self._db.fetch(sql, self._tenant, self._asked, self._limit, *self._where[1])
        best = await self._best([], rows)
        if len(best) < self._limit or self._column.spec.metric != "cosine" or best[-1].score >= 0:
            return best if len(best) == self._limit else []
        sql = self._column.zeros_sql(*self._condition(2))
        return await self._best(best, await self._db.fetch(sql, self._tenant, self._limit, *self._where[1]))

    async def exactly(self) -> list[Match]:
        table = self._table
        sql = self._column.candidates_sql(*self._condition(3))
        rows = await self._db.fetch(sql, self._tenant, self._asked, self._limit, *self._where[1])
        keys = [key for (key,) in rows]
        sql = (
            f"SELECT {ident(table.key)}::text, ps_version, {self._column.read()} FROM {table.rows} WHERE "
            f"ps_tenant = $1 AND {table.lookup} = ANY($2::{table.key_type}[])"
        )
        best: list[Match] = []
        for first in range(0, len(keys), CHUNK):
            best = await self._best(best, await self._db.fetch(sql, self._tenant, keys[first : first + CHUNK]))
        return best

    @property
    def _place(self) -> str:
        return f"{self._table.etype}.{self._column.field}"

    async def _best(self, best: Sequence[Match], rows: Sequence[Any]) -> list[Match]:
        """The first of these and the rows' together."""
        vectors = [self._column.packed(row[2]) for row in rows]
        if any(len(one) != len(self._vector) for one in vectors):
            raise StoreCorrupt(
                f"{self._place}: stored vectors have another dimension than the field; `polystore verify` names the "
                "records, a rebuild of this store's copy mends them"
            )
        scores = await asyncio.to_thread(scorer(), self._column.spec.metric, self._vector, vectors) if rows else ()
        found = {one.id: one for one in best}
        found |= {row[0]: Match(row[0], score, row[1]) for row, score in zip(rows, scores, strict=True)}
        return sorted(found.values(), key=lambda one: (-one.score, one.id))[: self._limit]
