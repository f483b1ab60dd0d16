"""Where an entity type lives: one home and its copies, chosen among the configured stores, with the reasons.

`needs` and `data_type` choose the home, facets choose copies. An answer that cannot be a home only makes a copy. A
store that the configuration gives a facet's role and not the role of a home is dedicated to it and wins; otherwise the
home serves the facet itself, in its own commit, because fewer stores are better.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from polystore.config import Role
from polystore.entity import EntityType
from polystore.errors import ConfigurationError, did_you_mean
from polystore.facets import Needs
from polystore.model import Considered, Placement
from polystore.protocols import (
    SupportsCommit,
    SupportsFilter,
    SupportsJournal,
    SupportsKeptBodies,
    SupportsSchema,
    SupportsTextSearch,
    SupportsTraversal,
    SupportsVectorSearch,
)
from polystore.selection.beside import asked_beside, place_beside
from polystore.selection.candidate import Candidate, first_reason, rank, second_reason
from polystore.selection.matrix import PRODUCTS, ROLES, Preference, Row, copies_only, row_of, title
from polystore.selection.tree import (
    GRAPH_RELATIONS,
    RULES,
    SEARCH_HEAVY,
    TIME_SERIES,
    Requirements,
    select_database,
)

FACETS: Final[Mapping[str, tuple[str, type]]] = {
    "full_text": ("FullText()", SupportsTextSearch),
    "vector": ("Embedding()", SupportsVectorSearch),
    "graph": ("Relation()", SupportsTraversal),
}
"""Facet role -> how a field declares it, and what a store needs to serve it."""
# Searches and relations are said by facets, which choose copies; `Needs` cannot ask for these rules.
_ABOUT_FACETS: Final = frozenset(
    rule.name for rule in RULES if {SEARCH_HEAVY, GRAPH_RELATIONS, TIME_SERIES}.intersection(rule.all_of)
)
HOME_NEEDS: Final = (SupportsCommit, SupportsJournal)
JOURNALED_NEEDS: Final = (SupportsFilter, SupportsSchema)
"""Of a home that cannot commit: it holds whole records and answers conditions."""
JOURNAL_NEEDS: Final = (*HOME_NEEDS, SupportsKeptBodies)
"""Of the journal of such a home."""


def place(entity: EntityType[Any], stores: Sequence[Candidate], pins: Mapping[str, str] = {}) -> Placement:
    """The home of an entity type and the store of each of its facets, with the reasons.

    `pins` maps "home" or a facet's role to the store that the application wants; it is checked and then obeyed. Pure:
    equal arguments, equal answer. Raises ConfigurationError, saying how to mend it: a type of data that collections do
    not hold, a declaration that contradicts itself, no store that can be home or serve a facet, an impossible pin.
    """
    return _Placing(entity, stores, pins).placement()


def facet_fields(entity: EntityType[Any]) -> dict[Role, tuple[str, ...]]:
    """The facets of an entity that need a store to serve them, with their fields."""
    fields: dict[Role, tuple[str, ...]] = {
        "full_text": entity.full_text,
        "vector": tuple(entity.embeddings),
        "graph": tuple(entity.relations),
    }
    return {facet: names for facet, names in fields.items() if names}


class _Placing:
    """One run of the selector: what it decides, and what it says about it."""

    def __init__(self, entity: EntityType[Any], stores: Sequence[Candidate], pins: Mapping[str, str]) -> None:
        self.entity = entity
        self.stores = stores
        self.pins = pins
        self.facets = facet_fields(entity)
        self.why: list[str] = []
        self.considered: list[Considered] = []

    def fail(self, reason: str) -> ConfigurationError:
        return ConfigurationError(f"{self.entity.cls.__name__}: {reason}")

    def placement(self) -> Placement:
        if not self.stores:
            raise self.fail("no store is configured; name one, for example url = 'embedded:data'")
        self._check_pins()
        rule, preference = self._rule()
        home = self._home(preference)
        journal = self._journal(home)
        served: dict[str, str] = {}
        for facet in self.facets:
            served[facet] = self._serve(facet, home, served).name
        beside: dict[str, str] = {}
        for role in asked_beside(self.entity):
            store, considered = place_beside(self.entity, role, self.stores, home.name, self.pins.get(role))
            beside[role] = store.name
            self.considered += considered
        return Placement(
            etype=self.entity.name,
            home=home.name,
            facets=served,
            beside=beside,
            rule=rule,
            why=tuple(self.why),
            considered=tuple(self.considered),
            cost=cost_of(home.name, {**served, **({"journal": journal} if journal else {})}, self.stores),
            journal=journal,
            whole=bool(journal) and journal in served.values(),
        )

    # -- what the declaration asks for ------------------------------------------------------------------------

    def _rule(self) -> tuple[str, Preference]:
        """The rule that decides about the home, and the stores it prefers."""
        needs = self.entity.needs or Needs()
        row = None if self.entity.data_type is None else self._row(self.entity.data_type)
        choice = select_database(
            Requirements(
                needs_transactions=needs.transactions,
                complex_relations=needs.complex_relations,
                real_time=needs.real_time,
                data_size=needs.data_size,
            )
        )
        if row is not None and not needs.transactions:
            self.why.append(f"data_type {self.entity.data_type!r}: {row.why}")
            if needs != Needs():
                self.why.append("the needs are passed over: where no transactions are needed, data_type decides")
            return f"data_type {row.data_type}", ROLES[row.home]
        if row is not None:
            self.why.append(f"data_type {self.entity.data_type!r} is passed over: transactions are needed, and decide")
        for other in choice.passed_over:
            if other.rule not in _ABOUT_FACETS:
                self.considered.append(Considered("rule", title(other.stores), False, f"{other.rule}: {other.why_not}"))
        home = next((part for part in choice.parts if part.role == "home"), None)
        if home is not None:
            self.why.append(choice.why)
            return choice.rule, home
        (first, *more) = choice.parts
        if first.role == "live_state" and not more and any(map(self._keeps_live_records, self.stores)):
            self.why.append(choice.why)
            return choice.rule, Preference("document", first.stores, first.why)
        self.why.append(
            f"the rule says {choice}, which keeps state; this is a record, with versions and copies, so its home is a "
            "store that commits"
        )
        return choice.rule, ROLES["home"]

    def _keeps_live_records(self, store: Candidate) -> bool:
        """Whether a store that is no relational one, and made for live state, can be the home of records."""
        made_for_it = {*ROLES["live_state"].stores} - {*ROLES["home"].stores}
        return store.scheme in made_for_it and not self._unfit_home(store, "document")

    def _row(self, data_type: str) -> Row:
        try:
            row = row_of(data_type)
        except ConfigurationError as e:
            raise self.fail(str(e)) from None
        if row.kind != "record":
            raise self.fail(f"data_type {data_type!r} means {row.kind}s, which are not placed as records")
        if row.copy is not None and row.copy not in self.facets:
            declared = FACETS[row.copy][0]
            raise self.fail(
                f"data_type {data_type!r} contradicts the fields: none of them has {declared}; add it to a field, or "
                "leave data_type out"
            )
        return row

    # -- the home ---------------------------------------------------------------------------------------------

    def _home(self, preference: Preference) -> Candidate:
        pinned = self._pinned("home", preference)
        fit: list[Candidate] = []
        for store in self.stores:
            reason = "" if store is pinned else self._unfit_home(store, preference.role)
            if reason:
                self._consider("home", store, False, reason)
            else:
                fit.append(store)
        if not fit:
            reasons = "; ".join(f"{one.store}: {one.reason}" for one in self.considered if one.role == "home")
            raise self.fail(
                f"no configured store can be its home ({reasons}); configure one that commits, for example "
                "[stores.main] url = 'sqlite:app.db', or add 'home' to the roles of a store that can"
            )
        fit.sort(key=lambda store: (rank(store, preference), self._unserved(store)))
        chosen = pinned or fit[0]
        for store in fit:
            if store is not chosen:
                self._consider("home", store, False, second_reason(store, chosen, pinned is not None))
        self._consider("home", chosen, True, first_reason(chosen, preference, self.stores, pinned is not None))
        return chosen

    def _unfit_home(self, store: Candidate, role: str) -> str:
        if not store.roles & {"home", role}:
            return f"its roles do not include {'home' if role == 'home' else f'home or {role}'}"
        if store.can(*HOME_NEEDS):
            return ""
        if copies_only(store.scheme) or not store.can(*JOURNALED_NEEDS):
            return "it cannot commit records together with their outbox, so it only ever holds copies"
        if self.entity.mapped is not None:
            return "it cannot commit, and this class is a table of the application"
        if not self._journals():
            return "it cannot commit, so its records need a journal: a store that commits, with the role journal"
        return ""

    def _journals(self) -> list[Candidate]:
        """The stores that could be the journal of a home that cannot commit, the best first."""
        fit = [store for store in self.stores if "journal" in store.roles and store.can(*JOURNAL_NEEDS)]
        return sorted(fit, key=lambda store: rank(store, ROLES["journal"]))

    def _journal(self, home: Candidate) -> str:
        """The name of the journal of a home that cannot commit; "" for one that can."""
        if home.can(*HOME_NEEDS):
            if "journal" in self.pins:
                raise self.fail(f"the configuration pins journal, but {home.name!r} commits by itself; drop the pin")
            return ""
        fit, preference = self._journals(), ROLES["journal"]
        pinned = next((store for store in fit if store.name == self.pins.get("journal")), None)
        if pinned is None and "journal" in self.pins:
            raise self.fail(
                f"the configuration pins journal to {self.pins['journal']!r}, which cannot be the journal of "
                f"{home.name!r}; stores that can: {', '.join(store.name for store in fit)}"
            )
        chosen = pinned or fit[0]
        for store in fit:
            if store is not chosen:
                self._consider("journal", store, False, second_reason(store, chosen, pinned is not None))
        self._consider("journal", chosen, True, first_reason(chosen, preference, self.stores, pinned is not None))
        return chosen.name

    def _unserved(self, store: Candidate) -> int:
        return sum(bool(unfit(store, facet)) for facet in self.facets)

    # -- the facets -------------------------------------------------------------------------------------------

    def _serve(self, facet: Role, home: Candidate, served: Mapping[str, str]) -> Candidate:
        """The store of a facet: pinned, else dedicated, else the home, else any other; the best of its kind first."""
        preference = ROLES[facet]
        pinned = self._pinned(facet, preference)
        fit: list[Candidate] = []
        for store in self.stores:
            reason = unfit(store, facet)
            if reason:
                self._consider(facet, store, False, reason)
            else:
                fit.append(store)
        if not fit:
            declared, fields = FACETS[facet][0], ", ".join(self.facets[facet])
            raise self.fail(
                f"no configured store can serve {declared} of {fields}; add {facet!r} to the roles of a store that "
                f"can, configure one ({', '.join(preference.stores)}), or drop {declared}"
            )
        used = {home.name, *served.values()}

        def order(store: Candidate) -> tuple[int, int, bool]:
            group = 1 if store is home else 2 if _keeps_records(store) else 0
            return group, rank(store, preference), store.name not in used

        fit.sort(key=order)
        chosen = pinned or fit[0]
        dedicated = order(chosen)[0] == 0
        way = "in its own commit" if home.can(*HOME_NEEDS) else "itself"
        for store in fit:
            if store is not chosen:
                reason = second_reason(store, chosen, pinned is not None)
                if pinned is None and chosen is home:
                    reason = f"{home.name} is the home and serves it {way}: one store less"
                elif pinned is None and dedicated and order(store)[0]:
                    reason = f"{chosen.name} is dedicated to it"
                self._consider(facet, store, False, reason)
        reason = first_reason(chosen, preference, self.stores, pinned is not None)
        if pinned is None and chosen is home:
            commits = home.can(*HOME_NEEDS)
            reason = "the home serves it, in the same commit as the record" if commits else "the home serves it itself"
        elif pinned is None and dedicated:
            reason = f"dedicated to it by its roles; {reason}"
        self._consider(facet, chosen, True, reason)
        return chosen

    # -- pins -------------------------------------------------------------------------------------------------

    def _check_pins(self) -> None:
        for part in self.pins:
            if part not in ("home", "journal", "time_series", "cache", *FACETS):
                known = ", ".join(("home", "journal", *FACETS, "time_series", "cache"))
                raise self.fail(f"the configuration pins {part!r}, which is no part of a placement; known: {known}")
            if part == "time_series" and not self.entity.measures:
                raise self.fail("the configuration pins time_series, but the class has no Measure(); drop the pin")
            if part in FACETS and part not in self.facets:
                raise self.fail(f"the configuration pins {part}, but no field has {FACETS[part][0]}; drop the pin")

    def _pinned(self, part: Role, preference: Preference) -> Candidate | None:
        if part not in self.pins:
            return None
        name = self.pins[part]
        by_name = {store.name: store for store in self.stores}
        if name not in by_name:
            known = ", ".join(by_name)
            raise self.fail(
                f"the configuration pins {part} to {name!r}{did_you_mean(name, by_name)}; known stores: {known}"
            )
        store = by_name[name]
        # Whoever pins a store of documents means it, whatever rule would have decided.
        role = "document" if part == "home" and "document" in store.roles else preference.role
        reason = self._unfit_home(store, role) if part == "home" else unfit(store, part)
        if reason:
            raise self.fail(f"the configuration pins {part} to {name!r}, but {reason}; pin another store, or mend that")
        return store

    # -- words ------------------------------------------------------------------------------------------------

    def _consider(self, role: str, store: Candidate, chosen: bool, reason: str) -> None:
        self.considered.append(Considered(role, store.name, chosen, reason))


def _keeps_records(store: Candidate) -> bool:
    """Whether its roles make it a home of records, and not a store dedicated to a facet."""
    return "home" in store.roles or ("document" in store.roles and not copies_only(store.scheme))


def cost_of(home: str, facets: Mapping[str, str], stores: Sequence[Candidate]) -> str:
    """What it costs to have these stores, in sentences."""
    names = {home, *facets.values()}
    schemes = dict.fromkeys(store.scheme for store in stores if store.name in names)
    costs = [f"{PRODUCTS[scheme].title}: {PRODUCTS[scheme].cost}" for scheme in schemes if scheme in PRODUCTS]
    copies = len(names) - 1
    words = f"{copies} {'copy' if copies == 1 else 'copies'}: a delivery to each, a moment after the commit"
    return ". ".join((*costs, words if copies else "No copies: a write is one commit and nothing more")) + "."


def unfit(store: Candidate, facet: str) -> str:
    """Why a store cannot serve a facet; "" when it can."""
    if facet not in store.roles:
        return f"its roles do not include {facet}"
    if not store.can(FACETS[facet][1]):
        return f"it lacks the capability ({FACETS[facet][1].__name__})"
    return ""
