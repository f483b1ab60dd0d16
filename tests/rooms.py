"""Schemas and databases that the tests of one class use one after the other.

To make the tables of a test costs more than most tests do with them. So they stay, emptied, for the next test of the
class, unless the one before has changed their shape: then the next one begins with nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Place(Protocol):
    """Where tables are, by name: the search path of a schema, the URL of a database."""

    def fresh(self) -> AbstractContextManager[str]:
        """A new one, removed at the end."""
        ...

    def shape(self, name: str, /) -> str:
        """Which tables, columns and indexes are there, and what polystore has noted of the types that they hold."""
        ...

    def empty(self, name: str, /) -> None:
        """Remove everything else. Waits for what is still at work there."""
        ...


class Room:
    """What `place` makes for one class of tests."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._shape: str | None = None
        self._name = ""
        self._end: Callable[[], object] = lambda: None

    @contextmanager
    def taken(self) -> Generator[str]:
        """The name for one test."""
        if not self._name:
            made = self._place.fresh()
            self._name = made.__enter__()
            self._end = lambda: made.__exit__(None, None, None)
        try:
            yield self._name
        finally:
            shape = self._place.shape(self._name)
            if self._shape in (None, shape):
                self._shape = shape
                self._place.empty(self._name)
            else:
                self.leave()

    def leave(self) -> None:
        """Remove it."""
        end, self._end, self._name, self._shape = self._end, lambda: None, "", None
        end()


@contextmanager
def kept(place: Place) -> Generator[Room]:
    """A room, removed at the end."""
    made = Room(place)
    try:
        yield made
    finally:
        made.leave()
