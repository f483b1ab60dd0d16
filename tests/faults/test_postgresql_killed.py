"""Workers on one PostgreSQL journal, of which one is killed again and again: nothing acknowledged is lost, and what the
dead left behind is delivered by the others."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from polystore import HybridDataArchitecture
from polystore.consistency.verify import Verifier
from polystore.entity import entity_type
from polystore.env import Env
from polystore.model import Key
from polystore.protocols import Layout
from tests.faults.postgresql_child import RECORDS, SETTINGS, Line
from tests.postgresql import configured, connected, fresh_schema

SCRIPT = Path(__file__).with_name("postgresql_child.py")
KILLS = 5
EACH = 300
DRAINED_S = 30.0


def start(config: Mapping[str, Any], name: str, count: int, out: Path) -> subprocess.Popen[bytes]:
    with out.open("ab") as log:
        return subprocess.Popen([sys.executable, str(SCRIPT), json.dumps(config), name, str(count)], stdout=log)


def acknowledged(*logs: Path) -> dict[str, int]:
    """Record -> the newest version that a worker was told is written."""
    newest: dict[str, int] = {}
    for log in logs:
        for line in log.read_text().splitlines():
            if line.endswith("]"):  # the last one may be torn
                id, version = json.loads(line)
                newest[id] = max(version or 0, newest.get(id, 0))
    return newest


async def check(config: Mapping[str, Any], home: str, told: Mapping[str, int]) -> None:
    async with HybridDataArchitecture.open(config, entities=[Line], settings=SETTINGS) as hda:
        await hda.settle(DRAINED_S)
        verifier = Verifier(hda.stores, hda.manager.placements, hda.manager.embedders)
        assert [one async for one in verifier.differences("kit_line")] == []
        stored = {line.id async for line in hda.collection(Line).stream()}
        assert stored == {hit.value.id for hit in await hda.collection(Line).search("말", limit=100)}
    store: Any = await connected(Env(), home)
    try:
        assert (await store.backlog()).outbox == 0
        await store.prepare([Layout(entity_type(Line), True, frozenset())], create=False)
        keys = [Key("", "kit_line", id) for id in sorted(told)]
        for key, record in zip(keys, await store.get(keys), strict=True):
            assert record is not None
            assert record.version >= told[key.id], "an acknowledged write is lost"
    finally:
        await store.aclose()


def test_three_workers_one_of_them_killed_again_and_again(tmp_path: Path) -> None:
    with fresh_schema() as home, fresh_schema() as words:
        config = {
            "stores": {
                "main": configured(home, roles=["home", "journal"]),
                "words": configured(words, roles=["full_text"]),
            }
        }
        logs = [tmp_path / name for name in ("one", "two", "victim")]
        steady = [start(config, log.name, EACH, log) for log in logs[:2]]
        for _ in range(KILLS):
            victim = start(config, "victim", 100_000, logs[2])
            size = logs[2].stat().st_size
            until = time.monotonic() + 60
            while logs[2].stat().st_size < size + 1_000 and victim.poll() is None:
                assert time.monotonic() < until
                time.sleep(0.02)
            assert victim.poll() is None, "it ended by itself"
            victim.send_signal(signal.SIGKILL)
            victim.wait(10)
        assert [child.wait(120) for child in steady] == [0, 0]
        told = acknowledged(*logs)
        assert len(told) == RECORDS
        asyncio.run(check(config, home, told))
