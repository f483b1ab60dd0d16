"""Verify: does every copy hold exactly what its home holds? Both sides are streamed in the order of their key hashes,
so that memory stays flat whatever the size."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, Literal

import msgspec

from polystore.consistency.embedding import Embedders, by_record
from polystore.consistency.loading import load
from polystore.model import EVERYTHING, JOURNAL_BODY, Key, Placement, Stamp, vector_digest
from polystore.protocols import Repository, SupportsApplicationTables, SupportsJournal
from polystore.store import Store

PAGE = 1_000

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
        first. A home that serves facets itself is checked against itself."""
        placement = self._placements[etype]
        home = self._stores[placement.authority]
        if home.supports(SupportsApplicationTables):
            for key in await home.call(SupportsApplicationTables.strays, etype, PAGE):
                yield Difference(home.name, key, "stray", None, None, "by somebody else, and not taken over yet")
        served: dict[str, set[str]] = {placement.home: set()} if placement.journal else {}
        for facet, name in placement.facets.items():
            served.setdefault(name, set()).add(facet)
        for name, facets in served.items():
            copy = self._stores[name]
            tenants = set(await home.call(Repository.tenants, etype)) | set(await copy.call(Repository.tenants, etype))
            tally = itertools.count(1)
            for tenant in sorted(tenants):
                async for difference in self._compare(etype, tenant, home, copy, "vector" in facets, tally):
                    lent = placement.lent and name == placement.home
                    yield await _lost(home, difference) if lent else difference
            self._progress(etype, name, next(tally) - 1)

    async def _compare(
        self, etype: str, tenant: str, home: Store, copy: Store, vectors: bool, tally: Iterator[int]
    ) -> AsyncIterator[Difference]:
        here, there = _stamps(home, etype, tenant), _stamps(copy, etype, tenant)
        pairs: list[tuple[Stamp, Stamp]] = []
        a, b = await anext(here, None), await anext(there, None)
        while a is not None or b is not None:
            if (count := next(tally)) % PAGE == 0:
                self._progress(etype, copy.name, count)
            if b is None or (a is not None and (a.h, a.id) < (b.h, b.id)):
                assert a is not None
                yield Difference(copy.name, Key(tenant, etype, a.id), "missing", a.version, None)
                a = await anext(here, None)
                continue
            if a is None or (b.h, b.id) < (a.h, a.id):
                yield Difference(copy.name, Key(tenant, etype, b.id), "extra", None, b.version)
                b = await anext(there, None)
                continue
            difference = _difference(copy.name, Key(tenant, etype, a.id), a, b)
            if difference is not None:
                yield difference
            elif vectors:
                pairs.append((a, b))
                if len(pairs) == PAGE:
                    async for one in self._wrong_vectors(etype, tenant, home, copy, pairs):
                        yield one
                    pairs.clear()
            a, b = await anext(here, None), await anext(there, None)
        async for one in self._wrong_vectors(etype, tenant, home, copy, pairs):
            yield one

    async def _wrong_vectors(
        self, etype: str, tenant: str, home: Store, copy: Store, pairs: list[tuple[Stamp, Stamp]]
    ) -> AsyncIterator[Difference]:
        """Compare the copy's vectors with those that the records should have."""
        keys = [Key(tenant, etype, a.id) for a, _ in pairs]
        if not keys:
            return
        changes = await load(home, dict.fromkeys(keys, 0))
        stored = by_record(await home.call(SupportsJournal.vectors, keys))
        for key, (_, there) in zip(keys, pairs, strict=True):
            change = changes.get(key)
            if change is None or change.deleted or change.version != there.version:
                continue  # changed since it was listed
            wanted = self._embedders.complete(change, stored.get(key, {}))
            found = dict(there.vectors)
            if wanted is None or {f: vector_digest(v) for f, v in wanted.items()} != found:
                yield Difference(copy.name, key, "vector", change.version, there.version)


def _quiet(etype: str, store: str, records: int) -> None:
    """No progress wanted."""


def _difference(store: str, key: Key, here: Stamp, there: Stamp) -> Difference | None:
    problem: Problem | None = None
    if there.version != here.version:
        problem = "older" if there.version < here.version else "newer"
    elif here.hash and there.hash != here.hash:  # of a class that had other fields a journal knows no hash
        problem = "content"
    elif there.fault:
        problem = "fault"
    if problem is None:
        return None
    return Difference(store, key, problem, here.version, there.version, there.fault)


async def _lost(journal: Store, difference: Difference) -> Difference:
    """What a home lacks that its journal keeps no more is lost; else the journal delivers it."""
    if difference.problem not in ("missing", "older"):
        return difference
    (kept,) = await journal.call(Repository.get, [difference.key])
    gone = kept is not None and kept.body is not None and kept.body[JOURNAL_BODY] is None
    return msgspec.structs.replace(difference, problem="lost") if gone else difference


async def _stamps(store: Store, etype: str, tenant: str) -> AsyncIterator[Stamp]:
    cursor: str | None = None
    while True:
        page: Any = await store.call(Repository.scan, etype, tenant, EVERYTHING, cursor, PAGE)
        for stamp in page.stamps:
            yield stamp
        cursor = page.cursor
        if cursor is None:
            return
