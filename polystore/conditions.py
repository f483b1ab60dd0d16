"""Conditions and orders checked against the fields of an entity, before any I/O."""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from polystore.errors import InvalidData, InvalidFilter, did_you_mean
from polystore.filters import All, AnyOf, Checked, Compare, Expr, Field, Not, Op, Order, Sort, path_of
from polystore.kinds import INT_MAX, INT_MIN, WHOLE, Kind, encode_json, encode_str

_ORDERED = frozenset({"str", "int", "float", "datetime", "date", "decimal", "uuid"})
COMPARISONS_MAX = 400
"""Comparisons of one condition. SQLite takes expressions 1,000 levels deep (https://sqlite.org/limits.html); a chain of
comparisons is as deep as it is long, and those inside nested values count twice."""
DEPTH_MAX = 20
"""Levels of `&`, `|` and `~` around a comparison. SQLite's parser has a stack of 100 symbols, several per level."""
VALUES_MAX = 10_000
"""Values of all `in_()` of one condition. SQLite as it is shipped binds 32,766 values to a statement."""
_LESS_OR_MORE = frozenset({"<", "<=", ">", ">="})


def nearest(name: str, known: Iterable[str]) -> str:
    """The middle of an error message: what the unknown name was probably meant to be, else all known names."""
    names = sorted(known)
    return did_you_mean(name, names) or f"; its fields are {', '.join(names)}"


def _check_size(expr: Expr) -> None:
    """Without recursion: what is nested too deep would end Python's stack first."""
    comparisons = values = 0
    level, parts = 0, [expr]
    while parts:
        inner: list[Expr] = []
        for part in parts:
            if part.op in ("and", "or", "not"):
                inner.extend(part.args)
                continue
            comparisons += 1
            if part.op == "in":
                values += len(part.args[1])
        if comparisons > COMPARISONS_MAX:
            raise InvalidFilter(
                f"where=: more than {COMPARISONS_MAX} comparisons; write one in_([...]) for many values of a field, or "
                "ask in several calls"
            )
        if values > VALUES_MAX:
            raise InvalidFilter(f"where=: {values} values in in_(), the limit is {VALUES_MAX}; ask in several calls")
        level, parts = level + 1, inner
        if level > DEPTH_MAX:
            raise InvalidFilter(f"where=: nested deeper than {DEPTH_MAX} levels of &, | and ~; write it flatter")


class Conditions:
    """The checks for one entity: the name of its class and the kinds of its fields. `under`: conditions are about the
    fields inside the value that this path leads to."""

    def __init__(self, class_name: str, kinds: Mapping[str, Kind], under: tuple[str, ...] = ()) -> None:
        self._class_name = class_name
        self._kinds = kinds
        self._under = under

    def check(self, expr: Expr) -> Checked:
        """The condition with plain values. Raises InvalidFilter for unknown fields, unfit values, and a condition that
        is larger than every store takes."""
        _check_size(expr)
        return self._checked(expr)

    def _checked(self, expr: Expr) -> Checked:
        match expr.op:
            case "and":
                return All(tuple(self._checked(part) for part in expr.args))
            case "or":
                return AnyOf(tuple(self._checked(part) for part in expr.args))
            case "not":
                return Not(self._checked(expr.args[0]))
            case _:
                path, value = expr.args
                return self._comparison((*self._under, *path), typing.cast(Op, expr.op), value)

    def check_order(self, order_by: Iterable[Field | Order] | Field | Order) -> tuple[Sort, ...]:
        """The checked order; one field stands for a list of it. Raises InvalidFilter."""
        out: list[Sort] = []
        for one in (order_by,) if isinstance(order_by, (Field, Order)) else order_by:
            if not isinstance(one, (Field, Order)):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise InvalidFilter(f"order_by= takes fields such as F.name or F.name.desc(), not {type(one).__name__}")
            path, descending = (one.path, one.descending) if isinstance(one, Order) else (path_of(one), False)
            kind = self._kind_at(path)
            if len(path) > 1 or kind is None or kind.name not in _ORDERED | {"bool"}:
                raise self._unfit(path, "results can be sorted by plain fields only")
            out.append(Sort(path, kind.name, descending))
        return tuple(out)

    def _unfit(self, path: tuple[str, ...], reason: str) -> InvalidFilter:
        return InvalidFilter(f"{'.'.join((self._class_name, *path))}: {reason}")

    def _kind_at(self, path: tuple[str, ...]) -> Kind | None:
        """The kind of what the path leads to; None inside a free-form value, where anything may be."""
        kinds: Mapping[str, Kind] = self._kinds
        where = self._class_name
        kind: Kind | None = None
        for i, name in enumerate(path):
            if kind is not None:
                if kind.shape == "any":
                    return None
                if kind.shape == "dict":
                    kind = kind.item
                    continue
                if kind.shape == "list":
                    raise self._unfit(path[:i], f"a list has no field {name!r}; it takes contains() and is_null()")
                if kind.members is None:
                    raise self._unfit(path[:i], f"a {kind.name} has no field {name!r}")
                kinds = kind.members
                where = ".".join((self._class_name, *path[:i]))
            if name not in kinds:
                raise InvalidFilter(f"{where} has no field {name!r}{nearest(name, kinds)}")
            kind = kinds[name]
        return None if kind is not None and kind.shape == "any" and len(path) > 1 else kind

    def _comparison(self, path: tuple[str, ...], op: Op, value: Any) -> Compare:
        kind, top = self._kind_at(path), path[0]
        nested = len(path) > 1
        stored = "json" if nested else self._kinds[top].name
        if value is None:
            if op not in ("==", "!="):
                raise self._unfit(path, "None can be compared with == and != only")
            return Compare(path, op, None, stored)
        if kind is not None:
            self._check_operation(path, op, kind, nested=nested)
        encode = self._encoder(op, kind, nested=stored == "json")
        try:
            plain = tuple(encode(item) for item in value) if op == "in" else encode(value)
        except InvalidData as e:
            raise self._unfit(path, str(e)) from None
        if op == "in" and None in plain:
            raise self._unfit(path, "in_() takes no None; write F.x.in_([...]) | F.x.is_null()")
        return Compare(path, op, plain, stored)

    def _check_operation(self, path: tuple[str, ...], op: Op, kind: Kind, *, nested: bool) -> None:
        if nested and kind.name == "decimal":
            raise self._unfit(path, "a decimal inside a nested value is kept as text; only is_null() fits it")
        if op in _LESS_OR_MORE and kind.name not in _ORDERED:
            raise self._unfit(path, f"a {kind.name} field has no order")
        if op == "startswith" and kind.name != "str":
            raise self._unfit(path, "startswith() needs a text field")
        if op == "contains" and kind.name != "str" and kind.shape not in ("list", "any"):
            raise self._unfit(path, "contains() needs a text or a list")
        if kind.name == "json" and op != "contains":
            raise self._unfit(path, "a list or a nested value takes contains() and is_null() only")
        if op == "contains" and kind.item is not None and kind.item.shape not in ("value", "any"):
            raise self._unfit(path, "contains() compares single values, the items of this list are more")

    def _encoder(self, op: Op, kind: Kind | None, *, nested: bool) -> Callable[[Any], Any]:
        if op == "startswith" or (op == "contains" and kind is not None and kind.name == "str"):
            return encode_str  # a part of a text: it need not be a member of the enum, or a whole key
        target = kind.item if kind is not None and kind.shape == "list" else kind
        if target is None or target.shape == "any":
            return _free_value
        return target.nested_encode if nested else target.encode


def _free_value(value: Any) -> Any:
    if isinstance(value, float) and abs(value) >= WHOLE and INT_MIN <= value <= INT_MAX:
        return int(value)  # the same number, which no store rounds
    if isinstance(value, (str, int, float, bool)):
        return encode_json(value)
    raise InvalidData(f"a text, number or bool is needed here, not {type(value).__name__}")
