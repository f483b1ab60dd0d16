"""Everything of one architecture into another: records, the content of their files, points, logs.

For an application that outgrows its stores: a home never moves because a configuration changed, so the next stores are
filled from the ones before, and then opened instead of them. What is there already and the same is not written again:
a transfer that was interrupted is repeated, and one that ran beside the application is followed by a short one when the
application has stopped.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from polystore.architecture import HybridDataArchitecture
from polystore.collection import KeyValue, Log
from polystore.collection.measures import KINDS
from polystore.collection.paging import after, position, total_order
from polystore.entity import EntityType
from polystore.errors import ConfigurationError
from polystore.filters import Checked
from polystore.model import FileRef, Record, Series, Span, refs_of
from polystore.protocols import FACTS_MAX, Repository, SupportsFilter, SupportsTimeRange
from polystore.store import Store

PAGE = 500
FIRST_US = -(1 << 62)
"""Before any time."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Transferred(msgspec.Struct):
    """What became of one entity: records (or lines of a log) that were read, written because they were not there or
    different, and deleted because the source has them no more; points of measures; files whose content was sent."""

    entity: str
    read: int = 0
    written: int = 0
    deleted: int = 0
    points: int = 0
    files: int = 0


Progress = Callable[[Transferred], None]


async def transfer(
    source: HybridDataArchitecture,
    target: HybridDataArchitecture,
    *,
    delete: bool = False,
    progress: Progress | None = None,
) -> list[Transferred]:
    """Bring all tenants' records of `source` to `target`, with the content of their files and the points of their
    measures, and the lines of logs of the tenants that have records. Both have the same entity classes, and no store
    in common. delete: what the target has and the source has not is deleted.

    The target's records get versions of their own. A record that expires does so at the same time; it is written each
    time. Vectors that the application gave for texts are made by the target's embedder, points of records that do not
    exist are not found, and state (sessions, counters, limits) stays behind. progress: called after each page.
    Cancelled or killed at any moment, call it again. Raises ConfigurationError when the classes differ, and what the
    stores raise.
    """
    missing = sorted(source.types.keys() ^ target.types.keys())
    if missing:
        raise ConfigurationError(f"source and target have other entities: {', '.join(missing)}; give both the same")
    moves = [_Move(source, target, entity, progress or _quiet) for entity in source.types.values()]
    records = [one for one in moves if one.entity.name in source.manager.placements]
    tenants: set[str] = {""}
    for move in records:
        tenants |= set(await move.run(delete))
    for move in moves:
        if move.entity.data_type is not None and "at" in move.entity.fields and move not in records:
            for tenant in sorted(tenants):
                await move.lines(tenant)
    return [move.report for move in moves]


class _Move:
    """One entity, from the one to the other."""

    def __init__(
        self,
        source: HybridDataArchitecture,
        target: HybridDataArchitecture,
        entity: EntityType[Any],
        progress: Progress,
    ) -> None:
        self.entity = entity
        self.report = Transferred(entity.name)
        self._source, self._target, self._progress = source, target, progress
        self._order = total_order(entity, ())

    async def run(self, delete: bool) -> Sequence[str]:
        """All records of the type; returns the tenants that have any."""
        tenants = await _commits(self._source, self.entity.name).call(Repository.tenants, self.entity.name)
        for tenant in tenants:
            async with aclosing(self._pages(self._source, tenant)) as pages:
                async for records in pages:
                    await self._bring(tenant, records)
                    self._progress(self.report)
        if delete:
            there = await _commits(self._target, self.entity.name).call(Repository.tenants, self.entity.name)
            for tenant in there:
                await self._delete(tenant)
        return tenants

    async def _pages(self, hda: HybridDataArchitecture, tenant: str) -> AsyncGenerator[Sequence[Record]]:
        """Live records in the order of their keys."""
        store = hda.stores[hda.manager.placements[self.entity.name].home]
        rest: Checked | None = None
        while True:
            page = await store.call(SupportsFilter.find, self.entity.name, tenant, rest, self._order, PAGE)
            if page:
                yield page
            if len(page) < PAGE:
                return
            rest = after(self.entity, self._order, position(self._order, page[-1].body or {}))

    async def _bring(self, tenant: str, records: Sequence[Record]) -> None:
        entity, collection = self.entity, _of(self._target, tenant).collection(self.entity.cls)
        if entity.files:
            for ref in itertools.chain.from_iterable(refs_of(entity.files, record.body or {}) for record in records):
                self.report.files += await self._content(tenant, ref)
        home = self._target.stores[self._target.manager.placements[entity.name].home]
        there = await home.get([record.key for record in records])
        # The same content is not written again by an import, whatever its end is there: that is told by a put.
        ending = {one.key for one in (*records, *there) if one is not None and one.expires_us}
        report = await collection.import_many(
            entity.decode(record.body) for record in records if record.body and record.key not in ending
        )
        self.report.read += len(records)
        self.report.written += report.written
        now_us = self._source.manager.env.now_us()
        for record in records:
            if record.body and record.key in ending and not 0 < record.expires_us <= now_us:
                ttl_s = (record.expires_us - now_us) / 1e6 if record.expires_us else None
                await collection.put(entity.decode(record.body), ttl_s=ttl_s)
                self.report.written += 1
        for record in records if entity.measures else ():
            self.report.points += await self._points(tenant, record.key.id)

    async def _delete(self, tenant: str) -> None:
        """Both sides are in the order of their keys."""
        collection = _of(self._target, tenant).collection(self.entity.cls)
        async with (
            aclosing(self._keys(self._source, tenant)) as here,
            aclosing(self._keys(self._target, tenant)) as there,
        ):
            ours = await anext(here, None)
            async for theirs in there:
                while ours is not None and ours < theirs:  # type: ignore[operator]  # both of the key's type
                    ours = await anext(here, None)
                if ours != theirs:
                    await collection.delete(theirs)
                    self.report.deleted += 1

    async def _keys(self, hda: HybridDataArchitecture, tenant: str) -> AsyncGenerator[KeyValue]:
        async with aclosing(self._pages(hda, tenant)) as pages:
            async for records in pages:
                for record in records:
                    yield self.entity.key_value(record.key.id)

    # -- what belongs to a record ---------------------------------------------------------------------------------

    async def _content(self, tenant: str, ref: FileRef) -> bool:
        """Whether the content was sent: under its own key, so that the record's reference holds for both."""
        here, there = (_of(hda, tenant).files for hda in (self._source, self._target))
        if await there.exists(ref) or not await here.exists(ref):
            return False  # what is nowhere the import names, with the record
        async with here.open(ref) as chunks:
            await there.restore(ref, chunks)
        return True

    async def _points(self, tenant: str, id: str) -> int:
        """How many points a record has."""
        name, count = self.entity.name, 0
        store = self._source.stores[self._source.facts.measuring(name)]
        collection, key = _of(self._target, tenant).collection(self.entity.cls), self.entity.key_value(id)
        for measure in self.entity.measures.values():
            series, span = Series(tenant, name, measure.name, id, KINDS[measure.type]), Span(FIRST_US)
            while page := await store.call(SupportsTimeRange.points, series, span, FACTS_MAX, False):
                times = (_EPOCH + timedelta(microseconds=row.at_us) for row in page)
                points = [(key, at, row.value) for at, row in zip(times, page, strict=True)]
                count += await collection.append_many(measure, points)
                span = Span(page[-1].at_us + 1)
        return count

    # -- logs -----------------------------------------------------------------------------------------------------

    async def lines(self, tenant: str) -> None:
        """All lines of a log, oldest first. A line that is there is left as it is."""
        here, there = (_of(hda, tenant).log(self.entity.cls) for hda in (self._source, self._target))
        before, chunk = await there.count(), list[Any]()
        async for line in here.stream():
            chunk.append(line)
            if len(chunk) == FACTS_MAX:
                await self._append(there, chunk)
                chunk.clear()
        await self._append(there, chunk)
        self.report.written += await there.count() - before

    async def _append(self, log: Log[Any], lines: Sequence[Any]) -> None:
        self.report.read += await log.append_many(lines)
        self._progress(self.report)


def _of(hda: HybridDataArchitecture, tenant: str) -> HybridDataArchitecture:
    return hda.tenant(tenant) if tenant else hda


def _commits(hda: HybridDataArchitecture, etype: str) -> Store:
    return hda.stores[hda.manager.placements[etype].authority]


def _quiet(_: Transferred) -> None:
    """No progress wanted."""
