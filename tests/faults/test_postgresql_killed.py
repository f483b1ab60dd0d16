"""Three workers that write to one PostgreSQL home, of which one is killed every now and then and another started in its
place: nothing acknowledged is lost, and what the dead left behind is delivered by the living.

By hand for longer: `python -m tests.faults.test_postgresql_killed [SECONDS [WRITES_PER_S [SEED]]]`.
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from polystore import HybridDataArchitecture
from polystore.consistency.verify import Verifier
from polystore.entity import entity_type
from polystore.env import Env
from polystore.model import Key
from polystore.protocols import Layout
from tests.faults.postgresql_child import Line
from tests.postgresql import configured, connected, fresh_schema, server

SCRIPT = Path(__file__).with_name("postgresql_child.py")
WORKERS = 3
KILLS_MIN = 2
ENDED_S = 60.0
Told = Mapping[str, tuple[int, str | None]]


class Worker:
    """A process and what it was told, kept in a file of its own."""

    def __init__(self, config: Mapping[str, Any], name: str, rate: float, folder: Path) -> None:
        self.log = folder / name
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, str(SCRIPT), json.dumps(config), name, str(rate)], stdin=subprocess.PIPE, stdout=log
            )

    def told(self) -> Iterator[tuple[str, int, str | None]]:
        """What it was told is written, but for a last line that is torn."""
        for line in self.log.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
            if line.endswith("]\n") and line != "[]\n":
                id, version, text = json.loads(line)
                yield id, version, text

    def wait_until_it_writes(self) -> None:
        until = time.monotonic() + ENDED_S
        while not self.log.stat().st_size:
            assert self._process.poll() is None, "it ended by itself"
            assert time.monotonic() < until
            time.sleep(0.01)

    def kill(self) -> None:
        assert self._process.poll() is None, "it ended by itself"
        self._process.kill()
        self._process.communicate()

    def write_no_more(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(b"enough\n")
        self._process.stdin.flush()

    def wait_until_quiet(self) -> None:
        until = time.monotonic() + ENDED_S
        while not self.log.read_bytes().endswith(b"[]\n"):
            assert self._process.poll() is None, "it ended by itself"
            assert time.monotonic() < until
            time.sleep(0.01)

    def leave(self) -> None:
        self._process.communicate(timeout=ENDED_S)
        assert self._process.returncode == 0


def owed(home: str) -> int:
    """Changes that some copy has not got yet, asked beside the workers."""
    schema = home.partition(",")[0]
    return int(server().value(f"SELECT (SELECT count(*) FROM {schema}.ps_outbox) + count(*) FROM {schema}.ps_retry"))


def run(config: Mapping[str, Any], home: str, folder: Path, seconds: float, rate: float, seed: int) -> dict[str, float]:
    """Write for so long, killing; what was told is checked afterwards. Returns what was measured."""
    r = random.Random(seed)
    began = time.monotonic()
    everybody = [Worker(config, f"w{i}", rate / WORKERS, folder) for i in range(WORKERS)]
    living = list(everybody)
    for worker in living:
        worker.wait_until_it_writes()
    wrote = time.monotonic()
    until = wrote + seconds
    while time.monotonic() < until or len(everybody) < WORKERS + KILLS_MIN:
        time.sleep(r.uniform(*(0.3, 1.0) if seconds < 30 else (2.0, 4.0)))
        victim = living.pop(r.randrange(WORKERS))
        victim.kill()
        living.append(Worker(config, f"w{len(everybody)}", rate / WORKERS, folder))
        everybody.append(living[-1])
        living[-1].wait_until_it_writes()
    for worker in living[1:]:
        worker.write_no_more()
    living.pop(0).kill()  # it leaves behind what it had in hand, and nobody comes after it
    for worker in living:
        worker.wait_until_quiet()
    ended = time.monotonic()
    left = owed(home)
    while owed(home):
        assert time.monotonic() < ended + ENDED_S
        time.sleep(0.01)
    drained_s = time.monotonic() - ended
    for worker in living:
        worker.leave()
    told = newest(everybody)
    asyncio.run(check(config, home, told))
    writes = sum(len(list(worker.told())) for worker in everybody)
    return {
        "seconds": ended - wrote,
        "writes": writes,
        "writes_per_s": writes / (ended - began),
        "kills": len(everybody) - 2,
        "left_behind": left,
        "drained_s": drained_s,
    }


def newest(workers: Sequence[Worker]) -> Told:
    """Record -> the newest version that anybody was told is written, and its text."""
    found: dict[str, tuple[int, str | None]] = {}
    for worker in workers:
        for id, version, text in worker.told():
            if version > found.get(id, (0, None))[0]:
                found[id] = version, text
    return found


async def check(config: Mapping[str, Any], home: str, told: Told) -> None:
    """Every record is at the newest version that was told, with its text, or at a newer one that nobody was told of;
    the copy holds what the home holds."""
    async with HybridDataArchitecture.open(config, entities=[Line]) as hda:
        await hda.settle(ENDED_S)
        verifier = Verifier(hda.stores, hda.manager.placements, hda.manager.embedders)
        assert [one async for one in verifier.differences("kit_line")] == []
        stored = {line.id async for line in hda.collection(Line).stream()}
        assert stored == {hit.value.id for hit in await hda.collection(Line).search("말", limit=1_000)}
    store: Any = await connected(Env(), home)
    try:
        backlog = await store.backlog()
        assert (backlog.outbox, backlog.retry, backlog.parked) == (0, {}, {})
        await store.prepare([Layout(entity_type(Line), True, frozenset())], create=False)
        keys = [Key("", "kit_line", id) for id in sorted(told)]
        for key, record in zip(keys, await store.get(keys), strict=True):
            version, text = told[key.id]
            assert record is not None
            assert record.version >= version, "an acknowledged write is lost"
            if record.version == version:
                assert (None if record.body is None else record.body["text"]) == text
    finally:
        await store.aclose()


def measured(folder: Path, seconds: float, rate: float, seed: int) -> dict[str, float]:
    with fresh_schema() as home, fresh_schema() as words:
        stores = {"main": configured(home, roles=["home", "journal"]), "words": configured(words, roles=["full_text"])}
        return run({"stores": stores}, home, folder, seconds, rate, seed)


def test_three_workers_one_of_them_killed_again_and_again(tmp_path: Path) -> None:
    assert measured(tmp_path, seconds=3, rate=300, seed=1)["kills"] > KILLS_MIN


if __name__ == "__main__":
    numbers = [float(one) for one in sys.argv[1:]]
    seconds, rate, seed = (*numbers, *(60.0, 500.0, 0.0)[len(numbers) :])
    with tempfile.TemporaryDirectory() as name:
        found = measured(Path(name), seconds, rate, int(seed))
    print(", ".join(f"{what} {value:,.1f}" for what, value in found.items()))
