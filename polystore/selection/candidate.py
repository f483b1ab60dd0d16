"""A configured store as the selector sees it, and the words for why it was chosen or not."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from polystore.selection.matrix import Preference, title


class Candidate(msgspec.Struct, frozen=True):
    """A configured store as the selector sees it. `capabilities` None: it was not asked, its roles are believed."""

    name: str
    scheme: str
    roles: frozenset[str]
    capabilities: frozenset[type] | None = None

    def can(self, *protocols: type) -> bool:
        return self.capabilities is None or self.capabilities.issuperset(protocols)

    def __str__(self) -> str:
        return f"{self.name} ({title((self.scheme,))})"


def rank(store: Candidate, preference: Preference) -> int:
    """The place in the preference; stores that it does not know come last, in the order of the configuration."""
    known = preference.stores
    return known.index(store.scheme) if store.scheme in known else len(known)


def first_reason(store: Candidate, preference: Preference, stores: Sequence[Candidate], pinned: bool) -> str:
    """Why this store."""
    if pinned:
        return "pinned by the configuration"
    best = preference.stores[0]
    if store.scheme == best:
        return f"the first choice: {preference.why}"
    if len(stores) == 1:
        return "the only configured store"
    if any(other.scheme == best for other in stores):
        return f"stands in for {title((best,))}, which does not fit here"
    return f"stands in for {title((best,))}, which is not configured"


def second_reason(store: Candidate, chosen: Candidate, pinned: bool) -> str:
    """Why not this store, though it would do."""
    if pinned:
        return f"the configuration pins {chosen.name}"
    if store.scheme == chosen.scheme:
        return f"{chosen.name} is of the same kind, and fewer stores are better"
    return f"comes after {chosen} in the order of preference"
