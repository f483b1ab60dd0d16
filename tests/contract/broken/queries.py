"""Queries, broken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from polystore_adapters.memory import MemoryServer
from polystore_adapters.memory.tables import Row

from polystore.filters import Checked, Sort, predicate
from polystore.model import (
    Body,
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


class _Evaluated(MemoryServer):
    """Conditions are asked of another body than the stored one."""

    def find(self, etype: str, tenant: str, where: Checked | None, order: Sequence[Sort], limit: int) -> list[Record]:
        records = super().find(etype, tenant, None, order, 1_000_000)
        if where is not None:
            holds = predicate(where)
            records = [one for one in records if any(map(holds, self.seen(one.body or {})))]
        return records[:limit]

    def seen(self, body: Body) -> Sequence[Body]:
        raise NotImplementedError


@fails(FilterConformance, "test_parts_and_beginnings_of_texts_are_taken_literally")
class TextsFolded(_Evaluated):
    """As servers' collations have it."""

    def seen(self, body: Body) -> Sequence[Body]:
        return [{name: value.lower() if isinstance(value, str) else value for name, value in body.items()}]


@fails(FilterConformance, "test_large_integers_and_long_decimals_are_not_rounded")
class IntegersRounded(_Evaluated):
    def seen(self, body: Body) -> Sequence[Body]:
        return [{**body, "number": number} for number in (body["number"], body["number"] + 1)]


@fails(FilterConformance, "test_missing_values_meet_only_null_and_unequal")
class MissingIsUnknown(_Evaluated):
    """What has no value is found by no condition about it, as SQL has it."""

    def seen(self, body: Body) -> Sequence[Body]:
        return [] if body["maybe_number"] is None else [body]


@fails(FilterConformance, "test_every_comparison_with_every_value")
class TimesToTheMillisecond(_Evaluated):
    def seen(self, body: Body) -> Sequence[Body]:
        at = body["at"]
        return [{**body, "at": at.replace(microsecond=at.microsecond // 1000 * 1000)}]


@fails(FilterConformance, "test_only_live_records_of_the_tenant_are_found_as_they_are_now")
class FindsForEveryTenant(MemoryServer):
    def find(self, etype: str, tenant: str, where: Checked | None, order: Sequence[Sort], limit: int) -> list[Record]:
        tenants = {tenant, *(one for one, _ in self.parts(etype))}
        return [
            record
            for one in sorted(tenants)
            for record in super(FindsForEveryTenant, self).find(etype, one, where, order, limit)
        ]


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
