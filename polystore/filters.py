"""Conditions: `F.age >= 18`, combined with `&`, `|`, `~`.

What an application writes is an untyped tree (`Expr`). `EntityType.condition` checks it against the entity before any
I/O and turns it into a `Condition`, the frozen tree that adapters translate. Conditions have two truth values: every
comparison with a missing value is false, but for `== None`, `is_null` and `!=`, which is exactly the negation of `==`.
So `~` means the same on every store.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NoReturn

import msgspec

from polystore.errors import InvalidFilter

Op = Literal["==", "!=", "<", "<=", ">", ">=", "in", "contains", "startswith"]


class Expr:
    """A condition as the application wrote it: a comparison, or `and`, `or`, `not` over others."""

    __slots__ = ("args", "op")

    def __init__(self, op: str, args: tuple[Any, ...]) -> None:
        self.op = op
        self.args = args

    def __and__(self, other: Expr | Field) -> Expr:
        return _joined("and", self, as_expr(other))

    def __or__(self, other: Expr | Field) -> Expr:
        return _joined("or", self, as_expr(other))

    def __invert__(self) -> Expr:
        return Expr("not", (self,))

    def __bool__(self) -> bool:
        raise InvalidFilter(
            "a condition has no truth value: combine with &, | and ~ instead of and, or, not, and put each comparison "
            "in parentheses: (F.a == 1) & (F.b > 2); for a range use F.a.between(1, 9)"
        )

    def __repr__(self) -> str:
        if self.op in ("and", "or"):
            sign = "&" if self.op == "and" else "|"
            return f"({f' {sign} '.join(map(repr, self.args))})"
        if self.op == "not":
            return f"~{self.args[0]!r}"
        path, value = self.args
        return f"(F.{'.'.join(path)} {self.op} {value!r})"


def _joined(op: str, left: Expr, right: Expr) -> Expr:
    # Flat, so that a condition made in a loop stays shallow however long it is.
    parts = [one.args if one.op == op else (one,) for one in (left, right)]
    return Expr(op, (*parts[0], *parts[1]))


class Order:
    """A field to sort by. Missing values come last in both directions."""

    __slots__ = ("descending", "path")

    def __init__(self, path: tuple[str, ...], descending: bool) -> None:
        self.path = path
        self.descending = descending


class Field:
    """A field of an entity inside a condition. A boolean field is a condition by itself: `F.active`."""

    __slots__ = ("_path",)
    __hash__ = None  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]  # == builds a condition

    def __init__(self, path: tuple[str, ...]) -> None:
        self._path = path

    def __getattr__(self, name: str) -> Field:
        if name.startswith("__"):
            raise AttributeError(name)
        return Field((*self._path, name))

    def __getitem__(self, name: str) -> Field:
        return Field((*self._path, *_names(name)))

    def __iter__(self) -> NoReturn:
        name = ".".join(self._path)
        raise InvalidFilter(f"F.{name} is one field, no list of them; where a list is taken, write [F.{name}]")

    def __contains__(self, item: object) -> NoReturn:
        raise InvalidFilter(f"`in` cannot make a condition: write F.{'.'.join(self._path)}.contains(...)")

    def __eq__(self, other: object) -> Expr:  # type: ignore[override]
        return Expr("==", (self._path, other))

    def __ne__(self, other: object) -> Expr:  # type: ignore[override]
        return Expr("!=", (self._path, other))

    def __lt__(self, other: object) -> Expr:
        return Expr("<", (self._path, other))

    def __le__(self, other: object) -> Expr:
        return Expr("<=", (self._path, other))

    def __gt__(self, other: object) -> Expr:
        return Expr(">", (self._path, other))

    def __ge__(self, other: object) -> Expr:
        return Expr(">=", (self._path, other))

    def __and__(self, other: Expr | Field) -> Expr:
        return as_expr(self) & other

    def __or__(self, other: Expr | Field) -> Expr:
        return as_expr(self) | other

    def __invert__(self) -> Expr:
        return ~as_expr(self)

    def __bool__(self) -> bool:
        return as_expr(self).__bool__()

    def in_(self, values: Sequence[object]) -> Expr:
        """The value is one of `values`; an empty sequence matches nothing. Raises InvalidFilter for a single text."""
        if isinstance(values, (str, bytes)):
            raise InvalidFilter(f"F.{'.'.join(self._path)}.in_() takes a list of values, not one text")
        return Expr("in", (self._path, tuple(values)))

    def between(self, low: object, high: object) -> Expr:
        """`low <= value <= high`, both ends included."""
        return (self >= low) & (self <= high)

    def contains(self, item: object) -> Expr:
        """A text contains the given text, exactly as written; a list contains the item."""
        return Expr("contains", (self._path, item))

    def startswith(self, prefix: str) -> Expr:
        """A text begins with the given text, exactly as written."""
        return Expr("startswith", (self._path, prefix))

    def is_null(self, yes: bool = True) -> Expr:
        """The value is missing (`yes=False`: present)."""
        return Expr("==" if yes else "!=", (self._path, None))

    def asc(self) -> Order:
        return Order(self._path, False)

    def desc(self) -> Order:
        return Order(self._path, True)


def _names(path: object) -> tuple[str, ...]:
    if not isinstance(path, str):
        raise InvalidFilter(f"brackets behind F take the name of a field, not {type(path).__name__}")
    return tuple(path.split("."))


class _F:
    """`F.name` and `F["name"]`: fields of whatever entity the condition is used with. `F["a.b"]` is `F.a.b`; brackets
    also reach names that meet a method, like `F["contains"]`."""

    def __getattr__(self, name: str) -> Field:
        if name.startswith("__"):
            raise AttributeError(name)
        return Field((name,))

    def __getitem__(self, name: str) -> Field:
        return Field(_names(name))


F = _F()
Condition = Expr | Field
"""What `where=` takes."""


def as_expr(condition: object) -> Expr:
    """The condition as an `Expr`. Raises InvalidFilter for anything else, so that a plain bool is never a filter."""
    if isinstance(condition, Expr):
        return condition
    if isinstance(condition, Field):
        return condition == True  # noqa: E712  (builds an Expr)
    raise InvalidFilter(f"where= takes a condition such as F.name == 'x', not {type(condition).__name__}")


def path_of(field: Field) -> tuple[str, ...]:
    """The names of a field, outermost first."""
    return field._path  # pyright: ignore[reportPrivateUsage]


# -- the checked form ---------------------------------------------------------------------------------------------


class Compare(msgspec.Struct, frozen=True, gc=False):
    """A checked comparison. `kind` is the field's kind ("json" below the first name); `value` is plain, as in a body.

    `value` None occurs with == and != only; "in" has a tuple without None.
    """

    path: tuple[str, ...]
    op: Op
    value: Any
    kind: str


class All(msgspec.Struct, frozen=True):
    parts: tuple[Checked, ...]


class AnyOf(msgspec.Struct, frozen=True):
    parts: tuple[Checked, ...]


class Not(msgspec.Struct, frozen=True):
    part: Checked


Checked = Compare | All | AnyOf | Not


class Sort(msgspec.Struct, frozen=True, gc=False):
    """A checked sort field: missing values last in both directions."""

    path: tuple[str, ...]
    kind: str
    descending: bool = False


def shape(node: Checked) -> tuple[Any, ...]:
    """The tree without its values, hashable: statements are compiled once per shape."""
    match node:
        case Compare(path, op, value, kind):
            size = len(value) if op == "in" else value is None
            return (op, path, kind, size)
        case All(parts):
            return ("and", *map(shape, parts))
        case AnyOf(parts):
            return ("or", *map(shape, parts))
        case Not(part):
            return ("not", shape(part))


def values(node: Checked) -> list[tuple[Compare, Any]]:
    """The comparisons and their values from left to right: the parameters of a compiled shape."""
    match node:
        case Compare(_, op, value, _):
            if op == "in":
                return [(node, item) for item in value]
            return [] if value is None else [(node, value)]
        case All(parts) | AnyOf(parts):
            return [pair for part in parts for pair in values(part)]
        case Not(part):
            return values(part)


def _nested(body: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    value: Any = body
    for name in path:
        if not isinstance(value, Mapping):
            return None
        value = value.get(name)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return value  # pyright: ignore[reportUnknownVariableType]


def _comparable(a: Any, b: Any) -> bool:
    """Values of a free-form JSON field compare only with their own kind: numbers, texts, booleans."""
    if isinstance(a, bool) or isinstance(b, bool):
        return isinstance(a, bool) and isinstance(b, bool)
    if isinstance(a, (int, float)):
        return isinstance(b, (int, float))
    return type(a) is type(b)


_ORDERED: Mapping[str, Callable[[Any, Any], bool]] = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


def predicate(node: Checked) -> Callable[[Mapping[str, Any]], bool]:
    """The condition as a function of a body: the reference meaning that every adapter's translation must have."""
    match node:
        case All(parts):
            all_parts = [predicate(p) for p in parts]
            return lambda body: all(p(body) for p in all_parts)
        case AnyOf(parts):
            any_parts = [predicate(p) for p in parts]
            return lambda body: any(p(body) for p in any_parts)
        case Not(part):
            inner = predicate(part)
            return lambda body: not inner(body)
        case Compare():
            return _compare(node)


def _compare(node: Compare) -> Callable[[Mapping[str, Any]], bool]:
    path, op, wanted, nested = node.path, node.op, node.value, node.kind == "json"
    name = path[0]

    def read(body: Mapping[str, Any]) -> Any:
        return body.get(name) if len(path) == 1 else _nested(body, path)

    def equal(a: Any, b: Any) -> bool:
        return bool(a == b) and (not nested or a is None or _comparable(a, b))

    if op == "==":
        return lambda body: equal(read(body), wanted)
    if op == "!=":
        return lambda body: not equal(read(body), wanted)
    if op == "in":
        return lambda body: (value := read(body)) is not None and any(equal(value, item) for item in wanted)
    if op == "contains":

        def contains(body: Mapping[str, Any]) -> bool:
            value = read(body)
            if isinstance(value, str):
                return isinstance(wanted, str) and wanted in value
            return isinstance(value, list) and any(equal(item, wanted) for item in value)  # pyright: ignore[reportUnknownVariableType]

        return contains
    if op == "startswith":
        return lambda body: isinstance(value := read(body), str) and value.startswith(wanted)
    test = _ORDERED[op]
    return lambda body: (
        (value := read(body)) is not None and (not nested or _comparable(value, wanted)) and test(value, wanted)
    )
