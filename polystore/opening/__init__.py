"""What `HybridDataArchitecture.open` does, step by step.

Connect all stores, ask the journals where each entity type lives, place what is new, prepare the stores for it,
remember it, and start the consistency manager. Everything opened is put on an exit stack at once.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from os import PathLike
from typing import Any

import msgspec

from polystore.cache import open_caches
from polystore.collection import Wiring
from polystore.collection.sweeping import open_files
from polystore.config import Config, StoreConfig, load_config, resolve_entities
from polystore.consistency import DataConsistencyManager, Settings
from polystore.consistency.adoption import adopt, check_home
from polystore.consistency.facts import Facts, check_log
from polystore.consistency.strict import check_strict
from polystore.embedders import Made, made_again, make, model_of, read_made
from polystore.embedding import Embedder, HashedEmbedder
from polystore.entity import EntityType, entity_types
from polystore.env import Env
from polystore.errors import ConfigurationError, StoreError
from polystore.journaled import lend
from polystore.model import Placement
from polystore.opening.latecomers import Known, Latecomers, answering
from polystore.opening.places import Places, with_places
from polystore.opening.placing import placed, remember, stored_placements
from polystore.opening.preparing import fill_vectors, prepare, prepare_again
from polystore.protocols import Repository
from polystore.selection import Remembered, kind_of, live_state_store
from polystore.selection.moves import configs_in
from polystore.store import Store, open_store

log = logging.getLogger("polystore")


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
    types = _types(loaded, entities)
    known_embedders = _embedders(exits, loaded, embedders)
    records = {etype: one for etype, one in types.items() if kind_of(one) == "record"}
    later = await exits.enter_async_context(AsyncExitStack())
    stores, absent = await _connect(exits, loaded, env)
    journals = await stored_placements(stores, types, records)
    remembered = await placed(loaded, types, records, stores, journals, known_embedders)
    for name, place in with_places(loaded.stores, [one.json for one in remembered.values()]).items():
        await _connect_one(exits, name, place, env, stores, absent)
    alone = {etype: one.placement for etype, one in remembered.items() if etype not in records}
    placements = {etype: one.placement for etype, one in remembered.items() if etype in records}
    _check_homes(stores, records, placements, settings or Settings())
    lend(env, stores, records, placements)
    caches, result_cache = open_caches(exits, stores, records, placements, env)
    known = Known(
        stores,
        {**stores, **{cache.name: cache for cache in caches.values()}},
        caches,
        {etype: cache.committed for etype, cache in caches.items()},
    )
    others = _others(exits, placements, {etype: remembered[etype].json for etype in records}, known_embedders)
    manager = _manager(env, records, known, placements, known_embedders, others, settings)
    await prepare(stores, types, {**placements, **alone}, manager, create)
    for etype, placement in placements.items():
        if records[etype].mapped:
            await adopt(stores[placement.home], etype)
    for etype, one in remembered.items():
        if "vector" in one.fill:
            await fill_vectors(stores[one.placement.authority], types[etype], manager)
    journal = _journal(stores, placements)
    logs = {etype: one for etype, one in alone.items() if kind_of(types[etype]) == "fact"}
    facts = Facts(manager, types, stores, logs, journal)
    await remember(stores, remembered, journal, journals)
    exits.push_async_callback(manager.stop)
    manager.mover.reach = Places(loaded.stores, env, known, later).reach
    manager.mover.prepare = lambda placement, names: prepare_again(
        stores, types[placement.etype], placement, manager, names
    )
    await manager.start()
    exits.push_async_callback(facts.stop)
    facts.start()
    exits.push_async_callback(manager.drain)
    await _look_at_models(stores, remembered, manager, create)
    live_state = live_state_store(loaded, stores)
    files = await open_files(exits, env, stores, placements, manager, journal)
    late = Latecomers(env, manager, types, {**placements, **alone}, known, later, facts.came)
    exits.push_async_callback(late.stop)
    late.start(absent, create=create)
    wiring = Wiring(
        env, types, stores, placements, manager, facts, alone, journal, live_state, caches, files, result_cache
    )
    return wiring, remembered


def _manager(
    env: Env,
    records: Mapping[str, EntityType[Any]],
    known: Known,
    placements: dict[str, Placement],
    embedders: Mapping[str, Embedder],
    others: Sequence[Embedder],
    settings: Settings | None,
) -> DataConsistencyManager:
    return DataConsistencyManager(
        env,
        records,
        known.delivered,
        placements,
        embedders,
        settings,
        others=others,
        committed=known.committed,
        strict={etype: cache for etype, cache in known.caches.items() if records[etype].cache == "strict"},
    )


def _types(config: Config, entities: Sequence[type[Any]]) -> dict[str, EntityType[Any]]:
    """The configured entities and the given ones, by name. Raises ConfigurationError, EntityError."""
    types = entity_types([*resolve_entities(config), *entities])
    if not types:
        raise ConfigurationError(
            f"{config.source}: no entities; give their classes to open(entities=[...]), or name their modules under "
            "entities in polystore.toml"
        )
    for etype in config.pins:
        if etype not in types:
            known = ", ".join(sorted(types))
            raise ConfigurationError(f"{config.source}: pins.{etype}: no entity has this name; known: {known}")
    for entity in types.values():
        if kind_of(entity) == "fact":
            check_log(entity)
    return types


def _check_homes(
    stores: Mapping[str, Store],
    records: Mapping[str, EntityType[Any]],
    placements: Mapping[str, Placement],
    settings: Settings,
) -> None:
    """Raises ConfigurationError where a home does not answer, or cannot keep what its records ask for."""
    for etype, placement in placements.items():
        for role, name in (("home", placement.home), ("journal", placement.authority)):
            if name not in stores:
                raise ConfigurationError(f"{etype}: its {role} {name!r} does not answer; it cannot be optional")
        if records[etype].mapped:
            check_home(stores[placement.home], etype)
        if records[etype].cache == "strict":
            check_strict(etype, placement.cache, stores, settings)


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


def _others(
    exits: AsyncExitStack,
    placements: Mapping[str, Placement],
    texts: Mapping[str, str],
    embedders: Mapping[str, Embedder],
) -> Sequence[Embedder]:
    """The embedders beside the configured ones that stored vectors were made with, as far as they can be made."""
    others: dict[str, Embedder] = {}
    for etype, placement in placements.items():
        made = [read_made(words) for words in placement.made.values()]
        models = {one.model for fields in made for one in fields.values()} - others.keys()
        again = made_again(models, embedders.values(), configs_in(texts[etype]))
        others |= {model_of(one): one for one in again}
    _close_with(exits, others.values())
    return list(others.values())


def _close_with(exits: AsyncExitStack, embedders: Iterable[Embedder]) -> None:
    for embedder in embedders:
        close = getattr(embedder, "aclose", None)
        if close is not None:
            exits.push_async_callback(close)


async def _look_at_models(
    stores: Mapping[str, Store], remembered: dict[str, Remembered], manager: DataConsistencyManager, create: bool
) -> None:
    """Where the configured models are not those of the stored vectors: without a record they serve at once."""
    for etype, placement in manager.placements.items():
        outdated = manager.embedders.outdated(etype)
        if outdated and create and not await stores[placement.authority].call(Repository.tenants, etype):
            await manager.rebuilder.switch(etype)
            continue
        if advice := (*_of_outdated(etype, manager, outdated), *_of_upcoming(placement, manager)):
            for text in advice:
                log.warning("%s", text)
            one = remembered[etype]
            remembered[etype] = msgspec.structs.replace(one, advice=(*one.advice, *advice))


def _of_outdated(etype: str, manager: DataConsistencyManager, outdated: Mapping[str, Made]) -> tuple[str, ...]:
    """What is to be said of models that serve and are not the configured ones."""
    serving, gone = manager.embedders.serving(etype), manager.embedders.gone(etype)
    return tuple(
        f"the vectors of {etype}.{field} are made with {serving[field].model!r} ({serving[field].metric}), configured "
        f"is {wanted.model!r} ({wanted.metric}). "
        + ("The old one cannot be asked any more, so similarity raises" if field in gone else "The old one serves")
        + f" until `polystore rebuild {etype}`"
        for field, wanted in sorted(outdated.items())
    )


def _of_upcoming(placement: Placement, manager: DataConsistencyManager) -> tuple[str, ...]:
    """What is to be said of models that vectors change over to, and that are not the configured ones."""
    etype, embedders = placement.etype, manager.embedders
    configured = {**embedders.serving(etype), **embedders.outdated(etype)}
    coming = embedders.models_in(etype, placement.upcoming) - {one.model for one in configured.values()}
    if not coming - embedders.models_in(etype, placement.facets):  # it only moves, as it is
        return ()
    return (
        f"the vectors of {etype} change over to {', '.join(sorted(coming))}, as another process has begun, and not to "
        f"what is configured here; `polystore rebuild {etype}` takes that back",
    )


# -- stores -------------------------------------------------------------------------------------------------------


async def _connect(exits: AsyncExitStack, config: Config, env: Env) -> tuple[dict[str, Store], dict[str, StoreConfig]]:
    """One store after the other: the first use of a driver may import for a second, in which the loop stands still, and
    another store's answer would come too late. An optional one that does not answer is left out, and told."""
    stores: dict[str, Store] = {}
    absent: dict[str, StoreConfig] = {}
    for name, one in config.stores.items():
        await _connect_one(exits, name, one, env, stores, absent)
    return stores, absent


async def _connect_one(
    exits: AsyncExitStack,
    name: str,
    config: StoreConfig,
    env: Env,
    stores: dict[str, Store],
    absent: dict[str, StoreConfig],
) -> None:
    try:
        stores[name] = await _store(exits, name, config, env)
    except StoreError as error:
        if config.required:
            raise
        log.warning("%s is left out until it answers: %s", name, error)
        absent[name] = config


async def _store(exits: AsyncExitStack, name: str, config: StoreConfig, env: Env) -> Store:
    store = await (open_store if config.required else answering)(name, config, env)
    exits.push_async_callback(store.aclose)
    return store


def _journal(stores: Mapping[str, Store], placements: Mapping[str, Placement]) -> Store | None:
    """The commit store that keeps what is owed to stores without a journal of their own: a home of records, if any."""
    homes = [placement.authority for placement in placements.values()]
    able = [name for name, store in stores.items() if "journal" in store.roles]
    return next((stores[name] for name in (*homes, *able)), None)
