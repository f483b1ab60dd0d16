"""`@entity`: what an application declares, checked once and compiled to an `EntityType`."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import re
import typing
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Generic, TypeGuard, TypeVar, get_args, get_origin
from uuid import UUID

import msgspec

from polystore.errors import ConfigurationError, DecodeError, DimensionMismatch, EntityError, InvalidData, InvalidFilter
from polystore.facets import Edge, Embedding, Facet, FullText, Index, Needs, Relation, Unique
from polystore.filters import All, AnyOf, Checked, Compare, Expr, Field, Not, Order, Sort, as_expr, path_of
from polystore.kinds import Kind, UnsupportedType, defaults_of, encode_int, encode_str, is_pydantic, kind_of, members_of
from polystore.model import KEY_BYTES_MAX, Body

T = TypeVar("T")

_NAME = re.compile(r"[a-z][a-z0-9_]{0,47}")
_MARK = "__polystore_declaration__"
_ORDERED = frozenset({"str", "int", "float", "datetime", "date", "decimal", "uuid"})
_hash_encoder = msgspec.msgpack.Encoder(order="sorted")


class Declaration(msgspec.Struct, frozen=True):
    """The arguments of `@entity`, kept on the class until `open` compiles it."""

    name: str
    key: str
    needs: Needs | None
    data_type: str | None
    renamed: Mapping[str, str]
    facets: Mapping[str, Sequence[object]]


def entity(
    *,
    name: str | None = None,
    key: str = "id",
    needs: Needs | None = None,
    data_type: str | None = None,
    renamed: Mapping[str, str] | None = None,
    facets: Mapping[str, Sequence[object]] | None = None,
) -> Callable[[type[T]], type[T]]:
    """Declare a dataclass, msgspec.Struct or pydantic model as an entity; the class itself is returned unchanged.

    name: the entity's name in every store; default: the class name in snake_case.
    key: the field that identifies a record: str, int or UUID.
    needs, data_type: choose the home. renamed: new field name -> old one. facets: field -> facets, for classes that
    cannot be edited. Raises EntityError naming class, field, reason and mend.
    """

    def declare(cls: type[T]) -> type[T]:
        declaration = Declaration(name or _snake_case(cls.__name__), key, needs, data_type, renamed or {}, facets or {})
        setattr(cls, _MARK, declaration)
        # a NameError is a type declared further down in the module: `open` compiles again and reports
        with contextlib.suppress(NameError):
            entity_type(cls)
        return cls

    return declare


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


class FieldSpec(msgspec.Struct, frozen=True):
    """One field of an entity. `default` makes the value of rows written before the field existed; None: required."""

    name: str
    kind: Kind
    default: Callable[[], Any] | None


class EdgeRow(msgspec.Struct, frozen=True, gc=False):
    """One edge of a record: relation type, entity name and id of the other end, JSON-like properties."""

    type: str
    to_etype: str
    to_id: str
    properties: Mapping[str, Any]


class EntityType(Generic[T]):
    """An entity, compiled: checks and flattens values on the way in, rebuilds them on the way out."""

    def __init__(self, cls: type[T], declaration: Declaration) -> None:
        self.cls = cls
        self.name = declaration.name
        self.needs = declaration.needs
        self.data_type = declaration.data_type
        self.renamed = declaration.renamed
        self._check_name()
        hints = self._hints(declaration)
        self.fields: dict[str, FieldSpec] = {}
        self.full_text: tuple[str, ...] = ()
        self.embeddings: dict[str, Embedding] = {}
        self.relations: dict[str, Relation] = {}
        self.unique: tuple[str, ...] = ()
        self.index: tuple[str, ...] = ()
        defaults = defaults_of(cls)
        for field, hint in hints.items():
            self._add_field(field, hint, defaults.get(field), declaration.facets.get(field, ()))
        self.key = declaration.key
        self._check_key()
        self._check_renamed()
        self._encoders = [(spec.name, spec.kind.encode) for spec in self.fields.values()]
        self._pydantic = is_pydantic(cls)
        self._plain_defaults: dict[str, Any] = {}

    # -- declaration ------------------------------------------------------------------------------------------

    def _fail(self, field: str, reason: str) -> EntityError:
        where = f"{self.cls.__name__}.{field}" if field else self.cls.__name__
        return EntityError(f"{where}: {reason}")

    def _check_name(self) -> None:
        if not _NAME.fullmatch(self.name) or self.name.startswith("ps_"):
            raise self._fail(
                "",
                f"{self.name!r} cannot be an entity's name: it must be lower-case letters, digits and _, begin with a "
                "letter and not with ps_, and have at most 48 characters; pass @entity(name=...)",
            )

    def _hints(self, declaration: Declaration) -> dict[str, Any]:
        hints = members_of(self.cls)
        if hints is None:
            raise self._fail("", "an entity is a dataclass, a msgspec.Struct or a pydantic model; put @entity above it")
        for field in declaration.facets:
            if field not in hints:
                raise self._fail(field, f"facets= names a field that does not exist{_nearest(field, hints)}")
        for field in hints:
            if not _NAME.fullmatch(field.lower()) or field.lower().startswith("ps_"):
                raise self._fail(field, "a field's name must be letters, digits and _, and not begin with ps_ or _")
        folded = {f.lower() for f in hints}
        if len(folded) != len(hints):
            raise self._fail("", "two fields differ only in upper and lower case, which stores cannot tell apart")
        return hints

    def _add_field(self, name: str, hint: Any, default: Callable[[], Any] | None, extra: Sequence[object]) -> None:
        metadata = [*_metadata(hint), *extra]
        try:
            kind = kind_of(hint)
        except UnsupportedType as e:
            raise self._fail(name, str(e)) from None
        self.fields[name] = FieldSpec(name, kind, default)
        for facet in metadata:
            if isinstance(facet, type) and issubclass(facet, (Facet, Relation)):
                raise self._fail(name, f"{facet.__name__} is a class here; write {facet.__name__}() with parentheses")
            if isinstance(facet, (Facet, Relation)):
                self._add_facet(name, hint, kind, facet)

    def _add_facet(self, name: str, hint: Any, kind: Kind, facet: Facet | Relation) -> None:
        match facet:
            case FullText():
                if kind.name != "str":
                    raise self._fail(name, "FullText() needs a str field")
                self.full_text += (name,)
            case Embedding(dimension=dimension):
                if kind.shape == "list" and kind.item is not None and kind.item.name == "float":
                    if dimension is None:
                        raise self._fail(name, "Embedding() on list[float] needs dimension=, the length of the lists")
                elif kind.name != "str":
                    raise self._fail(name, "Embedding() needs a str field, or list[float] with dimension=")
                self.embeddings[name] = facet
            case Relation():
                of_ids = kind.shape == "list" and kind.item is not None and kind.item.name == "str"
                of_edges = kind.shape == "list" and _is_edge(hint)
                if kind.name != "str" and not of_ids and not of_edges:
                    raise self._fail(name, "Relation() needs a str, str | None, list[str] or list[Edge[...]] field")
                if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,63}", facet.type):
                    raise self._fail(name, f"{facet.type!r} cannot be a relation's type; use letters, digits and _")
                self.relations[name] = facet
            case Unique() | Index():
                if kind.name == "json":
                    raise self._fail(name, f"{type(facet).__name__}() needs a field with a single value")
                if isinstance(facet, Unique):
                    self.unique += (name,)
                else:
                    self.index += (name,)
            case _:
                pass

    def _check_key(self) -> None:
        spec = self.fields.get(self.key)
        if spec is None:
            near = _nearest(self.key, self.fields)
            raise self._fail(self.key, f"the key field does not exist{near}; name it with @entity(key=...)")
        if spec.kind.name not in ("str", "int", "uuid") or spec.kind.optional:
            raise self._fail(self.key, "the key must be str, int or UUID, and not optional")
        for facets in (self.full_text, self.embeddings, self.relations, self.unique):
            if self.key in facets:
                raise self._fail(self.key, "the key is unique and found by itself: it takes no facets")

    def _check_renamed(self) -> None:
        for new, old in self.renamed.items():
            if new not in self.fields:
                raise self._fail(new, f"renamed= names a field that does not exist{_nearest(new, self.fields)}")
            if old in self.fields:
                raise self._fail(old, "renamed= says this field has a new name, but the class still has it")

    # -- values -----------------------------------------------------------------------------------------------

    def encode(self, value: T) -> dict[str, Any]:
        """The plain body of a value. Raises InvalidData, ValueTooLarge or DimensionMismatch naming class and field."""
        if not isinstance(value, self.cls):
            raise InvalidData(f"{self.name} holds {self.cls.__name__} values, not {type(value).__name__}")
        body: dict[str, Any] = {}
        name = ""
        try:
            for name, encode in self._encoders:
                body[name] = encode(getattr(value, name))
        except InvalidData as e:
            raise type(e)(f"{self.cls.__name__}.{name}: {e}") from None
        if self.embeddings:
            self._check_dimensions(body)
        return body

    def encode_patch(self, changes: Mapping[str, object]) -> dict[str, Any]:
        """The plain form of a mapping of changed fields. Raises InvalidData for an unknown field, the key, or a bad
        value."""
        body: dict[str, Any] = {}
        for name, value in changes.items():
            spec = self.fields.get(name)
            if spec is None:
                raise InvalidData(f"{self.cls.__name__} has no field {name!r}{_nearest(name, self.fields)}")
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
            if self._pydantic:
                return typing.cast(T, typing.cast(Any, self.cls).model_validate(body))
            return msgspec.convert(body, self.cls, dec_hook=_decode_foreign)
        except (msgspec.ValidationError, ValueError, TypeError) as e:
            id = body.get(self.key)
            raise DecodeError(f"{self.name} {id!r}: the stored record does not fit {self.cls.__name__}: {e}") from e

    def key_id(self, value: object) -> str:
        """The text form of a key. Raises InvalidData for an empty, oversized or otherwise impossible key."""
        kind = self.fields[self.key].kind.name
        name = f"{self.cls.__name__}.{self.key}"
        try:
            if kind == "int":
                return str(encode_int(value))
            if kind == "uuid":
                if isinstance(value, UUID):
                    return str(value)
                raise InvalidData(f"a UUID is needed, not {type(value).__name__}")
            return check_key(encode_str(value))
        except InvalidData as e:
            raise type(e)(f"{name}: {e}") from None

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

    def content_hash(self, body: Body) -> bytes:
        """16 bytes of BLAKE2b over the body's canonical MessagePack: equal content, equal hash, on every store."""
        known = {name: body[name] for name in self.fields if name in body}
        return hashlib.blake2b(_hash_encoder.encode(known), digest_size=16).digest()

    def edges(self, body: Body) -> list[EdgeRow]:
        """The edges of a record, without duplicates."""
        rows: dict[tuple[str, str, str], EdgeRow] = {}
        for field, relation in self.relations.items():
            value = body.get(field)
            for one in value if isinstance(value, list) else () if value is None else (value,):  # pyright: ignore[reportUnknownVariableType]
                edge = typing.cast(dict[str, Any], one) if isinstance(one, dict) else {"to": one, "properties": {}}
                row = EdgeRow(relation.type, str(relation.to), str(edge["to"]), edge["properties"] or {})
                rows[row.type, row.to_etype, row.to_id] = row
        return list(rows.values())

    # -- conditions -------------------------------------------------------------------------------------------

    def condition(self, where: Expr | Field | None) -> Checked | None:
        """The condition checked against this entity. Raises InvalidFilter for unknown fields and unfit values."""
        return None if where is None else self._checked(as_expr(where))

    def _checked(self, expr: Expr) -> Checked:
        match expr.op:
            case "and":
                return All(tuple(self._checked(a) for a in expr.args))
            case "or":
                return AnyOf(tuple(self._checked(a) for a in expr.args))
            case "not":
                return Not(self._checked(expr.args[0]))
            case _:
                path, value = expr.args
                return self._comparison(path, expr.op, value)

    def _kind_at(self, path: tuple[str, ...]) -> Kind | None:
        spec = self.fields.get(path[0])
        if spec is None:
            near = _nearest(path[0], self.fields)
            raise InvalidFilter(f"{self.cls.__name__} has no field {path[0]!r}{near}")
        kind: Kind | None = spec.kind
        for i, name in enumerate(path[1:], 1):
            if kind is None or (kind.members is None and kind.name == "json" and kind.item is None):
                return None  # a free-form value: anything may be inside
            if kind.members is not None:
                if name not in kind.members:
                    where = ".".join((self.cls.__name__, *path[:i]))
                    raise InvalidFilter(f"{where} has no field {name!r}{_nearest(name, kind.members)}")
                kind = kind.members[name]
            else:
                kind = kind.item
        return kind

    def _comparison(self, path: tuple[str, ...], op: str, value: Any) -> Compare:
        kind = self._kind_at(path)
        stored = "json" if len(path) > 1 else self.fields[path[0]].kind.name
        where = ".".join((self.cls.__name__, *path))
        if value is None:
            if op not in ("==", "!="):
                raise InvalidFilter(f"{where}: None can be compared with == and != only")
            return Compare(path, typing.cast(Any, op), None, stored)
        if op in ("<", "<=", ">", ">=") and kind is not None and kind.name not in _ORDERED:
            raise InvalidFilter(f"{where}: a {kind.name} field has no order")
        if kind is not None and kind.name == "json" and op != "contains":
            raise InvalidFilter(f"{where}: a list or a nested value takes contains() and is_null() only")
        if op == "startswith" and kind is not None and kind.name != "str":
            raise InvalidFilter(f"{where}: startswith() needs a text field")
        target = kind
        if op == "contains" and kind is not None and kind.name == "json":
            if kind.members is not None:
                raise InvalidFilter(f"{where}: contains() needs a text or a list")
            target = kind.item
        elif op == "contains" and kind is not None and kind.name != "str":
            raise InvalidFilter(f"{where}: contains() needs a text or a list")
        encode = _free_value if target is None else target.nested_encode if stored == "json" else target.encode
        try:
            if op == "in":
                return Compare(path, "in", tuple(encode(v) for v in value), stored)
            return Compare(path, typing.cast(Any, op), encode(value), stored)
        except InvalidData as e:
            raise InvalidFilter(f"{where}: {e}") from None

    def sort(self, order_by: Iterable[Field | Order]) -> tuple[Sort, ...]:
        """The checked order. Raises InvalidFilter. The key as the last tie-break is the caller's to add."""
        out: list[Sort] = []
        for one in order_by:
            path, descending = (one.path, one.descending) if isinstance(one, Order) else (path_of(one), False)
            kind = self._kind_at(path)
            if len(path) > 1 or kind is None or kind.name not in _ORDERED | {"bool"}:
                raise InvalidFilter(f"{self.cls.__name__}.{'.'.join(path)}: results can be sorted by plain fields only")
            out.append(Sort(path, kind.name, descending))
        return tuple(out)


def check_key(text: str, *, bytes_max: int = KEY_BYTES_MAX) -> str:
    """The NFC form of a key's text, so that the same word is the same key however it was typed. Raises InvalidData."""
    if not text:
        raise InvalidData("the key is empty")
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
        size = len(text.encode())
    else:
        size = len(text)
    if size > bytes_max:
        raise InvalidData(f"the key has {size} bytes of UTF-8, the limit is {bytes_max}")
    return text


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
            raise EntityError(f"{cls.__name__}: the type {e.name!r} is not known; import it where the class is") from e
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
            one.relations[field] = Relation(relation.type, name)
    return types


def _metadata(hint: Any) -> list[Any]:
    if get_origin(hint) is Annotated:
        return list(hint.__metadata__)
    return [m for arg in get_args(hint) if get_origin(arg) is Annotated for m in arg.__metadata__]


def _is_edge(hint: Any) -> bool:
    if get_origin(hint) is Annotated:
        return _is_edge(get_args(hint)[0])
    return any((get_origin(arg) or arg) is Edge for arg in get_args(hint))


def _nearest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), 1)
    return f", did you mean {close[0]!r}?" if close else f"; its fields are {', '.join(sorted(known))}"


def _free_value(value: Any) -> Any:
    if isinstance(value, (str, int, float, bool)):
        return encode_str(value) if isinstance(value, str) else value
    raise InvalidData(f"a text, number or bool is needed here, not {type(value).__name__}")


def _decode_foreign(hint: type[Any], value: Any) -> Any:
    if is_pydantic(hint):
        return typing.cast(Any, hint).model_validate(value)
    raise TypeError(f"{hint} cannot be read back")
