"""Optional stores that did not answer when all was opened: asked again until they do, and then delivered to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any, NamedTuple

from polystore.cache import CacheStore, open_caches
from polystore.config import StoreConfig
from polystore.consistency import DataConsistencyManager
from polystore.consistency.copies import register
from polystore.entity import EntityType
from polystore.env import Env
from polystore.errors import PolystoreError, SchemaMismatch
from polystore.model import Change, Placement
from polystore.opening.preparing import prepare
from polystore.protocols import Repository, SupportsJournal
from polystore.store import Store, open_store

AGAIN_S = 2.0


async def answering(name: str, config: StoreConfig, env: Env) -> Store:
    """A store that is there now: not every adapter connects before it is asked. Raises as the adapter does."""
    store = await open_store(name, config, env)
    try:
        await store.call(Repository.ping)
    except SchemaMismatch:
        pass  # it answers; what it lacks is made when it is prepared
    except BaseException:
        await store.aclose()
        raise
    return store


class Known(NamedTuple):
    """By what the parts of an architecture find a store: by name, by name for who delivers, by the type it caches; and
    whom a commit of a type is told to. A store that has come is added to them."""

    stores: dict[str, Store]
    delivered: dict[str, Store]
    caches: dict[str, CacheStore]
    committed: dict[str, Callable[[Change], None]]


class Latecomers:
    """What is placed is what was placed at `open`: a store that comes late takes up what it had, and gets nothing new.

    `exits` closes those that have come, `came` is told of them.
    """

    def __init__(
        self,
        env: Env,
        manager: DataConsistencyManager,
        types: Mapping[str, EntityType[Any]],
        placements: Mapping[str, Placement],
        known: Known,
        exits: AsyncExitStack,
        came: Callable[[str], None],
    ) -> None:
        self._env = env
        self._manager = manager
        self._types = types
        self._placements = placements
        self._known = known
        self._exits = exits
        self._came = came
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, absent: Mapping[str, StoreConfig], *, create: bool) -> None:
        self._tasks = [asyncio.create_task(self._wait(name, one, create)) for name, one in absent.items()]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _wait(self, name: str, config: StoreConfig, create: bool) -> None:
        while True:
            await asyncio.sleep(AGAIN_S * self._env.random.uniform(0.5, 1))
            try:
                store = await answering(name, config, self._env)
            except PolystoreError:
                continue  # as at `open`, where it was said
            except Exception as e:  # noqa: BLE001 -- nobody waits for this task, who could be told
                self._manager.report(f"{name} could not be asked whether it answers: {type(e).__name__}: {e}")
                continue
            try:
                await self._join(store, create)
            except BaseException as e:
                await store.aclose()
                if not isinstance(e, Exception):
                    raise
                self._manager.report(f"{name} answers, and cannot be used: {type(e).__name__}: {e}")
            else:
                self._exits.push_async_callback(store.aclose)
                self._manager.report(f"{name} answers now, and gets what it missed")
                return

    async def _join(self, store: Store, create: bool) -> None:
        """Registered before anybody finds it: a store whose data began anew is not asked before it is filled."""
        name, manager, known = store.name, self._manager, self._known
        held = {
            etype: one
            for etype, one in {**self._placements, **manager.placements}.items()
            if name in (one.home, *one.targets(), *one.beside.values())
        }
        await prepare({name: store}, self._types, held, manager, create)
        cached = {etype: one for etype, one in manager.placements.items() if one.cache == name}
        caches = open_caches(self._exits, {name: store}, self._types, cached, self._env)[0] if cached else {}
        stores = {**known.delivered, name: next(iter(caches.values()), store)}
        for etype, placement in manager.placements.items():
            if name in placement.targets():
                line = manager.line(etype)
                await line.targets.refresh()
                await register(line, etype, placement, stores, manager.embedders, manager.detach)
        for line in manager.lines.values():
            await line.home.call(SupportsJournal.awaken, name, None, 0)
        # From here on it is found, and nothing is left that could fail: who cannot join is closed.
        known.stores[name], known.delivered[name] = store, stores[name]
        known.caches.update(caches)
        known.committed.update({etype: cache.committed for etype, cache in caches.items()})
        for line in manager.lines.values():
            line.retries.wake(name)
            line.wake()
        self._came(name)
