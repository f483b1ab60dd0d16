"""What `HybridDataArchitecture.open` does, step by step.

Connect all stores, ask the journals where each entity type lives, place what is new, prepare the stores for it,
remember it, and start the consistency manager. Everything opened is put on an exit stack at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from os import PathLike
from typing import Any, cast

import msgspec

from polystore.cache import open_caches
from polystore.collection import Wiring
from polystore.collection.paging import after, position, total_order
from polystore.collection.sweeping import open_files
from polystore.config import Config, StoreConfig, load_config, resolve_entities
from polystore.consistency import DataConsistencyManager, Settings
from polystore.consistency.adoption import adopt, check_home
from polystore.consistency.facts import Facts, check_log
from polystore.consistency.strict import check_strict
from polystore.embedders import Made, kept, made, made_again, make, model_of, read_made, write_configs, write_made
from polystore.embedding import Embedder, HashedEmbedder
from polystore.entity import EntityType, entity_types
from polystore.env import Env
from polystore.errors import ConfigurationError, StoreError
from polystore.filters import Checked
from polystore.model import Backlog, Placement, StoredVector, text_hash
from polystore.protocols import Layout, Repository, SupportsFilter, SupportsJournal, SupportsSchema, VectorSpec
from polystore.registry import scheme_of
from polystore.selection import (
    Candidate,
    Remembered,
    kind_of,
    live_state_store,
    place,
    reconcile,
    reconcile_alone,
    with_caches,
)
from polystore.store import Store, open_store

log = logging.getLogger("polystore")

FILL_CHUNK = 500


async def open_all(
    exits: AsyncExitStack,
    config: str | PathLike[str] | Mapping[str, Any] | None,
    entities: Sequence[type[Any]],
    embedders: Mapping[str, Embedder],
    *,
    create: bool,
    env: Env,
    settings: Settings | None,
) -> tuple[Wiring, Mapping[str, Remembered]]:
    """The running parts of an architecture; `exits` closes them again, in the right order."""
    loaded = load_config(config)
    types = entity_types([*resolve_entities(loaded), *entities])
    if not types:
        raise ConfigurationError(
            f"{loaded.source}: no entities; give their classes to open(entities=[...]), or name their modules under "
            "entities in polystore.toml"
        )
    _check_pins(loaded, types)
    known_embedders = _embedders(exits, loaded, embedders)
    records = {etype: one for etype, one in types.items() if kind_of(one) == "record"}
    for entity in types.values():
        if kind_of(entity) == "fact":
            check_log(entity)
    stores = await _connect(exits, loaded, env)
    journals = await _stored_placements(stores, types, records)
    remembered = await _placed(loaded, types, records, stores, journals, known_embedders)
    alone = {etype: one.placement for etype, one in remembered.items() if etype not in records}
    placements = {etype: one.placement for etype, one in remembered.items() if etype in records}
    for etype, placement in placements.items():
        if placement.home not in stores:
            raise ConfigurationError(f"{etype}: its home {placement.home!r} does not answer; it cannot be optional")
        if records[etype].mapped:
            check_home(stores[placement.home], etype)
        if records[etype].cache == "strict":
            check_strict(etype, placement.cache, stores, settings or Settings())
    serving, others = _makings(exits, {etype: remembered[etype].json for etype in records}, known_embedders)
    caches, result_cache = open_caches(exits, stores, records, placements, env)
    manager = DataConsistencyManager(
        env,
        records,
        {**stores, **{cache.name: cache for cache in caches.values()}},
        placements,
        known_embedders,
        settings,
        serving=serving,
        others=others,
        committed={etype: cache.committed for etype, cache in caches.items()},
        strict={etype: cache for etype, cache in caches.items() if records[etype].cache == "strict"},
    )
    await _prepare(stores, types, {**placements, **alone}, manager, create)
    for etype, placement in placements.items():
        if records[etype].mapped:
            await adopt(stores[placement.home], etype)
    for etype, one in remembered.items():
        if "vector" in one.fill:
            await _fill_vectors(stores[one.placement.home], types[etype], manager)
    journal = _journal(stores, placements)
    logs = {etype: one for etype, one in alone.items() if kind_of(types[etype]) == "fact"}
    facts = Facts(manager, types, stores, logs, journal)
    await _remember(stores, remembered, journal)
    exits.push_async_callback(manager.stop)
    manager.rebuilder.prepare = lambda etype: _prepare_again(stores, types[etype], placements[etype], manager)
    await manager.start()
    exits.push_async_callback(facts.stop)
    facts.start()
    exits.push_async_callback(manager.drain)
    for etype, placement in placements.items():
        if outdated := manager.embedders.outdated(etype):
            if create and not await stores[placement.home].call(Repository.tenants, etype):
                await manager.rebuilder.switch(etype)
            else:
                remembered[etype] = _advised(remembered[etype], manager, outdated)
    live_state = live_state_store(loaded, stores)
    files = await open_files(exits, env, stores, placements, manager, journal)
    wiring = Wiring(
        env, types, stores, placements, manager, facts, alone, journal, live_state, caches, files, result_cache
    )
    return wiring, remembered


def _check_pins(config: Config, types: Mapping[str, EntityType[Any]]) -> None:
    for etype in config.pins:
        if etype not in types:
            known = ", ".join(sorted(types))
            raise ConfigurationError(f"{config.source}: pins.{etype}: no entity has this name; known: {known}")


# -- embedders ----------------------------------------------------------------------------------------------------


def _embedders(exits: AsyncExitStack, config: Config, given: Mapping[str, Embedder]) -> Mapping[str, Embedder]:
    """All by name. Those of the configuration are closed by `exits`; a given one belongs to the application."""
    configured: dict[str, Embedder] = {}
    for name, one in config.embedders.items():
        try:
            configured[name] = make(one)
        except ConfigurationError as e:
            raise ConfigurationError(f"{config.source}: embedders.{name}: {e}") from e.__cause__
    _close_with(exits, configured.values())
    return {"default": HashedEmbedder(), **configured, **given}


def _makings(
    exits: AsyncExitStack, texts: Mapping[str, str], embedders: Mapping[str, Embedder]
) -> tuple[Mapping[str, Mapping[str, Made]], Sequence[Embedder]]:
    """How the stored vectors of each type are made, and the embedders that are needed for them beside the configured
    ones, as far as they can be made."""
    serving: dict[str, Mapping[str, Made]] = {}
    others: dict[str, Embedder] = {}
    for etype, text in texts.items():
        made_of = _stored(text).made_of
        serving[etype] = read_made(made_of.get("vector", ""))
        models = {one.model for one in serving[etype].values()} - others.keys()
        again = made_again(models, embedders.values(), made_of.get("embedders", ""))
        others |= {model_of(one): one for one in again}
    _close_with(exits, others.values())
    return serving, list(others.values())


def _close_with(exits: AsyncExitStack, embedders: Iterable[Embedder]) -> None:
    for embedder in embedders:
        close = getattr(embedder, "aclose", None)
        if close is not None:
            exits.push_async_callback(close)


def _advised(one: Remembered, manager: DataConsistencyManager, outdated: Mapping[str, Made]) -> Remembered:
    """With what is to be said of a model that is not the configured one, which is logged too."""
    etype = one.placement.etype
    serving, gone = manager.embedders.serving(etype), manager.embedders.gone(etype)
    advice = tuple(
        f"the vectors of {etype}.{field} are made with {serving[field].model!r} ({serving[field].metric}), configured "
        f"is {wanted.model!r} ({wanted.metric}). "
        + ("The old one cannot be asked any more, so similarity raises" if field in gone else "The old one serves")
        + f" until `polystore rebuild {etype}`"
        for field, wanted in sorted(outdated.items())
    )
    for text in advice:
        log.warning("%s", text)
    return msgspec.structs.replace(one, advice=(*one.advice, *advice))


# -- stores -------------------------------------------------------------------------------------------------------


async def _connect(exits: AsyncExitStack, config: Config, env: Env) -> dict[str, Store]:
    """All stores at the same time. An optional one that does not answer is left out."""
    made = await asyncio.gather(
        *(_store(exits, name, one, env) for name, one in config.stores.items()), return_exceptions=True
    )
    stores: dict[str, Store] = {}
    for (name, one), result in zip(config.stores.items(), made, strict=True):
        if isinstance(result, Store):
            stores[name] = result
        elif isinstance(result, StoreError) and not one.required:
            log.warning("%s is left out: %s", name, result)
        else:
            raise result
    return stores


async def _store(exits: AsyncExitStack, name: str, config: StoreConfig, env: Env) -> Store:
    store = await open_store(name, config, env)
    exits.push_async_callback(store.aclose)
    return store


# -- placements ---------------------------------------------------------------------------------------------------


def _journal(stores: Mapping[str, Store], placements: Mapping[str, Placement]) -> Store | None:
    """The commit store that keeps what is owed to stores without a journal of their own: a home of records, if any."""
    homes = [placement.home for placement in placements.values()]
    able = [name for name, store in stores.items() if "journal" in store.roles]
    return next((stores[name] for name in (*homes, *able)), None)


async def _stored_placements(
    stores: Mapping[str, Store], types: Mapping[str, EntityType[Any]], records: Mapping[str, EntityType[Any]]
) -> Mapping[str, str]:
    """Entity name -> placement as its home remembers it, or the journal where it is no record. Raises
    ConfigurationError where the names of stores changed: records would be looked for where they are not."""
    found: dict[str, str] = {}
    for name, store in stores.items():
        if not store.supports(SupportsJournal):
            continue
        for etype, text in (await store.call(SupportsJournal.placements)).items():
            home = _stored(text).home
            if etype in records and home and home != name:
                raise ConfigurationError(
                    f"{etype}: the store {name!r} is its home under the name {home!r}; give it that name again: a home "
                    "never moves because the configuration changed"
                )
            if etype in records and etype in found:
                raise ConfigurationError(
                    f"{etype}: {_stored(found[etype]).home!r} and {name!r} are both its home; configure one of them, "
                    "and bring the records of the other over by import_many"
                )
            found[etype] = text
    return found


class _Stored(msgspec.Struct):
    home: str = ""
    facets: Mapping[str, str] = {}
    beside: Mapping[str, str] = {}
    made_of: Mapping[str, str] = {}


def _stored(text: str) -> _Stored:
    try:
        return msgspec.json.decode(text, type=_Stored)
    except msgspec.DecodeError:
        return _Stored()  # `reconcile` says what is wrong with it


async def _placed(
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
        owed = await _owed(None if text is None else stores.get(_stored(text).home))
        before: Mapping[str, str] = {} if text is None else _stored(text).made_of
        made_of: Mapping[str, str] = _made_of(one, before, embedders) if one.embeddings else {}
        remembered[etype] = reconcile(text, wanted, candidates, owed, made_of)
    return remembered | with_caches({etype: remembered[etype] for etype in records}, types, candidates, config.pins)


def _made_of(
    entity: EntityType[Any], before: Mapping[str, str], embedders: Mapping[str, Embedder]
) -> Mapping[str, str]:
    """How the vectors of a type are made, and what makes them: a changed model serves only after a rebuild."""
    fields = kept(read_made(before.get("vector", "")), made(entity, embedders), entity.renamed)
    models = {one.model for one in fields.values()}
    return {
        "vector": write_made(fields),
        "embedders": write_configs(models, embedders.values(), before.get("embedders", "")),
    }


def _candidate(name: str, config: StoreConfig, store: Store | None, journals: Mapping[str, str]) -> Candidate:
    """A store as the selector sees it. One that does not answer keeps what it has and gets nothing new."""
    scheme = scheme_of(config.url) or ""
    if store is not None:
        return Candidate(name, scheme, store.roles, store.capabilities)
    had = [_stored(text) for text in journals.values()]
    kept = {role for one in had for role, by in (*one.facets.items(), *one.beside.items()) if by == name}
    return Candidate(name, scheme, frozenset(kept) | ({"cache"} & {*(config.roles or ())}))


async def _owed(home: Store | None) -> Mapping[str, int]:
    backlog = Backlog(0, None, {}, {}) if home is None else await home.call(SupportsJournal.backlog)
    names = {*backlog.retry, *backlog.parked}
    return {name: backlog.retry.get(name, 0) + backlog.parked.get(name, 0) for name in names}


async def _prepare(
    stores: Mapping[str, Store],
    types: Mapping[str, EntityType[Any]],
    placements: Mapping[str, Placement],
    manager: DataConsistencyManager,
    create: bool,
) -> None:
    """Tell each store what it holds; one that keeps nothing of the records is told of no entity. Not under the store's
    deadline: carrying records over takes its time."""
    layouts: dict[str, list[Layout]] = {
        name: [] for name, store in stores.items() if store.roles & {"time_series", "live_state", "file", "cache"}
    }
    for etype, placement in placements.items():
        for name in {placement.home, *placement.facets.values()} & stores.keys():
            layout = _layout(types[etype], placement, name, manager)
            layouts.setdefault(name, []).append(layout)

    async def prepare(name: str, held: Sequence[Layout]) -> None:
        try:
            await cast(SupportsSchema, stores[name].repository).prepare(held, create=create)
        except StoreError as e:
            e.store, e.operation = e.store or name, e.operation or "prepare"
            raise

    able = {name: held for name, held in layouts.items() if stores[name].supports(SupportsSchema)}
    homes = {placement.home for placement in placements.values()}  # nothing is made for one that refuses
    for first in (True, False):
        await asyncio.gather(*(prepare(name, held) for name, held in able.items() if (name in homes) is first))


async def _prepare_again(
    stores: Mapping[str, Store], entity: EntityType[Any], placement: Placement, manager: DataConsistencyManager
) -> None:
    """Tell the home of a type and the copy of its vectors how these are made now."""
    told = {name: stores[name] for name in (placement.home, *placement.copies()) if name in stores}
    await _prepare(told, {entity.name: entity}, {entity.name: placement}, manager, create=True)


def _layout(entity: EntityType[Any], placement: Placement, store: str, manager: DataConsistencyManager) -> Layout:
    kind = kind_of(entity)
    if kind != "record":
        return Layout(entity, True, frozenset(), kind=cast(Any, kind))
    facets = frozenset(facet for facet, by in placement.facets.items() if by == store)
    vectors: dict[str, VectorSpec] = {}
    if "vector" in facets:
        for field, one in manager.embedders.serving(entity.name).items():
            vectors[field] = VectorSpec(one.dimension, one.metric, one.model)
    return Layout(entity, store == placement.home, cast(Any, facets), vectors)


async def _fill_vectors(home: Store, entity: EntityType[Any], manager: DataConsistencyManager) -> None:
    """Make the vectors of records that are older than `Embedding()` on their class, where the home itself serves them
    and the embedder works within the write; other embedders find them by their own backfill. Repeats are harmless."""
    order, serving = total_order(entity, ()), manager.embedders.serving(entity.name)
    for tenant in await home.call(Repository.tenants, entity.name):
        rest: Checked | None = None
        while True:
            records = await home.call(SupportsFilter.find, entity.name, tenant, rest, order, FILL_CHUNK)
            made = [
                StoredVector(record.key, field, serving[field].model, text_hash(body[field]), vector)
                for record in records
                for body in (record.body or {},)
                for field, vector in manager.inline_vectors(entity.name, body).items()
                if field in entity.embedded_texts
            ]
            await home.call(SupportsJournal.put_vectors, made)
            if len(records) < FILL_CHUNK:
                break
            rest = after(entity, order, position(order, records[-1].body or {}))


async def _remember(stores: Mapping[str, Store], remembered: Mapping[str, Remembered], journal: Store | None) -> None:
    """Store the placements that are new. A standing copy that gets another facet is filled again: the manager only
    fills copies that it does not know."""
    for etype, one in remembered.items():
        own = stores.get(one.placement.home)  # no record needs its home when it is optional
        # Of what is no record, the journal remembers where it lives.
        home = own if own is not None and own.supports(SupportsJournal) else journal
        if one.changed and home is not None:
            for row in await home.call(SupportsJournal.targets):
                if row.etype == etype and row.name in one.backfill and row.status == "active":
                    again = msgspec.structs.replace(row, status="backfilling", cursor=None)
                    await home.call(SupportsJournal.set_target, again)
            await home.call(SupportsJournal.remember, etype, one.json)
        for advice in one.advice:
            log.warning("%s", advice)
