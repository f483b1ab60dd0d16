"""Facts: points of measures and lines of logs, and what a journal keeps of them for a store that is down."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Literal

from polystore.model.records import Body, Value

PointValue = float | int | bool | str
PointKind = Literal["float", "int", "bool", "str"]
Aggregate = Literal["avg", "min", "max", "sum", "count", "first", "last"]


class Series(Value, frozen=True, gc=False):
    """The points of one measure of one record. `id` is the text form of the record's key; `kind` says what its values
    are, and is no part of its identity: a measure of ints may become one of floats."""

    tenant: str
    etype: str
    measure: str
    id: str
    kind: PointKind = "float"


class PointRow(Value, frozen=True, gc=False):
    """One point: its series and time (microseconds since 1970, UTC) are its identity."""

    series: Series
    at_us: int
    value: PointValue


class Span(Value, frozen=True, gc=False):
    """Times from `start_us` up to, not including, `end_us`; None: without end. With `age_max_us`, nothing that is older
    than that by the store's clock."""

    start_us: int
    end_us: int | None = None
    age_max_us: int | None = None


class Windows(Value, frozen=True, gc=False):
    """How a span is cut: into windows of `width_us`, one of which begins at `origin_us`; or, where there are `edges`,
    from each of them up to the next. Each window has its beginning and not its end."""

    width_us: int = 0
    origin_us: int = 0
    edges: Sequence[int] = ()


def window_of(windows: Windows, at_us: int) -> int | None:
    """Where the window of this time begins; None outside all edges."""
    if not windows.edges:
        return at_us - (at_us - windows.origin_us) % windows.width_us
    index = bisect_left(windows.edges, at_us + 1) - 1
    return windows.edges[index] if 0 <= index < len(windows.edges) - 1 else None


def aggregated(aggregate: Aggregate, values: Sequence[PointValue]) -> PointValue:
    """Of the values of a window, at least one, in the order of their times; min, max, sum and avg: of numbers."""
    match aggregate:
        case "count":
            return len(values)
        case "first":
            return values[0]
        case "last":
            return values[-1]
        case "min" | "max":
            numbers = [value for value in values if not isinstance(value, str)]
            return min(numbers) if aggregate == "min" else max(numbers)
        case "sum" | "avg":
            numbers = [value for value in values if not isinstance(value, str)]
            return sum(numbers) / len(numbers) if aggregate == "avg" else sum(numbers)


class Line(Value, frozen=True, gc=False):
    """One line of a log: the text form of its key, which is its identity, and its fields, the time `at` among them."""

    id: str
    body: Body


class Spill(Value, frozen=True, gc=False):
    """What a store is owed that did not take it: `points` or `lines` to append, as many as `count`, in `payload`; or to
    `erase` the points of the deleted record `id`."""

    store: str
    kind: Literal["points", "lines", "erase"]
    etype: str
    tenant: str
    id: str = ""
    count: int = 0
    payload: bytes = b""


class SpillRow(Value, frozen=True, gc=False):
    """A kept spill: `number` grows in the order in which they were kept; `attempts` to deliver it have failed."""

    number: int
    attempts: int
    spill: Spill


class SpillCount(Value, frozen=True, gc=False):
    """What a journal keeps for one store: rows, facts and bytes of payload. `aside` rows were refused by the store for
    their content; `error` is the last one."""

    store: str
    rows: int
    facts: int
    bytes: int
    oldest_us: int
    aside: int = 0
    error: str = ""
