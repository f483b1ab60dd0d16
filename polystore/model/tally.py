"""How often each value of a field occurs, or how many of its times fall into each window."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from polystore.model.facts import Windows, window_of
from polystore.model.records import Body

COUNTABLE: Final = frozenset({"str", "int", "bool", "uuid", "date"})
"""Kinds whose values are counted one by one; times are counted by windows."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class Tally:
    """Of one field, over any number of bodies. What is missing counts nowhere."""

    def __init__(self, field: str, windows: Windows | None) -> None:
        self._field = field
        self._windows = windows
        self._found: Counter[Any] = Counter()

    def take(self, body: Body) -> None:
        value = body.get(self._field)
        if value is None:
            return
        self.add((value - _EPOCH) // _MICROSECOND if self._windows is not None else value, 1)

    def add(self, value: Any, count: int) -> None:
        """A value that occurs so often; with windows, a time in microseconds."""
        if self._windows is not None:
            value = window_of(self._windows, value)
        if value is not None:
            self._found[value] += count

    def first(self, limit: int) -> Sequence[tuple[Any, int]]:
        """The values that occur most often, equal ones by value; with windows, the first of these, by their time."""
        if self._windows is not None:
            return sorted(self._found.items())[:limit]
        return sorted(self._found.items(), key=lambda item: (-item[1], item[0]))[:limit]
