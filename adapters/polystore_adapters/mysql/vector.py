"""Vectors in columns of the record's own row, as packed 32-bit floats, and the nearest of them by a look at each."""

from __future__ import annotations

import asyncio
from typing import Any

from polystore.errors import DimensionMismatch, StoreCorrupt, WorkLimitExceeded
from polystore.filters import Checked
from polystore.model import Match
from polystore.relational.scores import scorer
from polystore_adapters.mysql.dialect import ident
from polystore_adapters.mysql.pool import Pool
from polystore_adapters.mysql.table import RecordTable, vector_column

CHUNK = 2_000
"""Vectors in memory at once."""


async def similar(
    pool: Pool,
    table: RecordTable,
    tenant: str,
    field: str,
    vector: bytes,
    where: Checked | None,
    limit: int,
    exact_max: int,
) -> list[Match]:
    """See `SupportsVectorSearch.similar`. Raises DimensionMismatch, WorkLimitExceeded."""
    spec = table.layout.vectors[field]
    if len(vector) != 4 * spec.dimension:
        raise DimensionMismatch(
            f"{table.etype}.{field}: the vector has {len(vector) // 4} components, the field has {spec.dimension}"
        )
    if limit <= 0:
        return []
    key, column = ident(table.key), ident(vector_column(field))
    best: list[Match] = []
    seen = 0
    async with pool.snapshot() as db:
        condition, values = table.statements.condition(where, pool.clock.now_us())
        sql = (
            f"SELECT t.{key}, t.ps_version, t.{column} FROM {table.source} AS t WHERE t.ps_tenant = %s AND t.{column} "
            f"IS NOT NULL AND ({condition})"
        )
        last: list[Any] = []
        while True:
            after = f"AND t.{key} > %s" if last else ""
            rows = await db.fetch(f"{sql} {after} ORDER BY t.{key} LIMIT %s", tenant, *values, *last, CHUNK)
            if not rows:
                return best
            last = [rows[-1][0]]
            seen += len(rows)
            if seen > exact_max:
                raise WorkLimitExceeded(
                    f"{table.etype}.{field}: more than {exact_max} vectors to compare one by one; narrow the "
                    "condition, or raise exact_vectors_max"
                )
            if any(len(row[2]) != len(vector) for row in rows):
                raise StoreCorrupt(
                    f"{table.etype}.{field}: stored vectors have another dimension than the field; `polystore verify` "
                    "names the records, a rebuild of this store's copy mends them"
                )
            scores = await asyncio.to_thread(scorer(), spec.metric, vector, [row[2] for row in rows])
            best += [Match(str(row[0]), score, row[1]) for row, score in zip(rows, scores, strict=True)]
            best.sort(key=lambda one: (-one.score, one.id))
            del best[limit:]
