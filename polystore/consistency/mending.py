"""Repair: what `verify` finds in a copy is owed to it anew, and brought to it by the way of every change.

A difference counts only when it stays: nothing of the record is owed to the copy, and the home holds the same version
before and after both were read once more. So what is on its way is never taken for wrong, however much is written.
What is owed then is a retry row that overwrites: the record is loaded at the home again, and takes the place of what
the copy has at the same version or an older one. Nothing is lost when whoever began it ends: the rows are durable.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from typing import Protocol

import msgspec
from msgspec.structs import replace

from polystore.consistency.embedding import Embedders
from polystore.consistency.line import Line
from polystore.consistency.settings import Settings
from polystore.consistency.verify import AT_HOME, PAGE, Difference, Side, Verifier, Window
from polystore.env import Env
from polystore.errors import ConfigurationError, DecodeError, did_you_mean
from polystore.model import EVERYTHING, HashSpan, Key, Placement, Record, RetryRow, Settlement, key_hash
from polystore.protocols import Repository, SupportsJournal
from polystore.store import Store

MENDABLE = ("missing", "extra", "older", "content", "vector", "fault")
SHOWN_MAX = 100
READ_S, REST_S = 0.25, 0.01
SIZE_MIN = 250
"""Records of a window of a store that is slow."""
EXPIRY_US = 60_000_000
"""Clocks may differ: what expires so soon is left to expire."""
NEWER = (
    "the home has not given out this version: it was restored to the past, or somebody else wrote to the copy. Put the "
    "newer data of the home back, or run `polystore epoch bump` for it"
)


class RepairReport(msgspec.Struct):
    """What a repair came upon: records `compared`; `mended` by problem; `owed`, which arrive when their copy answers;
    `left` as they were, of which `shown` names the first, and `damaged` are so at their home, which is no copy's fault.
    `skipped`: copies that were not compared, and why."""

    compared: int = 0
    mended: dict[str, int] = {}
    owed: int = 0
    left: int = 0
    damaged: int = 0
    shown: list[Difference] = []
    skipped: dict[str, str] = {}

    @property
    def found(self) -> int:
        """All differences, whatever became of them."""
        return sum(self.mended.values()) + self.owed + self.left

    def leave(self, differences: Collection[Difference]) -> None:
        self.left += len(differences)
        self.damaged += sum(one.detail == AT_HOME for one in differences)
        self.shown += [*differences][: SHOWN_MAX - len(self.shown)]


class Job(Protocol):
    """How a repair goes about it."""

    report: RepairReport
    dry_run: bool

    async def turn(self, records: int) -> bool:
        """Wait before so many more records are compared; False: end now."""
        ...


class Steady:
    """As fast as it goes, or at most `rate_per_s` records a second. `progress` is told what was done so far."""

    def __init__(
        self,
        env: Env,
        *,
        dry_run: bool = False,
        rate_per_s: float | None = None,
        progress: Callable[[RepairReport], None] | None = None,
    ) -> None:
        self.report = RepairReport()
        self.dry_run = dry_run
        self._env = env
        self._rate_per_s = rate_per_s
        self._progress = progress
        self._next = env.monotonic()

    async def turn(self, records: int) -> bool:
        if self._progress is not None:
            self._progress(self.report)
        if self._rate_per_s is not None:
            now = self._env.monotonic()
            await asyncio.sleep(max(0.0, self._next - now))
            self._next = max(now, self._next) + records / self._rate_per_s
        return True


class Gentle:
    """Reads in parts that take a store no longer than `READ_S`, as far as it can be told from the part before, and
    rests for as long while live changes are on their way: what a store does for them is not to wait for more."""

    def __init__(self, env: Env, line: Line) -> None:
        self.size = min(SIZE_MIN, PAGE)
        self._env = env
        self._line = line
        self._rested = 0.0

    async def read(self, windows: AsyncIterator[Window]) -> Window | None:
        """The next window; None: there are no more."""
        while self._line.in_hand and self._env.monotonic() < self._rested:  # noqa: ASYNC110
            await asyncio.sleep(REST_S)
        began = self._env.monotonic()
        window = await anext(windows, None)
        now = self._env.monotonic()
        if now - began > READ_S:
            self.size = max(SIZE_MIN, self.size // 2)
        elif now - began < READ_S / 2:
            self.size = min(PAGE, 2 * self.size)
        self._rested = 2 * now - began
        return window


class _Manager(Protocol):
    """What is used of the consistency manager."""

    env: Env
    placements: dict[str, Placement]
    stores: Mapping[str, Store]
    settings: Settings
    embedders: Embedders

    def line(self, etype: str) -> Line: ...


class Mender:
    """Finds what copies hold otherwise than their homes while writes go on, and repairs it."""

    def __init__(self, manager: _Manager) -> None:
        self._manager = manager

    def named(self, names: Sequence[str]) -> tuple[list[str], frozenset[str] | None]:
        """The entities and the copies that are meant: all that is named of a kind, else all of it. Raises
        ConfigurationError for an unknown name."""
        placements = self._manager.placements
        stores = {name for one in placements.values() for name in (one.authority, *one.copies())}
        for name in names:
            if name not in placements and name not in stores:
                known = [*sorted(placements), *sorted(stores)]
                hint = did_you_mean(name, known) or ";"
                raise ConfigurationError(f"no entity and no store is named {name!r}{hint} known: {', '.join(known)}")
        copies = frozenset(name for name in names if name not in placements)
        return [name for name in names if name in placements] or sorted(placements), copies or None

    async def mend(
        self, etype: str, job: Job, only: Collection[str] | None = None, span: HashSpan = EVERYTHING
    ) -> bool:
        """Compare the copies of a type (`only` these) with its home, and repair them. May end at any moment: what it
        has owed is delivered by whoever lives, and what it has not come to is found by the next one. False when `turn`
        ended it. Raises what stores raise."""
        verifier = Verifier(self._manager.stores, self._manager.placements, self._manager.embedders)
        home = self._manager.placements[etype].authority
        if span == EVERYTHING and (only is None or home in only):  # they are the home's, and no copy's fault
            job.report.leave([one async for one in verifier.strays(etype)])
        able = await self._able(etype, job.report, only)
        gentle = Gentle(self._manager.env, self._manager.line(etype))
        async for side in verifier.sides(etype, able):
            windows = verifier.windows(side, span, lambda: gentle.size)
            while (window := await gentle.read(windows)) is not None:
                if not await job.turn(len(window)):
                    return False
                job.report.compared += len(window)
                suspects = await verifier.judged(side, window)
                if not self._serves(side):  # it was gone over from meanwhile, and is emptied
                    job.report.skipped[f"{etype} at {side.copy.name}"] = "it serves no more"
                    break
                if suspects:
                    await self._mend(verifier, side, window.span, suspects, job)
        await job.turn(0)
        return True

    async def _able(self, etype: str, report: RepairReport, only: Collection[str] | None) -> set[str]:
        """The copies that can be compared now."""
        line, placement = self._manager.line(etype), self._manager.placements[etype]
        await line.targets.refresh()
        status = {row.name: row.status for row in line.targets.rows(etype)}
        able: set[str] = set()
        for name in {placement.home, *placement.facets.values()}:
            if only is not None and name not in only:
                continue
            if name not in self._manager.stores:
                report.skipped[f"{etype} at {name}"] = "it does not answer"
            elif name != placement.authority and status.get(name) != "active":
                report.skipped[f"{etype} at {name}"] = "it is being filled"
            else:
                able.add(name)
        return able

    def _serves(self, side: Side) -> bool:
        placement = self._manager.placements[side.etype]
        return side.copy.name in {placement.authority, placement.home, *placement.targets()}

    # -- one window -----------------------------------------------------------------------------------------------

    async def _mend(
        self, verifier: Verifier, side: Side, span: HashSpan, suspects: Sequence[Difference], job: Job
    ) -> None:
        found = await self.confirmed(verifier, side, span, suspects)
        report, repairs = job.report, side.copy is not side.home and not job.dry_run
        wrong = [one for one in found if repairs and one.problem in MENDABLE and one.store == side.copy.name]
        report.leave([one for one in found if one not in wrong])
        for start in range(0, len(wrong), PAGE):
            part = wrong[start : start + PAGE]
            owed = await self._owe(side, part)
            still = {one.key: one for one in await self.confirmed(verifier, side, span, part)}
            report.owed += len(owed)
            report.leave([still[one.key] for one in part if one.key in still and one.key not in owed])
            for one in part:
                if one.key not in owed and one.key not in still:
                    report.mended[one.problem] = report.mended.get(one.problem, 0) + 1

    async def confirmed(
        self, verifier: Verifier, side: Side, span: HashSpan, suspects: Sequence[Difference]
    ) -> list[Difference]:
        """Those of the suspects, all of this span, that are no change on its way."""
        before = await self._standing(side, [one.key for one in suspects])
        versions = {one.key: _version(before.get(one.key)) or one.copy_version or 0 for one in suspects}
        at_home = {one.key for one in suspects if one.store == side.home.name}  # whatever is owed to the copy
        calm = at_home | await self._settled(side, {key: v for key, v in versions.items() if key not in at_home})
        if not calm:
            return []
        again: Window = await verifier.window(side, span)
        found = [one for one in await verifier.judged(side, again) if one.key in calm]
        after = await self._standing(side, [one.key for one in found])
        newest = await side.home.call(Repository.newest, side.etype) if found else 0
        return [
            _told(one, after.get(one.key), newest)
            for one in found
            if _version(before.get(one.key)) == _version(after.get(one.key))
            and not await self._expires(side, one, after.get(one.key))
        ]

    async def _standing(self, side: Side, keys: Sequence[Key]) -> dict[Key, Record | None]:
        """What the home knows of the records, tombstones too; bodies may be elsewhere. What it cannot read is left
        out."""
        try:
            return dict(zip(keys, await side.home.call(Repository.get, keys), strict=True)) if keys else {}
        except DecodeError:
            if len(keys) == 1:
                return {}
        half = len(keys) // 2
        return {**await self._standing(side, keys[:half]), **await self._standing(side, keys[half:])}

    async def _settled(self, side: Side, versions: Mapping[Key, int]) -> set[Key]:
        """Those of the records that the copy is owed nothing of."""
        if side.copy is side.home:
            return set(versions)
        pairs = [(key_hash(key.tenant, key.etype, key.id), version) for key, version in versions.items()]
        if not await side.home.call(SupportsJournal.pending, side.etype, side.copy.name, pairs):
            return set(versions)
        if len(versions) == 1:
            return set()
        keys, half = list(versions), len(versions) // 2
        parts = ({key: versions[key] for key in some} for some in (keys[:half], keys[half:]))
        return {key for part in parts for key in await self._settled(side, part)}

    async def _expires(self, side: Side, one: Difference, record: Record | None) -> bool:
        """Its time is over for one of the two, or nearly: nobody's fault."""
        if one.problem == "extra" and record is not None and record.version == one.copy_version:
            with contextlib.suppress(DecodeError):  # damaged there: as its tombstone says
                (record,) = await side.copy.call(Repository.get, [one.key])
        return record is not None and 0 < record.expires_us <= self._manager.env.now_us() + EXPIRY_US

    async def _owe(self, side: Side, wrong: Sequence[Difference]) -> set[Key]:
        """Owe the records to the copy, and wait until they are there; which are not, because it does not answer."""
        line, env = self._manager.line(side.etype), self._manager.env
        now_us = env.now_us()
        versions = {one.key: max(one.home_version or 0, one.copy_version or 0) for one in wrong}
        rows = [
            RetryRow(
                *(side.copy.name, key, key_hash(key.tenant, key.etype, key.id), version, version, "o"),
                first_us=now_us,
                next_us=now_us,
            )
            for key, version in versions.items()
        ]
        env.crashpoint("repair.found")
        await line.delivery.settle(Settlement(owed=rows))
        env.crashpoint("repair.owed")
        line.targets.pace(side.copy.name).owes = True
        line.retries.wake(side.copy.name)
        deadline, pause_s = env.monotonic() + self._manager.settings.repair_wait_s, 0.01
        while (left := versions.keys() - await self._settled(side, versions)) and env.monotonic() < deadline:
            versions = {key: versions[key] for key in left}
            await asyncio.sleep(pause_s)
            pause_s = min(0.25, pause_s * 2)
        return set(left)


def _version(record: Record | None) -> int:
    return 0 if record is None else record.version


def _told(one: Difference, record: Record | None, newest: int) -> Difference:
    """As it is to be understood. What only the copy has may be newer than anything the home knows of."""
    if one.problem == "extra":
        buried = None if record is None else record.version
        ahead = (one.copy_version or 0) > (newest if buried is None else buried)
        one = replace(one, home_version=buried, problem="newer" if ahead else "extra")
    return replace(one, detail=NEWER) if one.problem == "newer" else one
