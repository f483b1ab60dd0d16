"""Reconcile: by and by every record of every copy is compared with its home, and repaired where they differ.

Every `reconcile_s` the next part of all key hashes is compared, so many parts that each has its turn once in
`reconcile_full_s`. A part is a fair sample, so when it had to be repaired, all of the type is compared at once. One
process at a time does so for a type, under a lease of the home's journal, which also remembers how far it came.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection
from typing import Protocol

import msgspec

from polystore.consistency.line import Line
from polystore.consistency.mending import Mender, RepairReport
from polystore.consistency.settings import Settings
from polystore.env import Env
from polystore.errors import PolystoreError
from polystore.model import EVERYTHING, HASH_SPACE, Commit, HashSpan, Placement
from polystore.protocols import SupportsJournal

LEASE_S = 10.0
LOOK_S = 5.0
"""How often is looked whether something is due, if the periods are no shorter."""


class Reconciled(msgspec.Struct):
    """How far it came with a type: the `part` that is next, when the last one ended, and when the last round did. What
    was compared, repaired and left in the round so far, and in the one before. `whole`: a copy was started again, and
    may be what it was long ago; so all is compared next."""

    part: int = 0
    ended_us: int = 0
    compared: int = 0
    mended: int = 0
    left: int = 0
    round_us: int = 0
    last: tuple[int, int, int] = (0, 0, 0)
    """Compared, mended, left."""
    whole: bool = False

    def count(self, report: RepairReport) -> None:
        self.compared += report.compared
        self.mended += sum(report.mended.values())
        self.left += report.owed + report.left

    def end_round(self) -> None:
        self.part, self.round_us, self.whole = 0, self.ended_us, False
        self.last, self.compared, self.mended, self.left = (self.compared, self.mended, self.left), 0, 0, 0


class _Manager(Protocol):
    """What is used of the consistency manager."""

    env: Env
    worker: str
    settings: Settings
    placements: dict[str, Placement]
    mender: Mender

    def line(self, etype: str) -> Line: ...
    def report(self, problem: str) -> None: ...


class _Polite:
    """Gives way: never faster than `reconcile_rate_per_s`, not while much is in hand or somebody is to be alone, and
    not without the lease."""

    dry_run = False

    def __init__(self, manager: _Manager, line: Line, lease: str) -> None:
        self.report = RepairReport()
        self._manager = manager
        self._line = line
        self._lease = lease
        self._next = manager.env.monotonic()
        self._lost = False

    async def turn(self, records: int) -> bool:
        env, settings, line = self._manager.env, self._manager.settings, self._line
        while not self._lost and ((rest_s := self._next - env.monotonic()) > 0 or self._busy()):  # noqa: ASYNC110
            await asyncio.sleep(min(LEASE_S / 4, max(rest_s, 0.05)))
        self._next = env.monotonic() + records / settings.reconcile_rate_per_s
        return not self._lost and not line.delivery.gate.closed

    def _busy(self) -> bool:
        line = self._line
        return line.delivery.gate.closed or len(line.in_hand) > self._manager.settings.queue_max // 8

    async def hold(self) -> None:
        """Go on holding the lease, also while a repair waits for its copy, until another process has it."""
        while not self._lost:
            await asyncio.sleep(LEASE_S / 4)
            with contextlib.suppress(PolystoreError):  # asked again in a moment; who took it meanwhile has it then
                journal, worker = self._line.home, self._manager.worker
                self._lost = not await journal.call(SupportsJournal.hold_lease, self._lease, worker, LEASE_S)


class Reconciler:
    """Compares the types of one architecture with their copies, as long as it is open."""

    def __init__(self, manager: _Manager) -> None:
        self._manager = manager
        self._task: asyncio.Task[None] | None = None
        self._next: dict[str, float] = {}
        """Entity -> when to look at the journal again, by the monotonic clock."""

    def start(self) -> None:
        if self._manager.settings.reconcile_s:
            self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def state(self, etype: str) -> Reconciled:
        """How far it came, whichever process did it."""
        text = await self._manager.line(etype).home.call(SupportsJournal.mark, _mark(etype))
        return Reconciled() if text is None else msgspec.json.decode(text, type=Reconciled)

    async def _run(self) -> None:
        env, look_s = self._manager.env, min(LOOK_S, self._manager.settings.reconcile_s / 4)
        while True:
            await asyncio.sleep(look_s * env.random.uniform(0.8, 1.2))
            for etype in sorted(self._manager.placements):
                if env.monotonic() >= self._next.get(etype, 0.0):
                    try:
                        await self._look(etype)
                    except Exception as e:  # noqa: BLE001 -- tried again; without this task nobody would compare
                        self._manager.report(f"{etype} could not be compared with its copies: {type(e).__name__}: {e}")

    async def _look(self, etype: str) -> None:
        """Compare what is due."""
        settings, env = self._manager.settings, self._manager.env
        period_us = int(settings.reconcile_s * 1e6)
        state = await self.state(etype)
        rest_us, asked = state.ended_us + period_us - env.now_us(), state.whole
        # Not over and over, should a copy be many servers behind one address, each with a run of its own.
        whole = state.whole and env.now_us() - state.round_us >= period_us // 10
        if rest_us > 0 and not whole:
            self._next[etype] = env.monotonic() + min(rest_us, period_us // 10) / 1e6
            return
        parts = max(1, round(settings.reconcile_full_s / settings.reconcile_s))
        due = 1 if not state.ended_us else 1 - rest_us // period_us  # those that nobody was there for, too
        first, end = (0, parts) if whole else (min(state.part, parts - 1), min(state.part + due, parts))
        report = await self.compare(etype, span=HashSpan(first * HASH_SPACE // parts, end * HASH_SPACE // parts))
        if report is None:
            return
        state.count(report)
        if report.mended and end - first < parts:
            self._manager.report(f"{etype}: {_told(report)}; all of it is compared now")
            rest = await self.compare(etype)
            if rest is not None:
                state.count(rest)
                end = parts
        state.part, state.ended_us = end, env.now_us()
        if end == parts:
            state.end_round()
        if not asked:
            state.whole = (await self.state(etype)).whole  # perhaps asked for meanwhile
        await self._keep(etype, state)

    async def ask(self, store: str) -> None:
        """All that this copy holds is to be compared soon, by whichever process. Raises what homes raise."""
        for etype, placement in self._manager.placements.items():
            if store in placement.copies():
                state = await self.state(etype)
                state.whole = True
                await self._keep(etype, state)
                self._next.pop(etype, None)

    async def _keep(self, etype: str, state: Reconciled) -> None:
        marks = {_mark(etype): msgspec.json.encode(state).decode()}
        await self._manager.line(etype).home.commit(Commit((), marks=marks))

    async def compare(
        self, etype: str, only: Collection[str] | None = None, span: HashSpan = EVERYTHING
    ) -> RepairReport | None:
        """Compare and repair these copies of a type in this span; None when another process does so, or ended it.
        Raises what stores raise."""
        line, lease = self._manager.line(etype), f"reconcile:{etype}"
        if not await line.home.call(SupportsJournal.hold_lease, lease, self._manager.worker, LEASE_S):
            return None
        job = _Polite(self._manager, line, lease)
        holding = asyncio.create_task(job.hold())
        try:
            ended = await self._manager.mender.mend(etype, job, only, span)
        finally:
            holding.cancel()
            await asyncio.gather(holding, return_exceptions=True)
            try:
                await line.home.call(SupportsJournal.hold_lease, lease, self._manager.worker, 0.0)
            except PolystoreError as e:
                self._manager.report(f"the lease {lease} is left to end by itself: {e}")
        return job.report if ended else None


def _mark(etype: str) -> str:
    return f"reconcile:{etype}"


def _told(report: RepairReport) -> str:
    return ", ".join(f"{count} {problem}" for problem, count in sorted(report.mended.items())) + " were repaired"
