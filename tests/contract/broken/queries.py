"""Queries, broken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from polystore_adapters.memory import MemoryServer
from polystore_adapters.memory.tables import Row

from polystore.filters import Checked, Sort
from polystore.model import (
    Key,
    Match,
    Record,
)
from polystore.protocols import Layout
from polystore.testing.conformance import (
    FilterConformance,
    HomeVectorConformance,
    SchemaConformance,
    TextConformance,
    VectorConformance,
)
from polystore.text import Phrase, terms
from tests.contract.broken.registry import fails


@fails(FilterConformance, "test_a_hundred_generated_conditions_mean_what_they_say", seed=0)
class FilterDropped(MemoryServer):
    def find(self, etype: str, tenant: str, where: Checked | None, order: Sequence[Sort], limit: int) -> list[Record]:
        return super().find(etype, tenant, None, order, limit)


@fails(FilterConformance, "test_a_hundred_generated_conditions_mean_what_they_say", seed=0)
class CountsAll(MemoryServer):
    def count(self, etype: str, tenant: str, where: Checked | None) -> int:
        return super().count(etype, tenant, None)


@fails(FilterConformance, "test_sorted_by_any_field_with_missing_values_last", descending=True)
class MissingFirst(MemoryServer):
    def find(self, etype: str, tenant: str, where: Checked | None, order: Sequence[Sort], limit: int) -> list[Record]:
        records = super().find(etype, tenant, where, order, 1_000_000)
        (field,) = order[0].path if order else ("id",)
        return sorted(records, key=lambda record: (record.body or {}).get(field) is not None)[:limit]


@fails(TextConformance, "test_every_two_syllables_find_exactly_the_texts_that_hold_them")
class WordsOnly(MemoryServer):
    """Full text by whole words, as most stores do it by themselves: Korean endings hide the word."""

    def _link(self, key: Key, part: Any, row: Row) -> None:
        super()._link(key, part, row)
        if row.terms:
            text = " ".join(str(row.body.get(field) or "") for field in ("title", "body"))
            part.words.add(key.id, [word for word in text.split() if terms(word)])


@fails(TextConformance, "test_a_condition_holds_before_the_limit")
class FilterAfterTheLimit(MemoryServer):
    def search(
        self,
        etype: str,
        tenant: str,
        phrases: Sequence[Phrase],
        where: Checked | None,
        limit: int,
        after: tuple[float, str] | None,
    ) -> list[Match]:
        best = super().search(etype, tenant, phrases, None, limit, after)
        allowed = {match.id for match in super().search(etype, tenant, phrases, where, 1_000_000, None)}
        return [match for match in best if match.id in allowed]


@fails(TextConformance, "test_pages_are_complete_and_without_repeats_among_equals_too")
class PagesByScoreOnly(MemoryServer):
    def search(
        self,
        etype: str,
        tenant: str,
        phrases: Sequence[Phrase],
        where: Checked | None,
        limit: int,
        after: tuple[float, str] | None,
    ) -> list[Match]:
        last = None if after is None else (after[0], "\U0010ffff")
        return super().search(etype, tenant, phrases, where, limit, last)


@fails(VectorConformance, "test_a_condition_holds_before_the_limit")
class NearestThenFiltered(MemoryServer):
    def similar(
        self, etype: str, tenant: str, field: str, vector: bytes, where: Checked | None, limit: int
    ) -> list[Match]:
        best = super().similar(etype, tenant, field, vector, None, limit)
        allowed = {match.id for match in super().similar(etype, tenant, field, vector, where, 1_000_000)}
        return [match for match in best if match.id in allowed]


@fails(VectorConformance, "test_finds_what_a_look_at_every_vector_finds", field="by_product")
class OneMetricForAll(MemoryServer):
    def similar(
        self, etype: str, tenant: str, field: str, vector: bytes, where: Checked | None, limit: int
    ) -> list[Match]:
        return super().similar(etype, tenant, "by_cosine", vector, where, limit)


@fails(HomeVectorConformance, "test_another_embedders_vectors_serve_once_the_home_is_prepared_for_it")
class VectorsStayWhoeverMadeThem(MemoryServer):
    def _carried(self, layout: Layout, old: Layout, migration: Any, key: Key, row: Row) -> Row:
        return msgspec.structs.replace(super()._carried(layout, old, migration, key, row), vectors=row.vectors)


@fails(SchemaConformance, "test_nothing_is_made_unasked")
class MadeUnasked(MemoryServer):
    def prepare(self, layouts: Any, *, create: bool) -> None:
        super().prepare(layouts, create=True)
