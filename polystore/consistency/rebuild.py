"""Vectors made anew with the configured model, while the old one serves; then the change over.

The new model is one more pseudo-target of the type: its backfill owes it every record, commits owe it theirs, and the
embedding stage works it off, in any process that knows the model. So a rebuild survives whoever began it. What it makes
lies beside the home under the new model's name. When all is there, who serves changes over: a copy with a second place
by a move to that (`renewing.py`), which is filled with the new vectors while the old ones serve. A home that serves
vectors itself takes them over in one transaction, and a copy without a second place begins anew where it is. Then the
old vectors are removed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Protocol

import msgspec
from msgspec.structs import replace

from polystore.consistency.copies import free_bits, register
from polystore.consistency.embedding import Embedders
from polystore.consistency.line import Line
from polystore.consistency.moving import Mover
from polystore.consistency.renewing import Renewer
from polystore.consistency.settings import Settings
from polystore.consistency.stage import HARMLESS
from polystore.consistency.targets import EMBED
from polystore.embedders import write_made
from polystore.errors import ConfigurationError, IntegrityViolation, did_you_mean
from polystore.model import Placement, TargetRow
from polystore.protocols import Repository, SupportsFilter, SupportsJournal
from polystore.selection.moves import origin
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
    placements: dict[str, Placement]
    stores: Mapping[str, Store]
    settings: Settings
    mover: Mover
    renewer: Renewer

    def line(self, etype: str) -> Line: ...


class Rebuilder:
    """Rebuilds the vectors of the types of one architecture."""

    def __init__(self, manager: _Manager) -> None:
        self._manager = manager
        self._embedders = manager.embedders
        self._switched: dict[str, tuple[int, int]] = {}
        """Entity -> when it changed over here: time in us, and the newest version."""

    def named(self, names: Sequence[str]) -> list[str]:
        """The entities with vectors that are meant by names of entities or stores; all without names. Raises
        ConfigurationError for an unknown name."""
        placements = self._manager.placements
        known = {
            etype: origin(one.facets["vector"]) for etype, one in sorted(placements.items()) if "vector" in one.facets
        }
        for name in names:
            if name not in placements and name not in self._manager.stores:
                hint = did_you_mean(name, [*placements, *self._manager.stores]) or ";"
                raise ConfigurationError(
                    f"no entity and no store is named {name!r}{hint} with vectors: {', '.join(known) or 'none'}"
                )
        return [etype for etype, store in known.items() if not names or {etype, store}.intersection(names)]

    # -- a rebuild ------------------------------------------------------------------------------------------------

    async def rebuild(self, etype: str, progress: Callable[[RebuildProgress], None]) -> int:
        """Make the vectors of a type with the configured models; returns how many texts this process embedded.

        May be cancelled or killed at any moment and called again: it goes on. Waits for an embedder that goes down on
        the way. What was begun for other models than the configured ones, and has not served, is taken back. Raises
        before anything is begun what an embedder raises that does not answer; ConfigurationError when somebody else
        has changed over to another model meanwhile; StoreError when a copy holds what cannot be mended; and outages of
        stores.
        """
        line, renewer = self._manager.line(etype), self._manager.renewer
        outdated = self._embedders.outdated(etype)
        placement = self._manager.placements[etype]
        changing = bool(outdated) or "vector" in {**placement.upcoming, **placement.leaving}
        beside = changing and renewer.beside(etype)
        fields = {**self._embedders.serving(etype), **outdated}
        total = await self._count(line, etype) if outdated else 0
        texts = 0
        if outdated:
            targets = sorted(self._embedders.upcoming(etype))
            before = self._texts(targets)
            for target in targets:
                await self._begin(line, etype, target)
            while not await self._embedded(line, etype, targets):
                progress(RebuildProgress(etype, "embedding", min(total, self._texts(targets) - before), total))
                await asyncio.sleep(POLL_S)
            texts = self._texts(targets) - before
        if beside:
            await renewer.remake(
                etype, fields, lambda now: progress(RebuildProgress(etype, "copying", now.done, now.total))
            )
        elif outdated:
            await self.switch(etype)
        while await self._filling(line, etype):
            progress(RebuildProgress(etype, "copying", total, total))
            await asyncio.sleep(POLL_S)
        line.context.env.crashpoint("rebuild.tidy")
        if self._embedders.outdated(etype):
            raise ConfigurationError(
                f"another process has decided otherwise about the vectors of {etype} meanwhile; look, and say it again"
            )
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
        self._embedders.begun[etype].add(target)
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
            # What was committed before the change over; of later writes, the vectors were made within them.
            time_us, version = self._switched.get(etype, (0, 0))
            on_its_way = backlog.oldest_us is not None and backlog.oldest_us <= time_us
            going = {name for name in going if on_its_way or backlog.oldest.get((etype, name), version + 1) <= version}
        rows = await line.home.call(SupportsJournal.targets)
        return bool(going) or any(
            row.etype == etype and row.name == store and row.status == "backfilling" for row in rows
        )

    def _ending(self, line: Line, etype: str) -> set[str]:
        """Pseudo-targets that serve no more, or work within the writes by now."""
        known = {row.name for row in line.targets.rows(etype) if row.status != "off" and row.name.startswith(EMBED)}
        placement = self._manager.placements[etype]
        return known - self._embedders.pseudo_targets(etype, placement) - self._embedders.upcoming(etype)

    async def _tidy(self, line: Line, etype: str) -> None:
        """Take what works no more out of service, and remove vectors that nothing is compared with."""
        await self._manager.renewer.discard_others(etype)
        for row in line.targets.rows(etype):
            if row.name in self._ending(line, etype):
                await line.home.call(SupportsJournal.set_target, replace(row, status="off", cursor=None), row)
        await line.targets.refresh()
        await register(
            line, etype, self._manager.placements[etype], self._manager.stores, self._embedders, line.context.detach
        )
        await line.targets.refresh()
        models = sorted({one.model for one in self._embedders.serving(etype).values()})
        while await line.home.call(SupportsJournal.forget_vectors, etype, models, FORGET_CHUNK):
            pass

    # -- the change over, in place --------------------------------------------------------------------------------

    async def switch(self, etype: str) -> None:
        """From now on the configured models serve. Searches see the old vectors or the new ones, never both: reads and
        writes of the home wait meanwhile, and a copy is asked again when it is complete."""
        manager, embedders = self._manager, self._embedders
        line = manager.line(etype)
        while True:
            placement = manager.placements[etype]
            fields = {**embedders.serving(etype), **embedders.outdated(etype)}
            made = {**placement.made, placement.facets["vector"]: write_made(fields)}
            if await manager.mover.remember(line, placement, replace(placement, made=made)):
                break
            await manager.renewer.follow(line, etype)  # another process moves a facet of the type at this moment
        newest = await line.home.call(Repository.newest, etype)
        self._switched[etype] = line.context.env.now_us(), newest
        if not await line.home.call(Repository.tenants, etype):  # there is nothing to fill a copy with
            for row in await line.home.call(SupportsJournal.targets):
                if (row.etype, row.name, row.status) == (etype, placement.facets["vector"], "backfilling"):
                    await line.home.call(SupportsJournal.set_target, replace(row, status="active"), row)
            await line.targets.refresh()
        line.wake()
