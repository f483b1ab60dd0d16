"""How results look in a notebook: small tables of HTML, without a dependency. Whatever comes from data is escaped."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from operator import methodcaller
from typing import Any, cast

CELL_CHARS_MAX = 200
ROWS_MAX = 50


class Marked(str):
    """A highlight: text in which `<mark>` and `</mark>` are meant."""

    __slots__ = ()


def table(rows: Sequence[Mapping[str, object]], caption: str = "") -> str:
    """The rows under the names of their columns; long cells and many rows are cut, and say so."""
    names = list(dict.fromkeys(name for row in rows[:ROWS_MAX] for name in row))
    head = "".join(f"<th>{_escaped(name)}</th>" for name in names)
    body = "".join(
        f"<tr>{''.join(f'<td>{_cell(row[name])}</td>' if name in row else '<td></td>' for name in names)}</tr>"
        for row in rows[:ROWS_MAX]
    )
    more = f"{caption}; the first {ROWS_MAX} of {len(rows)} are shown" if len(rows) > ROWS_MAX else caption
    return f"<table><caption>{_escaped(more)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def fields(value: object) -> dict[str, object]:
    """The fields of a record, whatever kind of class it is of."""
    names: Sequence[str] | None = getattr(value, "__struct_fields__", None)
    if names is None and dataclasses.is_dataclass(value):
        names = [one.name for one in dataclasses.fields(value)]
    if names is None:
        names = [name for name in getattr(value, "__dict__", ()) if not name.startswith("_")]
    return {name: getattr(value, name, None) for name in names} or {"value": value}


def highlighted(highlights: Mapping[str, Sequence[str]]) -> Marked:
    """The pieces of all fields, one after the other."""
    return Marked(" … ".join(piece for pieces in highlights.values() for piece in pieces))


def html_of(value: object) -> str:
    """What a notebook shows for a value that says it itself."""
    text: str = methodcaller("_repr_html_")(value)
    return text


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, Marked):
        return _escaped(value).replace("&lt;mark&gt;", "<mark>").replace("&lt;/mark&gt;", "</mark>")
    if isinstance(value, (bytes, bytearray)):
        return f"{len(value)} bytes"
    if isinstance(value, (list, tuple)):
        items = cast(Sequence[Any], value)
        more = f", … ({len(items)})" if len(items) > 8 else ""
        return _cut(", ".join(map(str, items[:8])) + more)
    return _cut(f"{value:.4g}" if isinstance(value, float) else str(value))


def _cut(text: str) -> str:
    return _escaped(text if len(text) <= CELL_CHARS_MAX else text[:CELL_CHARS_MAX] + " …")


def _escaped(text: str) -> str:
    import html  # only where something is shown

    return html.escape(text)
