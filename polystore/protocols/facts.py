"""Facts: points of measures and lines of logs. Appended, never changed; the store they live in is their home."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol, runtime_checkable

from polystore.model import Value

PointValue = float | int | bool | str
Aggregate = Literal["avg", "min", "max", "sum", "count", "first", "last"]


class Series(Value, frozen=True, gc=False):
    """The points of one measure of one record. `id` is the text form of the record's key."""

    tenant: str
    etype: str
    measure: str
    id: str


class PointRow(Value, frozen=True, gc=False):
    """One point: its series and time (microseconds since 1970, UTC) are its identity."""

    series: Series
    at_us: int
    value: PointValue


@runtime_checkable
class SupportsTimeRange(Protocol):
    async def append(self, points: Sequence[PointRow]) -> None:
        """Durable when it returns. Appending a point again changes nothing, so any call may be repeated."""
        ...


@runtime_checkable
class SupportsLog(Protocol):
    """Lines of entities declared with data_type="log"."""
