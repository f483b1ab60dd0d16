"""The agent's import, ended by SIGKILL at random moments and started again each time: in the end nothing tells of it.

By hand on a file of one's own:
`PYTHONPATH=examples python -m tests.faults.test_import_killed FILE [KILLS [SEED [STORES]]]`,
STORES one of `tests.agent_stores.AGENT_STORES`.
"""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from agent.entities import Attachment, Person, Source
from agent.learning import CARD_EVERY
from agent.reading import read

from polystore import Collection, HybridDataArchitecture, Measure
from polystore.consistency.verify import Verifier
from polystore.model import EVERYTHING, tenant_segment
from polystore.protocols import Repository, SupportsObjects
from tests import agent_child
from tests.agent_stores import AGENT_STORES, ON_SERVERS, AgentStores

Content = dict[tuple[str, str], dict[str, tuple[Any, ...]]]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
OF_THE_CHAT = {"agent", "you"}
OWN_TIMES = {"source", "attachment"}
"""Their records hold a time or a key that every run makes anew: what else they say is compared in `beside`."""


async def content(data: Path) -> Content:
    """(entity, store) -> what the store holds, but for the chat, versions and times. Indexes are part of it: a record
    whose terms, vector or edges are not those of its fields is a fault."""
    async with HybridDataArchitecture.open(data / "polystore.toml") as hda:
        await hda.settle()
        held = await beside(hda)
        verifier = Verifier(hda.stores, hda.manager.placements, hda.manager.embedders)
        for etype, placement in hda.manager.placements.items():
            assert [difference async for difference in verifier.differences(etype)] == []
            for name in {placement.home, *placement.facets.values()}:
                records = held[etype, name] = {}
                cursor = None
                while True:
                    page = await hda.stores[name].call(Repository.scan, etype, "", EVERYTHING, cursor, 1000)
                    for one in page.stamps:
                        if not one.id.startswith("/chat-") and one.id not in OF_THE_CHAT:
                            hash = None if etype in OWN_TIMES else one.hash
                            records[one.id] = (hash, one.deleted, dict(one.vectors), one.fault)
                    cursor = page.cursor
                    if cursor is None:
                        break
    return held


async def beside(hda: HybridDataArchitecture) -> Content:
    """The points of everybody in the file, by the time since it began; what is said of conversations and attachments;
    the content of the files, which must be there once for each attachment when those that nobody names are gone."""
    said = [one async for one in hda.collection(Source).stream()]
    held: Content = {("said", ""): {one.id: (one.edition, one.digest, one.complete, one.exchanges) for one in said}}
    people = hda.collection(Person)
    for measure in (Person.valence, Person.length, Person.answer_ms):
        points = held["points", measure.name] = {}
        for name in [one.id async for one in people.stream() if one.id not in OF_THE_CHAT]:
            points[name] = tuple([(at - said[0].began, value) async for at, value in series(people, measure, name)])
    await hda.sweep_files(older_than_s=0)
    attachments = [one async for one in hda.collection(Attachment).stream() if not one.id.startswith("/chat-")]
    held["files", ""] = {one.id: (one.name, await hda.files.read(one.content)) for one in attachments}
    count = await hda.collection(Attachment).count()
    store = hda.stores.get("files") or next(one for one in hda.stores.values() if "file" in one.roles)
    page = await store.call(SupportsObjects.list_objects, tenant_segment("") + "/", "", 10_000)
    assert len(page.objects) == count
    return held


async def series(people: Collection[Person], measure: Measure[Any], name: str) -> AsyncIterator[tuple[datetime, float]]:
    """All points of somebody, a page at a time."""
    start = EPOCH
    while page := await people.series(measure, name, start=start):
        for point in page:
            yield point.at, point.value
        start = page[-1].at + timedelta(microseconds=1)


def kill(source: Path, data: Path, stores: AgentStores, count: int, delay_s: float) -> int:
    """Start the agent, end it some time after `count` messages are committed; how many are then."""
    child = agent_child.start("--input", source, "--data", data, *stores.arguments)
    agent_child.wait_until_imported(child, data, count, stores.committed)
    time.sleep(delay_s)
    child.kill()
    child.communicate()
    return stores.committed(data)


def imported(source: Path, data: Path, stores: AgentStores) -> Content:
    """Import to the end; `polystore verify` finds no difference, and this is what the stores hold."""
    began = time.monotonic()
    agent_child.run("--input", source, "--data", data, *stores.arguments)
    took_s = time.monotonic() - began
    print(f"{data.name}: imported in {took_s:.1f} s; verify: {agent_child.verify(data).strip()}", flush=True)
    return asyncio.run(content(data))


def killed_again_and_again(source: Path, folder: Path, total: int, kills: int, seed: int, on: str) -> list[int]:
    """Messages that were committed at each kill. The import is done afterwards, and equals the uninterrupted one."""
    rng = random.Random(seed)
    moments = [0, 0, *sorted(rng.randrange(total) for _ in range(kills - 2))]  # at first files are saved and named
    (folder / "a").mkdir()
    (folder / "b").mkdir()
    with AGENT_STORES[on](folder / "a") as stores, AGENT_STORES[on](folder / "b") as others:
        data, whole = folder / "killed", folder / "uninterrupted"
        stores.configure(data)
        others.configure(whole)
        reached = [kill(source, data, stores, count, rng.uniform(0, 0.03 if count else 0.3)) for count in moments]
        killed, uninterrupted = imported(source, data, stores), imported(source, whole, others)
    assert len(killed["message", stores.home]) == total
    assert sum(len(points) for points in killed["points", "valence"].values()) == total
    assert len(killed["files", ""]) == -(-total // CARD_EVERY)
    assert killed == uninterrupted
    return reached


@pytest.mark.parametrize("on", [on for on in AGENT_STORES if on != "full"])  # by hand, it takes minutes
def test_an_import_that_was_killed_again_and_again_equals_one_that_was_not(on: str, tmp_path: Path) -> None:
    kills, pairs = (3, 500 if "mongodb" in on else 1000) if on in ON_SERVERS else (5, 1500)
    said = agent_child.pairs(pairs, seed=5)
    source = agent_child.write_csv(tmp_path / "talk.csv", said)
    reached = killed_again_and_again(source, tmp_path, 2 * len(said), kills, seed=5, on=on)
    assert any(0 < count < 2 * len(said) for count in reached)


if __name__ == "__main__":
    path = Path(sys.argv[1])
    kills = int(sys.argv[2]) if len(sys.argv) > 2 else 20
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else 0
    on = sys.argv[4] if len(sys.argv) > 4 else "embedded"
    with tempfile.TemporaryDirectory() as name:
        messages = len(read(path).lines)
        reached = killed_again_and_again(path, Path(name), messages, kills, seed, on)
        print("committed at each kill:", reached, "of", messages)
