"""Facts, broken."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from polystore_adapters.memory import MemoryRepository, MemoryServer

from polystore.filters import Checked
from polystore.model import (
    Aggregate,
    Commit,
    Committed,
    Line,
    PointRow,
    PointValue,
    Series,
    Span,
    Spill,
    SpillRow,
    Windows,
)
from polystore.testing.conformance import LogConformance, SpillConformance, TimeRangeConformance
from polystore.text import Phrase
from tests.contract.broken.registry import fails


@fails(SpillConformance, "test_a_record_that_lives_again_when_it_was_to_expire_keeps_its_points")
class ErasesTheLiving(MemoryServer):
    """What a commit brings is owed, whether its write was carried out or not."""

    def _commit(self, commit: Commit) -> Committed:
        done = super()._commit(msgspec.structs.replace(commit, spills=()))
        self.kept.keep(list(commit.spills), self.env.now_us())
        return done


@fails(TimeRangeConformance, "test_a_point_appended_again_is_one_point")
class AppendsTwice(MemoryServer):
    """A repeat finds a time next to the first one: what a store without keys does."""

    def append_points(self, points: Sequence[PointRow]) -> None:
        for point in points:
            taken = self.points(point.series, Span(point.at_us, point.at_us + 1), 1, False)
            super().append_points([PointRow(point.series, point.at_us + len(taken), point.value)])


@fails(TimeRangeConformance, "test_a_range_has_its_start_and_not_its_end")
class EndIncluded(MemoryServer):
    def points(self, series: Series, span: Span, limit: int, newest_first: bool) -> list[PointRow]:
        end = None if span.end_us is None else span.end_us + 1
        return super().points(series, Span(span.start_us, end, span.age_max_us), limit, newest_first)


@fails(TimeRangeConformance, "test_tenants_entities_measures_and_records_are_apart")
class TenantsMixed(MemoryServer):
    def append_points(self, points: Sequence[PointRow]) -> None:
        super().append_points([PointRow(_anybody(one.series), one.at_us, one.value) for one in points])

    def points(self, series: Series, span: Span, limit: int, newest_first: bool) -> list[PointRow]:
        return super().points(_anybody(series), span, limit, newest_first)


def _anybody(series: Series) -> Series:
    return Series("", series.etype, series.measure, series.id, series.kind)


@fails(TimeRangeConformance, "test_windows_are_what_arithmetic_says", aggregate="last")
class LastIsLargest(MemoryServer):
    def windows(
        self, series: Series, span: Span, windows: Windows, aggregate: Aggregate, limit: int
    ) -> list[tuple[int, PointValue]]:
        return super().windows(series, span, windows, "max" if aggregate == "last" else aggregate, limit)


@fails(TimeRangeConformance, "test_points_that_are_too_old_are_not_there_and_then_removed")
class OldUntilRemoved(MemoryServer):
    """Retention only by the task that removes: reads show what it has not come to yet."""

    def points(self, series: Series, span: Span, limit: int, newest_first: bool) -> list[PointRow]:
        return super().points(series, Span(span.start_us, span.end_us), limit, newest_first)


@fails(LogConformance, "test_a_line_appended_again_is_one_line_and_never_changes")
class LinesOverwritten(MemoryServer):
    def append_lines(self, etype: str, tenant: str, lines: Sequence[Line]) -> None:
        log = self._logs.setdefault((etype, tenant), {})
        log.update({line.id: line for line in lines})


@fails(LogConformance, "test_conditions_on_fields_and_time_hold_before_the_limit")
class LimitBeforeTheCondition(MemoryServer):
    def lines(
        self,
        etype: str,
        tenant: str,
        phrases: Sequence[Phrase],
        where: Checked | None,
        limit: int,
        newest_first: bool,
    ) -> list[Line]:
        best = {line.id for line in super().lines(etype, tenant, phrases, None, limit, newest_first)}
        found = super().lines(etype, tenant, phrases, where, limit, newest_first)
        return [line for line in found if line.id in best]


@fails(SpillConformance, "test_later_rows_wait_for_the_first")
class OutOfOrder(MemoryServer):
    def spilled(self, store: str, limit: int) -> list[SpillRow]:
        rows = super().spilled(store, limit)
        if rows:
            return rows
        free = [one for one in self.kept.rows.values() if one.next_us <= self.env.now_us()]
        return [one.row for one in free if one.row.spill.store == store][:1]


@fails(SpillConformance, "test_beyond_the_bound_nothing_is_kept_and_the_bound_is_named")
class Unbounded(MemoryServer):
    def spill(self, spills: Sequence[Spill], bytes_max: int) -> None:
        super().spill(spills, 1 << 62)


@fails(SpillConformance, "test_a_commit_keeps_its_duties_or_nothing")
class DutyBesideTheCommit(MemoryRepository):
    """The duty is kept although the commit was refused."""

    async def commit(self, commits: Sequence[Commit]) -> list[Committed | Exception]:
        for one in commits:
            self.server.kept.keep(one.spills, self.server.env.now_us())
        return await super().commit([Commit(one.writes, one.owner, one.op, one.marks) for one in commits])
