"""Where each entity type lives: as the journals remember it, else as the selector says."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import msgspec

from polystore.config import Config, StoreConfig
from polystore.embedders import kept, made, read_made, write_configs, write_made
from polystore.embedding import Embedder
from polystore.entity import EntityType
from polystore.errors import ConfigurationError
from polystore.model import Backlog
from polystore.protocols import SupportsJournal
from polystore.registry import scheme_of
from polystore.selection import Candidate, Remembered, place, reconcile, reconcile_alone, with_caches
from polystore.store import Store

log = logging.getLogger("polystore")


async def stored_placements(
    stores: Mapping[str, Store], types: Mapping[str, EntityType[Any]], records: Mapping[str, EntityType[Any]]
) -> Mapping[str, str]:
    """Entity name -> placement as its home remembers it, or the journal where it is no record. Raises
    ConfigurationError where the names of stores changed: records would be looked for where they are not."""
    found: dict[str, str] = {}
    for name, store in stores.items():
        if not store.supports(SupportsJournal):
            continue
        for etype, text in (await store.call(SupportsJournal.placements)).items():
            home = stored(text).authority
            if etype in records and home and home != name:
                raise ConfigurationError(
                    f"{etype}: the store {name!r} is its home under the name {home!r}; give it that name again: a home "
                    "never moves because the configuration changed"
                )
            if etype in records and etype in found:
                raise ConfigurationError(
                    f"{etype}: {stored(found[etype]).authority!r} and {name!r} are both its home; configure one of "
                    "them, and bring the records of the other over by import_many"
                )
            found[etype] = text
    return found


class _Stored(msgspec.Struct):
    home: str = ""
    facets: Mapping[str, str] = {}
    upcoming: Mapping[str, str] = {}
    leaving: Mapping[str, str] = {}
    beside: Mapping[str, str] = {}
    made_of: Mapping[str, str] = {}
    made: Mapping[str, str] = {}
    journal: str = ""

    @property
    def authority(self) -> str:
        return self.journal or self.home


def stored(text: str) -> _Stored:
    try:
        return msgspec.json.decode(text, type=_Stored)
    except msgspec.DecodeError:
        return _Stored()  # `reconcile` says what is wrong with it


async def placed(
    config: Config,
    types: Mapping[str, EntityType[Any]],
    records: Mapping[str, EntityType[Any]],
    stores: Mapping[str, Store],
    journals: Mapping[str, str],
    embedders: Mapping[str, Embedder],
) -> dict[str, Remembered]:
    candidates = [_candidate(name, one, stores.get(name), journals) for name, one in config.stores.items()]
    remembered: dict[str, Remembered] = {}
    for etype, one in types.items():
        text = journals.get(etype)
        if etype not in records:
            remembered[etype] = reconcile_alone(text, one, candidates, config.pins.get(etype, {}))
            continue
        wanted = place(one, candidates, config.pins.get(etype, {}))
        owed = await _owed(None if text is None else stores.get(stored(text).authority), etype)
        makings = _made_of(one, stored(text or ""), embedders) if one.embeddings else ()
        remembered[etype] = reconcile(text, wanted, candidates, owed, *makings)
    return remembered | with_caches({etype: remembered[etype] for etype in records}, types, candidates, config.pins)


def _made_of(
    entity: EntityType[Any], before: _Stored, embedders: Mapping[str, Embedder]
) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """How the vectors of a type are made where they serve, and what makes them, in all its places: a changed model
    serves only after a rebuild. And how they are made in its other places."""
    made_of = before.made_of
    fields = kept(read_made(made_of.get("vector", "")), made(entity, embedders), entity.renamed)
    places = {name: kept(read_made(words), fields, entity.renamed) for name, words in before.made.items()}
    models = {one.model for place in (fields, *places.values()) for one in place.values()}
    configs = write_configs(models, embedders.values(), made_of.get("embedders", ""))
    return {"vector": write_made(fields), "embedders": configs}, {n: write_made(one) for n, one in places.items()}


def _candidate(name: str, config: StoreConfig, store: Store | None, journals: Mapping[str, str]) -> Candidate:
    """A store as the selector sees it. One that does not answer keeps what it has and gets nothing new."""
    scheme = scheme_of(config.url) or ""
    if store is not None:
        return Candidate(name, scheme, store.roles, store.capabilities)
    had = [stored(text) for text in journals.values()]
    kept = {
        role
        for one in had
        for role, by in (*one.facets.items(), *one.upcoming.items(), *one.beside.items())
        if by == name
    }
    return Candidate(name, scheme, frozenset(kept) | ({"cache"} & {*(config.roles or ())}))


async def _owed(home: Store | None, etype: str) -> Mapping[str, int]:
    """How much of a type is owed to each copy; what is parked, which `dlq drop` takes away, of all types together."""
    backlog = Backlog(0, None, {}, {}) if home is None else await home.call(SupportsJournal.backlog)
    of_type = {name: rows for (one, name), rows in backlog.owed.items() if one == etype}
    return {name: of_type.get(name, 0) + backlog.parked.get(name, 0) for name in {*of_type, *backlog.parked}}


async def remember(
    stores: Mapping[str, Store], remembered: Mapping[str, Remembered], journal: Store | None, before: Mapping[str, str]
) -> None:
    """Store the placements that are new. A standing copy that gets another facet is filled again: the manager only
    fills copies that it does not know. Raises ConfigurationError when another process has placed a type otherwise since
    the journals were read (`before`): what it has begun is not to be taken back unseen."""
    for etype, one in remembered.items():
        own = stores.get(one.placement.authority)  # no record needs its home when it is optional
        # Of what is no record, the journal remembers where it lives.
        home = own if own is not None and own.supports(SupportsJournal) else journal
        now = None if home is None or not one.changed else (await home.call(SupportsJournal.placements)).get(etype)
        if now not in (None, before.get(etype), one.json):
            raise _placed_by_another(etype)
        if one.changed and home is not None and now != one.json:
            for row in await home.call(SupportsJournal.targets):
                if row.etype == etype and row.name in one.backfill and row.status != "off":
                    again = msgspec.structs.replace(row, status="backfilling", cursor=None)
                    await home.call(SupportsJournal.set_target, again)
            if not await home.call(SupportsJournal.remember, etype, one.json, now):
                raise _placed_by_another(etype)
        for advice in one.advice:
            log.warning("%s", advice)


def _placed_by_another(etype: str) -> ConfigurationError:
    return ConfigurationError(
        f"another process has placed {etype} at this moment, while this one was opened; open it again"
    )
