"""From the journal that kept them to the store that was down: facts, and the duty to erase the points of records."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from polystore.consistency.retry import delay_s
from polystore.consistency.settings import Settings
from polystore.entity import EntityType
from polystore.env import Env
from polystore.errors import PolystoreError, StoreTimeout
from polystore.kinds import TYPES
from polystore.model import Key, Line, Placement, PointRow, PointValue, Series, Spill, SpillRow, Write
from polystore.protocols import FACTS_MAX, SupportsLog, SupportsSpill, SupportsTimeRange
from polystore.store import Store

ASIDE_S: Final = 3600.0
"""When facts that a store refused for their content are offered again."""

_Run = tuple[Series, list[tuple[int, PointValue]]]
_runs = msgspec.msgpack.Decoder(list[_Run])
_lines = msgspec.json.Decoder(list[tuple[str, dict[str, Any]]])


def points_spill(store: str, etype: str, points: Sequence[PointRow]) -> Spill:
    """The points as a journal keeps them."""
    runs = [
        (series, [(row.at_us, row.value) for row in rows])
        for series, rows in itertools.groupby(points, key=lambda row: row.series)
    ]
    return Spill(store, "points", etype, "", "", len(points), msgspec.msgpack.encode(runs))


def lines_spill(store: str, etype: str, tenant: str, lines: Sequence[Line]) -> Spill:
    """The lines as a journal keeps them."""
    payload = msgspec.json.encode([(line.id, line.body) for line in lines])
    return Spill(store, "lines", etype, tenant, "", len(lines), payload)


class Erasures:
    """Which deletes oblige a store to erase points. The duty is kept in the delete's own commit: no process that ends,
    and no later write of the record, makes it forgotten."""

    def __init__(self, types: Mapping[str, EntityType[Any]], placements: Mapping[str, Placement]) -> None:
        self.measures = {
            etype: erased
            for etype, one in types.items()
            if (erased := [name for name, measure in one.measures.items() if measure.on_delete == "erase"])
        }
        self._stores = {etype: placements[etype].beside["time_series"] for etype in self.measures}
        self.wake: Callable[[str], None] = lambda store: None

    def of(self, writes: Sequence[Write]) -> list[Spill]:
        """The duties of a commit."""
        if not self._stores:
            return []
        return [
            Spill(self._stores[write.key.etype], "erase", write.key.etype, write.key.tenant, write.key.id)
            for write in writes
            if write.kind in ("delete", "expire") and write.key.etype in self._stores
        ]

    def committed(self, spills: Sequence[Spill]) -> None:
        for store in {one.store for one in spills}:
            self.wake(store)


class Spillway:
    """Delivers what one journal keeps for one store, one run at a time, until nothing is left."""

    def __init__(
        self,
        env: Env,
        settings: Settings,
        report: Callable[[str], None],
        types: Mapping[str, EntityType[Any]],
        measures: Mapping[str, Sequence[str]],
        journal: Store,
        store: Store,
    ) -> None:
        self._env = env
        self._settings = settings
        self._report = report
        self._types = types
        self._measures = measures
        self._journal = journal
        self._store = store
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._store.breaker.on_change.append(self._on_breaker)
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    def wake(self) -> None:
        """Look now instead of at the next poll."""
        self._wake.set()

    def _on_breaker(self, is_open: bool) -> None:
        if not is_open:
            self.wake()

    async def _run(self) -> None:
        while True:
            try:
                while not self._store.breaker.open and await self.round():
                    pass
            except Exception as e:  # noqa: BLE001 -- the rows are still there; without this loop nobody would look
                self._report(
                    f"facts for {self._store.name} kept by {self._journal.name} could not be looked at: "
                    f"{type(e).__name__}: {e}"
                )
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.poll_s * self._env.random.uniform(0.8, 1.2)):
                    await self._wake.wait()
            self._wake.clear()

    async def round(self) -> bool:
        """Deliver the oldest run of rows that go together. True when there may be more."""
        rows = await self._journal.call(SupportsSpill.spilled, self._store.name, FACTS_MAX)
        if not rows:
            return False
        self._env.crashpoint("spill.taken")
        try:
            await self._deliver(rows)
        except PolystoreError as e:
            return await self._failed(rows, e)
        self._env.crashpoint("spill.delivered")
        await self._journal.call(SupportsSpill.unspill, [row.number for row in rows])
        return True

    async def _failed(self, rows: Sequence[SpillRow], error: PolystoreError) -> bool:
        """An outage keeps all waiting, in their order. Else the bad ones are found and put aside, which is told."""
        if error.retryable:
            wait_s = delay_s(rows[0].attempts, self._settings, self._env.random, getattr(error, "retry_after_s", None))
            await self._postpone(rows, wait_s, error, aside=False)
            return False
        for row in rows:
            try:
                await self._deliver([row])
            except PolystoreError as e:
                if e.retryable:
                    await self._postpone([row], 0.0, e, aside=False)
                    return False
                self._report(f"{self._store.name} refuses {row.spill.count} facts of {row.spill.etype}, kept: {e}")
                await self._postpone([row], ASIDE_S, e, aside=True)
            else:
                await self._journal.call(SupportsSpill.unspill, [row.number])
        return True

    async def _postpone(self, rows: Sequence[SpillRow], wait_s: float, error: PolystoreError, *, aside: bool) -> None:
        numbers = [row.number for row in rows]
        text = f"{type(error).__name__}: {error}"[:500]
        await self._journal.call(SupportsSpill.postpone, numbers, int(wait_s * 1e6), text, aside)

    async def _deliver(self, rows: Sequence[SpillRow]) -> None:
        """Within the time for which the rows are ours."""
        spills = [row.spill for row in rows]
        try:
            async with asyncio.timeout(self._settings.call_timeout_s):
                match spills[0].kind:
                    case "points":
                        points = [
                            PointRow(series, at_us, value)
                            for spill in spills
                            for series, run in _runs.decode(spill.payload)
                            for at_us, value in run
                        ]
                        await self._store.call(SupportsTimeRange.append_points, points)
                    case "lines":
                        lines = [line for spill in spills for line in self._decoded(spill)]
                        etype, tenant = spills[0].etype, spills[0].tenant
                        await self._store.call(SupportsLog.append_lines, etype, tenant, lines)
                    case "erase":
                        for spill in spills:
                            await self._erase(Key(spill.tenant, spill.etype, spill.id))
        except TimeoutError:
            raise StoreTimeout(
                f"no answer within {self._settings.call_timeout_s:g} s", store=self._store.name, operation="append"
            ) from None

    def _decoded(self, spill: Spill) -> list[Line]:
        """JSON has no times, decimals and bytes: the fields' kinds say where they are."""
        fields = self._types[spill.etype].fields
        odd = {name: TYPES[spec.kind.name] for name, spec in fields.items() if spec.kind.name in TYPES}
        return [
            Line(id, {n: msgspec.convert(v, odd[n]) if n in odd and v is not None else v for n, v in body.items()})
            for id, body in _lines.decode(spill.payload)
        ]

    async def _erase(self, key: Key) -> None:
        measures = self._measures.get(key.etype, ())
        await self._store.call(SupportsTimeRange.erase_points, key, measures)
        self._env.crashpoint("erase.done")
