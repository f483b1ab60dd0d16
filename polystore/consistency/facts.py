"""Facts on their way: to the store they live in, or, while it is down, to the journal that keeps them for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from polystore.consistency.acks import POLL_FIRST_S, POLL_MAX_S
from polystore.consistency.manager import DataConsistencyManager
from polystore.consistency.spillway import Spillway, lines_spill, points_spill
from polystore.entity import EntityType
from polystore.errors import (
    ConfigurationError,
    EntityError,
    OutcomeUnknown,
    PolystoreError,
    StalenessTimeout,
    StoreError,
    StoreFull,
    Unavailable,
)
from polystore.model import Line, Placement, PointRow, Spill, SpillCount
from polystore.protocols import FACTS_MAX, SupportsLog, SupportsSpill, SupportsTimeRange
from polystore.results import StoreStatus
from polystore.store import Store


class Facts:
    """Appends, delivers what was spilled, removes what is too old. One per open architecture; any number of processes
    may have one on the same stores.

    `journal` keeps the lines of logs; points are kept by the home of the records they belong to.
    """

    def __init__(
        self,
        manager: DataConsistencyManager,
        types: Mapping[str, EntityType[Any]],
        stores: Mapping[str, Store],
        logs: Mapping[str, Placement],
        journal: Store | None,
    ) -> None:
        self._manager = manager
        self._env = manager.env
        self._types = types
        self._stores = stores
        self._last_us = 0
        self._task: asyncio.Task[None] | None = None
        self._measured = {
            etype: (placement.beside["time_series"], self._stores[placement.authority])
            for etype, placement in manager.placements.items()
            if "time_series" in placement.beside
        }
        self._logs = {etype: (one.home, journal) for etype, one in logs.items()}
        self._spillways: dict[tuple[str, str], Spillway] = {}
        for etype, (name, keeper) in {**self._measured, **self._logs}.items():
            self._add_spillway(etype, name, keeper)
        manager.erasures.wake = self._wake

    def _add_spillway(self, etype: str, name: str, journal: Store | None) -> None:
        able = journal is not None and journal.supports(SupportsSpill)
        if etype in self._manager.erasures.measures and not able:
            raise ConfigurationError(
                f"{self._types[etype].cls.__name__}: Measure(on_delete='erase') needs a home that can keep this duty "
                "(SupportsSpill); give the class another home, or drop on_delete"
            )
        store = self._stores.get(name)
        if journal is None or not able or store is None or (journal.name, name) in self._spillways:
            return
        manager = self._manager
        spillway = self._spillways[journal.name, name] = Spillway(
            self._env, manager.settings, manager.report, self._types, manager.erasures.measures, journal, store
        )
        if self._task is not None:
            spillway.start()

    def came(self, name: str) -> None:
        """A store that did not answer at the start is there: what is kept for it is delivered."""
        for etype, (store, keeper) in {**self._measured, **self._logs}.items():
            if store == name:
                self._add_spillway(etype, name, keeper)

    # -- start and stop ---------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to deliver what is kept, and to remove what is too old."""
        for spillway in self._spillways.values():
            spillway.start()
        self._task = asyncio.create_task(self._retain())

    async def stop(self) -> None:
        """End all tasks. What is kept stays kept. Idempotent."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        for spillway in self._spillways.values():
            await spillway.stop()

    def _wake(self, store: str) -> None:
        for (_, name), spillway in self._spillways.items():
            if name == store:
                spillway.wake()

    # -- append -----------------------------------------------------------------------------------------------

    def now_us(self) -> int:
        """The time of a point that the caller gives none: later than any that was given out before, so that two such
        points are never one."""
        self._last_us = max(self._env.now_us(), self._last_us + 1)
        return self._last_us

    def measuring(self, etype: str) -> str:
        """The store of a type's points."""
        return self._measured[etype][0]

    async def append_points(self, etype: str, tenant: str, points: Sequence[PointRow]) -> StoreStatus:
        """All points are of the type's measures. committed: durable in their store. pending: durable in the journal,
        since the store is down or full. Raises Backpressure, and what the store raises where there is no journal to
        keep them."""
        name, journal = self._measured[etype]
        erased = self._manager.erasures.measures.get(etype, ())
        ids = list({point.series.id for point in points if point.series.measure in erased})
        if ids and await journal.call(SupportsSpill.erasing, name, etype, tenant, ids):
            # What a delete obliges to is still to be done: these points are of the record that came after it.
            return await self._keep(journal, points_spill(name, etype, points))
        return await self._append(
            name,
            journal,
            lambda store: store.call(SupportsTimeRange.append_points, points),
            lambda: points_spill(name, etype, points),
        )

    async def append_lines(self, etype: str, tenant: str, lines: Sequence[Line]) -> StoreStatus:
        """As `append_points`."""
        name, journal = self._logs[etype]
        return await self._append(
            name,
            journal,
            lambda store: store.call(SupportsLog.append_lines, etype, tenant, lines),
            lambda: lines_spill(name, etype, tenant, lines),
        )

    async def _append(
        self, name: str, journal: Store | None, send: Callable[[Store], Awaitable[None]], spill: Callable[[], Spill]
    ) -> StoreStatus:
        store = self._stores.get(name)
        try:
            if store is None:
                raise Unavailable("it did not answer when this architecture was opened", store=name, operation="append")
            await send(store)
        except (Unavailable, StoreFull, OutcomeUnknown) as down:
            if journal is None or journal.name == name or not journal.supports(SupportsSpill):
                raise
            try:
                return await self._keep(journal, spill())
            except StoreError:  # it is down, too: what the caller asked for is what did not happen
                raise down from None
        return "committed"

    async def _keep(self, journal: Store, spill: Spill) -> StoreStatus:
        await journal.call(SupportsSpill.spill, [spill], self._manager.settings.spill_bytes_max)
        self._env.crashpoint("fact.spilled")
        self._wake(spill.store)
        return "pending"

    # -- the whole --------------------------------------------------------------------------------------------

    async def kept(self) -> Mapping[str, Sequence[SpillCount]]:
        """Journal -> what it keeps, by store; for all stores, also those that this process does not know."""
        journals = {name: self._stores[name] for name, _ in self._spillways}
        return {name: await journal.call(SupportsSpill.spills) for name, journal in journals.items()}

    async def settle(self, timeout_s: float) -> None:
        """Return once nothing is kept for the stores of this process any more but what they refused. Raises
        StalenessTimeout."""
        deadline = self._env.monotonic() + timeout_s
        pause_s = POLL_FIRST_S
        while True:
            left = [
                (journal, one)
                for journal, counts in (await self.kept()).items()
                for one in counts
                if one.rows > one.aside and (journal, one.store) in self._spillways
            ]
            if not left:
                return
            if self._env.monotonic() >= deadline:
                journal, one = left[0]
                raise StalenessTimeout(
                    f"{journal} still keeps {one.facts} facts in {one.rows} rows for {one.store} after {timeout_s:g} s"
                    + (f" ({one.error})" if one.error else "")
                )
            for journal, one in left:
                self._spillways[journal, one.store].wake()
            await asyncio.sleep(pause_s)
            pause_s = min(POLL_MAX_S, pause_s * 2)

    # -- retention --------------------------------------------------------------------------------------------

    async def _retain(self) -> None:
        while True:
            await self.expire()
            await asyncio.sleep(self._manager.settings.purge_s * self._env.random.uniform(0.8, 1.2))

    async def expire(self) -> int:
        """Remove what is older than its retention, by the stores' clocks; returns how much. Reads do not show it from
        the moment it is too old; this gives the room back."""
        gone = 0
        for etype, (name, _) in self._measured.items():
            for measure, one in self._types[etype].measures.items():
                if one.retention_s is not None:
                    age_us = int(one.retention_s * 1e6)
                    gone += await self._expire(name, SupportsTimeRange.expire_points, etype, measure, age_us)
        for etype, (name, _) in self._logs.items():
            if self._types[etype].ttl_s is not None:
                gone += await self._expire(name, SupportsLog.expire_lines, etype)
        return gone

    async def _expire(self, name: str, method: Callable[..., Any], *about: object) -> int:
        store, gone, last = self._stores.get(name), 0, FACTS_MAX
        try:
            while store is not None and last >= FACTS_MAX:
                last = await store.call(method, *about, FACTS_MAX)
                gone += last
        except PolystoreError as e:
            self._manager.report(f"old facts of {about[0]} stay in {name} for now: {e}")
        return gone


def check_log(entity: EntityType[Any]) -> None:
    """Raises EntityError for a class that cannot be a log: its lines have a time, and nothing that changes."""
    at = entity.fields.get("at")
    if at is None or at.kind.name != "datetime" or at.kind.optional:
        raise EntityError(
            f"{entity.cls.__name__}: a log needs the field `at: datetime`, the time of its lines; for example "
            "at: datetime = field(default_factory=lambda: datetime.now(UTC))"
        )
    for what, held in (
        ("Embedding()", entity.embeddings),
        ("Relation()", entity.relations),
        ("Unique()", entity.unique),
        ("Measure()", entity.measures),
        ("FileRef", entity.files),
    ):
        if held:
            raise EntityError(
                f"{entity.cls.__name__}.{next(iter(held))}: {what} is of records; the lines of a log have values and "
                "FullText()"
            )
