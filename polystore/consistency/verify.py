"""Verify: does every copy hold exactly what its home holds? Both sides are read in the order of their key hashes, a
window of hashes at a time, so that memory stays flat whatever the size."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping
from typing import Literal, NamedTuple

import msgspec

from polystore.consistency.embedding import Embedders, by_record
from polystore.consistency.loading import load_each
from polystore.consistency.refusals import Refusals, refusals
from polystore.model import EVERYTHING, JOURNAL_BODY, UNREADABLE, HashSpan, Key, Page, Placement, Stamp, vector_digest
from polystore.protocols import Repository, SupportsApplicationTables, SupportsJournal
from polystore.store import Store

PAGE = 1_000
AT_HOME = f"{UNREADABLE}, at home: write the record again, as a copy or a backup has it; it is brought to no copy"

Problem = Literal["missing", "lost", "extra", "older", "newer", "content", "vector", "fault", "stray"]


class Difference(msgspec.Struct, frozen=True):
    """One record that a copy holds otherwise than its home.

    missing: only the home has it. lost: a home that cannot commit does not hold what its journal has left to it, so
    that only another copy could bring it back. extra: only the copy has it. older, newer: another version. content: the
    same version with another content hash. vector: another vector. fault: the copy contradicts itself (`detail` says
    how). stray: a row of an application's table that came or went without polystore's knowledge.
    """

    store: str
    key: Key
    problem: Problem
    home_version: int | None
    copy_version: int | None
    detail: str = ""


class Side(NamedTuple):
    """One tenant's records of one type in one copy, and what they are compared with. `lent`: the copy is the home, and
    `home` its journal. `first`: of the copies that are compared; what is damaged at home is told beside that alone."""

    etype: str
    tenant: str
    home: Store
    copy: Store
    vectors: bool
    lent: bool
    first: bool

    def key(self, id: str) -> Key:
        return Key(self.tenant, self.etype, id)


class Window(NamedTuple):
    """All records of both sides whose hashes are in the span, by id."""

    span: HashSpan
    here: Mapping[str, Stamp]
    there: Mapping[str, Stamp]

    def __len__(self) -> int:
        return len(self.here.keys() | self.there.keys())


class Verifier:
    """Compares the copies of one architecture with their homes. Reads only. `progress` is told entity, copy, and how
    many records of all tenants were compared there so far."""

    def __init__(
        self,
        stores: Mapping[str, Store],
        placements: Mapping[str, Placement],
        embedders: Embedders,
        *,
        progress: Callable[[str, str, int], None] | None = None,
    ) -> None:
        self._stores = stores
        self._placements = placements
        self._embedders = embedders
        self._progress = progress or _quiet

    async def differences(self, etype: str) -> AsyncIterator[Difference]:
        """All differences of one entity type. Changes that are still being delivered would be reported too: settle
        first, or use `Mender.confirmed`. A home that serves facets itself is checked against itself."""
        async for one in self.strays(etype):
            yield one
        counts: dict[str, int] = {}
        async for side in self.sides(etype):
            counts.setdefault(side.copy.name, 0)
            async for window in self.windows(side):
                counts[side.copy.name] += len(window)
                self._progress(etype, side.copy.name, counts[side.copy.name])
                for one in await self.judged(side, window):
                    yield one
        for name, count in counts.items():
            self._progress(etype, name, count)

    async def strays(self, etype: str) -> AsyncIterator[Difference]:
        """What came into an application's table without polystore's knowledge."""
        home = self._stores[self._placements[etype].authority]
        if home.supports(SupportsApplicationTables):
            for key in await home.call(SupportsApplicationTables.strays, etype, PAGE):
                yield Difference(home.name, key, "stray", None, None, "by somebody else, and not taken over yet")

    async def sides(self, etype: str, only: Collection[str] | None = None) -> AsyncIterator[Side]:
        """What is to be compared, of the copies in `only`; None: of all. Raises KeyError for a store that is not open
        here."""
        placement = self._placements[etype]
        home = self._stores[placement.authority]
        served: dict[str, set[str]] = {placement.home: set()} if placement.journal else {}
        for facet, name in placement.facets.items():
            served.setdefault(name, set()).add(facet)
        names = [name for name in served if only is None or name in only]
        for name in names:
            copy = self._stores[name]
            lent = placement.lent and name == placement.home
            tenants = set(await home.call(Repository.tenants, etype)) | set(await copy.call(Repository.tenants, etype))
            for tenant in sorted(tenants):
                yield Side(etype, tenant, home, copy, "vector" in served[name], lent, name == names[0])

    async def windows(
        self, side: Side, span: HashSpan = EVERYTHING, sized: Callable[[], int] = lambda: PAGE
    ) -> AsyncIterator[Window]:
        """The records of both sides, about as many at a time as `sized` says, as each side has them when it is
        asked."""
        low, size = span.low, sized()
        while low < span.high:
            rest = HashSpan(low, span.high)
            pages: list[Page] = [await _page(store, side, rest, size) for store in (side.home, side.copy)]
            high = min(span.high, *[_end(page, span) for page in pages])
            if high == low:  # more records have this one hash
                size *= 2
                continue
            here, there = [_by_id(page, high) for page in pages]
            yield Window(HashSpan(low, high), here, there)
            low, size = high, sized()

    async def window(self, side: Side, span: HashSpan) -> Window:
        """The same records once more."""
        here, there = [await _page(store, side, span, None) for store in (side.home, side.copy)]
        return Window(span, _by_id(here, span.high), _by_id(there, span.high))

    async def judged(self, side: Side, window: Window) -> list[Difference]:
        """The differences of a window, in the order of their hashes."""
        found: dict[str, Difference] = {}
        equal: list[str] = []
        for id in window.here.keys() | window.there.keys():
            here, there = window.here.get(id), window.there.get(id)
            if here is not None and here.fault == UNREADABLE:
                if side.first:
                    copied = None if there is None else there.version
                    found[id] = Difference(side.home.name, side.key(id), "fault", here.version, copied, AT_HOME)
                continue
            one = _difference(side, id, here, there)
            if one is None:
                equal.append(id)
            else:
                found[id] = await _lost(side.home, one) if side.lent else one
        if side.vectors and equal:
            found |= await self._wrong_vectors(side, window, equal)
        stamps = {**window.there, **window.here}
        return [found[id] for id in sorted(found, key=lambda id: (stamps[id].h, id))]

    async def _wrong_vectors(self, side: Side, window: Window, ids: Collection[str]) -> dict[str, Difference]:
        """Compare the copy's vectors with those that the records should have."""
        keys = [side.key(id) for id in ids]
        changes, _ = await load_each(side.home, dict.fromkeys(keys, 0))
        stored = by_record(await side.home.call(SupportsJournal.vectors, keys))
        found: dict[str, Difference] = {}
        refused: Refusals | None = None
        for key in keys:
            change, there = changes.get(key), window.there[key.id]
            if change is None or change.deleted or change.version != there.version:
                continue  # changed since it was listed
            known = stored.get(key, {})
            wanted = self._embedders.complete(change, known, side.copy.name)
            if wanted is None:
                if refused is None:
                    made = self._embedders.makings(side.etype).at(side.copy.name)
                    versions = {one.key: one.version for one in changes.values()}
                    refused = await refusals(side.home, {one.model for one in made.values()}, versions, PAGE)
                wanted = self._embedders.complete(change, known, side.copy.name, refused.get(key, ()))
            if wanted is None or {f: vector_digest(v) for f, v in wanted.items()} != dict(there.vectors):
                found[key.id] = Difference(side.copy.name, key, "vector", change.version, there.version)
        return found


def _quiet(etype: str, store: str, records: int) -> None:
    """No progress wanted."""


def _difference(side: Side, id: str, here: Stamp | None, there: Stamp | None) -> Difference | None:
    problem: Problem | None = None
    fault = "" if there is None else there.fault
    if here is None:
        problem = "extra"
    elif there is None:
        problem = "missing"
    elif there.version != here.version:
        problem = "older" if there.version < here.version else "newer"
    elif here.hash and there.hash != here.hash:  # of a class that had other fields a journal knows no hash
        problem = "content"
    elif fault:
        problem = "fault"
    if problem is None:
        return None
    home_version, copy_version = (None if one is None else one.version for one in (here, there))
    return Difference(side.copy.name, side.key(id), problem, home_version, copy_version, fault)


async def _lost(journal: Store, difference: Difference) -> Difference:
    """What a home lacks that its journal keeps no more is lost; else the journal delivers it."""
    if difference.problem not in ("missing", "older"):
        return difference
    (kept,) = await journal.call(Repository.get, [difference.key])
    gone = kept is not None and kept.body is not None and kept.body[JOURNAL_BODY] is None
    return msgspec.structs.replace(difference, problem="lost") if gone else difference


def _end(page: Page, span: HashSpan) -> int:
    """The hash below which the page has everything."""
    return span.high if page.cursor is None else page.stamps[-1].h


def _by_id(page: Page, high: int) -> dict[str, Stamp]:
    return {one.id: one for one in page.stamps if one.h < high}


async def _page(store: Store, side: Side, span: HashSpan, size: int | None) -> Page:
    """The first stamps of the span, in as many calls as it takes to have `size` of them; None: all."""
    stamps: list[Stamp] = []
    cursor: str | None = None
    while True:
        page = await store.call(Repository.scan, side.etype, side.tenant, span, cursor, min(PAGE, size or PAGE))
        stamps += page.stamps
        cursor = page.cursor
        if cursor is None or (size is not None and len(stamps) >= size):
            return Page(stamps, cursor)
