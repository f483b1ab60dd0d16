"""Vectors in columns of the record's own row, as packed 32-bit floats, and the nearest of them by a look at each."""

from __future__ import annotations

import asyncio
import importlib.util
import math
from array import array
from collections.abc import Callable, Mapping, Sequence
from operator import mul
from typing import Any

from polystore.errors import DimensionMismatch, StoreCorrupt, WorkLimitExceeded
from polystore.facets import Metric
from polystore.model import Match
from polystore_adapters.postgresql.dialect import ident
from polystore_adapters.postgresql.placeholders import shifted
from polystore_adapters.postgresql.pool import Pool
from polystore_adapters.postgresql.table import RecordTable

CHUNK = 2_000
"""Vectors in memory at once."""


async def similar(
    pool: Pool,
    table: RecordTable,
    tenant: str,
    field: str,
    vector: bytes,
    where: tuple[str, Sequence[object]],
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
    key, column = ident(table.key), ident("ps_vec", field)
    condition, values = where
    sql = (
        f"SELECT t.{key}::text, t.ps_version, t.{column} FROM {table.source} t WHERE t.ps_tenant = $1 "
        f"AND t.{column} IS NOT NULL AND ({shifted(condition, 1)})"
    )
    best: list[Match] = []
    seen = 0
    async with pool.transaction(begin="BEGIN READ ONLY") as db:
        cursor = await db.connection.cursor(sql, tenant, *values)
        while rows := await cursor.fetch(CHUNK):
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
            scores = await asyncio.to_thread(_scorer(), spec.metric, vector, [row[2] for row in rows])
            best += [Match(row[0], score, row[1]) for row, score in zip(rows, scores, strict=True)]
            best.sort(key=lambda one: (-one.score, one.id))
            del best[limit:]
    return best


def _scorer() -> Callable[[Metric, bytes, Sequence[bytes]], Sequence[float]]:
    return scores_by_numpy if importlib.util.find_spec("numpy") else scores_by_hand


def scores_by_numpy(metric: Metric, query: bytes, vectors: Sequence[bytes]) -> Sequence[float]:
    """The exact scores in 64 bits; equal vectors have equal scores."""
    import numpy as np

    wanted = np.frombuffer(query, "<f4").astype(np.float64)
    rows = np.frombuffer(b"".join(vectors), "<f4").reshape(-1, len(wanted)).astype(np.float64)
    scores = -np.sqrt(np.square(rows - wanted).sum(axis=1)) if metric == "l2" else (rows * wanted).sum(axis=1)
    if metric == "cosine":
        lengths = np.sqrt(np.square(rows).sum(axis=1) * np.square(wanted).sum())
        scores /= np.where(lengths > 0, lengths, 1)
    found: list[float] = scores.tolist()
    return found


def scores_by_hand(metric: Metric, query: bytes, vectors: Sequence[bytes]) -> Sequence[float]:
    """The same without numpy."""
    wanted = _unpacked(query)
    return [_SCORES[metric](wanted, _unpacked(one)) for one in vectors]


def _unpacked(packed: bytes) -> array[float]:
    values = array("f")
    values.frombytes(packed)
    return values


def _cosine(a: array[float], b: array[float]) -> float:
    length = math.hypot(*a) * math.hypot(*b)
    return math.fsum(map(mul, a, b)) / length if length else 0.0


_SCORES: Mapping[Metric, Callable[[Any, Any], float]] = {
    "cosine": _cosine,
    "l2": lambda a, b: -math.dist(a, b),
    "ip": lambda a, b: math.fsum(map(mul, a, b)),
}
