"""Copies that cannot compare and write in one step (`Limits.guarded`): only who has their lease writes to them.

The lease lies in the home's journal. Who wants to write takes it, and goes on holding it while a write is under way;
nobody else may write until it is over. A process that dies, or is held up, loses it after `worker_dead_s`, and the next
one that has something to deliver takes it. What others have to deliver they leave to it, as retry rows.

A lease cannot call back what was sent. A write that ends after the lease of its sender counts as failed, so what may
stand above it is delivered again. One that the copy carries out even later, when its sender is dead, may put an older
version over a newer one: searches are hydrated all the same, and `verify` finds it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

from polystore.consistency.settings import Settings
from polystore.env import Env
from polystore.errors import PolystoreError, Unavailable
from polystore.model import Change, Outcome
from polystore.protocols import SupportsJournal
from polystore.store import Store

MARGIN_S = 1.0
"""By how much a holder takes its lease to be over before the journal does, for clocks that do not go alike."""
REFUSED_S = 0.5
"""For so long nobody asks again for a lease that another process has."""


@contextlib.asynccontextmanager
async def held_on(hold: Callable[[], Awaitable[object]], ttl_s: float) -> AsyncGenerator[None]:
    """Inside, however long it takes, `hold` goes on holding a lease of so many seconds."""

    async def go_on() -> None:
        while True:
            await asyncio.sleep(ttl_s / 4)
            with contextlib.suppress(PolystoreError):  # asked again in a moment; if it is too late, `hold` finds out
                await hold()

    task = asyncio.create_task(go_on())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class Leases:
    """The leases of this process at one home."""

    def __init__(self, env: Env, home: Store, worker: str, settings: Settings) -> None:
        self._env = env
        self._home = home
        self._worker = worker
        self._ttl_s = settings.worker_dead_s
        self._until: dict[str, float] = {}
        """Store -> when this process has to take its lease for lost."""
        self._terms = Counter[str]()
        """Store -> how often this process took its lease that it had not, or no more."""
        self._asked: dict[str, float] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._unanswered: set[str] = set()
        """Stores that may still carry out something of this process."""

    async def deliver(self, store: Store, changes: Sequence[Change]) -> list[Outcome]:
        """`Store.deliver`. Raises Unavailable, too, where another process has the lease, before anything is sent, or
        may have had it when the answer came."""
        if store.limits.guarded:
            return await store.deliver(changes)
        if not await self.held(store):
            raise Unavailable("another process writes to it now and is left this", store=store.name, operation="apply")
        term = self._terms[store.name]
        try:
            async with held_on(functools.partial(self.held, store), self._ttl_s):
                outcomes = await store.deliver(changes)
        except BaseException:
            self._unanswered.add(store.name)
            raise
        if self._env.monotonic() >= self._until.get(store.name, 0.0) or term != self._terms[store.name]:
            raise Unavailable("it answered after the lease was over", store=store.name, operation="apply")
        return outcomes

    async def held(self, store: Store) -> bool:
        """Whether this process may write to the store now: takes the lease, or goes on holding it. Raises what the
        home raises."""
        if store.limits.guarded:
            return True
        name = store.name
        async with self._locks.setdefault(name, asyncio.Lock()):
            asked, now = self._asked.get(name), self._env.monotonic()
            fresh_s = (self._ttl_s - MARGIN_S) / 4 if now < self._until.get(name, 0.0) else REFUSED_S
            if asked is None or now - asked >= fresh_s:
                has = await self._home.call(SupportsJournal.hold_lease, _lease(name), self._worker, self._ttl_s)
                if has and self._env.monotonic() >= self._until.get(name, 0.0):
                    self._terms[name] += 1  # in between it may have been another's
                self._asked[name] = now
                self._until[name] = now + self._ttl_s - MARGIN_S if has else 0.0
        return self._env.monotonic() < self._until.get(name, 0.0)

    async def give_up(self) -> None:
        """At the end, when nothing is delivered any more: others need not wait. Leases of stores that may still carry
        out something stay until they are over. Raises what the home raises."""
        for name, until in self._until.items():
            if self._env.monotonic() < until and name not in self._unanswered:
                await self._home.call(SupportsJournal.hold_lease, _lease(name), self._worker, 0.0)
        self._until.clear()


def _lease(store: str) -> str:
    return f"copy:{store}"
