"""What a memory server finds: every query looks at every record of the type and tenant."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from operator import mul
from typing import Literal

from polystore.embedding import unpack
from polystore.errors import DimensionMismatch, UnsupportedOperation
from polystore.facets import Metric
from polystore.filters import Checked, Sort, predicate
from polystore.model import Key, Match, Record
from polystore.protocols import Layout
from polystore.text import Phrase

from .tables import Row, Tables


class Queries(Tables):
    """Filters, full text and vectors. Nothing here changes anything."""

    def _facet(self, etype: str, facet: Literal["full_text", "vector", "graph"]) -> Layout:
        layout = self.layout(etype)
        if facet not in layout.facets:
            raise UnsupportedOperation(f"{etype} was prepared without {facet}")
        return layout

    def _where(self, etype: str, tenant: str, where: Checked | None) -> dict[str, Row]:
        rows = self.alive(etype, tenant)
        if where is None:
            return rows
        holds = predicate(where)
        return {id: row for id, row in rows.items() if holds(row.body)}

    # -- filters ----------------------------------------------------------------------------------------------

    def find(self, etype: str, tenant: str, where: Checked | None, order: Sequence[Sort], limit: int) -> list[Record]:
        found = list(self._where(etype, tenant, where).items())
        for sort in reversed(order):  # sorting is stable: the least important comes first
            found = _sorted(found, sort)
        return [self.record(Key(tenant, etype, id), row) for id, row in found[:limit]]

    def count(self, etype: str, tenant: str, where: Checked | None) -> int:
        return len(self._where(etype, tenant, where))

    # -- full text and vectors --------------------------------------------------------------------------------

    def search(
        self,
        etype: str,
        tenant: str,
        phrases: Sequence[Phrase],
        where: Checked | None,
        limit: int,
        after: tuple[float, str] | None,
    ) -> list[Match]:
        self._facet(etype, "full_text")
        rows = self._where(etype, tenant, where)
        scores = self.part(etype, tenant).words.search(phrases)
        ranked = sorted((-score, id) for id, score in scores if id in rows)
        if after is not None:
            score, id = after
            ranked = [one for one in ranked if one > (-score, id)]
        return [Match(id, -negative, rows[id].version) for negative, id in ranked[:limit]]

    def similar(
        self, etype: str, tenant: str, field: str, vector: bytes, where: Checked | None, limit: int
    ) -> list[Match]:
        spec = self._facet(etype, "vector").vectors.get(field)
        if spec is None:
            raise UnsupportedOperation(f"{etype}.{field} was prepared without vectors")
        wanted = unpack(vector)
        if len(wanted) != spec.dimension:
            raise DimensionMismatch(
                f"{etype}.{field}: the vector has {len(wanted)} components, the field has {spec.dimension}"
            )
        rows = self._where(etype, tenant, where)
        ranked = sorted(
            (-_score(spec.metric, wanted, row.vectors[field]), id) for id, row in rows.items() if field in row.vectors
        )
        return [Match(id, -negative, rows[id].version) for negative, id in ranked[:limit]]


def _sorted(found: list[tuple[str, Row]], sort: Sort) -> list[tuple[str, Row]]:
    (field,) = sort.path
    present = [one for one in found if one[1].body.get(field) is not None]
    missing = [one for one in found if one[1].body.get(field) is None]
    return sorted(present, key=lambda one: one[1].body[field], reverse=sort.descending) + missing


def _score(metric: Metric, a: array[float], b: array[float]) -> float:
    """Larger is nearer. The cosine of a vector of length 0 is 0."""
    if metric == "l2":
        return -math.dist(a, b)
    product: float = sum(map(mul, a, b))
    if metric == "ip":
        return product
    return product / (math.hypot(*a) * math.hypot(*b) or math.inf)
