"""Counts, broken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from polystore_adapters.memory import MemoryServer

from polystore.filters import Checked
from polystore.model import Windows
from polystore.testing.conformance import CountsConformance
from polystore.text import Phrase
from tests.contract.broken.registry import fails

Pairs = list[tuple[Any, int]]


@fails(CountsConformance, "test_values_are_counted_most_frequent_first")
class CountedInTheOrderOfValues(MemoryServer):
    def counts(
        self,
        etype: str,
        tenant: str,
        phrases: Sequence[Phrase],
        where: Checked | None,
        field: str,
        windows: Windows | None,
        limit: int,
    ) -> Pairs:
        return sorted(super().counts(etype, tenant, phrases, where, field, windows, limit))


@fails(CountsConformance, "test_words_and_conditions_choose_what_is_counted")
class WordsAreNotAsked(MemoryServer):
    def counts(
        self,
        etype: str,
        tenant: str,
        phrases: Sequence[Phrase],
        where: Checked | None,
        field: str,
        windows: Windows | None,
        limit: int,
    ) -> Pairs:
        return super().counts(etype, tenant, (), where, field, windows, limit)


@fails(CountsConformance, "test_times_are_counted_by_windows")
class WindowsBeginAtTheEpoch(MemoryServer):
    def counts(
        self,
        etype: str,
        tenant: str,
        phrases: Sequence[Phrase],
        where: Checked | None,
        field: str,
        windows: Windows | None,
        limit: int,
    ) -> Pairs:
        moved = windows if windows is None or windows.edges else Windows(windows.width_us)
        return super().counts(etype, tenant, phrases, where, field, moved, limit)
