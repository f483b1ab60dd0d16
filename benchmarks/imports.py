"""Row 6: `import_many` into a home that owes every record to a copy, against sqlite3's executemany."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Protocol

import msgspec

from benchmarks.data import Listed
from benchmarks.measure import ROUNDS, Ratio, Round, at_least, interleaved
from polystore import HybridDataArchitecture
from polystore.collection.importing import CHUNK_MAX
from polystore.consistency import Settings
from polystore.model import key_hash

TARGET = 0.6
LARGE = 2_000
"""Values of one of our commits, when nobody delivers and they are quick."""
_RECORD = (
    "CREATE TABLE listed (ps_rid INTEGER PRIMARY KEY, ps_tenant TEXT NOT NULL, ps_version BIGINT NOT NULL, "
    "ps_h BIGINT NOT NULL, ps_hash BLOB NOT NULL, ps_updated_at BIGINT NOT NULL, ps_expires_at BIGINT, "
    "id TEXT NOT NULL, owner TEXT, title TEXT, body TEXT, stars INTEGER, ratio REAL, UNIQUE (ps_tenant, id))"
)
_OUTBOX = (
    "CREATE TABLE ps_outbox (version INTEGER PRIMARY KEY, tenant TEXT NOT NULL, etype TEXT NOT NULL, id TEXT NOT NULL, "
    "h INTEGER NOT NULL, targets INTEGER NOT NULL, owner TEXT, claimed_at INTEGER, claims INTEGER NOT NULL, "
    "created_at INTEGER NOT NULL)"
)
_HASHES = "CREATE INDEX hashes ON listed (ps_tenant, ps_h)"


class Importer(Protocol):
    async def import_many(self, values: Sequence[Listed], /) -> object: ...


class ByHand:
    """The same columns with the same durability, one commit for each `size` values: nothing read before, nothing
    checked, no hash of the content computed. `hashes`: with the index that `verify` walks, too."""

    def __init__(self, path: Path, *, hashes: bool = False, size: int = LARGE) -> None:
        self._size = size
        self.db = sqlite3.connect(path, isolation_level=None)
        for sql in ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", "PRAGMA cache_size=-16000"):
            self.db.execute(sql)
        for sql in (_RECORD, _OUTBOX, *([_HASHES] if hashes else [])):
            self.db.execute(sql)
        self._version = 0

    async def import_many(self, values: Sequence[Listed]) -> None:
        rest = iter(values)
        while part := list(islice(rest, self._size)):
            now_us = time.time_ns() // 1000
            rows = [
                (version, key_hash("", "listed", one.id), one)
                for version, one in enumerate(part, start=self._version + 1)
            ]
            self.db.execute("BEGIN IMMEDIATE")
            self.db.executemany(
                "INSERT INTO listed VALUES (NULL, '', ?, ?, ?, ?, NULL, ?, ?, ?, ?, ?, ?)",
                [
                    (version, h, bytes(16), now_us, one.id, one.owner, one.title, one.body, one.stars, one.ratio)
                    for version, h, one in rows
                ],
            )
            self.db.executemany(
                "INSERT INTO ps_outbox VALUES (?, '', 'listed', ?, ?, 1, NULL, NULL, 0, ?)",
                [(version, one.id, h, now_us) for version, h, one in rows],
            )
            self.db.execute("COMMIT")
            self._version += len(part)


async def ten_thousand(directory: Path) -> list[Ratio]:
    return await _measured(directory, "import_many of 10,000", 10_000, ROUNDS)


async def million(directory: Path) -> list[Ratio]:
    """Into tables that grow to a million."""
    return await _measured(directory, "import_many of 1,000,000 in ten parts", 100_000, 9)


async def _measured(directory: Path, name: str, count: int, rounds: int) -> list[Ratio]:
    """Nobody delivers meanwhile, on any side: as in a process that imports beside `polystore worker`."""
    by_hand = {
        "bare": ByHand(directory / "bare.db"),
        "small": ByHand(directory / "small.db", size=CHUNK_MAX),
        "indexed": ByHand(directory / "indexed.db", hashes=True),
    }
    config = {
        "stores": {
            "home": {"url": f"sqlite:{directory}/ours.db", "roles": ["home", "journal"]},
            "search": {"url": f"sqlite:{directory}/search.db", "roles": ["full_text"]},
        }
    }
    settings = Settings(queue_max=CHUNK_MAX - 1, backlog_soft=1 << 40, backlog_hard=1 << 40)
    async with HybridDataArchitecture.open(config, entities=[Listed], settings=settings) as hda:
        for line in hda.manager.lines.values():
            await line.stop()
        ratios = await compared(6, name, "executemany + outbox", hda.collection(Listed), by_hand, count, rounds)
    for one in by_hand.values():
        one.db.close()
    return ratios


async def compared(
    row: int,
    name: str,
    against: str,
    ours: Importer,
    by_hand: Mapping[str, Importer],
    count: int,
    rounds: int,
) -> list[Ratio]:
    """Our import of `count` values against three by hand: "bare", which the target is about, "small", with commits of
    500, and "indexed", with the index that `verify` walks."""

    def round_of(contender: Importer) -> Round:
        async def once() -> float:
            values = [Listed() for _ in range(count)]
            started = time.perf_counter()
            await contender.import_many(values)
            return (time.perf_counter() - started) / count

        return once

    contenders = {"ours": ours, **by_hand}
    times = await interleaved({key: round_of(one) for key, one in contenders.items()}, rounds)

    def informs(what: str, theirs: str) -> Ratio:
        ratio = at_least(row, name, what, TARGET, times["ours"], times[theirs])
        return msgspec.structs.replace(ratio, target="", met=None)

    return [
        at_least(row, name, against, TARGET, times["ours"], times["bare"]),
        informs("the same, commits of 500", "small"),
        informs("the same, hashes indexed", "indexed"),
    ]
