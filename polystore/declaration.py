"""A class under `@entity`, checked: its fields as kinds, its facets by field.

A declaration that makes no sense fails here, naming class, field, reason and mend.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec

from polystore.classes import Constant, UnsupportedType, check_class, defaults_of, mapped_class, members_of
from polystore.conditions import nearest
from polystore.errors import EntityError, InvalidData
from polystore.facets import Edge, Embedding, Facet, FullText, Index, Measure, Needs, Relation, Unique
from polystore.kinds import Kind, encode_id, encode_reference, encode_str, kind_of, list_of, optional
from polystore.model import FileRef

NAME_MAX = 48
"""Characters of an entity's or a field's name: with polystore's own prefixes they fit PostgreSQL's 63."""
_NAME = re.compile(rf"[a-z][a-z0-9_]{{0,{NAME_MAX - 1}}}")
_RELATION_TYPE = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
TTL_S_MAX = 100 * 366 * 86_400
CacheMode = Literal["bounded", "strict", "off"]
_REFERENCE = Kind("str", False, encode_reference, encode_reference)


class Declaration(msgspec.Struct, frozen=True):
    """The arguments of `@entity`, kept on the class until `open` compiles it."""

    name: str
    key: str
    needs: Needs | None
    data_type: str | None
    renamed: Mapping[str, str]
    facets: Mapping[str, Sequence[object]]
    cache: CacheMode = "bounded"
    ttl_s: float | None = None


class FieldSpec(msgspec.Struct, frozen=True):
    """One field of an entity. `default` makes the value of rows written before the field existed; None: required."""

    name: str
    kind: Kind
    default: Callable[[], Any] | None


class Declared:
    """The checked declaration. Raises EntityError."""

    def __init__(self, cls: type[Any], declaration: Declaration) -> None:
        self.cls = cls
        self.declaration = declaration
        self.fields: dict[str, FieldSpec] = {}
        self.full_text: tuple[str, ...] = ()
        self.embeddings: dict[str, Embedding] = {}
        self.relations: dict[str, Relation] = {}
        self.unique: tuple[str, ...] = ()
        self.index: tuple[str, ...] = ()
        self.files: tuple[str, ...] = ()
        self._check_arguments()
        self.measures = self._measures()
        hints = self._hints()
        defaults = defaults_of(cls)
        for field, hint in hints.items():
            self._add_field(field, hint, defaults.get(field))
        self._check_key()
        self._check_renamed()
        self._check_defaults()

    def fail(self, field: str, reason: str) -> EntityError:
        where = f"{self.cls.__name__}.{field}" if field else self.cls.__name__
        return EntityError(f"{where}: {reason}")

    def _check_arguments(self) -> None:
        name = self.declaration.name
        if not _NAME.fullmatch(name) or name.startswith("ps_"):
            raise self.fail(
                "",
                f"{name!r} cannot be an entity's name: it must be lower-case letters, digits and _, begin with a "
                f"letter and not with ps_, and have at most {NAME_MAX} characters; pass @entity(name=...)",
            )
        key: Any = self.declaration.key
        if not isinstance(key, str):
            raise self.fail("", "key= names one field; a key of several fields is not supported, make one text of them")
        data_type: Any = self.declaration.data_type
        if not isinstance(data_type, (str, type(None))):
            raise self.fail("", f"data_type= takes a text such as 'conversation', not {type(data_type).__name__}")
        needs: Any = self.declaration.needs
        if not isinstance(needs, (Needs, type(None))):
            raise self.fail("", f"needs= takes Needs(...), not {type(needs).__name__}")
        cache: Any = self.declaration.cache
        if cache not in get_args(CacheMode):
            raise self.fail("", f"cache={cache!r}: use 'bounded', 'strict' or 'off'")
        ttl: Any = self.declaration.ttl_s
        if ttl is not None and (type(ttl) not in (int, float) or not 0 < ttl <= TTL_S_MAX):
            raise self.fail("", f"ttl_s= takes a number of seconds above 0 and at most {TTL_S_MAX}")
        given: Mapping[str, Any] = self.declaration.facets
        for field, facets in given.items():
            if isinstance(facets, (Facet, Relation, type)):
                raise self.fail(field, "facets= maps a field to a list of facets; put the facet into [...]")

    def _hints(self) -> dict[str, Any]:
        try:
            hints = members_of(self.cls)
            check_class(self.cls)
        except UnsupportedType as e:
            raise self.fail("", str(e)) from None
        if hints is None:
            raise self.fail(
                "",
                "an entity is a dataclass, a msgspec.Struct, a pydantic model or a mapped class; put @entity above it",
            )
        for field in self.declaration.facets:
            if field not in hints:
                raise self.fail(field, f"facets= names a field that does not exist{nearest(field, hints)}")
        for field in hints:
            if not _NAME.fullmatch(field.lower()) or field.lower().startswith("ps_"):
                raise self.fail(
                    field,
                    "a field's name must be letters, digits and _, begin with a letter and not with ps_, and have at "
                    f"most {NAME_MAX} characters; name the field otherwise",
                )
        if len({field.lower() for field in hints}) != len(hints):
            raise self.fail(
                "", "two fields differ only in upper and lower case, which stores cannot tell apart; name one anew"
            )
        return hints

    def _add_field(self, name: str, hint: Any, default: Callable[[], Any] | None) -> None:
        try:
            kind = kind_of(hint)
        except UnsupportedType as e:
            raise self.fail(name, str(e)) from None
        except RecursionError:
            raise self.fail(
                name, "its class holds itself; keep the parts as records of their own, with Relation()"
            ) from None
        self.fields[name] = FieldSpec(name, kind, default)
        if _mentions(hint, FileRef):
            self._add_file(name, hint)
        given: Sequence[Any] = self.declaration.facets.get(name, ())
        for facet in given:
            if not isinstance(facet, (Facet, Relation, type)):
                raise self.fail(name, f"facets= takes FullText(), Embedding() and so on, not {type(facet).__name__}")
        for facet in (*_metadata(hint), *given):
            if any(facet is one for one in (FullText, Embedding, Relation, Unique, Index)):
                raise self.fail(name, f"{facet.__name__} is a class here; write {facet.__name__}() with parentheses")
            if isinstance(facet, (Facet, Relation)):
                self._add_facet(name, hint, facet)

    def _measures(self) -> dict[str, Measure[Any]]:
        found = {name: one for base in reversed(self.cls.__mro__) for name, one in vars(base).items()}
        measures: dict[str, Measure[Any]] = {n: one for n, one in found.items() if isinstance(one, Measure)}
        for name, one in measures.items():
            if not _NAME.fullmatch(name) or name.startswith("ps_"):
                raise self.fail(
                    name, "a measure's name must be lower-case letters, digits and _, and begin with a letter"
                )
            if one.name != name:
                raise self.fail(name, f"this Measure() stands on the class twice, also as {one.name!r}; make another")
            if one.on_delete == "erase" and mapped_class(self.cls):
                raise self.fail(
                    name,
                    "Measure(on_delete='erase') is not for a mapped class: whoever deletes its rows in the "
                    "application's own transactions would leave their points; keep them, with retention_s= for an end",
                )
        return measures

    def _add_file(self, name: str, hint: Any) -> None:
        plain = {FileRef, type(None)}
        parts = get_args(hint)[:1] if get_origin(hint) is Annotated else (hint,)
        inner = {arg for part in parts for arg in (get_args(part) or (part,))}
        if not inner <= plain or get_origin(parts[0]) not in (None, list, Union, UnionType):
            raise self.fail(name, "a file's field is FileRef, FileRef | None or list[FileRef]")
        self.files += (name,)

    def _add_facet(self, name: str, hint: Any, facet: Facet | Relation) -> None:
        kind = self.fields[name].kind
        held = {"FullText": self.full_text, "Embedding": self.embeddings, "Relation": self.relations}
        if name in held.get(type(facet).__name__, ()):
            raise self.fail(name, f"{type(facet).__name__}() stands twice; leave one")
        match facet:
            case FullText():
                if kind.name != "str":
                    raise self.fail(name, "FullText() needs a str field")
                self.full_text += (name,)
            case Embedding(dimension=dimension):
                if kind.shape == "list" and kind.item is not None and kind.item.name == "float":
                    if dimension is None:
                        raise self.fail(name, "Embedding() on list[float] needs dimension=, the length of the lists")
                elif kind.name != "str":
                    raise self.fail(name, "Embedding() needs a str field, or list[float] with dimension=")
                self.embeddings[name] = facet
            case Relation():
                self._add_relation(name, hint, facet)
            case Unique() | Index():
                if kind.name == "json":
                    raise self.fail(name, f"{type(facet).__name__}() needs a field with a single value")
                if isinstance(facet, Unique) and name not in self.unique:
                    self.unique += (name,)
                elif isinstance(facet, Index) and name not in self.index:
                    self.index += (name,)
            case _:
                raise self.fail(name, f"{type(facet).__name__} is no facet that polystore knows")

    def _add_relation(self, name: str, hint: Any, relation: Relation) -> None:
        spec = self.fields[name]
        kind = _references(spec.kind, edges=_mentions(hint, Edge))
        if spec.kind.name == "int" and relation.on_delete == "keep" and mapped_class(self.cls):
            kind = spec.kind  # a foreign key
        if kind is None:
            raise self.fail(name, "Relation() needs a str, str | None, list[str] or list[Edge[...]] field")
        if not _RELATION_TYPE.fullmatch(relation.type):
            raise self.fail(
                name, f"{relation.type!r} cannot be a relation's type; use at most 64 letters, digits and _"
            )
        if relation.on_delete not in ("keep", "detach"):
            raise self.fail(name, f"Relation(on_delete={relation.on_delete!r}): use 'keep' or 'detach'")
        if relation.on_delete == "detach" and kind.shape != "list" and not kind.optional:
            raise self.fail(name, "Relation(on_delete='detach') empties the field: make it str | None, or a list")
        self.fields[name] = FieldSpec(name, kind, spec.default)
        self.relations[name] = relation

    def _check_key(self) -> None:
        key = self.declaration.key
        spec = self.fields.get(key)
        if spec is None:
            raise self.fail(
                key, f"the key field does not exist{nearest(key, self.fields)}; name it with @entity(key=...)"
            )
        if spec.kind.name not in ("str", "int", "uuid") or spec.kind.optional:
            raise self.fail(key, "the key must be str, int or UUID, and not optional")
        for facets in (self.full_text, self.embeddings, self.relations, self.unique, self.index):
            if key in facets:
                raise self.fail(key, "the key is unique and found by itself: it takes no facets")
        if spec.kind.name == "str" and mapped_class(self.cls) is None:  # a table has its keys as they are
            encode = spec.kind.encode
            encode = encode_id if encode is encode_str else _then(encode, encode_id)
            kind = msgspec.structs.replace(spec.kind, encode=encode)
            self.fields[key] = FieldSpec(key, kind, spec.default)

    def _check_renamed(self) -> None:
        renamed = self.declaration.renamed
        for new, old in renamed.items():
            if new not in self.fields:
                raise self.fail(new, f"renamed= names a field that does not exist{nearest(new, self.fields)}")
            if old in self.fields:
                raise self.fail(
                    old, "renamed= says this field has a new name, but the class still has it; drop one of them"
                )
            if list(renamed.values()).count(old) > 1:
                raise self.fail(new, f"renamed= gives the values of {old!r} to two fields; leave one")

    def _check_defaults(self) -> None:
        for name, spec in self.fields.items():
            if isinstance(spec.default, Constant):
                try:
                    spec.kind.encode(spec.default())
                except InvalidData as e:
                    raise self.fail(name, f"its default does not fit its type: {e}") from None


def _then(first: Callable[[Any], Any], second: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: second(first(value))


def _references(kind: Kind, *, edges: bool) -> Kind | None:
    """The kind of a relation's field, whose values must be able to be keys; None when it is no such field."""
    if kind.name == "str":
        out = _REFERENCE
    elif kind.shape == "list" and kind.item is not None and kind.item.name == "str":
        out = list_of(_REFERENCE)
    elif kind.shape == "list" and edges:
        encode = _then(kind.encode, _edges_to_references)
        return msgspec.structs.replace(kind, encode=encode, nested_encode=encode)
    else:
        return None
    return optional(out) if kind.optional else out


def _edges_to_references(rows: list[dict[str, Any]] | None) -> list[dict[str, Any]] | None:
    for i, row in enumerate(rows or ()):
        try:
            row["to"] = encode_reference(row["to"])
        except InvalidData as e:
            raise type(e)(f"item {i}: to: {e}") from None
    return rows


def _metadata(hint: Any) -> list[Any]:
    if get_origin(hint) is Annotated:
        return list(hint.__metadata__)
    return [m for arg in get_args(hint) if get_origin(arg) is Annotated for m in arg.__metadata__]


def _mentions(hint: Any, cls: type[Any]) -> bool:
    return (get_origin(hint) or hint) is cls or any(_mentions(arg, cls) for arg in get_args(hint))
