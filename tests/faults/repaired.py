"""A copy that was made wrong in many places is repaired while writes and deletes go on.

    python -m tests.faults.repaired STORE [RECORDS [CORRUPTIONS [WRITES_PER_S]]]

does so with 100,000 records and 50 corruptions of sqlite, elasticsearch or chromadb at 100 writes a second, and prints
what it saw. The tests do it small.
"""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from polystore import HybridDataArchitecture
from polystore.consistency import Settings
from polystore.consistency.verify import Verifier
from polystore.testing.places import chromadb, elasticsearch
from tests.corrupting import MEMO, Chromadb, Corruptor, Elasticsearch, Memo, Sqlite, memo
from tests.faults.big_file import say
from tests.stack import url_of

SETTINGS = Settings(reconcile_s=0)


def config_of(folder: Path, corruptor: Corruptor) -> Mapping[str, Any]:
    home = {"url": f"sqlite:{folder}/home.db", "roles": ["home", "journal", "vector", "full_text"]}
    copied = dict.fromkeys(corruptor.store["roles"], "copy")
    return {"stores": {"home": home, "copy": corruptor.store}, "pins": {MEMO.name: copied}}


class Writer:
    """Writes, changes and deletes records, but none whose id begins as the corrupted ones do. `late_s`: how long the
    slowest write took to be in the copy."""

    def __init__(self, hda: HybridDataArchitecture, per_s: float, count: int) -> None:
        self.writes = 0
        self.late_s = 0.0
        self._memos = hda.collection(Memo)
        self._per_s = per_s
        self._count = count
        self._random = random.Random(5)
        self._ending = False
        self._task = asyncio.create_task(self._run())
        self._looks = asyncio.create_task(self._look())

    async def _run(self) -> None:
        started = time.monotonic()
        while not self._ending:
            id = f"b{self._random.randrange(self._count)}"
            if self._random.random() < 0.2:
                await self._memos.delete(id)
            else:
                await self._memos.put(memo(id, self.writes))
            self.writes += 1
            await asyncio.sleep(max(0.0, started + self.writes / self._per_s - time.monotonic()))

    async def _look(self) -> None:
        while not self._ending:
            await asyncio.sleep(0.09)
            began = time.monotonic()
            written = await self._memos.put(memo("c", self.writes), ack=["copy"], ack_timeout_s=300)
            assert written.stores["copy"] == "applied"
            self.late_s = max(self.late_s, time.monotonic() - began)

    async def stop(self) -> None:
        self._ending = True  # a write that is cancelled may be committed behind what is looked at next
        await asyncio.gather(self._task, self._looks)


async def run(folder: Path, corruptor: Corruptor, count: int, corruptions: int, per_s: float) -> Mapping[str, Any]:
    """Fill, corrupt, repair while writes go on; what came of it. Fails where anything is left wrong."""
    seen: dict[str, Any] = {}
    config = config_of(folder, corruptor)
    async with HybridDataArchitecture.open(config, entities=[Memo], settings=SETTINGS) as hda:
        began = time.monotonic()
        half = count // 2
        ids = (f"{'ab'[i // half]}{i % half}" for i in range(2 * half))
        await hda.collection(Memo).import_many(memo(id, i) for i, id in enumerate(ids))
        await hda.settle(3600)
        seen["fill_s"] = round(time.monotonic() - began, 1)
        writer = Writer(hda, per_s, half)
        wanted = Counter[str]()
        for i, number in enumerate(random.Random(3).sample(range(half), corruptions)):
            kind = corruptor.kinds[i % len(corruptor.kinds)]
            await asyncio.to_thread(corruptor.corrupt, kind, f"a{number}")
            wanted[kind.partition(" ")[0]] += 1
        began = time.monotonic()
        report = await hda.repair()
        seen |= {"repair_s": round(time.monotonic() - began, 1), "compared": report.compared, "mended": report.mended}
        seen |= {"writes": writer.writes, "late_s": round(writer.late_s, 3)}
        seen |= {"owed": report.owed}  # they arrive when the copy has caught up with the writes
        assert (report.left, report.skipped) == (0, {}), report
        assert report.found == corruptions, report  # all of them, and nothing else
        assert Counter(report.mended) <= wanted, (report.mended, wanted)
        began = time.monotonic()
        again = await hda.repair(dry_run=True)
        seen["compare_s"] = round(time.monotonic() - began, 1)
        assert again.found == 0, again
        await writer.stop()
        await hda.settle(600)
        verifier = Verifier(hda.stores, hda.manager.placements, hda.manager.embedders)
        assert [one async for one in verifier.differences(MEMO.name)] == []
    return seen


@contextmanager
def corrupting(store: str, folder: Path) -> Generator[Corruptor]:
    """Skips where there is no such server."""
    if store == "sqlite":
        yield Sqlite(folder)
        return
    url, place = url_of(store), elasticsearch if store == "elasticsearch" else chromadb
    with place.own_prefix(url) as prefix:
        corruptor = Elasticsearch(url, prefix) if store == "elasticsearch" else Chromadb(url, prefix)
        try:
            yield corruptor
        finally:
            corruptor.close()


def main(store: str, count: int = 100_000, corruptions: int = 50, per_s: float = 100) -> None:
    with tempfile.TemporaryDirectory() as folder, corrupting(store, Path(folder)) as corruptor:
        say(store=store, **asyncio.run(run(Path(folder), corruptor, count, corruptions, per_s)))


if __name__ == "__main__":
    main(sys.argv[1], *(int(one) for one in sys.argv[2:]))
