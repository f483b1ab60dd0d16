"""The agent's import, ended by SIGKILL at random moments and started again each time: in the end nothing tells of it.

By hand on a file of one's own: `python -m tests.faults.test_import_killed FILE [KILLS [SEED]]`.
"""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from polystore import HybridDataArchitecture
from polystore.consistency.verify import Verifier
from polystore.model import EVERYTHING
from polystore.protocols import Repository
from tests import agent_child

Content = dict[tuple[str, str], dict[str, tuple[Any, ...]]]


async def content(data: Path) -> Content:
    """(entity, store) -> what the store holds, but for the chat, versions and times. Indexes are part of it: a record
    whose terms, vector or edges are not those of its fields is a fault."""
    held: Content = {}
    async with HybridDataArchitecture.open(data / "polystore.toml") as hda:
        await hda.settle()
        verifier = Verifier(hda.stores, hda.manager.placements, hda.manager.embedders)
        for etype, placement in hda.manager.placements.items():
            assert [difference async for difference in verifier.differences(etype)] == []
            for name in {placement.home, *placement.facets.values()}:
                records = held[etype, name] = {}
                cursor = None
                while True:
                    page = await hda.stores[name].call(Repository.scan, etype, "", EVERYTHING, cursor, 1000)
                    for one in page.stamps:
                        if not one.id.startswith("/chat-"):
                            records[one.id] = (one.hash, one.deleted, dict(one.vectors), one.fault)
                    cursor = page.cursor
                    if cursor is None:
                        break
    return held


def kill(source: Path, data: Path, count: int, delay_s: float) -> int:
    """Start the agent, end it some time after `count` messages are committed; how many are then."""
    child = agent_child.start("--input", source, "--data", data)
    agent_child.wait_until_imported(child, data, count)
    time.sleep(delay_s)
    child.kill()
    child.communicate()
    return agent_child.imported(data)


def killed_again_and_again(source: Path, folder: Path, total: int, kills: int, seed: int) -> list[int]:
    """Messages that were committed at each kill. The import is done afterwards, and equals the uninterrupted one."""
    rng = random.Random(seed)
    data = folder / "killed"
    moments = sorted(rng.randrange(total) for _ in range(kills))
    reached = [kill(source, data, count, rng.uniform(0, 0.03)) for count in moments]
    agent_child.run("--input", source, "--data", data)
    agent_child.run("--input", source, "--data", folder / "uninterrupted")
    killed, uninterrupted = asyncio.run(content(data)), asyncio.run(content(folder / "uninterrupted"))
    assert {(etype, name): len(records) for (etype, name), records in killed.items()}["message", "home"] == total
    assert killed == uninterrupted
    return reached


def test_an_import_that_was_killed_five_times_equals_one_that_was_not(tmp_path: Path) -> None:
    said = agent_child.pairs(1500, seed=5)
    source = agent_child.write_csv(tmp_path / "talk.csv", said)
    reached = killed_again_and_again(source, tmp_path, 2 * len(said), kills=5, seed=5)
    assert any(0 < count < 2 * len(said) for count in reached)


if __name__ == "__main__":
    path = Path(sys.argv[1])
    kills = int(sys.argv[2]) if len(sys.argv) > 2 else 20
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else 0
    with tempfile.TemporaryDirectory() as name:
        agent_child.run("--input", path, "--data", Path(name, "counted"))
        messages = agent_child.imported(Path(name, "counted"))
        print(
            "committed at each kill:", killed_again_and_again(path, Path(name), messages, kills, seed), "of", messages
        )
