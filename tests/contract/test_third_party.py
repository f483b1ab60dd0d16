"""The kit as a third party meets it: an adapter in one file, claiming nothing, and the classes that it needs."""

from __future__ import annotations

import asyncio
import copy
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from polystore.entity import EntityType
from polystore.env import Env
from polystore.errors import Unavailable
from polystore.model import APPLIED, STALE, Change, HashSpan, Instance, Key, Limits, Outcome, Page, Record, Stamp
from polystore.protocols import Repository
from polystore.testing.conformance import (
    Connect,
    DurabilityConformance,
    FilterConformance,
    HistoriesConformance,
    RecordsConformance,
    RepositoryConformance,
)
from polystore.testing.conformance.entities import KIT

Data = dict[Key, Change]


class Shelf:
    """Records in a dict, as small as a repository can be."""

    capabilities: frozenset[type] = frozenset()
    limits = Limits(batch_max=100)

    def __init__(self, data: Data) -> None:
        self._data = data
        self._open = True

    async def _turn(self) -> None:
        await asyncio.sleep(0)
        if not self._open:
            raise Unavailable("the shelf is closed")

    async def get(self, keys: Sequence[Key]) -> list[Record | None]:
        await self._turn()
        return [_record(self._data.get(key)) for key in keys]

    async def apply(self, changes: Sequence[Change]) -> list[Outcome]:
        await self._turn()
        return [self._put(change) for change in changes]

    def _put(self, change: Change) -> Outcome:
        standing = self._data.get(change.key)
        if standing is not None and not change.replaces(standing.version):
            return STALE
        self._data[change.key] = copy.deepcopy(change)
        return APPLIED

    async def scan(self, etype: str, tenant: str, span: HashSpan, cursor: str | None, limit: int) -> Page:
        await self._turn()
        live = [c for key, c in self._data.items() if (key.etype, key.tenant) == (etype, tenant) and not c.deleted]
        places = sorted((c.h, c.key.id) for c in live if span.low <= c.h < span.high)
        after = [place for place in places if cursor is None or f"{place[0]:010}{place[1]}" > cursor]
        stamps = [_stamp(self._data[Key(tenant, etype, id)], KIT[etype]) for _, id in after[:limit]]
        last = f"{after[limit - 1][0]:010}{after[limit - 1][1]}" if len(after) > limit else None
        return Page(stamps, last)

    async def tenants(self, etype: str) -> list[str]:
        await self._turn()
        return sorted({key.tenant for key, c in self._data.items() if key.etype == etype and not c.deleted})

    async def newest(self, etype: str) -> int:
        await self._turn()
        return max((c.version for key, c in self._data.items() if key.etype == etype), default=0)

    async def ping(self) -> Instance:
        await self._turn()
        return Instance("shelf", "1", "one")

    async def aclose(self) -> None:
        self._open = False


def _record(change: Change | None) -> Record | None:
    if change is None:
        return None
    return copy.deepcopy(Record(change.key, change.version, change.body, change.hash, change.updated_us))


def _stamp(change: Change, etype: EntityType[object]) -> Stamp:
    return Stamp(change.key.id, change.h, change.version, etype.content_hash(change.body or {}))


class OnAShelf:
    @pytest.fixture
    def connect(self) -> Connect:
        data: Data = {}

        async def connected(env: Env) -> Repository:
            return Shelf(data)

        return connected


class TestRepository(OnAShelf, RepositoryConformance):
    pass


class TestRecords(OnAShelf, RecordsConformance):
    pass


class TestHistories(OnAShelf, HistoriesConformance):
    pass


class TestDurability(OnAShelf, DurabilityConformance):
    pass


def test_a_class_for_a_protocol_that_is_not_claimed_says_so() -> None:
    async def connected(env: Env) -> Repository:
        return Shelf({})

    case = FilterConformance()
    case.use(connected)
    with pytest.raises(AssertionError, match="SupportsFilter, which the repository does not claim"):
        getattr(case, "test_without_a_condition_everything_is_found")()  # noqa: B009 -- not a coroutine any more


def test_without_the_fixture_the_kit_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(
        "from polystore.testing.conformance import RepositoryConformance\n"
        "class TestMine(RepositoryConformance):\n"
        "    pass\n"
    )
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(tmp_path),
        str(tmp_path),
    ]
    answer = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert answer.returncode == 1
    assert "TestMine must override the fixture `connect`" in answer.stdout
