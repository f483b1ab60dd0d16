"""Windows of time: what their words mean, and where they begin on days on which the clocks change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from polystore.collection.windows import microseconds, moment, windows, zone_of
from polystore.errors import InvalidFilter

SEOUL, NEW_YORK, KATHMANDU = ZoneInfo("Asia/Seoul"), ZoneInfo("America/New_York"), ZoneInfo("Asia/Kathmandu")
BEIRUT = ZoneInfo("Asia/Beirut")
"""There the clocks are put forward at midnight."""


def edges(every: str, start: datetime, end: datetime, zone: ZoneInfo) -> list[str]:
    return [moment(at, zone).isoformat() for at in windows(every, zone, start, end).edges]


@pytest.mark.parametrize(
    ("every", "width_s"),
    [("30s", 30), ("5m", 300), ("1h", 3600), ("36h", 129_600), (timedelta(days=1), 86_400), (timedelta(0, 0, 1), 1e-6)],
)
def test_short_windows_and_timedeltas_are_of_one_length(every: str | timedelta, width_s: float) -> None:
    now = datetime.now(UTC)
    assert windows(every, UTC, now, now).width_us == width_s * 1e6


@pytest.mark.parametrize(
    "every", ["", "1", "h", "0h", "-1d", "1 h", "1M", "1ms", "1.5h", "d1", "10000000s", timedelta(0), timedelta(-1)]
)
def test_what_is_no_width_is_refused(every: str | timedelta) -> None:
    with pytest.raises(InvalidFilter, match="every="):
        windows(every, UTC, datetime.now(UTC), datetime.now(UTC))


@pytest.mark.parametrize("name", ["", "Nowhere/Land", "../etc/passwd", "/etc/passwd", "Asia"])
def test_an_unknown_time_zone_is_refused(name: str) -> None:
    with pytest.raises(InvalidFilter, match="tz="):
        zone_of(name)


@pytest.mark.parametrize("zone", [UTC, SEOUL, NEW_YORK, KATHMANDU])
def test_hours_begin_on_full_hours_of_the_zone(zone: ZoneInfo) -> None:
    start = datetime(2026, 7, 3, 11, 22, 33, tzinfo=zone)
    found = windows("1h", zone, start, start)
    first = microseconds(start) - (microseconds(start) - found.origin_us) % found.width_us
    assert moment(first, zone).isoformat()[:19] == "2026-07-03T11:00:00"


def test_a_day_in_seoul_begins_at_its_midnight() -> None:
    start, end = datetime(2026, 3, 8, 3, tzinfo=SEOUL), datetime(2026, 3, 10, tzinfo=SEOUL)
    assert edges("1d", start, end, SEOUL) == [
        "2026-03-08T00:00:00+09:00",
        "2026-03-09T00:00:00+09:00",
        "2026-03-10T00:00:00+09:00",
    ]


def test_days_on_which_the_clocks_change_have_23_and_25_hours() -> None:
    for day, hours in ((datetime(2026, 3, 8, tzinfo=NEW_YORK), 23), (datetime(2026, 11, 1, tzinfo=NEW_YORK), 25)):
        found = windows("1d", NEW_YORK, day, day + timedelta(days=3)).edges
        assert [(b - a) / 3.6e9 for a, b in pairwise(found)] == [hours, 24, 24]
        assert {moment(at, NEW_YORK).hour for at in found} == {0}


def test_a_day_that_has_no_midnight_begins_when_the_clocks_have_jumped() -> None:
    found = edges("1d", datetime(2026, 3, 28, 12, tzinfo=BEIRUT), datetime(2026, 3, 30, tzinfo=BEIRUT), BEIRUT)
    assert found == ["2026-03-28T00:00:00+02:00", "2026-03-29T01:00:00+03:00", "2026-03-30T00:00:00+03:00"]


def test_weeks_begin_on_mondays_months_on_the_first_and_years_in_january() -> None:
    start, end = datetime(2026, 11, 22, tzinfo=NEW_YORK), datetime(2027, 2, 2, tzinfo=NEW_YORK)
    weeks = windows("1w", NEW_YORK, start, end).edges
    assert {moment(at, NEW_YORK).weekday() for at in weeks} == {0}
    assert moment(weeks[0], NEW_YORK).date().isoformat() == "2026-11-16"
    assert [at[:10] for at in edges("1mo", start, end, NEW_YORK)] == [
        *("2026-11-01", "2026-12-01", "2027-01-01", "2027-02-01", "2027-03-01"),
    ]
    assert [at[:10] for at in edges("1y", start, end, NEW_YORK)] == ["2026-01-01", "2027-01-01", "2028-01-01"]


def test_several_units_begin_at_the_same_place_whatever_the_start() -> None:
    end = datetime(2027, 1, 1, tzinfo=UTC)
    for every in ("3d", "2w", "3mo", "5y"):
        one = windows(every, UTC, datetime(2026, 3, 1, tzinfo=UTC), end).edges
        other = windows(every, UTC, datetime(2026, 5, 17, tzinfo=UTC), end).edges
        assert set(other) <= set(one), every
        assert other[0] <= microseconds(datetime(2026, 5, 17, tzinfo=UTC)) < other[1]


def test_the_first_and_the_last_days_of_all_time() -> None:
    first, last = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
    for every in ("1d", "1w", "1mo", "1y"):
        assert windows(every, UTC, first, first + timedelta(days=1)).edges[0] <= microseconds(first)
        windows(every, UTC, last - timedelta(days=1), last)


def test_too_many_windows_are_refused() -> None:
    with pytest.raises(InvalidFilter, match="10000 windows"):
        windows("1d", UTC, datetime(1900, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC))
