"""Which store caches the records of an entity, and why none does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from polystore.entity import EntityType
from polystore.errors import ConfigurationError
from polystore.model import Considered, Placement
from polystore.protocols import SupportsInlineCache, SupportsInlineGet
from polystore.selection.candidate import Candidate, first_reason, rank
from polystore.selection.matrix import ROLES
from polystore.selection.remembered import Remembered


def with_caches(
    remembered: Mapping[str, Remembered],
    types: Mapping[str, EntityType[Any]],
    stores: Sequence[Candidate],
    pins: Mapping[str, Mapping[str, str]],
) -> dict[str, Remembered]:
    """The placements of records, each with its cache, see `with_cache`."""
    placements = {etype: one.placement for etype, one in remembered.items()}
    held = {
        name: etype
        for etype, one in placements.items()
        for name in (one.authority, one.home, *one.facets.values(), *one.upcoming.values())
    }
    return {
        etype: msgspec.structs.replace(
            one, placement=with_cache(one.placement, types[etype], stores, pins.get(etype, {}).get("cache"), held)
        )
        for etype, one in remembered.items()
    }


def with_cache(
    placement: Placement, entity: EntityType[Any], stores: Sequence[Candidate], pin: str | None, held: Mapping[str, str]
) -> Placement:
    """The placement with its cache: the pinned store; else the best one that is dedicated to it (its roles are given
    and `home` is not among them), unless the home reads single records without leaving the process, which is as fast.

    `held` maps the stores that hold records or facets to an entity that they hold: none of them caches, since what it
    answers would be taken for what it holds. Pure, and nothing to remember: a cache holds nothing that would be missed.
    Raises ConfigurationError, saying how to mend it, for a pin that cannot be, and for a strict type whose cache could
    not keep that promise.
    """
    by_name = {store.name: store for store in stores}
    name = entity.cls.__name__
    if pin is not None:
        if entity.cache == "off":
            raise ConfigurationError(f"{name}: the configuration pins cache, but the class says cache='off'; drop one")
        reason = _unfit(by_name[pin], held)
        if reason:
            raise ConfigurationError(
                f"{name}: the configuration pins cache to {pin!r}, but {reason}; pin another store, or mend that"
            )
        return _strict_fits(entity, _placed(placement, by_name[pin], stores, pinned=True), by_name[pin])
    if entity.cache == "off":
        return placement
    fit = [store for store in stores if not _unfit(store, held) and "home" not in store.roles]
    if not fit:
        return placement
    chosen = min(fit, key=lambda store: rank(store, ROLES["cache"]))
    home = by_name[placement.home]
    if home.capabilities is not None and home.can(SupportsInlineGet) and not placement.journal:
        reason = f"{home.name} reads a record as fast by itself; pin it to use it all the same"
        return _considered(placement, Considered("cache", chosen.name, False, reason))
    return _strict_fits(entity, _placed(placement, chosen, stores, pinned=False), chosen)


def _unfit(store: Candidate, held: Mapping[str, str]) -> str:
    if "cache" not in store.roles:
        return "its roles do not include cache"
    if store.name in held:
        return f"it holds records of {held[store.name]}, and a cache holds none"
    return ""


def _placed(placement: Placement, store: Candidate, stores: Sequence[Candidate], *, pinned: bool) -> Placement:
    reason = first_reason(store, ROLES["cache"], stores, pinned)
    return _considered(
        msgspec.structs.replace(placement, cache=store.name), Considered("cache", store.name, True, reason)
    )


def _considered(placement: Placement, one: Considered) -> Placement:
    return msgspec.structs.replace(placement, considered=(*placement.considered, one))


def _strict_fits(entity: EntityType[Any], placement: Placement, store: Candidate) -> Placement:
    if entity.cache == "strict":
        reason = ""
        if store.capabilities is not None and store.can(SupportsInlineCache):
            reason = f"and {store.name!r} is this process's own, of which other writers know nothing"
        elif entity.mapped:
            reason = "and the application writes to this class's table itself"
        if reason:
            raise ConfigurationError(
                f"{entity.cls.__name__}: cache='strict' needs a cache that is told of every write before its commit, "
                f"{reason}. Say cache='off' to read at {placement.home!r}, which is never outdated, or "
                "cache='bounded', or take the role cache from the store"
            )
    return placement
