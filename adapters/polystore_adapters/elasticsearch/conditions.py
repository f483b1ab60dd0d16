"""A checked condition as a query.

The server compares whole texts up to 1,000 characters, integers, truths, UUIDs, dates, and times to the millisecond.
Where that is not all of what the condition means, the query finds at least the records that it means, is not `exact`,
and what it finds is judged once more by `polystore.filters.predicate`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any, NamedTuple

from polystore.filters import All, AnyOf, Checked, Compare, Not
from polystore_adapters.elasticsearch.documents import TEXT_MAX, microseconds
from polystore_adapters.elasticsearch.server import Document

_RANGES = {"<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}
_NOTHING: Document = {"match_none": {}}
PART_MAX = 200
"""Characters of a text that is looked for inside others."""
_PLAIN = frozenset({"str", "int", "bool", "uuid", "date"})
"""Kinds that the server compares as polystore does."""


class Query(NamedTuple):
    """What the server is asked, None: for everything. `exact`: it finds what the condition means, else perhaps more."""

    find: Document | None
    exact: bool


EVERYTHING = Query(None, exact=True)
UNKNOWN = Query(None, exact=False)


def query(node: Checked | None, exact_times: Mapping[str, str] = {}) -> Query:
    """`exact_times`: fields that stand in the documents as microseconds, too, and under which names."""
    match node:
        case None:
            return EVERYTHING
        case All(parts):
            found = [query(part, exact_times) for part in parts]
            asked = [one.find for one in found if one.find is not None]
            return Query({"bool": {"filter": asked}} if asked else None, all(one.exact for one in found))
        case AnyOf(parts):
            found = [query(part, exact_times) for part in parts]
            if not found:
                return Query(_NOTHING, exact=True)
            exact = all(one.exact for one in found)
            asked = [one.find for one in found if one.find is not None]
            return Query(_any(*asked) if len(asked) == len(found) else None, exact)
        case Not(part):
            inner = query(part, exact_times)
            if not inner.exact:
                return UNKNOWN
            return Query(_NOTHING if inner.find is None else _none(inner.find), exact=True)
        case Compare(path, op, None, kind) if kind in _PLAIN or kind == "datetime":
            missing = _none(_there(path[0]))
            return Query(missing if op == "==" else _there(path[0]), exact=True)
        case Compare(path, op, value, "datetime") if path[0] in exact_times:
            at = [microseconds(one) for one in value] if op == "in" else microseconds(value)
            return _value(exact_times[path[0]], op, at, "int")
        case Compare(path, op, value, "datetime"):
            return _time(path[0], op, value)
        case Compare(path, op, value, kind) if kind in _PLAIN:
            return _value(path[0], op, value, kind)
        case Compare():
            return UNKNOWN


def _any(*parts: Document) -> Document:
    return {"bool": {"should": list(parts), "minimum_should_match": 1}}


def _none(part: Document) -> Document:
    return {"bool": {"must_not": [part]}}


def _long(field: str) -> Document:
    return {"term": {"ps_long": field}}


def _there(field: str) -> Document:
    return _any({"exists": {"field": field}}, _long(field))


def _json(value: Any, kind: str) -> Any:
    return str(value) if kind == "uuid" else value.isoformat() if isinstance(value, date) else value


def _value(field: str, op: str, value: Any, kind: str) -> Query:
    if op in ("==", "!=", "in"):
        values = [_json(one, kind) for one in (value if op == "in" else [value])]
        whole = kind != "str" or all(len(one) <= TEXT_MAX for one in values)
        found: Document = {"terms": {field: values}}
        if op == "!=":
            return Query(_none(found), exact=whole)
        return Query(found if whole else _any(found, _long(field)), exact=whole)
    match op:
        case "startswith":
            found = {"prefix": {field: value[:TEXT_MAX]}}
        case "contains":
            escaped = "".join(f"\\{letter}" if letter in "*?\\" else letter for letter in value[:PART_MAX])
            found = {"wildcard": {field: f"*{escaped}*"}}
        case _:
            found = {"range": {field: {_RANGES[op]: _json(value, kind)}}}
    return Query(_any(found, _long(field)), exact=False) if kind == "str" else Query(found, exact=True)


def _time(field: str, op: str, value: Any) -> Query:
    """The millisecond around a time, where it is not the beginning of one."""
    if op == "!=":
        return UNKNOWN
    if op in ("<", ">=") and value.microsecond % 1000 == 0:
        return Query({"range": {field: {_RANGES[op]: value.astimezone(UTC).isoformat()}}}, exact=True)
    if op == "in":
        return Query(_any(*(_around(field, "==", one) for one in value)) if value else _NOTHING, exact=False)
    return Query(_around(field, op, value), exact=False)


def _around(field: str, op: str, at: datetime) -> Document:
    bound = at.astimezone(UTC).isoformat(timespec="milliseconds")  # which cuts
    bounds = {"gte": bound} if op in ("==", ">", ">=") else {}
    bounds |= {"lte": bound} if op in ("==", "<", "<=") else {}
    return {"range": {field: bounds}}
