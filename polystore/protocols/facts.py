"""Facts: points of measures and lines of logs. Appended, never changed; the store they live in is their home."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, Protocol, runtime_checkable

from polystore.errors import Backpressure
from polystore.filters import Checked
from polystore.model import (
    Aggregate,
    Key,
    Line,
    PointRow,
    PointValue,
    Series,
    Span,
    Spill,
    SpillCount,
    SpillRow,
    Windows,
)
from polystore.text import Phrase

FACTS_MAX: Final = 10_000
"""Points or lines of one call to append."""


def first_run(rows: Iterable[SpillRow], limit: int) -> list[SpillRow]:
    """The first of these rows that are of one kind, entity and tenant, and at most `limit` facts together; at least one
    row. To erase a record's points counts as much as 1,000 facts."""
    run: list[SpillRow] = []
    weight = 0
    for row in rows:
        one = row.spill
        weight += 1_000 if one.kind == "erase" else one.count
        together = not run or _group(run[0].spill) == _group(one)
        if run and (not together or weight > limit):
            break
        run.append(row)
    return run


def spill_refused(spills: Sequence[Spill], kept: int, bytes_max: int) -> Backpressure:
    """Where a journal that keeps so many bytes would keep more than it may with these."""
    return Backpressure(
        f"{spills[0].store} is down or full, and the journal keeps {kept} bytes of facts for stores that are; the "
        f"limit spill_bytes_max is {bytes_max}. Nothing was appended; try again when the store takes them"
    )


def _group(spill: Spill) -> tuple[str, str, str]:
    return spill.kind, spill.etype, spill.tenant


@runtime_checkable
class SupportsTimeRange(Protocol):
    """Points of measures. Values come back as `Series.kind` says: the ints of a measure that became one of floats as
    floats, a bool never as 0 or 1."""

    async def append_points(self, points: Sequence[PointRow]) -> None:
        """Durable when it returns, all or none. The points may be of any series. Appending a point again changes
        nothing, so any call may be repeated; of two values for one series and time one stays, and which is not said."""
        ...

    async def points(self, series: Series, span: Span, limit: int, newest_first: bool) -> list[PointRow]:
        """The first `limit` points of the span, oldest or newest first."""
        ...

    async def last_points(self, series: Sequence[Series], age_max_us: int | None) -> list[PointRow | None]:
        """The newest point of each series, in the order asked; None where there is none that is young enough."""
        ...

    async def windows(
        self, series: Series, span: Span, windows: Windows, aggregate: Aggregate, limit: int
    ) -> list[tuple[int, PointValue]]:
        """(beginning, aggregate of its points inside the span) of the first `limit` windows that have points, oldest
        first. avg is a float; the sum of ints is exact; bool has no avg and sum, str neither these nor min and max:
        they are not asked for. first and last are by time."""
        ...

    async def erase_points(self, key: Key, measures: Sequence[str]) -> None:
        """Remove all points of these measures of a record, so that nothing tells they were there. May be repeated."""
        ...

    async def expire_points(self, etype: str, measure: str, age_max_us: int, limit: int) -> int:
        """Remove at most `limit` points of a measure, of all records and tenants, that are older than this by the
        store's clock; returns how many. Fewer than `limit`: there are no more. More only where a store removes all of
        a time at once."""
        ...


@runtime_checkable
class SupportsLog(Protocol):
    """Lines of entities declared with data_type="log" and prepared by a `Layout` of kind "fact". Their time is the
    field `at`; those older than the entity's `ttl_s`, by the store's clock, are absent from every answer."""

    async def append_lines(self, etype: str, tenant: str, lines: Sequence[Line]) -> None:
        """Durable when it returns, all or none. A line whose id is there already is left as it is, so any call may be
        repeated."""
        ...

    async def lines(
        self,
        etype: str,
        tenant: str,
        phrases: Sequence[Phrase],
        where: Checked | None,
        limit: int,
        newest_first: bool,
    ) -> list[Line]:
        """The first `limit` lines in which all phrases occur (`polystore.text`), over all full-text fields together,
        and for which the condition holds, ordered by `at` and then by key, both in the same direction. No phrases:
        all lines."""
        ...

    async def count_lines(self, etype: str, tenant: str, where: Checked | None) -> int: ...

    async def expire_lines(self, etype: str, limit: int) -> int:
        """Remove at most `limit` lines, of all tenants, that are older than the entity's `ttl_s` by the store's clock;
        returns how many. Fewer than `limit`: there are no more."""
        ...


@runtime_checkable
class SupportsSpill(Protocol):
    """A journal that keeps facts for a store that is down, see also `Commit.spills`. Rows of one store are given out in
    the order in which they were kept, to one worker at a time."""

    async def spill(self, spills: Sequence[Spill], bytes_max: int) -> None:
        """Keep these, durable when it returns, all or none. Raises Backpressure naming the bound when all payloads kept
        here would then have more than `bytes_max` bytes."""
        ...

    async def spilled(self, store: str, limit: int) -> list[SpillRow]:
        """Take the oldest rows of a store that go together (`first_run`): for 5 s nobody else is given rows of this
        store. Empty while somebody has them, or the oldest was postponed. Rows put aside hold up no others and come
        when their own time has."""
        ...

    async def unspill(self, numbers: Sequence[int]) -> None:
        """Forget delivered rows. Unknown ones are no error."""
        ...

    async def postpone(self, numbers: Sequence[int], delay_us: int, error: str, aside: bool) -> None:
        """An attempt to deliver these has failed: they come again after the delay. `aside`: others may go before."""
        ...

    async def spills(self) -> list[SpillCount]:
        """What is kept, by store. Stores for which nothing is kept are left out."""
        ...

    async def erasing(self, store: str, etype: str, tenant: str, ids: Sequence[str]) -> list[str]:
        """Those of the records whose points are still to be erased."""
        ...
