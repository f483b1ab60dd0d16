"""What differs between SQL stores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy.types import TypeEngine

from polystore.filters import Compare

Bind = Callable[[Any], sa.ColumnElement[Any]]
"""Makes the parameter that carries the next value of a comparison."""


class Packing(Protocol):
    """A list of any length as one parameter, so that it is always the same statement."""

    @property
    def listed(self) -> frozenset[str]:
        """The kinds whose values can be packed."""
        ...

    def pack(self, values: Sequence[Any]) -> Any:
        """Encoded values as one parameter."""
        ...

    def among(self, column: sa.ColumnElement[Any], packed: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
        """The column has one of the packed values."""
        ...


class Dialect(Protocol):
    """One SQL store's types, value forms and functions.

    Conditions returned by the methods may be NULL instead of false, never instead of true.
    """

    @property
    def compiler(self) -> sa.Dialect:
        """SQLAlchemy's dialect, set to positional parameters."""
        ...

    @property
    def types(self) -> Mapping[str, TypeEngine[Any]]:
        """Kind of a field -> type of its column. Texts must compare by code point, decimals by value."""
        ...

    @property
    def encoders(self) -> Mapping[str, Callable[[Any], Any]]:
        """Kind -> from a plain value to what the driver takes; kinds left out are taken as they are."""
        ...

    def encoder(self, field: str, kind: str) -> Callable[[Any], Any] | None:
        """The encoder of one field's values: that of its kind, unless the table is the application's own."""
        ...

    @property
    def packing(self) -> Packing | None:
        """How a list of values is one parameter; None: each of them is one."""
        ...

    def position(self, text: sa.ColumnElement[Any], part: sa.ColumnElement[Any]) -> sa.ColumnElement[int]:
        """Where `part` begins in `text`, compared exactly: 1 at its beginning or when empty, 0 when absent."""
        ...

    def json(self, column: sa.ColumnElement[Any], node: Compare, bind: Bind) -> sa.ColumnElement[bool]:
        """A comparison with a JSON column or a value inside it, as `polystore.filters.predicate` has it. Each value of
        the comparison is bound by itself, in order; a None value is not."""
        ...
