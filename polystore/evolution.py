"""What happens when a class changes: the stored schema against the declared entity, pure.

    field added with a default (optional: None)   existing records get the default, made once, when they are migrated
    field added without                            SchemaMismatch
    field removed                                  its values stay in the store, unread; a field of the same name and
                                                   kind brings them back
    field renamed, @entity(renamed={new: old})     its values go along
    int -> float, X -> X | None, JSON -> anything   values stay as they are
    X | None -> X                                  missing values become the default; without one SchemaMismatch
    values of an Enum or Literal                   more: nothing happens; fewer: reading an old one is a DecodeError
    key, or any other type                         SchemaMismatch
    facets                                         added and removed freely

Fields of nested classes follow the same rules, but for renaming and for filling in: their values are not touched.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from polystore.entity import EntityType
from polystore.errors import InvalidData, SchemaMismatch
from polystore.kinds import Kind, Shape
from polystore.model import Body, Value

FORMAT = 1
"""Of the JSON text of a stored schema."""


class StoredKind(Value, frozen=True, omit_defaults=True):
    """A field's kind as it was when its values were written, see `polystore.kinds.Kind`."""

    name: str
    optional: bool = False
    shape: Shape = "value"
    item: StoredKind | None = None
    members: Mapping[str, StoredKind] = {}


class StoredFacet(Value, frozen=True, omit_defaults=True):
    """A facet of a field. `detail` is all that makes it another one when it changes: embedder, dimension and metric of
    a vector, type and other end of a relation."""

    field: str
    facet: Literal["full_text", "vector", "graph", "unique", "index"]
    detail: str = ""


class StoredSchema(Value, frozen=True):
    """What one store holds of one entity type. `retired` fields are no longer declared; their values are still kept."""

    etype: str
    key: str
    fields: Mapping[str, StoredKind]
    facets: tuple[StoredFacet, ...]
    retired: Mapping[str, StoredKind] = {}
    format: int = FORMAT

    def json(self) -> str:
        """The text to keep in the store; `load` reads it."""
        return msgspec.json.encode(self).decode()


_decoder = msgspec.json.Decoder(StoredSchema)
"""Made here, by one thread: stores are prepared in threads, and msgspec 0.22 reads through a null pointer when two of
them meet a class for the first time at the same moment."""


def load(text: str) -> StoredSchema:
    """The schema of its JSON text. Raises SchemaMismatch for the text of a newer polystore, or what is no schema."""
    try:
        found = msgspec.json.decode(text, type=dict[str, Any])
        if found.get("format", 0) > FORMAT:
            raise SchemaMismatch(
                f"{found.get('etype', '')}: the store was written by a newer polystore (schema format "
                f"{found['format']}, this one reads up to {FORMAT}); upgrade polystore"
            )
        return _decoder.decode(text)
    except (msgspec.DecodeError, TypeError) as e:
        raise SchemaMismatch("the stored schema cannot be read; restore the store, or rebuild it from its home") from e


class Migration(Value, frozen=True):
    """How to bring the stored values to the declared class, in this order: rename, add, fill, facets.

    rename: (old, new) fields. add: (field, plain default) for fields that the store does not know. fill: (field, plain
    default) where a record has no value. revived: fields that were retired and are read again. retired: fields that are
    no longer read. widened: fields whose kind changed and whose values stay. schema: what the store holds afterwards.
    """

    schema: StoredSchema
    rename: tuple[tuple[str, str], ...] = ()
    add: tuple[tuple[str, Any], ...] = ()
    fill: tuple[tuple[str, Any], ...] = ()
    revived: tuple[str, ...] = ()
    retired: tuple[str, ...] = ()
    widened: tuple[str, ...] = ()
    facets_added: tuple[StoredFacet, ...] = ()
    facets_removed: tuple[StoredFacet, ...] = ()

    @property
    def changes_content(self) -> bool:
        """True when content hashes stored before no longer tell the content."""
        return any((self.rename, self.add, self.fill, self.revived, self.retired, self.widened))

    @property
    def needed(self) -> bool:
        """False when the store already is as declared and nothing has to be written."""
        return self.changes_content or any((self.facets_added, self.facets_removed))

    def carry_out(self, body: Body) -> dict[str, Any]:
        """The body after the migration: the meaning that every store's own way must have. Retired values stay in it."""
        out = dict(body)
        for old, new in self.rename:
            if old in out:
                out[new] = out.pop(old)
        for field, default in (*self.add, *self.fill):
            if out.get(field) is None:
                out[field] = default
        for field in self.widened:
            if type(out.get(field)) is int and self.schema.fields[field].name == "float":
                out[field] = float(out[field])
        return out


def describe(entity: EntityType[Any]) -> StoredSchema:
    """The schema of a store that holds exactly the declared entity."""
    return StoredSchema(
        entity.name,
        entity.key,
        {spec.name: _stored_kind(spec.kind) for spec in entity.fields.values()},
        _facets(entity),
    )


def _stored_kind(kind: Kind) -> StoredKind:
    return StoredKind(
        kind.name,
        kind.optional,
        kind.shape,
        None if kind.item is None else _stored_kind(kind.item),
        {name: _stored_kind(member) for name, member in (kind.members or {}).items()},
    )


def _facets(entity: EntityType[Any]) -> tuple[StoredFacet, ...]:
    vectors = [
        StoredFacet(name, "vector", f"{one.embedder} {one.dimension or '-'} {one.metric}")
        for name, one in entity.embeddings.items()
    ]
    edges = [StoredFacet(name, "graph", f"{one.type} {_end(one.to)}") for name, one in entity.relations.items()]
    return (
        *(StoredFacet(name, "full_text") for name in entity.full_text),
        *vectors,
        *edges,
        *(StoredFacet(name, "unique") for name in entity.unique),
        *(StoredFacet(name, "index") for name in entity.index),
    )


def _end(to: object) -> str:
    return to if isinstance(to, str) else getattr(to, "__name__", str(to))


# -- the plan -----------------------------------------------------------------------------------------------------


def plan(stored: StoredSchema, entity: EntityType[Any]) -> Migration:
    """What has to be done to the stored values so that they fit the declared class.

    Raises SchemaMismatch naming class, field, reason and mend when that cannot be done without losing or inventing
    values. Nothing is written here.
    """
    return _Plan(stored, entity).migration()


class _Plan:
    def __init__(self, stored: StoredSchema, entity: EntityType[Any]) -> None:
        self.stored = stored
        self.entity = entity
        self.rename: list[tuple[str, str]] = []
        self.add: list[tuple[str, Any]] = []
        self.fill: list[tuple[str, Any]] = []
        self.revived: list[str] = []
        self.widened: list[str] = []

    def mismatch(self, field: str, reason: str, mend: str) -> SchemaMismatch:
        return SchemaMismatch(f"{self.entity.cls.__name__}.{field}: {reason}; {mend}")

    def migration(self) -> Migration:
        declared = describe(self.entity)
        self._check_key(declared)
        sources = self._sources()
        for field, kind in declared.fields.items():
            self._field(field, kind, sources.get(field, field))
        used = {*declared.fields, *sources.values()}
        gone = {field: kind for field, kind in self.stored.fields.items() if field not in used}
        retired = {field: kind for field, kind in self.stored.retired.items() if field not in used} | gone
        before, after = set(self.stored.facets), set(declared.facets)
        return Migration(
            schema=msgspec.structs.replace(declared, retired=retired),
            rename=tuple(self.rename),
            add=tuple(self.add),
            fill=tuple(self.fill),
            revived=tuple(self.revived),
            retired=tuple(gone),
            widened=tuple(self.widened),
            facets_added=tuple(facet for facet in declared.facets if facet not in before),
            facets_removed=tuple(facet for facet in self.stored.facets if facet not in after),
        )

    def _check_key(self, declared: StoredSchema) -> None:
        old, new = self.stored.key, declared.key
        if old != new:
            raise self.mismatch(
                new, f"the key was {old!r}, and the key of stored records cannot change", f"declare key={old!r} again"
            )
        if self.stored.fields[old].name != declared.fields[new].name:
            raise self.mismatch(
                new,
                f"the key was of type {self.stored.fields[old].name}, now it is {declared.fields[new].name}",
                "declare the old type again, or import the records into a new entity",
            )

    def _sources(self) -> dict[str, str]:
        """New field -> the stored field that its values come from."""
        sources: dict[str, str] = {}
        known = {**self.stored.retired, **self.stored.fields}
        for new, old in self.entity.renamed.items():
            if new in known and old not in known:
                continue  # carried out before
            if new in known:
                raise self.mismatch(
                    new,
                    f"renamed= takes its values from {old!r}, but the store already has values under the new name",
                    f"take {new!r} out of renamed=, or give the field a name that was never stored",
                )
            if old not in known:
                raise self.mismatch(
                    new, f"renamed= takes its values from {old!r}, which is not stored", f"stored: {', '.join(known)}"
                )
            sources[new] = old
            self.rename.append((old, new))
        return sources

    def _field(self, field: str, kind: StoredKind, source: str) -> None:
        retired = source not in self.stored.fields
        old = self.stored.retired.get(source) if retired else self.stored.fields[source]
        if old is None:
            self._check_case(field)
            self.add.append((field, self._default(field, "is new, and existing records have no value for it")))
            return
        reason = _misfit(old, kind, self.entity.fields[field].kind, top=True)
        if reason:
            was = f"its stored values (of the field {source!r})" if source != field else "its stored values"
            raise self.mismatch(
                field,
                f"{was} do not fit: {reason}",
                "declare the old type again, or give the field a new name and a default (the old values stay in the "
                "store, unread)",
            )
        if retired:
            self.revived.append(field)
        if old != kind:
            self.widened.append(field)
        if not kind.optional and (retired or old.optional):
            why = "was retired, and records written since" if retired else "was optional, and some records may"
            self.fill.append((field, self._default(field, f"{why} have no value for it")))

    def _check_case(self, field: str) -> None:
        for other in (*self.stored.fields, *self.stored.retired):
            if other.lower() == field.lower() and other not in self.entity.renamed.values():
                raise self.mismatch(
                    field,
                    f"the store has values of {other!r}, a name that differs only in upper and lower case",
                    f"pass renamed={{{field!r}: {other!r}}} to @entity",
                )

    def _default(self, field: str, why: str) -> Any:
        try:
            return self.entity.default_of(field)
        except KeyError:
            raise self.mismatch(field, f"the field {why}", "give it a default, or make it optional") from None
        except InvalidData as e:
            raise self.mismatch(field, f"the field {why}, and its default cannot be stored: {e}", "mend it") from None


def _misfit(old: StoredKind, new: StoredKind, kind: Kind, *, top: bool = False) -> str:
    """Why values of the old kind cannot be read as the new one; "" when they can."""
    if old.optional and not new.optional and not top:
        return "a nested value was optional and now is not"
    if new.shape == "any" and old.name == "json":
        return ""
    if old.name != new.name and (old.name, new.name) != ("int", "float"):
        return f"the type was {old.name}, now it is {new.name}"
    if old.shape != new.shape:
        return f"the value was {_words(old.shape)}, now it is {_words(new.shape)}"
    if old.item is not None and new.item is not None and kind.item is not None:
        reason = _misfit(old.item, new.item, kind.item)
        return f"in its items, {reason}" if reason else ""
    for name, member in new.members.items():
        if name not in old.members:
            if name in kind.required:
                return f"the nested field {name!r} is new and has no default"
            continue
        reason = _misfit(old.members[name], member, (kind.members or {})[name])
        if reason:
            return f"in its field {name!r}, {reason}"
    return ""


def _words(shape: Shape) -> str:
    return {"any": "free-form", "object": "of a nested class"}.get(shape, f"a {shape}")
