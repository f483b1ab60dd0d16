"""Mapped SQLAlchemy classes as entity classes: which attributes are fields, and how their values go in and out.

A field is an attribute that holds a column of the class's table; relationships and computed columns are none. A value
has three forms: the one that the application sees (`Status.DRAFT`, a naive datetime), the plain one of bodies (what an
Enum's column holds, an aware datetime in UTC), and the driver's, which belongs to the store that has the table.

Imported only where such a class is met, since it imports SQLAlchemy.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any, Generic, TypeVar, cast, get_args, get_origin
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.dialects import sqlite
from sqlalchemy.orm import attributes
from sqlalchemy.types import TypeDecorator, TypeEngine

from polystore.classes import Constant, UnsupportedType
from polystore.errors import EntityError, InvalidData
from polystore.kinds import Kind, encode_datetime, kind_of, optional

T = TypeVar("T")

Convert = Callable[[Any], Any]

_NEUTRAL = sqlite.dialect()
"""What a `TypeDecorator` and an `Enum` are asked with: their plain form is the same wherever the table is."""
_EMPTY: Mapping[str, Any] = {
    "str": "",
    "int": 0,
    "float": 0.0,
    "bool": False,
    "bytes": b"",
    "datetime": datetime(1970, 1, 1, tzinfo=UTC),
    "date": date(1970, 1, 1),
    "decimal": Decimal(0),
    "uuid": UUID(int=0),
}


class Column:
    """One field: its column, and its conversions. `plain` converts what the database gave, unchecked; `kind.encode`
    what the application gave, checked; `revive` is the way back from the plain form."""

    def __init__(self, column: sa.Column[Any]) -> None:
        self.column = column
        kind, self.plain, self._revive = (_key_form if column.primary_key else _form)(column.type)
        encode = _checked(self.plain, kind.encode)
        kind = Kind(kind.name, False, encode, encode, shape=kind.shape)
        self.kind = optional(kind) if column.nullable else kind

    def revive(self, value: Any) -> Any:
        return None if value is None else self._revive(value)

    @property
    def missing(self) -> Any:
        """What the application left out and the class gives: its `default=`, else None. `NotImplemented`: only the
        database can tell."""
        default: Any = self.column.default
        if default is not None and default.is_scalar:
            return default.arg
        if default is not None and default.is_callable:
            return default.arg(None)
        return None if default is None and self.column.server_default is None else NotImplemented

    @property
    def placeholder(self) -> Callable[[], Any] | None:
        """A value for the rows of a copy that are older than the field, until the true ones are delivered."""
        if self.kind.optional or self.column.primary_key:
            return None
        kind = self.column.type
        empty = kind.enums[0] if isinstance(kind, sa.Enum) else _EMPTY.get(self.kind.name)
        return Constant(self.revive(empty))


def _checked(plain: Convert, check: Convert) -> Convert:
    return lambda value: check(None if value is None else plain(value))


def _then(first: Convert, second: Convert) -> Convert:
    def both(value: Any) -> Any:
        return None if value is None else second(first(value))

    return both


def _same(value: Any) -> Any:
    return value


def _utc(value: Any) -> Any:
    """Digits without a time zone are taken for UTC."""
    if not isinstance(value, datetime):
        return value
    return value.replace(tzinfo=UTC) if value.utcoffset() is None else encode_datetime(value)


def _naive(value: datetime) -> datetime:
    return value.replace(tzinfo=None)


def _form(type_: TypeEngine[Any]) -> tuple[Kind, Convert, Convert]:
    """Kind, and the conversions to and from the plain form. Raises UnsupportedType."""
    if isinstance(type_, (sa.PickleType, sa.Interval)):
        raise _unsupported(type_)
    if isinstance(type_, TypeDecorator):
        return _decorated(type_)
    if isinstance(type_, sa.Enum):
        return _enum(type_)
    if isinstance(type_, sa.JSON):
        return kind_of(Any), _same, _same
    try:
        python: type[Any] = type_.python_type
    except NotImplementedError:
        raise _unsupported(type_) from None
    if python is datetime:
        return kind_of(datetime), _utc, _same if getattr(type_, "timezone", False) else _naive
    if python not in (str, int, float, bool, bytes, date, Decimal, UUID):
        raise _unsupported(type_)
    return kind_of(python), _same, _same


def _key_form(type_: TypeEngine[Any]) -> tuple[Kind, Convert, Convert]:
    """A key's plain form is the text that the table has, so that its rows can be named by it: of a UUID 32 digits."""
    if not isinstance(type_, sa.Uuid):
        return _form(type_)

    def plain(value: Any) -> Any:
        return value.hex if isinstance(value, UUID) else value.replace("-", "") if isinstance(value, str) else value

    return kind_of(str), plain, UUID if type_.as_uuid else lambda text: str(UUID(text))


def _decorated(type_: TypeDecorator[Any]) -> tuple[Kind, Convert, Convert]:
    kind, plain, revive = _form(type_.impl_instance)
    cls, base = type(type_), cast(Any, TypeDecorator)
    if cls.process_bind_param is not base.process_bind_param:
        plain = _then(lambda value: type_.process_bind_param(value, _NEUTRAL), plain)
    if cls.process_result_value is not base.process_result_value:
        revive = _then(revive, lambda value: type_.process_result_value(value, _NEUTRAL))
    return kind, plain, revive


def _enum(type_: sa.Enum) -> tuple[Kind, Convert, Convert]:
    """The plain form is what the column holds: as a rule the names of the members."""
    one = type_.dialect_impl(_NEUTRAL)
    bind: Convert = one.bind_processor(_NEUTRAL) or _same
    result: Convert = one.result_processor(_NEUTRAL, None) or _same
    known = frozenset(type_.enums)

    def check(value: Any) -> Any:
        if value not in known:
            raise InvalidData(f"the value is not one of {', '.join(map(repr, type_.enums))}")
        return value

    def plain(value: Any) -> Any:
        try:
            return bind(value)
        except LookupError:
            raise InvalidData(f"the value is not one of {', '.join(map(repr, type_.enums))}") from None

    return Kind("str", False, check, check), plain, result


def _unsupported(type_: TypeEngine[Any]) -> UnsupportedType:
    return UnsupportedType(
        f"the column type {type(type_).__name__} is not supported; use String, Text, Integer, Float, Numeric, Boolean, "
        "DateTime, Date, Enum, Uuid, LargeBinary, JSON, or a TypeDecorator of one of them"
    )


class MappedClass(Generic[T]):
    """A mapped class as the declaration of an entity sees it. Raises EntityError, UnsupportedType."""

    def __init__(self, cls: type[T]) -> None:
        self.cls = cls
        self._mapper: orm.Mapper[T] = cast(Any, cls).__mapper__
        mapper = self._mapper
        if mapper.inherits is not None or mapper.polymorphic_on is not None:
            raise EntityError(f"{cls.__name__}: a class of an inheritance hierarchy cannot be an entity")
        table: Any = mapper.local_table
        if not isinstance(table, sa.Table) or table.schema is not None:
            raise EntityError(f"{cls.__name__}: an entity is mapped to one table, of no schema")
        self.table: sa.Table[Any] = table
        self.columns: dict[str, Column] = {}
        mapped: Mapping[str, Any] = dict(mapper.columns.items())
        for name, column in mapped.items():
            if isinstance(column, sa.Column) and column.table is self.table and column.computed is None:
                try:
                    self.columns[name] = Column(cast("sa.Column[Any]", column))
                except UnsupportedType as e:
                    raise EntityError(f"{cls.__name__}.{name}: {e}") from None
        self.key = self._key()
        self._configured = False

    def _key(self) -> str:
        keys = [name for name, one in self.columns.items() if one.column.primary_key]
        if len(keys) != 1 or len(self.table.primary_key) != 1:
            raise EntityError(
                f"{self.cls.__name__}: the key of {self.table.name!r} has {len(self.table.primary_key)} columns; an "
                "entity has a key of one column"
            )
        return keys[0]

    def key_named(self, name: str) -> str:
        """The key, where the declaration names it or says nothing. Raises EntityError where it names another field."""
        if name not in ("id", self.key):
            raise EntityError(f"{self.cls.__name__}: key={name!r}: the primary key of its table is {self.key!r}")
        return self.key

    def hints(self) -> dict[str, Any]:
        """Field -> its kind, and the facets of `Mapped[Annotated[str, FullText()]]`, as one `Annotated`."""
        metadata = _metadata(self.cls)
        return {name: Annotated[(object, one.kind, *metadata.get(name, ()))] for name, one in self.columns.items()}

    def defaults(self) -> dict[str, Callable[[], Any]]:
        made = {name: one.placeholder for name, one in self.columns.items()}
        return {name: default for name, default in made.items() if default is not None}

    def values(self, instance: T) -> dict[str, Any]:
        """The fields' values, without asking the database; one that only the database can tell is left out. Raises
        InvalidData for an instance that is not loaded, and for a key that is still to be drawn."""
        state = attributes.instance_state(cast(Any, instance))
        held: Mapping[str, Any] = state.dict
        values: dict[str, Any] = {}
        for name, one in self.columns.items():
            if name in held:
                values[name] = held[name]
            elif state.key is not None:
                raise InvalidData(f"{self.cls.__name__}.{name}: not loaded; refresh the object in its session first")
            elif (missing := one.missing) is not NotImplemented:
                values[name] = missing
        if values.get(self.key) is None:
            raise InvalidData(
                f"{self.cls.__name__}.{self.key}: the object has no key yet; the database draws it when a session "
                "flushes the object: write it in hda.transaction(join=session), or give it a key"
            )
        return values

    def instance(self, body: Mapping[str, Any]) -> T:
        """A detached object of the class, all columns loaded. Raises what conversions raise."""
        if not self._configured:
            orm.configure_mappers()
            self._configured = True
        made: T = self._mapper.class_manager.new_instance()
        for name, one in self.columns.items():
            if name in body:
                attributes.set_committed_value(cast(Any, made), name, one.revive(body[name]))
        orm.make_transient_to_detached(cast(Any, made))
        return made


def _metadata(cls: type[Any]) -> dict[str, tuple[object, ...]]:
    """Attribute -> what stands beside the type in `Mapped[Annotated[type, ...]]`."""
    found: dict[str, tuple[object, ...]] = {}
    for base in reversed(cls.__mro__):
        scope = {**vars(sys.modules.get(base.__module__, sys)), **vars(base)}
        for name, hint in _annotations(base).items():
            try:
                found[name] = _beside(eval(hint, scope) if isinstance(hint, str) else hint)
            except (NameError, AttributeError):
                continue  # of a relationship to a class that comes later; SQLAlchemy has read those of columns
    return found


def _beside(hint: Any) -> tuple[object, ...]:
    if get_origin(hint) is Annotated:
        return tuple(hint.__metadata__)
    return tuple(one for arg in get_args(hint) for one in _beside(arg))


def _annotations(cls: type[Any]) -> Mapping[str, Any]:
    if sys.version_info >= (3, 14):
        import annotationlib

        return annotationlib.get_annotations(cls, format=annotationlib.Format.FORWARDREF)
    return inspect.get_annotations(cls)
