"""Classes of records with the facets that a test asks for."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any

from polystore import Embedding, FullText, Relation, entity


def declared(name: str, facets: Sequence[str]) -> type[Any]:
    """`id`, `text`, which is found by words or meaning, and `follows`, ids of others: the relation NEXT_name."""
    of_text = [facet for facet, by in ((FullText(), "full_text"), (Embedding(), "vector")) if by in facets]
    text: Any = Annotated[(str, *of_text)] if of_text else str
    follows: Any = Annotated[list[str], Relation(f"NEXT_{name}", to=name)] if "graph" in facets else list[str]
    fields: list[Any] = [("id", str), ("text", text), ("follows", follows, dataclasses.field(default_factory=list))]
    made: type[Any] = dataclasses.make_dataclass(name, fields, kw_only=True)
    return entity(name=name)(made)
