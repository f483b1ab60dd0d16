"""The facts of a memory server: points of measures, lines of logs."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from polystore.entity import EntityType
from polystore.env import Env
from polystore.errors import SchemaMismatch
from polystore.filters import Checked, predicate
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
    Tally,
    Windows,
    aggregated,
    window_of,
)
from polystore.protocols import Layout
from polystore.text import Phrase, matches

from .schema import Schema
from .spills import Spills
from .tables import copied

if TYPE_CHECKING:
    from .server import MemoryServer

P = ParamSpec("P")
R = TypeVar("R")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_Place = tuple[str, str, str, str]
"""Entity, measure, tenant, id."""


class _Points:
    """The points of one series, by time."""

    def __init__(self) -> None:
        self.times: list[int] = []
        self.values: dict[int, PointValue] = {}

    def put(self, at_us: int, value: PointValue) -> None:
        if at_us not in self.values:
            insort(self.times, at_us)
        self.values[at_us] = value


class FactStore(Schema):
    """The server's part."""

    kept: Spills

    def __init__(self, env: Env) -> None:
        super().__init__(env)
        self._series: dict[_Place, _Points] = {}
        self._logs: dict[tuple[str, str], dict[str, Line]] = {}
        self._log_types: dict[str, EntityType[Any]] = {}

    def prepare(self, layouts: Sequence[Layout], *, create: bool) -> None:
        super().prepare(layouts, create=create)
        self._log_types.update({one.entity.name: one.entity for one in layouts if one.kind == "fact"})

    def _logged(self, etype: str) -> EntityType[Any]:
        if etype not in self._log_types:
            raise SchemaMismatch(f"nothing is prepared for the log {etype!r}: prepare it with create=True first")
        return self._log_types[etype]

    # -- points -----------------------------------------------------------------------------------------------

    def append_points(self, points: Sequence[PointRow]) -> None:
        for point in points:
            self._series.setdefault(_place(point.series), _Points()).put(point.at_us, point.value)

    def _times(self, series: Series, span: Span) -> list[int]:
        found = self._series.get(_place(series))
        if found is None:
            return []
        start = span.start_us
        if span.age_max_us is not None:
            start = max(start, self.env.now_us() - span.age_max_us)
        stop = len(found.times) if span.end_us is None else bisect_left(found.times, span.end_us)
        return found.times[bisect_left(found.times, start) : stop]

    def points(self, series: Series, span: Span, limit: int, newest_first: bool) -> list[PointRow]:
        times = self._times(series, span)
        return [self._row(series, at) for at in (times[::-1] if newest_first else times)[:limit]]

    def _row(self, series: Series, at_us: int) -> PointRow:
        value = self._series[_place(series)].values[at_us]
        return PointRow(series, at_us, float(value) if series.kind == "float" else value)

    def last_points(self, series: Sequence[Series], age_max_us: int | None) -> list[PointRow | None]:
        span = Span(-(1 << 62), None, age_max_us)
        return [next(iter(self.points(one, span, 1, True)), None) for one in series]

    def windows(
        self, series: Series, span: Span, windows: Windows, aggregate: Aggregate, limit: int
    ) -> list[tuple[int, PointValue]]:
        cut: dict[int, list[PointValue]] = {}
        for at in self._times(series, span):
            begin = window_of(windows, at)
            if begin is not None:
                cut.setdefault(begin, []).append(self._row(series, at).value)
        return [(begin, aggregated(aggregate, values)) for begin, values in cut.items()][:limit]

    def erase_points(self, key: Key, measures: Sequence[str]) -> None:
        for measure in measures:
            self._series.pop((key.etype, measure, key.tenant, key.id), None)

    def expire_points(self, etype: str, measure: str, age_max_us: int, limit: int) -> int:
        before, gone = self.env.now_us() - age_max_us, 0
        for place, series in self._series.items():
            if place[:2] == (etype, measure):
                old = series.times[: min(bisect_left(series.times, before), limit - gone)]
                del series.times[: len(old)]
                for at in old:
                    del series.values[at]
                gone += len(old)
        return gone

    # -- lines ------------------------------------------------------------------------------------------------

    def append_lines(self, etype: str, tenant: str, lines: Sequence[Line]) -> None:
        self._logged(etype)
        log = self._logs.setdefault((etype, tenant), {})
        for line in lines:
            log.setdefault(line.id, Line(line.id, copied(line.body)))

    def _young(self, etype: str, tenant: str) -> Iterator[Line]:
        ttl_s = self._logged(etype).ttl_s
        lines = self._logs.get((etype, tenant), {}).values()
        if ttl_s is None:
            return iter(lines)
        before = _EPOCH + timedelta(microseconds=self.env.now_us()) - timedelta(seconds=ttl_s)
        return (line for line in lines if line.body["at"] >= before)

    def lines(
        self,
        etype: str,
        tenant: str,
        phrases: Sequence[Phrase],
        where: Checked | None,
        limit: int,
        newest_first: bool,
    ) -> list[Line]:
        entity = self._logged(etype)
        holds = None if where is None else predicate(where)
        found = [
            line
            for line in self._young(etype, tenant)
            if (holds is None or holds(line.body))
            and (not phrases or matches("\n".join(line.body.get(f) or "" for f in entity.full_text), phrases))
        ]
        found.sort(key=lambda line: (line.body["at"], entity.key_value(line.id)), reverse=newest_first)
        return [Line(line.id, copied(line.body)) for line in found[:limit]]

    def count_lines(self, etype: str, tenant: str, where: Checked | None) -> int:
        holds = None if where is None else predicate(where)
        return sum(holds is None or holds(line.body) for line in self._young(etype, tenant))

    def expire_lines(self, etype: str, limit: int) -> int:
        gone = 0
        for (name, tenant), log in self._logs.items():
            if name == etype:
                young = {line.id for line in self._young(etype, tenant)}
                old = [id for id in log if id not in young][: limit - gone]
                for id in old:
                    del log[id]
                gone += len(old)
        return gone

    def counts(
        self,
        etype: str,
        tenant: str,
        phrases: Sequence[Phrase],
        where: Checked | None,
        field: str,
        windows: Windows | None,
        limit: int,
    ) -> list[tuple[Any, int]]:
        if etype in self._log_types:
            entity, young = self._log_types[etype], self._young(etype, tenant)
            bodies = [line.body for line in young]
        else:
            entity = self.layout(etype).entity
            bodies = [row.body for row in self.alive(etype, tenant).values()]
        holds = None if where is None else predicate(where)
        tally = Tally(field, windows)
        for body in bodies:
            said = "\n".join(body.get(name) or "" for name in entity.full_text) if phrases else ""
            if (holds is None or holds(body)) and (not phrases or matches(said, phrases)):
                tally.take(body)
        return list(tally.first(limit))

    # -- for other stores -------------------------------------------------------------------------------------

    def spill(self, spills: Sequence[Spill], bytes_max: int) -> None:
        self.kept.spill(spills, bytes_max, self.env.now_us())

    def spilled(self, store: str, limit: int) -> list[SpillRow]:
        return self.kept.spilled(store, limit, self.env.now_us())

    def postpone(self, numbers: Sequence[int], delay_us: int, error: str, aside: bool) -> None:
        self.kept.postpone(numbers, self.env.now_us() + delay_us, error, aside)


def _place(series: Series) -> _Place:
    return series.etype, series.measure, series.tenant, series.id


class FactCalls:
    """A connection's part: `SupportsTimeRange`, `SupportsLog`, `SupportsSpill`, `SupportsCounts`."""

    if TYPE_CHECKING:
        server: MemoryServer

        async def _call(self, method: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R: ...

    async def append_points(self, points: Sequence[PointRow]) -> None:
        await self._call(self.server.append_points, points)

    async def points(self, series: Series, span: Span, limit: int, newest_first: bool) -> list[PointRow]:
        return await self._call(self.server.points, series, span, limit, newest_first)

    async def last_points(self, series: Sequence[Series], age_max_us: int | None) -> list[PointRow | None]:
        return await self._call(self.server.last_points, series, age_max_us)

    async def windows(
        self, series: Series, span: Span, windows: Windows, aggregate: Aggregate, limit: int
    ) -> list[tuple[int, PointValue]]:
        return await self._call(self.server.windows, series, span, windows, aggregate, limit)

    async def erase_points(self, key: Key, measures: Sequence[str]) -> None:
        await self._call(self.server.erase_points, key, measures)

    async def expire_points(self, etype: str, measure: str, age_max_us: int, limit: int) -> int:
        return await self._call(self.server.expire_points, etype, measure, age_max_us, limit)

    async def append_lines(self, etype: str, tenant: str, lines: Sequence[Line]) -> None:
        await self._call(self.server.append_lines, etype, tenant, lines)

    async def lines(
        self,
        etype: str,
        tenant: str,
        phrases: Sequence[Phrase],
        where: Checked | None,
        limit: int,
        newest_first: bool,
    ) -> list[Line]:
        return await self._call(self.server.lines, etype, tenant, phrases, where, limit, newest_first)

    async def count_lines(self, etype: str, tenant: str, where: Checked | None) -> int:
        return await self._call(self.server.count_lines, etype, tenant, where)

    async def expire_lines(self, etype: str, limit: int) -> int:
        return await self._call(self.server.expire_lines, etype, limit)

    async def counts(
        self,
        etype: str,
        tenant: str,
        phrases: Sequence[Phrase],
        where: Checked | None,
        field: str,
        windows: Windows | None,
        limit: int,
    ) -> list[tuple[Any, int]]:
        return await self._call(self.server.counts, etype, tenant, phrases, where, field, windows, limit)

    async def spill(self, spills: Sequence[Spill], bytes_max: int) -> None:
        await self._call(self.server.spill, spills, bytes_max)

    async def spilled(self, store: str, limit: int) -> list[SpillRow]:
        return await self._call(self.server.spilled, store, limit)

    async def unspill(self, numbers: Sequence[int]) -> None:
        await self._call(self.server.kept.unspill, numbers)

    async def postpone(self, numbers: Sequence[int], delay_us: int, error: str, aside: bool) -> None:
        await self._call(self.server.postpone, numbers, delay_us, error, aside)

    async def spills(self) -> list[SpillCount]:
        return await self._call(self.server.kept.counts)

    async def erasing(self, store: str, etype: str, tenant: str, ids: Sequence[str]) -> list[str]:
        return await self._call(self.server.kept.erasing, store, etype, tenant, ids)
