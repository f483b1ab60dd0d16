"""A checked condition as a query.

Where values are free in their form, MongoDB's queries look into arrays by themselves, so they may find more than
`polystore.filters.predicate`, never less: such a query is not `exact`, and the records that it finds are judged once
more. Comparisons with declared fields, nested ones too, are exact.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from polystore.entity import EntityType
from polystore.filters import All, AnyOf, Checked, Compare, Not, Sort
from polystore.kinds import WHOLE, Kind
from polystore_adapters.mongodb.documents import ENCODERS, micros_field, whole_and_rest
from polystore_adapters.mongodb.driver import Document

PATTERN_MAX = 1_000
"""Characters of a text that is looked for inside others; the servers take patterns of 16 KB and more. What is longer is
looked for by its beginning, and judged once more."""
_OPERATORS = {"==": "$eq", "!=": "$ne", "<": "$lt", "<=": "$lte", ">": "$gt", ">=": "$gte"}
_NOTHING: Document = {"$nor": [{}]}


class Query(NamedTuple):
    """What the server is asked. `exact`: it finds what the condition means, else all of that and perhaps more."""

    find: Document
    exact: bool


EVERYTHING = Query({}, exact=True)
UNKNOWN = Query({}, exact=False)


def query(node: Checked | None, entity: EntityType[Any]) -> Query:
    match node:
        case None:
            return EVERYTHING
        case All(parts):
            found = [query(part, entity) for part in parts]
            asked = [one.find for one in found if one.find]
            return Query({"$and": asked} if asked else {}, all(one.exact for one in found))
        case AnyOf(parts):
            found = [query(part, entity) for part in parts]
            if not found:
                return Query(_NOTHING, exact=True)
            exact = all(one.exact for one in found)
            return Query({"$or": [one.find for one in found]} if all(one.find for one in found) else {}, exact)
        case Not(part):
            inner = query(part, entity)
            return Query({"$nor": [inner.find]}, exact=True) if inner.exact else UNKNOWN
        case Compare(kind="json"):
            return _nested(node, entity)
        case Compare(path, op, value, "datetime"):
            return Query(_time(path[0], op, value), exact=True)
        case Compare(path, "==" | "!=" | "in" as op, value, "decimal") if value is not None:
            return Query(_decimal(path[0], op, value), exact=True)
        case Compare(path, op, value, kind):
            encode = ENCODERS.get(kind, _same)
            plain = value if value is None else [*map(encode, value)] if op == "in" else encode(value)
            return _value(path[0], op, plain)


def _same(value: Any) -> Any:
    return value


def _value(place: str, op: str, value: Any) -> Query:
    """A comparison with a place where a single value is, or none."""
    match op:
        case "in":
            return Query({place: {"$in": list(value)}}, exact=True)
        case "contains" | "startswith":
            return Query(_pattern(place, op, value), exact=len(value) <= PATTERN_MAX)
        case _:
            return Query({place: {_OPERATORS[op]: value}}, exact=True)


def _pattern(place: str, op: str, text: str) -> Document:
    return {place: {"$regex": ("^" if op == "startswith" else "") + re.escape(text[:PATTERN_MAX])}}


def _time(field: str, op: str, value: Any) -> Document:
    """Two fields are one value: milliseconds, and the rest."""
    if value is None:
        return {field: {_OPERATORS[op]: None}}
    if op == "in":
        return {"$or": [_time(field, "==", one) for one in value]} if value else _NOTHING
    whole, rest = whole_and_rest(value)
    beyond = micros_field(field)
    if op in ("==", "!="):
        same = {field: whole, beyond: rest}
        return same if op == "==" else {"$nor": [same]}
    outer = _OPERATORS[op.rstrip("=")]
    return {"$or": [{field: {outer: whole}}, {field: whole, beyond: {_OPERATORS[op]: rest}}]}


def _decimal(field: str, op: str, value: Any) -> Document:
    """Equality as a range. FerretDB tells 0.1 and 0.10 apart in an `$in`, which it makes of several equalities too."""
    ranges: list[Document] = []
    for one in value if op == "in" else [value]:
        plain = ENCODERS["decimal"](one)
        ranges.append({field: {"$gte": plain, "$lte": plain}})
    if op == "!=":
        return {"$nor": ranges}
    return {"$or": ranges} if ranges else _NOTHING


# -- nested values ------------------------------------------------------------------------------------------------


def _nested(node: Compare, entity: EntityType[Any]) -> Query:
    path, op, value = node.path, node.op, node.value
    if not all(map(_usual, path)):
        return UNKNOWN
    place, kind = ".".join(path), _kind_at(path, entity)
    if kind is None or kind.shape == "any":
        return Query(_free(place, op, value), exact=False)
    match kind.shape:
        case "value":
            return _value(place, op, value)
        case "list" if op == "contains":
            return Query({place: value}, exact=kind.item is not None and kind.item.shape == "value")
        case "list":  # a missing item would be taken for a missing list
            there = {place: {"$type": "array"}}
            return Query(there if op == "!=" else {"$nor": [there]}, exact=True)
        case _:
            return _value(place, op, value)


def _usual(name: str) -> bool:
    """Whether a query can say the name."""
    return bool(name) and not name.startswith("$") and "\0" not in name


def _kind_at(path: Sequence[str], entity: EntityType[Any]) -> Kind | None:
    """The kind of what the path leads to; None inside a free-form value."""
    kind: Kind | None = entity.fields[path[0]].kind
    for name in path[1:]:
        if kind is None or kind.shape == "any":
            return None
        kind = kind.item if kind.shape == "dict" else (kind.members or {}).get(name)
    return kind


def _free(place: str, op: str, value: Any) -> Document:
    """At least the documents whose value at the place is as it shall be."""
    match op:
        case "==" | "!=" if value is None:
            return {place: {"$exists": True}} if op == "!=" else {}
        case "!=":
            return {}
        case "contains" if isinstance(value, str):
            return {"$or": [{place: value}, _pattern(place, op, value)]}
        case "contains":
            return {place: value}
        case "startswith":
            return _pattern(place, op, value)
        case "in":  # of FerretDB an `$in` finds no float by the integer that it is, from some size on
            large = [one for one in value if isinstance(one, (int, float)) and abs(one) >= WHOLE]
            return {"$or": [{place: {"$in": list(value)}}, *({place: {"$gte": one, "$lte": one}} for one in large)]}
        case _:
            return {place: {_OPERATORS[op]: value}}


# -- order --------------------------------------------------------------------------------------------------------


def sorting(order: Sequence[Sort], entity: EntityType[Any]) -> list[Document]:
    """The steps of a pipeline that sort, missing values last. MongoDB takes them for the smallest."""
    flags: Document = {}
    by: Document = {}
    for sort in order:
        (field,) = sort.path
        direction = -1 if sort.descending else 1
        if not sort.descending and entity.fields[field].kind.optional:
            flag = f"ps_without_{field}"
            flags[flag] = {"$eq": [{"$ifNull": [f"${field}", None]}, None]}
            by[flag] = 1
        by[field] = direction
        if sort.kind == "datetime":
            by[micros_field(field)] = direction
    return [*([{"$set": flags}] if flags else []), *([{"$sort": by}] if by else [])]
