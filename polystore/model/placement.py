"""Where an entity type lives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from polystore import notebook
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
    stores. `cache` is the store that reads ask before the home, "" for none."""

    etype: str
    home: str
    facets: Mapping[str, str]
    beside: Mapping[str, str] = {}
    rule: str = ""
    why: Sequence[str] = ()
    considered: Sequence[Considered] = ()
    cost: str = ""
    cache: str = ""

    def _repr_html_(self) -> str:
        held = {"home": self.home, **self.facets, **self.beside, **({"cache": self.cache} if self.cache else {})}
        reasons = {(one.role, one.store): one.reason for one in self.considered if one.chosen}
        rows = [{"role": role, "store": name, "because": reasons.get((role, name), "")} for role, name in held.items()]
        return notebook.table(rows, f"{self.etype}: rule {self.rule}")

    def copies(self) -> dict[str, frozenset[str]]:
        """Store name -> facets, for the stores other than the home; the cache is one: its changes are invalidations."""
        out: dict[str, set[str]] = {self.cache: {"cache"}} if self.cache else {}
        for facet, store in self.facets.items():
            if store != self.home:
                out.setdefault(store, set()).add(facet)
        return {store: frozenset(facets) for store, facets in out.items()}
