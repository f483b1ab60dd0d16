"""Measures: the points that belong to records, appended and read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta, tzinfo
from typing import Any, Final, Generic, Literal, TypeVar, cast, overload

import msgspec

from polystore.collection.scope import KeyValue, Scope, check_limit
from polystore.collection.windows import microseconds, moment, windows, zone_of
from polystore.errors import Backpressure, InvalidData, InvalidFilter, StoreError, ValueTooLarge
from polystore.facets import Measure
from polystore.kinds import encode_bool, encode_datetime, encode_float, encode_int, encode_str
from polystore.model import Aggregate, PointKind, PointRow, PointValue, Series, Span
from polystore.protocols import FACTS_MAX, SupportsTimeRange
from polystore.results import Point, StoreStatus, Token, WriteResult
from polystore.store import Store

T = TypeVar("T")
V = TypeVar("V")

TEXT_BYTES_MAX: Final = 65_535
"""UTF-8 bytes of a text that is the value of a point (InfluxDB: 64 KB, the smallest of the stores)."""

AGGREGATES: Final[Mapping[PointKind, tuple[Aggregate, ...]]] = {
    "float": ("avg", "min", "max", "sum", "count", "first", "last"),
    "int": ("avg", "min", "max", "sum", "count", "first", "last"),
    "bool": ("min", "max", "count", "first", "last"),
    "str": ("count", "first", "last"),
}
"""What can be asked of the windows of a measure."""


def _encode_text(value: Any) -> str:
    text = encode_str(value)
    if len(text.encode()) > TEXT_BYTES_MAX:
        raise ValueTooLarge(f"the text has more than {TEXT_BYTES_MAX} bytes, the limit for a point; keep it in a log")
    return text


KINDS: Final[Mapping[type, PointKind]] = {float: "float", int: "int", bool: "bool", str: "str"}
_ENCODE: Final[Mapping[str, Callable[[Any], PointValue]]] = {
    "float": encode_float,
    "int": encode_int,
    "bool": encode_bool,
    "str": _encode_text,
}


class Measured:
    """One measure of one entity type and tenant. Raises InvalidData for a measure of another class."""

    def __init__(self, scope: Scope[Any], measure: Measure[Any]) -> None:
        self.scope = scope
        self.measure = measure
        cls = scope.entity.cls.__name__
        if all(measure is not one for one in scope.entity.measures.values()):
            known = ", ".join(f"{cls}.{name}" for name in scope.entity.measures) or "none"
            raise InvalidData(f"{measure!r} is no measure of {cls}; its measures: {known}")
        self.name = f"{cls}.{measure.name}"
        self.kind: PointKind = KINDS[measure.type]
        self.age_us = None if measure.retention_s is None else int(measure.retention_s * 1e6)
        self._encode = _ENCODE[self.kind]

    @property
    def store(self) -> Store:
        return self.scope.wiring.store(self.scope.wiring.facts.measuring(self.scope.etype))

    def series(self, key: KeyValue) -> Series:
        scope = self.scope
        return Series(scope.tenant, scope.etype, self.measure.name, scope.entity.key_id(key), self.kind)

    def row(self, series: Series, value: object, at: datetime | None) -> PointRow:
        """Raises InvalidData naming the measure."""
        try:
            number = self.scope.wiring.facts.now_us() if at is None else microseconds(encode_datetime(at))
            return PointRow(series, number, self._encode(value))
        except InvalidData as e:
            raise type(e)(f"{self.name}: {e}") from None

    def check_aggregate(self, aggregate: Aggregate) -> None:
        can = AGGREGATES[self.kind]
        if aggregate not in can:
            raise InvalidFilter(
                f"{self.name}: aggregate={aggregate!r} of {self.kind} values; possible: {', '.join(can)}"
            )


class Measures(Generic[T]):
    """The part of `Collection` that is about the measures of its records."""

    _scope: Scope[T]

    async def append(self, measure: Measure[V], key: KeyValue, value: V, *, at: datetime | None = None) -> WriteResult:
        """Append a point to a measure of this class: `append(Memory.mood, id, 0.4)`. `at` is its time, now without it;
        series and time are its identity, so that the same append may be repeated. Of two values for one time one stays.
        The record is not looked at: points may come before it, and stay after it unless the measure says "erase".

        The result says "committed" when the point is durable in the store of the measures, "pending" while that store
        is down or full and the journal keeps it: then it is delivered later, and until then not read. Raises
        InvalidData before any I/O (a measure of another class, NaN, a value of another type), Backpressure when the
        journal keeps as much as it may, and what the store raises where there is no journal beside it.
        """
        measured = Measured(self._scope, measure)
        row = measured.row(measured.series(key), value, at)
        facts = self._scope.wiring.facts
        status = await facts.append_points(self._scope.etype, self._scope.tenant, [row])
        return WriteResult(row.series.id, None, False, Token(""), {facts.measuring(self._scope.etype): status})

    async def append_many(self, measure: Measure[V], points: Iterable[tuple[KeyValue, datetime, V]]) -> int:
        """Append any number of points (key, time, value), 10,000 at a time; returns how many. A bad point raises
        InvalidData: its batch is not appended, those before it are, and a repeat of the whole call harms nothing."""
        measured, facts = Measured(self._scope, measure), self._scope.wiring.facts
        known: dict[tuple[type, KeyValue], Series] = {}
        rows: list[PointRow] = []
        count = 0
        for key, at, value in points:
            series = known.get((type(key), key))
            if series is None:
                if len(known) > FACTS_MAX:
                    known.clear()
                series = known[type(key), key] = measured.series(key)
            rows.append(measured.row(series, value, at))
            if len(rows) == FACTS_MAX:
                await facts.append_points(self._scope.etype, self._scope.tenant, rows)
                count, rows = count + len(rows), []
        if rows:
            await facts.append_points(self._scope.etype, self._scope.tenant, rows)
        return count + len(rows)

    @overload
    async def series(
        self,
        measure: Measure[V],
        key: KeyValue,
        *,
        start: datetime,
        end: datetime | None = ...,
        tz: tzinfo | str | None = ...,
        limit: int = ...,
        newest_first: bool = ...,
    ) -> Sequence[Point[V]]: ...
    @overload
    async def series(
        self,
        measure: Measure[Any],
        key: KeyValue,
        *,
        start: datetime,
        end: datetime | None = ...,
        every: timedelta | str,
        aggregate: Literal["avg"] = ...,
        tz: tzinfo | str | None = ...,
        limit: int = ...,
    ) -> Sequence[Point[float]]: ...
    @overload
    async def series(
        self,
        measure: Measure[Any],
        key: KeyValue,
        *,
        start: datetime,
        end: datetime | None = ...,
        every: timedelta | str,
        aggregate: Literal["count"],
        tz: tzinfo | str | None = ...,
        limit: int = ...,
    ) -> Sequence[Point[int]]: ...
    @overload
    async def series(
        self,
        measure: Measure[V],
        key: KeyValue,
        *,
        start: datetime,
        end: datetime | None = ...,
        every: timedelta | str,
        aggregate: Literal["min", "max", "sum", "first", "last"],
        tz: tzinfo | str | None = ...,
        limit: int = ...,
    ) -> Sequence[Point[V]]: ...
    async def series(
        self,
        measure: Measure[Any],
        key: KeyValue,
        *,
        start: datetime,
        end: datetime | None = None,
        every: timedelta | str | None = None,
        aggregate: Aggregate = "avg",
        tz: tzinfo | str | None = None,
        limit: int = 10_000,
        newest_first: bool = False,
    ) -> Sequence[Point[Any]]:
        """The points of a measure from `start` up to, not including, `end` (None: all that follow), or, with `every`,
        one aggregate for each window of that width that has points: windows without any are left out. A window's `at`
        is its beginning, which may lie before `start`; only points from `start` to `end` count in it.

        every: a timedelta, or a text such as "30s", "5m", "1h" (of one length, whatever the clocks do), "1d", "1w"
        (from Monday), "1mo", "1y" (of the calendar in the time zone: a day on which the clocks change has 23 or 25
        hours). aggregate: avg, min, max, sum, count, first or last; of bool not avg and sum, of str only count, first
        and last. tz: a time zone or its name; the default is UTC; times of the answer are in it. limit: the first that
        many; `newest_first=True` takes the last points instead.

        Points older than the measure's `retention_s` are not there. Raises InvalidFilter and InvalidData before any
        I/O, Unavailable while the store of the measures is down.
        """
        measured = Measured(self._scope, measure)
        check_limit(limit, "read on with start= behind the last one, or ask for windows with every=")
        zone, one = zone_of(tz), measured.series(key)
        span = Span(_bound("start", start), None if end is None else _bound("end", end), measured.age_us)
        if every is None:
            rows = await measured.store.call(SupportsTimeRange.points, one, span, limit, newest_first)
            return [Point(moment(row.at_us, zone), row.value) for row in rows]
        if newest_first:
            raise InvalidFilter("newest_first=True is for points; windows come oldest first")
        measured.check_aggregate(aggregate)
        windows(every, zone, start, start)  # what is wrong with the words is said before any I/O
        if end is None:
            (last,) = await measured.store.call(SupportsTimeRange.last_points, [one], measured.age_us)
            if last is None or last.at_us < span.start_us:
                return []
            end = moment(last.at_us + 1)
        cut = windows(every, zone, start, end)
        found = await measured.store.call(SupportsTimeRange.windows, one, span, cut, aggregate, limit)
        return [Point(moment(begin, zone), value) for begin, value in found]

    @overload
    async def last(self, measure: Measure[V], key: KeyValue) -> Point[V] | None: ...
    @overload
    async def last(self, measure: Measure[V], key: list[KeyValue] | tuple[KeyValue, ...]) -> list[Point[V] | None]: ...
    async def last(
        self, measure: Measure[Any], key: KeyValue | list[KeyValue] | tuple[KeyValue, ...]
    ) -> Point[Any] | list[Point[Any] | None] | None:
        """The newest point of a record, None where there is none; of a list of keys all, in their order, by one
        call."""
        measured = Measured(self._scope, measure)
        keys = key if isinstance(key, (list, tuple)) else [key]
        wanted = [measured.series(one) for one in keys]
        rows = await measured.store.call(SupportsTimeRange.last_points, wanted, measured.age_us) if wanted else []
        points = [None if row is None else Point(moment(row.at_us), row.value) for row in rows]
        return points if isinstance(key, (list, tuple)) else points[0]


def measure_named(scope: Scope[Any], name: object) -> Measure[Any]:
    """Raises InvalidData for a name that no measure of the class has."""
    measure = scope.entity.measures.get(name) if isinstance(name, str) else None
    if measure is None:
        cls, known = scope.entity.cls.__name__, ", ".join(scope.entity.measures) or "none"
        raise InvalidData(f"{cls} has no measure {name!r}; its measures: {known}")
    return measure


def rows_of(scope: Scope[Any], key: KeyValue, points: Mapping[str, Any]) -> list[PointRow]:
    """The points of one record, by measure, each as (time, value). Raises InvalidData."""
    rows: list[PointRow] = []
    for name, given in points.items():
        measured = Measured(scope, measure_named(scope, name))
        series = measured.series(key)
        if isinstance(given, str) or not isinstance(given, Sequence):
            raise InvalidData(f"{measured.name}: points are a list of (time, value)")
        for pair in cast(Sequence[Any], given):
            if not isinstance(pair, (tuple, list)) or len(cast(Sequence[Any], pair)) != 2:
                raise InvalidData(f"{measured.name}: a point is (time, value)")
            at, value = cast(Sequence[Any], pair)
            rows.append(measured.row(series, value, at))
    return rows


async def append_beside(scope: Scope[Any], result: WriteResult, rows: Sequence[PointRow]) -> WriteResult:
    """The result with what became of the points beside it. After a commit nothing raises; points alone do."""
    facts = scope.wiring.facts
    status: StoreStatus
    try:
        status = await facts.append_points(scope.etype, scope.tenant, rows)
    except (StoreError, Backpressure):
        if result.version is None:
            raise
        status = "failed"
    return msgspec.structs.replace(result, stores={**result.stores, facts.measuring(scope.etype): status})


def _bound(name: str, at: datetime) -> int:
    try:
        return microseconds(encode_datetime(at))
    except InvalidData as e:
        raise InvalidFilter(f"{name}=: {e}") from None
