"""Vectors made anew with the configured model, while the old one serves; then the change over.

The new model is one more pseudo-target of the type: its backfill owes it every record, commits owe it theirs, and the
embedding stage works it off, in any process that knows the model. So a rebuild survives whoever began it. What it makes
lies beside the home under the new model's name. When all is there, the placement is remembered with the new model, the
stores are prepared for it and take over what lies beside the home, and the old vectors are removed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

import msgspec
from msgspec.structs import replace

from polystore.consistency.copies import free_bits, register
from polystore.consistency.embedding import Embedders
from polystore.consistency.line import Line
from polystore.consistency.settings import Settings
from polystore.consistency.stage import HARMLESS
from polystore.consistency.targets import EMBED
from polystore.embedders import Made, read_made, write_configs, write_made
from polystore.embedding import Embedder
from polystore.errors import ConfigurationError, IntegrityViolation, did_you_mean
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
    placements: dict[str, Placement]
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
        self._switched: dict[str, tuple[int, int]] = {}
        """Entity -> when it changed over here: time in us, and the newest version."""

    def named(self, names: Sequence[str]) -> list[str]:
        """The entities with vectors that are meant by names of entities or stores; all without names. Raises
        ConfigurationError for an unknown name."""
        placements = self._manager.placements
        known = {etype: one.facets["vector"] for etype, one in sorted(placements.items()) if "vector" in one.facets}
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
        line.context.env.crashpoint("rebuild.tidy")
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
            # What was committed before the change over; of later writes, the vectors were made within them.
            time_us, version = self._switched.get(etype, (0, 0))
            on_its_way = backlog.oldest_us is not None and backlog.oldest_us <= time_us
            going = {name for name in going if on_its_way or backlog.oldest.get(name, version + 1) <= version}
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
            remembered = False
            while not remembered:  # another process may move a facet of the type at this moment
                text = (await line.home.call(SupportsJournal.placements))[etype]
                now = _with(text, fields, embedders.known())
                remembered = await line.home.call(SupportsJournal.remember, etype, now, text)
            line.context.env.crashpoint("rebuild.remembered")
            await self._serve(line, etype, fields)
            line.context.env.crashpoint("rebuild.served")
            await register(line, etype, placement, self._manager.stores, embedders, line.context.detach)
            await line.targets.refresh()
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
        newest = await line.home.call(Repository.newest, etype)
        self._switched[etype] = line.context.env.now_us(), newest
        await line.targets.refresh()

    async def follow(self, line: Line, texts: Mapping[str, str]) -> bool:
        """Go over to what another process has rebuilt, by the remembered placements; False when there is nothing new. A
        model that this one cannot ask is left to those that can."""
        followed = False
        for etype, text in texts.items():
            if etype in self._manager.placements and self._changed(etype, text):
                async with line.alone():
                    now = (await line.home.call(SupportsJournal.placements))[etype]
                    if self._changed(etype, now):
                        self._embedders.learn(_made_of(now).get("embedders", ""), _fields(now))
                        await self._serve(line, etype, {**self._embedders.serving(etype), **_fields(now)})
                        self._leave_to_others(line, etype)
                    followed = True
        return followed

    def _leave_to_others(self, line: Line, etype: str) -> None:
        """Who rebuilt has said which embedders work on; this process wants no others."""
        stages = {row.name for row in line.targets.rows(etype) if row.name.startswith(EMBED) and row.status != "off"}
        wanted = {name for name in line.wanted.get(etype, frozenset()) if not name.startswith(EMBED)}
        line.wanted[etype] = frozenset(wanted | (stages & self._embedders.pseudo_targets(etype)))
        self._embedders.elsewhere[etype] = {name.removeprefix(EMBED) for name in stages}

    def _changed(self, etype: str, text: str) -> bool:
        serving, fields = self._embedders.serving(etype), _fields(text)
        return any(fields[field] != one for field, one in serving.items() if field in fields)


async def _nothing(etype: str) -> None:
    """The stores are prepared by who opened them."""


def _made_of(placement: str) -> dict[str, str]:
    found: dict[str, str] = msgspec.json.decode(placement).get("made_of", {})
    return found


def _fields(placement: str) -> dict[str, Made]:
    return read_made(_made_of(placement).get("vector", ""))


def _with(placement: str, fields: dict[str, Made], embedders: Sequence[Embedder]) -> str:
    """The remembered placement with other makings."""
    stored: dict[str, Any] = msgspec.json.decode(placement)
    made_of = _made_of(placement)
    configs = write_configs([one.model for one in fields.values()], embedders, made_of.get("embedders", ""))
    stored["made_of"] = {**made_of, "vector": write_made(fields), "embedders": configs}
    return msgspec.json.encode(stored).decode()
