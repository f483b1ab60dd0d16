"""A table of the application's own in a SQL store: the forms of its values, and whether it can be a home."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from polystore.entity import EntityType
from polystore.errors import DecodeError, SchemaMismatch
from polystore.model import Body

if TYPE_CHECKING:
    from polystore.mapped import Column, MappedClass

Convert = Callable[[Any], Any]


class Form:
    """One column: between the plain value and the driver's, by SQLAlchemy's type in a dialect. `code`: what the driver
    says of the type's values in a result, for types that ask."""

    def __init__(self, one: Column, dialect: sa.Dialect, code: object = None) -> None:
        type_ = one.column.type.dialect_impl(dialect)
        self._bind: Convert | None = type_.bind_processor(dialect)
        self._result: Convert | None = type_.result_processor(dialect, code)
        self._revive, self._plain = one.revive, one.plain
        self.default = one.column.server_default

    def encode(self, value: Any) -> Any:
        value = self._revive(value)
        return value if value is None or self._bind is None else self._bind(value)

    def decode(self, value: Any) -> Any:
        if value is not None and self._result is not None:
            value = self._result(value)
        return None if value is None else self._plain(value)

    def default_sql(self, dialect: sa.Dialect) -> str:
        """What the database gives where the application gives nothing."""
        default = self.default
        assert isinstance(default, sa.DefaultClause)
        if isinstance(default.arg, str):
            return "'" + default.arg.replace("'", "''") + "'"
        return str(default.arg.compile(dialect=dialect))


class FormCodec:
    """Bodies to and from the columns of such a table, in the order of the fields."""

    def __init__(self, entity: EntityType[Any], forms: Mapping[str, Form]) -> None:
        self._entity = entity
        self._forms = forms
        self.names = tuple(forms)

    def encode(self, body: Body) -> list[Any]:
        return [form.encode(body.get(name)) for name, form in self._forms.items()]

    def decode(self, id: str, values: Sequence[Any]) -> dict[str, Any]:
        """The body. Raises DecodeError naming the field whose value is not of its column's type."""
        body: dict[str, Any] = {}
        for (name, form), value in zip(self._forms.items(), values, strict=True):
            try:
                body[name] = form.decode(value)
            except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError) as e:
                raise DecodeError(
                    f"{self._entity.name} {id!r}: the stored value of {name!r} does not fit its column's type; "
                    "mend the row"
                ) from e
        return body


def check_columns(place: str, etype: str, mapped: MappedClass[Any], found: Collection[str]) -> None:
    """Raises SchemaMismatch where the table is missing, or lacks columns of its class. `found`: its columns."""
    name = mapped.table.name
    if not found:
        raise SchemaMismatch(
            f"{place}: has no table {name!r} of {mapped.cls.__name__}; the application makes its tables itself "
            "(Base.metadata.create_all), and its home is the store that has them: pin it with "
            f'[pins.{etype}] home = "..."'
        )
    if lacking := {one.column.name for one in mapped.columns.values()} - set(found):
        raise SchemaMismatch(f"{place}: the table {name!r} lacks columns of its class: {', '.join(sorted(lacking))}")


def check_foreign_keys(place: str, name: str, moves: Sequence[tuple[str, str, str]]) -> None:
    """Raises SchemaMismatch for foreign keys that change rows without anybody writing them: of each the other table,
    the event there, and what then happens here."""
    to, event, rule = moves[0]
    raise SchemaMismatch(
        f"{place}: the foreign key of {name!r} to {to!r} is ON {event} {rule}: the database changes rows that nobody "
        "hears of. Install the trigger, with polystore.sqlalchemy.install_trigger, or leave it to the ORM"
    )
