"""What each store is told of what it holds, and the vectors of records that are older than their `Embedding()`."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Any, cast

from polystore.collection.paging import after, position, total_order
from polystore.consistency import DataConsistencyManager
from polystore.consistency.aliases import take_aliases
from polystore.entity import EntityType
from polystore.errors import StoreError
from polystore.filters import Checked
from polystore.journaled import JournalEntity
from polystore.model import Placement, StoredVector, text_hash
from polystore.protocols import Layout, Repository, SupportsFilter, SupportsJournal, SupportsSchema, VectorSpec
from polystore.selection import kind_of
from polystore.store import Store

FILL_CHUNK = 500


async def prepare(
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
        told = {placement.authority, placement.home, *placement.targets()} & stores.keys() - {placement.cache}
        for name in sorted(told):
            layout = _layout(types[etype], placement, name, manager)
            layouts.setdefault(name, []).append(layout)

    async def tell(name: str, held: Sequence[Layout]) -> None:
        try:
            await cast(SupportsSchema, stores[name].repository).prepare(held, create=create)
        except StoreError as e:
            e.store, e.operation = e.store or name, e.operation or "prepare"
            raise

    able = {name: held for name, held in layouts.items() if stores[name].supports(SupportsSchema)}
    homes = {placement.authority for placement in placements.values()}  # nothing is made for one that refuses
    for first in (True, False):
        await asyncio.gather(*(tell(name, held) for name, held in able.items() if (name in homes) is first))
    await take_aliases(stores, placements.values(), manager.report, create=create)


async def prepare_again(
    stores: Mapping[str, Store],
    entity: EntityType[Any],
    placement: Placement,
    manager: DataConsistencyManager,
    only: Collection[str] | None = None,
) -> None:
    """Tell the stores of a type, or `only` some of them, what they hold of it now."""
    names = (placement.authority, *placement.targets()) if only is None else only
    told = {name: stores[name] for name in names if name in stores}
    await prepare(told, {entity.name: entity}, {entity.name: placement}, manager, create=True)


def _layout(entity: EntityType[Any], placement: Placement, store: str, manager: DataConsistencyManager) -> Layout:
    kind = kind_of(entity)
    if kind != "record":
        return Layout(entity, True, frozenset(), kind=cast(Any, kind))
    facets = placement.held(store)
    vectors: dict[str, VectorSpec] = {}
    if "vector" in facets:
        for field, one in manager.embedders.makings(entity.name).at(store).items():
            vectors[field] = VectorSpec(one.dimension, one.metric, one.model)
    commits = store == placement.authority
    held = JournalEntity(entity) if commits and placement.lent else entity
    return Layout(held, commits, cast(Any, facets), vectors)


async def fill_vectors(home: Store, entity: EntityType[Any], manager: DataConsistencyManager) -> None:
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
