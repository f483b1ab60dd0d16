"""How a series is cut into windows: the words for their width, and the edges of days, weeks, months and years.

Windows of seconds, minutes and hours, and those given as a timedelta, are all of one length and take no notice of
daylight saving; they are counted from a midnight of the time zone. Days, weeks (from Monday), months and years are
those of the calendar: a day on which the clocks change has 23 or 25 hours.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta, tzinfo

from polystore.errors import InvalidFilter
from polystore.model import Windows

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EDGES_MAX = 10_000
_EVERY = re.compile(r"([1-9][0-9]{0,5})(s|m|h|d|w|mo|y)")
_FIXED_S: Mapping[str, int] = {"s": 1, "m": 60, "h": 3600}


def microseconds(at: datetime) -> int:
    """Since 1970. `at` has a time zone."""
    delta = at - EPOCH
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


def moment(at_us: int, zone: tzinfo = UTC) -> datetime:
    at = EPOCH + timedelta(microseconds=at_us)
    return at if zone is UTC else at.astimezone(zone)


def zone_of(tz: tzinfo | str | None) -> tzinfo:
    """Raises InvalidFilter for an unknown name."""
    if tz is None:
        return UTC
    if isinstance(tz, tzinfo):
        return tz
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError  # only who names a zone needs it

    try:
        return ZoneInfo(tz)
    except (ZoneInfoNotFoundError, ValueError, TypeError, OSError):
        raise InvalidFilter(f"tz={tz!r}: no time zone has this name; for example 'Asia/Seoul'") from None


def windows(every: timedelta | str, zone: tzinfo, start: datetime, end: datetime) -> Windows:
    """The windows that meet the time from `start` to `end`. Raises InvalidFilter for words that are no width, and for
    more than 10,000 windows of the calendar."""
    if isinstance(every, timedelta):
        return _fixed(every // timedelta(microseconds=1), zone, start)
    found = _EVERY.fullmatch(str(every))
    if found is None:
        raise InvalidFilter(
            f"every={every!r}: a timedelta, or a text such as '30s', '5m', '1h', '1d', '1w', '1mo' or '1y'"
        )
    count, unit = int(found[1]), found[2]
    if unit in _FIXED_S:
        return _fixed(count * _FIXED_S[unit] * 1_000_000, zone, start)
    edges: list[int] = []
    for day in _DAYS[unit](start.astimezone(zone).date(), count):
        edges.append(_midnight(day, zone))
        if edges[-1] >= microseconds(end):
            break
        if len(edges) > EDGES_MAX:
            raise InvalidFilter(f"every={every!r}: more than {EDGES_MAX} windows; ask for a shorter time")
    return Windows(edges=edges)


def _fixed(width_us: int, zone: tzinfo, start: datetime) -> Windows:
    if width_us < 1:
        raise InvalidFilter("every=: a window has at least one microsecond")
    offset = start.astimezone(zone).utcoffset() or timedelta()
    return Windows(width_us, -(offset // timedelta(microseconds=1)))


def _midnight(day: date, zone: tzinfo) -> int:
    """The first moment of a day; where the clocks jump over midnight, that of the jump."""
    return microseconds(datetime(day.year, day.month, day.day, tzinfo=zone))


def _every_days(day: date, count: int) -> Iterator[date]:
    return _steps(day, day.toordinal() - date(1970, 1, 1).toordinal(), count)


def _every_weeks(day: date, count: int) -> Iterator[date]:
    return _steps(day, day.toordinal() - date(1970, 1, 5).toordinal(), 7 * count)  # a Monday


def _steps(day: date, passed: int, step: int) -> Iterator[date]:
    day -= timedelta(days=min(passed % step, day.toordinal() - 1))
    while True:
        yield day
        if date.max - day < timedelta(days=step):
            return
        day += timedelta(days=step)


def _every_months(day: date, count: int) -> Iterator[date]:
    first = (day.year * 12 + day.month - 1) // count * count
    for month in range(max(first, 12), date.max.year * 12, count):
        yield date(month // 12, month % 12 + 1, 1)


def _every_years(day: date, count: int) -> Iterator[date]:
    for year in range(max(day.year // count * count, 1), date.max.year, count):
        yield date(year, 1, 1)


_DAYS: Mapping[str, Callable[[date, int], Iterator[date]]] = {
    "d": _every_days,
    "w": _every_weeks,
    "mo": _every_months,
    "y": _every_years,
}
