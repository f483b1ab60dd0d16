"""Random versioned histories, delivered as a careless network would: the newest version must stand at the end."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import msgspec
import pytest

from polystore.model import EVERYTHING, Change, Key, Stamp
from polystore.protocols import Repository
from polystore.testing.conformance.base import Conformance, change, key_of, removal, turns
from polystore.testing.conformance.entities import THING, WORDS, Thing

APPLIERS = 8


class History(msgspec.Struct, frozen=True):
    """Changes of a few keys in the order of their versions, and the batches in which they arrive."""

    changes: Sequence[Change]
    batches: Sequence[Sequence[Change]]

    @property
    def newest(self) -> dict[Key, Change]:
        return {one.key: one for one in self.changes}


def history(seed: int, *, keys: int = 20, size: int = 400, batch_max: int = 20, tenants: int = 2) -> History:
    """A history from one seed: a fifth deletes, with re-creations; each change arrives at least once, 30 % twice, 5 %
    three times, mostly near its turn, 5 % any time later; batches of 1 to `batch_max`. Versions lie above 2^52."""
    r = random.Random(seed)
    pool = [key_of(THING, f"key-{i}", f"tenant-{i % tenants}") for i in range(keys)]
    changes: list[Change] = []
    for version in range((1 << 52) + 1, (1 << 52) + 1 + size):
        key = r.choice(pool)
        if r.random() < 0.2:
            changes.append(removal(key, version))
        else:
            value = Thing(id=key.id, word=r.choice(WORDS), number=version, tags=[str(version)] * r.randrange(3))
            changes.append(change(THING, value, version, tenant=key.tenant))
    arrivals: list[tuple[float, Change]] = []
    for turn, one in enumerate(changes):
        chance = r.random()
        for _ in range(3 if chance < 0.05 else 2 if chance < 0.35 else 1):
            delay = r.uniform(0, size) if r.random() < 0.05 else r.expovariate(1 / 10)
            arrivals.append((turn + delay, one))
    arrivals.sort(key=lambda pair: pair[0])
    arriving = [one for _, one in arrivals]
    batches: list[Sequence[Change]] = []
    while arriving:
        count = r.choice((1, 1, 2, r.randint(1, batch_max)))
        taken, arriving = arriving[:count], arriving[count:]
        batches += [[c for c in taken if c.key.tenant == t] for t in sorted({c.key.tenant for c in taken})]
    return History(changes, batches)


class HistoriesConformance(Conformance):
    """Whatever the order, the repeats and the company, a copy ends at the newest version and never goes back."""

    protocol = Repository
    types = (THING,)

    @pytest.mark.parametrize("seed", range(6))
    async def test_many_appliers_end_at_the_newest_version_and_no_version_drops(self, seed: int) -> None:
        stores: list[Repository] = [await self.open(), await self.open()]
        given = history(seed, size=200, batch_max=min(20, stores[0].limits.batch_max))
        waiting = list(reversed(given.batches))

        async def applier(store: Repository) -> None:
            while waiting:
                for outcome in await store.apply(waiting.pop()):
                    assert outcome.status in ("applied", "stale"), outcome

        working = asyncio.gather(*(applier(stores[i % 2]) for i in range(APPLIERS)))
        watching = asyncio.gather(*(watch(store, list(given.newest), working) for store in stores))
        await working
        assert await watching > [0, 0], "the reader was never asked"
        await self._ends_at_the_newest(stores, given)

    @pytest.mark.parametrize("seed", range(100, 102))
    async def test_late_repeats_of_old_changes_change_nothing(self, seed: int) -> None:
        store: Repository = await self.open()
        given = history(seed, size=200)
        for batch in given.batches:
            await store.apply(batch)
        r = random.Random(seed)
        for one in r.sample(list(given.changes), 60):
            assert [o.status for o in await store.apply([one])] == ["stale"]
        await self._ends_at_the_newest([store], given)

    @pytest.mark.parametrize("removed", [None, 2, 4])
    async def test_four_versions_of_a_fresh_key_at_once_end_at_the_fourth(self, removed: int | None) -> None:
        """Batches of one: in a larger batch a lost insert race hides behind its neighbours."""
        stores: list[Repository] = [await self.open(), await self.open()]
        r = random.Random(5)
        for turn in turns(60, 15):
            key = key_of(THING, f"fresh-{turn}")
            versions: list[Change] = [
                removal(key, v) if v == removed else change(THING, Thing(id=key.id, number=v), v) for v in (1, 2, 3, 4)
            ]
            r.shuffle(versions)
            outcomes = await asyncio.gather(*(stores[i % 2].apply([one]) for i, one in enumerate(versions)))
            assert {o.status for (o,) in outcomes} <= {"applied", "stale"}
            (record,) = await stores[0].get([key])
            assert record is not None
            assert record.version == 4
            assert record.deleted == (removed == 4)

    async def test_a_cancelled_call_that_arrives_late_undoes_nothing_newer(self) -> None:
        """Cancelling a call does not stop what was sent: the server may carry it out whenever it comes to it."""
        stores: list[Repository] = [await self.open(), await self.open()]
        wanted: dict[Key, int] = {}
        for turn in turns(36, 12):
            key = key_of(THING, f"late-{turn}")
            old = asyncio.create_task(stores[0].apply([change(THING, Thing(id=key.id, number=1), 1)]))
            for _ in range(turn % 12):
                await asyncio.sleep(0)
            old.cancel()
            newer = removal(key, 2) if turn % 3 == 0 else change(THING, Thing(id=key.id, number=2), 2)
            (outcome,) = await stores[1].apply([newer])
            assert outcome.status == "applied"
            await asyncio.gather(old, return_exceptions=True)
            wanted[key] = 0 if turn % 3 == 0 else 2
        for _ in range(6):
            for key, record in zip(wanted, await stores[1].get(list(wanted)), strict=True):
                assert record is not None
                assert (record.version, record.body["number"] if record.body else 0) == (2, wanted[key])
            await asyncio.sleep(0.005)

    async def _ends_at_the_newest(self, stores: Sequence[Repository], given: History) -> None:
        newest = given.newest
        for store in stores:
            for tenant in {key.tenant for key in newest}:
                keys = [key for key in newest if key.tenant == tenant]
                for key, record in zip(keys, await store.get(keys), strict=True):
                    assert record is not None
                    assert (record.version, record.body) == (newest[key].version, newest[key].body)
                stamps = {s.id: s.version for s in (await _scanned(store, tenant))}
                assert stamps == {key.id: newest[key].version for key in keys if not newest[key].deleted}


async def _scanned(store: Repository, tenant: str) -> Sequence[Stamp]:
    page = await store.scan(THING.name, tenant, EVERYTHING, None, 1000)
    assert page.cursor is None or len(page.stamps) == 1000
    return page.stamps


async def watch(store: Repository, keys: Sequence[Key], working: asyncio.Future[list[None]]) -> int:
    """Read until the work is done: no version drops, no key that was seen vanishes. Returns how often it read."""
    seen: dict[Key, int] = {}
    reads = 0
    tenants = sorted({key.tenant for key in keys})
    while not working.done():
        reads += 1
        for tenant in tenants:
            mine = [key for key in keys if key.tenant == tenant]
            for key, record in zip(mine, await store.get(mine), strict=True):
                version = 0 if record is None else record.version
                assert version >= seen.get(key, 0), f"{key} was at {seen[key]}, now at {version}"
                seen[key] = version
        await asyncio.sleep(0)
    return reads
