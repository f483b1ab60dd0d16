"""What copies answer to searches, before hydration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from polystore.model.records import Body, Value


class Match(Value, frozen=True, gc=False):
    """A hit of a copy before hydration: larger scores are better; `version` is what the copy holds."""

    id: str
    score: float
    version: int
    body: Body | None = None


class Reached(Value, frozen=True, gc=False):
    """A node reached by a traversal: its shortest `depth`, one such `path` of (from id, relation, to id), and the
    properties of the path's last edge."""

    etype: str
    id: str
    depth: int
    path: Sequence[tuple[str, str, str]]
    properties: Mapping[str, Any]


class Link(Value, frozen=True, gc=False):
    """One edge of a path, as its record has it: from (`etype`, `id`) to (`to_etype`, `to_id`)."""

    etype: str
    id: str
    type: str
    to_etype: str
    to_id: str


Direction = Literal["out", "in", "both"]
"""Which edges are followed: those that the record has, those that lead to it, or both."""
