"""Pages: opaque cursors, and the condition "after the last row" that lets any store continue.

Keyset pagination (https://use-the-index-luke.com/no-offset): a page begins after the last row of the page before,
not at a number of rows, so that writes in between neither repeat nor skip a record that stays.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec

from polystore.entity import EntityType
from polystore.errors import InvalidFilter
from polystore.filters import All, AnyOf, Checked, Compare, Sort
from polystore.kinds import TYPES
from polystore.model import Body


class _Cursor(msgspec.Struct, frozen=True, array_like=True):
    """`of` says which query it belongs to, `at` where its last row was."""

    of: bytes
    at: list[Any]


def fingerprint(*parts: object) -> bytes:
    """What binds a cursor to its query: a cursor used with another one must not silently give other pages."""
    return hashlib.blake2b(repr(parts).encode("utf-8", "surrogatepass"), digest_size=8).digest()


def write_cursor(of: bytes, at: Sequence[Any]) -> str:
    raw = msgspec.msgpack.encode(_Cursor(of, list(at)))
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def read_cursor(cursor: str, of: bytes, types: Sequence[Any]) -> list[Any]:
    """The position inside a cursor. Raises InvalidFilter for a text that is no cursor, or one of another query."""
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        found = msgspec.msgpack.decode(raw, type=_Cursor)
        if found.of == of:
            return [msgspec.convert(value, hint) for value, hint in zip(found.at, types, strict=True)]
    except (ValueError, TypeError, binascii.Error, msgspec.DecodeError):
        raise InvalidFilter("cursor=: this is not a cursor of polystore; pass the cursor of the page before") from None
    raise InvalidFilter(
        "cursor=: this cursor belongs to another query; the entity, tenant, condition and order must be those of the "
        "page before"
    )


# -- find ---------------------------------------------------------------------------------------------------------


def total_order(entity: EntityType[Any], order: Sequence[Sort]) -> tuple[Sort, ...]:
    """The order with the key as the last tie-break, so that no two records are equal in it."""
    key = (entity.key,)
    for i, sort in enumerate(order):
        if sort.path == key:
            return tuple(order[: i + 1])
    return (*order, Sort(key, entity.fields[entity.key].kind.name))


def position_types(entity: EntityType[Any], order: Sequence[Sort]) -> list[Any]:
    return [TYPES[sort.kind] if sort.path == (entity.key,) else TYPES[sort.kind] | None for sort in order]


def position(order: Sequence[Sort], body: Body) -> list[Any]:
    return [body.get(sort.path[0]) for sort in order]


def after(entity: EntityType[Any], order: Sequence[Sort], at: Sequence[Any]) -> Checked:
    """The condition that holds for exactly the rows behind the position, in an order with missing values last.

    Written as a chain of alternatives, (a > 1) | (a == 1 & b > 2) | ..., because directions may differ and values may
    be missing, which a comparison of rows cannot say.
    """
    alternatives: list[Checked] = []
    equal: list[Checked] = []
    for sort, value in zip(order, at, strict=True):
        optional = entity.fields[sort.path[0]].kind.optional
        if value is not None:  # nothing comes behind the missing values
            behind: Checked = Compare(sort.path, "<" if sort.descending else ">", value, sort.kind)
            if optional:
                behind = AnyOf((behind, Compare(sort.path, "==", None, sort.kind)))
            alternatives.append(All((*equal, behind)) if equal else behind)
        equal.append(Compare(sort.path, "==", value, sort.kind))
    return alternatives[0] if len(alternatives) == 1 else AnyOf(tuple(alternatives))


def both(first: Checked | None, second: Checked | None) -> Checked | None:
    """Both conditions at once; None is no condition."""
    if first is None or second is None:
        return first or second
    return All((first, second))
