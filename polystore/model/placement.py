"""Where an entity type lives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from polystore.model.records import Value


class Considered(Value, frozen=True, gc=False):
    """A store that the selector looked at for a role, and why it was or was not chosen."""

    role: str
    store: str
    chosen: bool
    reason: str


class Placement(Value, frozen=True, gc=False):
    """Where one entity type lives. `facets` maps full_text, vector and graph to the store that serves it, which may be
    the home itself: then it is written in the home's own commit and needs no delivery. `beside` maps the roles of what
    belongs to its records but is neither part nor copy of them (time_series: its measures, file: its files) to their
    stores."""

    etype: str
    home: str
    facets: Mapping[str, str]
    beside: Mapping[str, str] = {}
    rule: str = ""
    why: Sequence[str] = ()
    considered: Sequence[Considered] = ()
    cost: str = ""

    def copies(self) -> dict[str, frozenset[str]]:
        """Store name -> facets, for the stores other than the home."""
        out: dict[str, set[str]] = {}
        for facet, store in self.facets.items():
            if store != self.home:
                out.setdefault(store, set()).add(facet)
        return {store: frozenset(facets) for store, facets in out.items()}
