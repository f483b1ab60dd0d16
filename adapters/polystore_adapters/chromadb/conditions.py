"""A checked condition as a filter on metadata.

The server compares texts, numbers and truths for equality, and numbers by size; it has no word for "not", none for what
is missing, and none for parts of texts. Where that is not all of what the condition means, the filter finds at least
the records that it means, is not `exact`, and what it finds is judged once more by `polystore.filters.predicate`.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from polystore.filters import All, AnyOf, Checked, Compare
from polystore_adapters.chromadb.items import FLOAT_MAX, TEXT_MAX
from polystore_adapters.chromadb.server import Document

_WORDS = {"==": "$eq", "!=": "$ne", "<": "$lt", "<=": "$lte", ">": "$gt", ">=": "$gte"}
_NOTHING: Document = {"ps_version": {"$lt": 0}}
_TEXTS = frozenset({"str", "uuid", "date"})


class Filter(NamedTuple):
    """What the server is asked, None: for everything. `exact`: it finds what the condition means, else perhaps more."""

    find: Document | None
    exact: bool


UNKNOWN = Filter(None, exact=False)


def filtered(node: Checked | None) -> Filter:
    match node:
        case None:
            return Filter(None, exact=True)
        case All(parts):
            found = [filtered(part) for part in parts]
            asked = [one.find for one in found if one.find is not None]
            return Filter(both(*asked) if asked else None, all(one.exact for one in found))
        case AnyOf(parts):
            found = [filtered(part) for part in parts]
            asked = [one.find for one in found if one.find is not None]
            if len(asked) < len(found):
                return Filter(None, all(one.exact for one in found))
            return Filter(_joined("$or", asked) if asked else _NOTHING, all(one.exact for one in found))
        case Compare((field,), op, value, kind) if value is not None:
            return _compared(field, op, value, kind)
        case _:
            return UNKNOWN


def both(*parts: Document) -> Document:
    """All of them; there is at least one."""
    return _joined("$and", parts)


def _joined(word: str, parts: Any) -> Document:
    return {word: list(parts)} if len(parts) > 1 else parts[0]


def _compared(field: str, op: str, value: Any, kind: str) -> Filter:
    if op == "in":
        values = [_asked(one, kind) for one in value]
        if None in values:
            return UNKNOWN
        return Filter({field: {"$in": values}} if values else _NOTHING, exact=True)
    asked = _asked(value, kind)
    if asked is None or op not in _WORDS or (op not in ("==", "!=") and kind not in ("int", "float")):
        return UNKNOWN
    return Filter({field: {_WORDS[op]: asked}}, exact=True)


def _asked(value: Any, kind: str) -> Any:
    """The value as it would stand in the metadata; None where that does not tell it from others."""
    if kind in _TEXTS:
        text = str(value)
        return text if len(text) <= TEXT_MAX else None
    if kind == "float" and isinstance(value, int | float):
        return float(value) + 0.0 if math.isfinite(value) and abs(value) < FLOAT_MAX else None
    return value if (kind == "int" and type(value) is int) or (kind == "bool" and type(value) is bool) else None
