"""The store: questions of `SupportsTimeRange` over the driver, with its errors by status."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from polystore.env import Env
from polystore.errors import (
    ConfigurationError,
    InvalidData,
    PermissionDenied,
    PolystoreError,
    RateLimited,
    SchemaMismatch,
    StoreFull,
    Unavailable,
    ValueTooLarge,
)
from polystore.model import (
    Aggregate,
    Instance,
    Key,
    Limits,
    PointRow,
    PointValue,
    Series,
    Span,
    Windows,
    aggregated,
    window_of,
)
from polystore.protocols import FACTS_MAX, Layout, SupportsSchema, SupportsTimeRange
from polystore.protocols.without_records import WithoutRecords
from polystore_adapters.influxdb import downsampling
from polystore_adapters.influxdb.driver import PLAIN, ApiException, ClientError
from polystore_adapters.influxdb.options import Place
from polystore_adapters.influxdb.points import (
    FIRST_US,
    LAST_US,
    line_protocol,
    measurement,
    of_fields,
    of_series,
    parsed,
    quoted,
    rows_of,
    source,
    tag,
    untag,
)

SERIES_A_TIME: Final = 100
WIDTH_US_MAX: Final = 1 << 52
"""Wider windows do not fit into the nanoseconds of a duration."""
_INT_MAX: Final = (1 << 63) - 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FULL: Final = ("cache-max-memory-size exceeded", "no space left on device")
"""In what the server says of itself, which has one status for all its own errors."""


class InfluxRepository(WithoutRecords):
    """Points in one bucket. `client`: the driver's own object, for tasks, dashboards and what else the server has."""

    holds = "an InfluxDB store holds points of measures"
    capabilities: frozenset[type] = frozenset({SupportsTimeRange, SupportsSchema})
    limits = Limits()

    def __init__(self, place: Place, env: Env) -> None:
        self._place, self._bucket, self._env = place, place.bucket, env
        self.client: Any = place.client()
        self._closed = False

    async def _call(self, method: Any, *args: Any, **kwargs: Any) -> Any:
        if self._closed:
            raise Unavailable("closed; connect again")
        try:
            return await method(*args, **kwargs)
        except ApiException as error:
            raise self._translated(getattr(error, "status", None), str(getattr(error, "body", ""))) from error
        except (ClientError, TimeoutError, OSError) as error:
            raise Unavailable(f"the server does not answer ({type(error).__name__})") from error

    def _translated(self, status: int | None, said: str) -> PolystoreError:
        match status:
            case 400:
                return InvalidData("the server cannot take what was sent: a time or a value that it has no form for")
            case 401 | 403:
                return PermissionDenied(f"the server refuses this token on the bucket {self._bucket!r}; give it rights")
            case 404:
                return SchemaMismatch(f"the bucket {self._bucket!r} does not exist; run `polystore init`")
            case 413:
                return ValueTooLarge("the server takes no request as large; append fewer points at a time")
            case 422:
                return InvalidData(f"points older than the retention of the bucket {self._bucket!r} are not kept there")
            case 429:
                return RateLimited("the server asks for fewer requests")
            case 500 if any(words in said for words in _FULL):
                return StoreFull(
                    "its disk is full, or a shard's cache: make room, or raise storage-cache-max-memory-size"
                )
            case _:
                return Unavailable(f"the server does not answer as it should (status {status})")

    async def _ask(self, flux: str) -> list[dict[str, str]]:
        return list(rows_of(await self._call(self.client.query_api().query_raw, flux, dialect=PLAIN)))

    # -- life -------------------------------------------------------------------------------------------------

    async def prepare(self, layouts: Sequence[Layout], *, create: bool) -> None:
        self.refuse(layouts)
        wanted = {self._bucket: self._place.options.retention_s}
        if self._place.options.downsample_s is not None:
            wanted[self._place.averages] = self._place.options.downsample_retention_s
        for name in wanted.keys() - await self._buckets():
            if not create:
                raise SchemaMismatch(f"the bucket {name!r} does not exist; run `polystore init`")
            await self._create(name, wanted[name])
        if self._place.options.downsample_s is not None:
            await self._downsample(create)

    async def _buckets(self) -> set[str]:
        return {row["name"] for row in await self._ask('buckets() |> keep(columns: ["name"])')}

    async def _request(self, path: str, method: str, **given: Any) -> Any:
        """The asynchronous client of the driver has no call for what is no data."""
        return await self._call(self.client.api_client.call_api, path, method, response_type=object, **given)

    async def _create(self, name: str, retention_s: int) -> None:
        organisation = self._place.organisation
        found = await self._request("/api/v2/orgs", "GET", query_params=[("org", organisation)])
        rules = [{"type": "expire", "everySeconds": retention_s}]
        body = {"orgID": found["orgs"][0]["id"], "name": name, "retentionRules": rules}
        try:
            await self._request("/api/v2/buckets", "POST", body=body)
        except InvalidData:
            if name not in await self._buckets():  # else somebody else made it meanwhile
                raise ConfigurationError(
                    f"the server makes no bucket {name!r}: its name is none that it takes"
                ) from None

    async def _downsample(self, create: bool) -> None:
        task = await downsampling.standing(self._request, self._place)
        if task is not None and (task["flux"], task["status"]) == (downsampling.flux(self._place), "active"):
            return
        if not create:
            name = downsampling.name_of(self._place)
            raise SchemaMismatch(f"the task {name!r} is not there, or not as the options ask; run `polystore init`")
        await downsampling.carry_out(self._request, self._place)

    async def ping(self) -> Instance:
        if not await self._call(self.client.ping):
            raise Unavailable("the server does not answer")
        return Instance("influxdb", await self._call(self.client.version), self._bucket)

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            await self.client.close()

    # -- points -----------------------------------------------------------------------------------------------

    async def append_points(self, points: Sequence[PointRow]) -> None:
        lines = line_protocol(points)
        if lines:
            write = self.client.write_api().write
            await self._call(write, self._bucket, record=lines, write_precision="us")

    def _span(self, span: Span) -> tuple[int, int]:
        start, end = span.start_us, LAST_US if span.end_us is None else span.end_us
        if span.age_max_us is not None:
            start = max(start, self._env.now_us() - span.age_max_us)
        return max(start, FIRST_US), min(end, LAST_US)

    def _of(self, series: Series, start_us: int, end_us: int) -> str:
        condition = f"{of_series([series])} and {of_fields(series.kind)}"
        return source(self._bucket, measurement(series.etype, series.measure), start_us, end_us, condition)

    async def points(self, series: Series, span: Span, limit: int, newest_first: bool) -> list[PointRow]:
        start, end = self._span(span)
        if start >= end:
            return []
        flux = (
            f'{self._of(series, start, end)} |> sort(columns: ["_time"], desc: {str(newest_first).lower()}) '
            f"|> limit(n: {limit}) |> {_KEEP}"
        )
        found = [_row(series, row) for row in await self._ask(flux)]
        found.sort(key=lambda row: row.at_us, reverse=newest_first)
        return found[:limit]

    async def last_points(self, series: Sequence[Series], age_max_us: int | None) -> list[PointRow | None]:
        newest: dict[Series, PointRow] = {}
        asked: dict[tuple[str, str, str], list[Series]] = {}
        for one in dict.fromkeys(series):
            asked.setdefault((one.etype, one.measure, one.kind), []).append(one)
        start, end = self._span(Span(FIRST_US, None, age_max_us))
        for group in asked.values() if start < end else ():
            for first in range(0, len(group), SERIES_A_TIME):
                some = group[first : first + SERIES_A_TIME]
                condition = f"{of_series(some)} and {of_fields(some[0].kind)}"
                name = measurement(some[0].etype, some[0].measure)
                places = {(one.tenant, one.id): one for one in some}
                for row in await self._ask(f"{source(self._bucket, name, start, end, condition)} |> last() |> {_KEEP}"):
                    found = _row(places[untag(row["tenant"]), untag(row["id"])], row)
                    known = newest.get(found.series)
                    if known is None or known.at_us < found.at_us:
                        newest[found.series] = found
        return [newest.get(one) for one in series]

    # -- windows ----------------------------------------------------------------------------------------------

    async def windows(
        self, series: Series, span: Span, windows: Windows, aggregate: Aggregate, limit: int
    ) -> list[tuple[int, PointValue]]:
        start, end = self._span(span)
        if start >= end:
            return []
        by_server = not windows.edges and windows.width_us < WIDTH_US_MAX and series.kind != "bool"
        if by_server and not (aggregate in ("sum", "avg") and series.kind == "int"):
            return (await self._by_server(series, start, end, windows, aggregate))[:limit]
        if by_server and await self._fits(series, start, end, windows):
            return (await self._by_server(series, start, end, windows, aggregate))[:limit]
        return await self._by_us(series, Span(start, end), windows, aggregate, limit)

    async def _by_server(
        self, series: Series, start: int, end: int, windows: Windows, aggregate: Aggregate
    ) -> list[tuple[int, PointValue]]:
        """Ints of a measure that became one of floats are in tables of their own: they are put together here."""
        wanted: tuple[Aggregate, ...] = ("sum", "count") if aggregate == "avg" else (aggregate,)
        parts = await asyncio.gather(*(self._cut(series, start, end, windows, one) for one in wanted))
        found: dict[int, dict[Aggregate, list[tuple[int, PointValue]]]] = {}
        for one, rows in zip(wanted, parts, strict=True):
            for begin, time, value in rows:
                found.setdefault(begin, {}).setdefault(one, []).append((time, value))
        return [(begin, _together(aggregate, found[begin])) for begin in sorted(found)]

    async def _cut(
        self, series: Series, start: int, end: int, windows: Windows, aggregate: Aggregate
    ) -> list[tuple[int, int, PointValue]]:
        """(beginning, time or 0, aggregate), one for each window and field that has points."""
        offset = windows.origin_us % windows.width_us
        flux = f"{self._of(series, start, end)} |> {_windowed(windows.width_us, offset, aggregate)}"
        cut: list[tuple[int, int, PointValue]] = []
        for row in await self._ask(flux):
            first = int(row["start"])  # of the window's part inside the span
            begin = first - (first - offset) % windows.width_us
            value = int(row["_value"]) if aggregate == "count" else parsed(row["_field"], row["_value"], series.kind)
            cut.append((begin, int(row.get("at") or 0), value))
        return cut

    async def _fits(self, series: Series, start: int, end: int, windows: Windows) -> bool:
        """Whether no sum of a window can leave the 64 bits in which the server counts."""
        most: tuple[Aggregate, ...] = ("min", "max", "count")
        lows, highs, counts = await asyncio.gather(*(self._cut(series, start, end, windows, one) for one in most))
        sizes = {begin: int(count) for begin, _, count in counts}
        return all(abs(int(value)) * sizes.get(begin, _INT_MAX) <= _INT_MAX for begin, _, value in (*lows, *highs))

    async def _by_us(
        self, series: Series, span: Span, windows: Windows, aggregate: Aggregate, limit: int
    ) -> list[tuple[int, PointValue]]:
        """Point by point, in pages: for what the server cannot cut or count."""
        cut: dict[int, list[PointValue]] = {}
        while True:
            page = await self.points(series, span, FACTS_MAX, False)
            for row in page:
                begin = window_of(windows, row.at_us)
                if begin is not None:
                    cut.setdefault(begin, []).append(row.value)
            if len(page) < FACTS_MAX or len(cut) > limit:
                return [(begin, aggregated(aggregate, values)) for begin, values in cut.items()][:limit]
            span = Span(page[-1].at_us + 1, span.end_us)

    # -- gone -------------------------------------------------------------------------------------------------

    async def erase_points(self, key: Key, measures: Sequence[str]) -> None:
        for measure in measures:
            await self._delete(measurement(key.etype, measure), key.tenant, key.id, FIRST_US, LAST_US)

    async def _delete(self, name: str, tenant: str, id: str, start_us: int, end_us: int) -> None:
        """Both ends belong to what is deleted."""
        predicate = " AND ".join(
            f"{column}={quoted(text)}"
            for column, text in (("_measurement", name), ("tenant", tag(tenant)), ("id", tag(id)))
        )
        first, last = (_EPOCH + timedelta(microseconds=us) for us in (start_us, end_us))
        await self._call(self.client.delete_api().delete, first, last, predicate, self._bucket)

    async def expire_points(self, etype: str, measure: str, age_max_us: int, limit: int) -> int:
        before, name = self._env.now_us() - age_max_us, measurement(etype, measure)
        if before <= FIRST_US:
            return 0
        oldest = (
            f"{source(self._bucket, name, FIRST_US, before, 'true')} |> keep(columns: "
            f'["_time", "tenant", "id"]) |> group() |> sort(columns: ["_time", "tenant", "id"]) |> limit(n: {limit}) '
            '|> map(fn: (r) => ({r with at: int(v: r._time) / 1000})) |> drop(columns: ["_time"])'
        )
        spans: dict[tuple[str, str], list[int]] = {}
        for row in await self._ask(oldest):
            spans.setdefault((untag(row["tenant"]), untag(row["id"])), []).append(int(row["at"]))
        for (tenant, id), times in spans.items():
            await self._delete(name, tenant, id, min(times), max(times))
        return sum(map(len, spans.values()))


_KEEP = "map(fn: (r) => ({at: int(v: r._time) / 1000, _value: r._value, _field: r._field, tenant: r.tenant, id: r.id}))"


def _windowed(width_us: int, offset_us: int, aggregate: Aggregate) -> str:
    """Windows as the server cuts them: with `start`, and the time of the point where it is one of them that is wanted.
    The other way is answered by the storage itself."""
    columns = "_value: r._value, _field: r._field"
    if aggregate in ("first", "last"):
        cut = f"window(every: {width_us}us, offset: {offset_us}us) |> {aggregate}() |> group()"
        return f"{cut} |> map(fn: (r) => ({{start: int(v: r._start) / 1000, at: int(v: r._time) / 1000, {columns}}}))"
    given = f"every: {width_us}us, offset: {offset_us}us, fn: {aggregate}, createEmpty: false"
    cut = f'aggregateWindow({given}, timeSrc: "_start")'
    return f"{cut} |> map(fn: (r) => ({{start: int(v: r._time) / 1000, {columns}}}))"


def _row(series: Series, row: dict[str, str]) -> PointRow:
    return PointRow(series, int(row["at"]), parsed(row["_field"], row["_value"], series.kind))


def _together(aggregate: Aggregate, parts: dict[Aggregate, list[tuple[int, PointValue]]]) -> PointValue:
    if aggregate == "avg":
        total = aggregated("sum", [value for _, value in parts["sum"]])
        count = aggregated("sum", [value for _, value in parts["count"]])
        assert not isinstance(total, str)
        assert not isinstance(count, str)
        return total / count
    values = [value for _, value in sorted(parts[aggregate], key=lambda part: part[0])]
    return aggregated("sum" if aggregate == "count" else aggregate, values)
