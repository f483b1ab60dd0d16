"""Vectors made anew with the configured model, while the old one serves; then the change over.

The new model is one more pseudo-target of the type: its backfill owes it every record, commits owe it theirs, and the
embedding stage works it off, in any process that knows the model. So a rebuild survives whoever began it. What it makes
lies beside the home under the new model's name. When all is there, the placement is remembered with the new model, the
stores are prepared for it and take over what lies beside the home, and the old vectors are removed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal, Protocol

import msgspec
from msgspec.structs import replace

from polystore.consistency.copies import free_bits, register
from polystore.consistency.embedding import Embedders
from polystore.consistency.line import Line
from polystore.consistency.settings import Settings
from polystore.consistency.stage import HARMLESS
from polystore.consistency.targets import EMBED
from polystore.embedders import Made, read_made, write_made
from polystore.errors import IntegrityViolation
from polystore.model import Placement, TargetRow
from polystore.protocols import Repository, SupportsFilter, SupportsJournal
from polystore.store import Store

POLL_S = 0.05
FORGET_CHUNK = 5_000


class RebuildProgress(msgspec.Struct, frozen=True):
    """How far the rebuild of one entity is. embedding: `done` of `total` records; others may do the rest. copying: the
    copy takes over what was made. done: everything."""

    entity: str
    step: Literal["embedding", "copying", "done"]
    done: int
    total: int


class _Manager(Protocol):
    """What is used of the consistency manager."""

    embedders: Embedders
    placements: Mapping[str, Placement]
    stores: Mapping[str, Store]
    settings: Settings

    def line(self, etype: str) -> Line: ...


class Rebuilder:
    """Rebuilds the vectors of the types of one architecture, and follows when another process has."""

    def __init__(self, manager: _Manager) -> None:
        self.prepare: Callable[[str], Awaitable[None]] = _nothing
        """Tells the stores of a type what they hold, as its vectors are made now."""
        self._manager = manager
        self._embedders = manager.embedders
        self._switched_us: dict[str, int] = {}

    # -- a rebuild ------------------------------------------------------------------------------------------------

    async def rebuild(self, etype: str, progress: Callable[[RebuildProgress], None]) -> int:
        """Make the vectors of a type with the configured models; returns how many texts this process embedded.

        May be cancelled or killed at any moment and called again: it goes on. Waits for an embedder that goes down on
        the way. Raises before anything is begun what an embedder raises that does not answer; and outages of stores.
        """
        line = self._manager.line(etype)
        outdated = self._embedders.outdated(etype)
        total = await self._count(line, etype) if outdated else 0
        texts = 0
        if outdated:
            targets = sorted(self._embedders.upcoming(etype))
            before = self._texts(targets)
            for target in targets:
                await self._begin(line, etype, target)
            while not await self._embedded(line, etype, targets):
                progress(RebuildProgress(etype, "embedding", min(total, self._texts(targets) - before), total))
                await self._pause(line)
            texts = self._texts(targets) - before
            await self.switch(etype)
        while await self._filling(line, etype):
            progress(RebuildProgress(etype, "copying", total, total))
            await self._pause(line)
        await self._tidy(line, etype)
        progress(RebuildProgress(etype, "done", total, total))
        return texts

    async def _count(self, line: Line, etype: str) -> int:
        tenants = await line.home.call(Repository.tenants, etype)
        return sum([await line.home.call(SupportsFilter.count, etype, tenant, None) for tenant in tenants])

    def _texts(self, targets: list[str]) -> int:
        return sum(stage.made for target in targets if (stage := self._embedders.stage(target)) is not None)

    async def _begin(self, line: Line, etype: str, target: str) -> None:
        """Let every record be owed to the model, unless a rebuild before has begun with that."""
        stage = self._embedders.stage(target)
        assert stage is not None
        await stage.embed([HARMLESS], "document", self._manager.settings.embed_timeout_s)
        while True:
            await line.targets.refresh()
            row = next((one for one in line.targets.rows(etype) if one.name == target), None)
            if row is not None and row.status != "off":
                break
            bit = next(free_bits(line, etype)) if row is None else row.bit
            new = TargetRow(etype, target, bit, "backfilling", data_id=target.removeprefix(EMBED))
            try:
                await line.home.call(SupportsJournal.set_target, new)
            except IntegrityViolation:  # somebody else begins the same at this moment
                await asyncio.sleep(POLL_S)
        line.wanted[etype] = line.wanted.get(etype, frozenset()) | {target}
        line.retries.wake(target)

    async def _embedded(self, line: Line, etype: str, targets: list[str]) -> bool:
        rows = {row.name: row for row in await line.home.call(SupportsJournal.targets) if row.etype == etype}
        return all(rows[target].status == "active" for target in targets)

    async def _filling(self, line: Line, etype: str) -> bool:
        """Whether a copy of the vectors is incomplete, or a model in this process still makes vectors in the stage."""
        store = self._manager.placements[etype].facets.get("vector")
        going = self._ending(line, etype)
        if going:
            backlog = await line.home.call(SupportsJournal.backlog)
            # What was committed before the change over may still be on its way to the stage.
            on_its_way = backlog.oldest_us is not None and backlog.oldest_us <= self._switched_us.get(etype, 0)
            going = {name for name in going if on_its_way or backlog.retry.get(name)}
        rows = await line.home.call(SupportsJournal.targets)
        return bool(going) or any(
            row.etype == etype and row.name == store and row.status == "backfilling" for row in rows
        )

    def _ending(self, line: Line, etype: str) -> set[str]:
        """Pseudo-targets that serve no more, or work within the writes by now."""
        known = {row.name for row in line.targets.rows(etype) if row.status != "off" and row.name.startswith(EMBED)}
        return known - self._embedders.pseudo_targets(etype) - self._embedders.upcoming(etype)

    async def _tidy(self, line: Line, etype: str) -> None:
        """Take what works no more out of service, and remove vectors that nothing is compared with."""
        await register(
            line, etype, self._manager.placements[etype], self._manager.stores, self._embedders, line.context.detach
        )
        await line.targets.refresh()
        models = sorted({one.model for one in self._embedders.serving(etype).values()})
        while await line.home.call(SupportsJournal.forget_vectors, etype, models, FORGET_CHUNK):
            pass

    async def _pause(self, line: Line) -> None:
        line.wake()
        await asyncio.sleep(POLL_S)

    # -- the change over ------------------------------------------------------------------------------------------

    async def switch(self, etype: str) -> None:
        """From now on the configured models serve. Searches see the old vectors or the new ones, never both: reads and
        writes of the home wait meanwhile, and a copy is asked again when it is complete."""
        line, embedders = self._manager.line(etype), self._embedders
        placement: Placement = self._manager.placements[etype]
        async with line.alone():
            fields = {**embedders.serving(etype), **embedders.outdated(etype)}
            for row in await line.home.call(SupportsJournal.targets):
                if row.etype == etype and row.name == placement.facets.get("vector"):
                    await line.home.call(SupportsJournal.set_target, replace(row, status="backfilling", cursor=None))
            # Who dies before this has changed nothing; after it, the next one to open goes on.
            line.context.env.crashpoint("rebuild.remember")
            text = (await line.home.call(SupportsJournal.placements))[etype]
            await line.home.call(SupportsJournal.remember, etype, _with(text, fields))
            line.context.env.crashpoint("rebuild.remembered")
            await self._serve(line, etype, fields)
        line.wake()

    async def _serve(self, line: Line, etype: str, fields: dict[str, Made]) -> None:
        """This process goes over to these makings, stores and all."""
        before = self._embedders.serving(etype)
        self._embedders.serve(etype, fields)
        try:
            await self.prepare(etype)
        except BaseException:
            self._embedders.serve(etype, before)
            raise
        self._embedders.switched.add(etype)
        self._switched_us[etype] = line.context.env.now_us()
        await line.targets.refresh()
        await register(
            line, etype, self._manager.placements[etype], self._manager.stores, self._embedders, line.context.detach
        )
        await line.targets.refresh()

    async def follow(self, line: Line) -> None:
        """Go over to what another process has rebuilt."""
        for etype, text in (await line.home.call(SupportsJournal.placements)).items():
            if etype in self._manager.placements and self._changed(etype, text):
                async with line.alone():
                    now = (await line.home.call(SupportsJournal.placements))[etype]
                    if self._changed(etype, now):
                        await self._serve(line, etype, {**self._embedders.serving(etype), **_fields(now)})

    def _changed(self, etype: str, text: str) -> bool:
        serving, fields = self._embedders.serving(etype), _fields(text)
        return any(fields[field] != one for field, one in serving.items() if field in fields)


async def _nothing(etype: str) -> None:
    """The stores are prepared by who opened them."""


def _fields(placement: str) -> dict[str, Made]:
    made_of: dict[str, str] = msgspec.json.decode(placement).get("made_of", {})
    return read_made(made_of.get("vector", ""))


def _with(placement: str, fields: dict[str, Made]) -> str:
    """The remembered placement with other makings."""
    stored: dict[str, Any] = msgspec.json.decode(placement)
    stored["made_of"] = {**stored.get("made_of", {}), "vector": write_made(fields)}
    return msgspec.json.encode(stored).decode()
