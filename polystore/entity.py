"""`@entity`: what an application declares, checked once and compiled to an `EntityType`."""

from __future__ import annotations

import contextlib
import hashlib
import re
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeGuard, TypeVar
from uuid import UUID

import msgspec

from polystore.classes import is_pydantic, mapped_class, members_of
from polystore.conditions import Conditions, nearest
from polystore.declaration import CacheMode, Declaration, Declared
from polystore.errors import (
    ConfigurationError,
    DecodeError,
    DimensionMismatch,
    EntityError,
    InvalidData,
    InvalidFilter,
    ValueTooLarge,
)
from polystore.facets import Needs
from polystore.filters import Checked, Expr, Field, Order, Sort, as_expr
from polystore.kinds import encode_reference
from polystore.model import VALUE_BYTES_MAX, Body

T = TypeVar("T")

_MARK = "__polystore_declaration__"
_hash_encoder = msgspec.msgpack.Encoder(order="sorted")


def entity(
    *,
    name: str | None = None,
    key: str = "id",
    needs: Needs | None = None,
    data_type: str | None = None,
    renamed: Mapping[str, str] | None = None,
    facets: Mapping[str, Sequence[object]] | None = None,
    cache: CacheMode = "bounded",
    ttl_s: float | None = None,
) -> Callable[[type[T]], type[T]]:
    """Declare a dataclass, msgspec.Struct, pydantic model or mapped SQLAlchemy class as an entity; the class itself is
    returned unchanged.

    name: the entity's name in every store; default: the class name in snake_case.
    key: the field that identifies a record: str, int or UUID; of a mapped class always its primary key.
    needs, data_type: choose the home. renamed: new field name -> old one. facets: field -> facets, for classes that
    cannot be edited. cache: how reads by key use a configured cache: "bounded" (a hit may be some ms old), "strict"
    (never older than the last acknowledged write) or "off". ttl_s: seconds that a record lives after each whole write,
    unless the write says otherwise. Raises EntityError naming class, field, reason and mend.
    """

    def declare(cls: type[T]) -> type[T]:
        mapped = mapped_class(cls)
        declaration = Declaration(
            name or _snake_case(cls.__name__),
            mapped.key_named(key) if mapped else key,
            needs,
            data_type,
            renamed or {},
            facets or {},
            cache,
            ttl_s,
        )
        setattr(cls, _MARK, declaration)
        # a NameError is a type declared further down in the module: `open` compiles again and reports
        with contextlib.suppress(NameError):
            entity_type(cls)
        return cls

    return declare


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


class EdgeRow(msgspec.Struct, frozen=True, gc=False):
    """One edge of a record: relation type, entity name and id of the other end, JSON-like properties."""

    type: str
    to_etype: str
    to_id: str
    properties: Mapping[str, Any]


class EntityType(Generic[T]):
    """An entity, compiled: checks and flattens values on the way in, rebuilds them on the way out."""

    def __init__(self, cls: type[T], declaration: Declaration) -> None:
        declared = Declared(cls, declaration)
        self.cls = cls
        self.name = declaration.name
        self.key = declaration.key
        self.needs = declaration.needs
        self.data_type = declaration.data_type
        self.renamed = declaration.renamed
        self.fields = declared.fields
        self.full_text = declared.full_text
        self.embeddings = declared.embeddings
        # of the others the application itself makes the vectors
        self.embedded_texts = {f: one for f, one in self.embeddings.items() if self.fields[f].kind.name == "str"}
        self.relations = declared.relations
        self.unique = declared.unique
        self.index = declared.index
        self.files = declared.files
        self.measures = declared.measures
        self.cache = declaration.cache
        self.ttl_s = declaration.ttl_s
        self._conditions = Conditions(cls.__name__, {name: spec.kind for name, spec in self.fields.items()})
        self._encoders = [(spec.name, spec.kind.encode) for spec in self.fields.values()]
        self.mapped = mapped_class(cls)
        """How values of a mapped class go in and out; its table, which is the application's own."""
        self._pydantic = is_pydantic(cls)
        self._plain_defaults: dict[str, Any] = {}

    @property
    def erases(self) -> bool:
        """Whether points of a record go with it."""
        return any(one.on_delete == "erase" for one in self.measures.values())

    # -- values -----------------------------------------------------------------------------------------------

    def encode(self, value: T) -> dict[str, Any]:
        """The plain body of a value. Raises InvalidData, ValueTooLarge or DimensionMismatch naming class and field."""
        if type(value) is not self.cls:
            self._check_class(value)
        body: dict[str, Any] = {}
        name = ""
        held = None if self.mapped is None else self.mapped.values(value)
        try:
            for name, encode in self._encoders:
                if held is None:
                    body[name] = encode(getattr(value, name))
                elif name in held:
                    body[name] = encode(held[name])
        except InvalidData as e:
            raise type(e)(f"{self.cls.__name__}.{name}: {e}") from None
        except AttributeError:
            raise InvalidData(f"{self.cls.__name__}.{name}: the field has no value") from None
        if self.embeddings:
            self._check_dimensions(body)
        return body

    def _check_class(self, value: object) -> None:
        if not isinstance(value, self.cls):
            raise InvalidData(f"{self.name} holds {self.cls.__name__} values, not {type(value).__name__}")
        more = (members_of(type(value)) or {}).keys() - self.fields.keys()
        if more:
            raise InvalidData(
                f"{type(value).__name__} has fields that {self.cls.__name__} lacks ({', '.join(sorted(more))}), which "
                "would be lost; declare it as an entity of its own"
            )

    def encode_patch(self, changes: Mapping[str, object]) -> dict[str, Any]:
        """The plain form of a mapping of changed fields. Raises InvalidData for an unknown field, the key, or a bad
        value."""
        body: dict[str, Any] = {}
        for name, value in changes.items():
            spec = self.fields.get(name)
            if spec is None:
                raise InvalidData(f"{self.cls.__name__} has no field {name!r}{nearest(name, self.fields)}")
            if name == self.key:
                raise InvalidData(f"{self.cls.__name__}.{name}: the key of a record cannot change; put a new record")
            try:
                body[name] = spec.kind.encode(value)
            except InvalidData as e:
                raise type(e)(f"{self.cls.__name__}.{name}: {e}") from None
        if not body:
            raise InvalidData(f"update of {self.name}: the mapping names no field to change")
        self._check_dimensions(body)
        return body

    def _check_dimensions(self, body: Body) -> None:
        for name, embedding in self.embeddings.items():
            value = body.get(name)
            if isinstance(value, list) and len(typing.cast(list[Any], value)) != embedding.dimension:
                raise DimensionMismatch(
                    f"{self.cls.__name__}.{name}: the vector has {len(typing.cast(list[Any], value))} components, "
                    f"the field declares {embedding.dimension}"
                )

    def decode(self, body: Body) -> T:
        """The value of a body. Raises DecodeError when it does not fit the class: corrupt is never "missing"."""
        try:
            return self._made(body)
        except (msgspec.ValidationError, ValueError, TypeError) as e:
            id = body.get(self.key)
            # Without the cause: its text may show the value.
            raise DecodeError(
                f"{self.name} {id!r}: the stored record does not fit {self.cls.__name__}: {_why(e)}"
            ) from None

    def build(self, body: Body) -> T:
        """The value of a body that comes from outside, a file for instance. Raises InvalidData saying what does not fit
        the class, without the value."""
        try:
            return self._made(body)
        except (msgspec.ValidationError, ValueError, TypeError) as e:
            raise InvalidData(_why(e)) from None

    def _made(self, body: Body) -> T:
        if self.mapped is not None:
            return typing.cast(T, self.mapped.instance(body))
        if self._pydantic:
            return typing.cast(T, typing.cast(Any, self.cls).model_validate(body, by_name=True))
        return msgspec.convert(body, self.cls, dec_hook=decode_foreign)

    def key_id(self, value: object) -> str:
        """The text form of a key. Raises InvalidData for an empty, oversized or otherwise impossible key."""
        kind = self.fields[self.key].kind
        try:
            if self.mapped is not None:  # as the table has it
                return str(kind.encode(value))
            return encode_reference(value) if kind.name == "str" else str(kind.encode(value))
        except InvalidData as e:
            raise type(e)(f"{self.cls.__name__}.{self.key}: {e}") from None

    def id_of(self, body: Body) -> str:
        """The text form of the key in a body that `encode` made. Raises InvalidData for an empty key."""
        value = body[self.key]
        return value if type(value) is str and value else self.key_id(value)

    def key_value(self, id: str) -> str | int | UUID:
        """The plain key of its text form."""
        kind = self.fields[self.key].kind.name
        return int(id) if kind == "int" else UUID(id) if kind == "uuid" else id

    def default_of(self, name: str) -> Any:
        """The plain default of a field, made once per compiled type: all stores that one `open` migrates fill the same
        value in. None for an optional field without default. Raises InvalidData when the default does not fit the type,
        KeyError when there is none.
        """
        if name not in self._plain_defaults:
            spec = self.fields[name]
            if spec.default is None and not spec.kind.optional:
                raise KeyError(name)
            self._plain_defaults[name] = None if spec.default is None else spec.kind.encode(spec.default())
        return self._plain_defaults[name]

    def content_hash(self, body: Body, *, bounded: bool = False) -> bytes:
        """16 bytes of BLAKE2b over the body's canonical MessagePack: equal content, equal hash, on every store.

        `bounded`, for what is to be written: raises ValueTooLarge when that MessagePack has more than `VALUE_BYTES_MAX`
        bytes, which costs nothing here.
        """
        return self.sealed(body, bounded=bounded)[0]

    def sealed(self, body: Body, *, bounded: bool = False) -> tuple[bytes, int]:
        """The content hash, and how many bytes that MessagePack has."""
        known = body if body.keys() == self.fields.keys() else {n: body[n] for n in self.fields if n in body}
        content = _hash_encoder.encode(known)
        if bounded and len(content) > VALUE_BYTES_MAX:
            raise ValueTooLarge(
                f"{self.cls.__name__}: the record has {len(content)} bytes, the limit is {VALUE_BYTES_MAX} for all its "
                "fields together; save large values as files, or split it into several records"
            )
        return hashlib.blake2b(content, digest_size=16).digest(), len(content)

    def edges(self, body: Body) -> list[EdgeRow]:
        """The edges of a record, without duplicates."""
        rows: dict[tuple[str, str, str], EdgeRow] = {}
        for field, relation in self.relations.items():
            value = body.get(field)
            ends: list[Any] = typing.cast(list[Any], value) if isinstance(value, list) else [value]
            for end in ends:
                if end is None:
                    continue
                edge: dict[str, Any] = typing.cast(dict[str, Any], end) if isinstance(end, dict) else {"to": end}
                row = EdgeRow(relation.type, str(relation.to), str(edge["to"]), edge.get("properties") or {})
                rows[row.type, row.to_etype, row.to_id] = row
        return list(rows.values())

    # -- conditions -------------------------------------------------------------------------------------------

    def condition(self, where: Expr | Field | None) -> Checked | None:
        """The condition checked against this entity. Raises InvalidFilter for unknown fields and unfit values."""
        return None if where is None else self._conditions.check(as_expr(where))

    def edge_condition(self, field: str, edges: Expr | Field | None) -> Checked | None:
        """The condition on the properties of a relation's edges, as one on bodies of the field `properties`. Raises
        InvalidFilter for unknown properties, unfit values, and edges that have no properties."""
        if edges is None:
            return None
        item = self.fields[field].kind.item
        if item is None or item.members is None:
            raise InvalidFilter(
                f"edges=: the edges of {self.cls.__name__}.{field} have no properties; make it list[Edge[...]]"
            )
        kinds = {"properties": item.members["properties"]}
        return Conditions(f"{self.cls.__name__}.{field}", kinds, ("properties",)).check(as_expr(edges))

    def sort(self, order_by: Iterable[Field | Order] | Field | Order) -> tuple[Sort, ...]:
        """The checked order. Raises InvalidFilter. The key as the last tie-break is the caller's to add."""
        return self._conditions.check_order(order_by)


def is_entity(value: object) -> TypeGuard[type[Any]]:
    """True for a class that stands under `@entity` itself; a subclass does not inherit the declaration."""
    return isinstance(value, type) and isinstance(value.__dict__.get(_MARK), Declaration)


def entity_type(cls: type[T]) -> EntityType[T]:
    """The compiled form of a declared class. Raises EntityError; ConfigurationError when the class is not declared."""
    declaration = cls.__dict__.get(_MARK)
    if not isinstance(declaration, Declaration):
        raise ConfigurationError(f"{cls.__name__} is not an entity: put @entity() above the class")
    return EntityType(cls, declaration)


def entity_types(classes: Iterable[type[Any]]) -> dict[str, EntityType[Any]]:
    """Entity name -> compiled type, with the ends of all relations resolved. Raises ConfigurationError, EntityError."""
    types: dict[str, EntityType[Any]] = {}
    for cls in dict.fromkeys(classes):
        try:
            one: EntityType[Any] = entity_type(cls)
        except NameError as e:
            raise EntityError(
                f"{cls.__name__}: the type {e.name!r} is not known; import or declare it at the top of its module"
            ) from e
        if one.name in types:
            other = types[one.name].cls.__qualname__
            raise EntityError(f"{cls.__name__}: {other} has the same entity name {one.name!r}; pass @entity(name=...)")
        types[one.name] = one
    by_class = {one.cls.__name__: one.name for one in types.values()}
    for one in types.values():
        for field, relation in one.relations.items():
            to = relation.to if isinstance(relation.to, str) else relation.to.__name__
            name = to if to in types else by_class.get(to)
            if name is None:
                known = ", ".join(sorted(by_class))
                raise EntityError(
                    f"{one.cls.__name__}.{field}: Relation(to={to!r}) names no entity of this application; "
                    f"known: {known}"
                )
            one.relations[field] = msgspec.structs.replace(relation, to=name)
    return types


def decode_foreign(hint: type[Any], value: Any) -> Any:
    """For `msgspec.convert(dec_hook=...)`: the pydantic models inside a value."""
    if is_pydantic(hint):
        return typing.cast(Any, hint).model_validate(value, by_name=True)
    raise TypeError(f"{hint} cannot be read back")


def _why(error: Exception) -> str:
    """What does not fit and where, without the value."""
    errors = getattr(error, "errors", None)
    if errors is not None:  # pydantic
        found: list[dict[str, Any]] = errors(include_input=False, include_url=False)
        return "; ".join(f"{one['type']} at {'.'.join(map(str, one['loc']))}" for one in found)
    return re.sub(r"\b[Vv]alue (?:'.*'|\S+) - at", "value - at", str(error))
