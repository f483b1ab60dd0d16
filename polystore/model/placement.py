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
    stores. `cache` is the store that reads ask before the home, "" for none.

    A facet that moves has a store in `upcoming` while that is filled: the one in `facets` serves until it is complete
    and compared. Then they change places: what served before stays in `leaving` until every process has gone over.
    `previous` names what a rebuild left behind, which is delivered nothing. `rates`: the most records a second that are
    filled in of a facet that moves; without one, as many as go. `made` says of each store that holds vectors how these
    are made, in words of `write_made`; of one that it does not name, as where they are served.

    `journal` is the commit store of a home that cannot commit, "" where the home commits itself: versions, existence
    and the duty to deliver are there, and the home is a copy of it that holds the bodies. `whole`: the journal serves
    facets of the type, so it keeps whole records for good."""

    etype: str
    home: str
    facets: Mapping[str, str]
    beside: Mapping[str, str] = {}
    rule: str = ""
    why: Sequence[str] = ()
    considered: Sequence[Considered] = ()
    cost: str = ""
    cache: str = ""
    journal: str = ""
    whole: bool = False
    upcoming: Mapping[str, str] = {}
    leaving: Mapping[str, str] = {}
    previous: Mapping[str, str] = {}
    rates: Mapping[str, float] = {}
    made: Mapping[str, str] = {}

    @property
    def authority(self) -> str:
        """The store that commits, and knows which version of a record is the current one."""
        return self.journal or self.home

    @property
    def lent(self) -> bool:
        """Whether the bodies are only at the home, once it has them."""
        return bool(self.journal) and not self.whole

    def _repr_html_(self) -> str:
        around = {role: name for role, name in (("journal", self.journal), ("cache", self.cache)) if name}
        held = {"home": self.home, **self.facets, **self.beside, **around}
        reasons = {(one.role, one.store): one.reason for one in self.considered if one.chosen}
        rows = [{"role": role, "store": name, "because": reasons.get((role, name), "")} for role, name in held.items()]
        return notebook.table(rows, f"{self.etype}: rule {self.rule}")

    def copies(self) -> dict[str, frozenset[str]]:
        """Store name -> facets, for the stores that serve other than the one that commits; the cache is one: its
        changes are invalidations."""
        return self._copies(self.facets)

    def targets(self) -> dict[str, frozenset[str]]:
        """As `copies`, with those that are filled to serve later, and those that served until now: all of them are
        delivered to."""
        return self._copies(self.facets, self.upcoming, self.leaving)

    def held(self, store: str) -> frozenset[str]:
        """The facets that a store holds, whether it serves them now, later or no more."""
        held = (*self.facets.items(), *self.upcoming.items(), *self.leaving.items())
        return frozenset(facet for facet, by in held if by == store)

    def _copies(self, *served: Mapping[str, str]) -> dict[str, frozenset[str]]:
        out: dict[str, set[str]] = {self.cache: {"cache"}} if self.cache else {}
        if self.journal:
            out[self.home] = set()
        for facets in served:
            for facet, store in facets.items():
                if store != self.authority:
                    out.setdefault(store, set()).add(facet)
        return {store: frozenset(facets) for store, facets in out.items()}
