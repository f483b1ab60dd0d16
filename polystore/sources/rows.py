"""A record as a row of a file and back.

JSON lines hold a field as JSON says it: times as ISO 8601 text, decimals and UUIDs as text, bytes as base64. CSV cells
and Parquet columns hold texts as they are and all else the same way, lists and nested values as JSON. CSV has no word
for nothing: an empty cell is the field's default, else null where the field may be null, else the empty text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import msgspec

from polystore.conditions import nearest
from polystore.declaration import FieldSpec
from polystore.entity import EntityType
from polystore.errors import InvalidData
from polystore.kinds import TYPES, Kind

T = TypeVar("T")

JSON_COLUMN = {b"polystore": b"json"}
"""The metadata of a Parquet column whose texts are JSON."""


class Rows(Generic[T]):
    """Makes values of an entity from rows. `renamed` maps a column's name in the file to the field it is."""

    def __init__(self, entity: EntityType[T], renamed: Mapping[str, str], *, ignore_unknown: bool) -> None:
        self._entity = entity
        self._renamed = renamed
        self._ignore_unknown = ignore_unknown

    def value(self, row: Mapping[str, Any], *, cells: bool) -> T:
        """The value of a row. `cells`: all values are texts of a CSV file. Raises InvalidData naming the field."""
        body: dict[str, Any] = {}
        for column, given in row.items():
            name = self._renamed.get(column, column)
            spec = self._entity.fields.get(name)
            if spec is None:
                if self._ignore_unknown:
                    continue
                raise InvalidData(
                    f"{self._entity.cls.__name__} has no field {name!r}{nearest(name, self._entity.fields)}; mend the "
                    "file, or leave it out by ignore_unknown=True (--ignore-unknown)"
                )
            if cells and given == "":
                if spec.default is None and (spec.kind.optional or spec.kind.name == "str"):
                    body[name] = None if spec.kind.optional else ""
                continue
            if name in body:
                raise InvalidData(f"two columns are the field {name!r}; leave one of them out")
            body[name] = self._plain(name, spec.kind, given, cells=cells)
        return self._entity.build(body)

    def _plain(self, name: str, kind: Kind, given: Any, *, cells: bool) -> Any:
        """The plain value of a field, as bodies of records hold it."""
        try:
            if kind.name == "json":
                return msgspec.json.decode(given) if cells else given
            if given is None or kind.name == "str":
                return given
            return msgspec.convert(given, TYPES[kind.name], strict=not cells)
        except msgspec.MsgspecError:
            raise InvalidData(f"{name}: this is no {'JSON' if kind.name == 'json' else kind.name}") from None


def is_json(spec: FieldSpec) -> bool:
    """Whether a field's values are nested: lists, dicts, classes."""
    return spec.kind.name == "json"


def json_line(entity: EntityType[T], value: T) -> bytes:
    """The record as a line of JSON."""
    return msgspec.json.encode(entity.encode(value)) + b"\n"


def cells(entity: EntityType[T], value: T) -> list[str]:
    """The record as cells. Raises InvalidData for what CSV cannot say: nothing where nothing means another value."""
    out: list[str] = []
    for name, plain in entity.encode(value).items():
        spec = entity.fields[name]
        cell = _cell(spec.kind, plain)
        if cell == "" and plain != _of_an_empty_cell(entity, name):
            raise InvalidData(
                f"{entity.name} {getattr(value, entity.key)!r}: CSV cannot say that {name} is "
                f"{'null' if plain is None else 'empty'}, since an empty cell means its default; export as jsonl"
            )
        out.append(cell)
    return out


def _cell(kind: Kind, plain: Any) -> str:
    if kind.name == "json":
        return msgspec.json.encode(plain).decode()
    if plain is None or isinstance(plain, str):
        return plain or ""
    return msgspec.json.encode(plain).decode().strip('"')


def _of_an_empty_cell(entity: EntityType[Any], name: str) -> Any:
    spec = entity.fields[name]
    if spec.default is not None:
        return spec.kind.encode(spec.default())
    return None if spec.kind.optional else ""
