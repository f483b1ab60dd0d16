"""SIGKILL in the middle of `rebuild`: the next one goes on, no text is embedded twice, and every search in between has
its answer from one model."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from polystore import HybridDataArchitecture
from polystore.consistency.verify import Verifier
from polystore.model import Key
from polystore.protocols import SupportsJournal
from tests import children
from tests.faults.rebuilder import BATCH, Leaf, opening
from tests.integration.embedders.server import Embeddings

LEAVES = [Leaf(id=f"l{i}", text=f"{i}번째 잎: 가을 바람") for i in range(40)]
EMBEDDED, ONE_FILE = "embedded:{}/data", "sqlite:{}/one.db"
KILLS = [
    (EMBEDDED, "backfill.step", 3),
    (EMBEDDED, "embed.stored", 6),
    (EMBEDDED, "move.remembered", 1),  # the other place is to be filled
    (EMBEDDED, "move.remembered", 2),  # it serves
    (EMBEDDED, "move.remembered", 3),  # the first one is delivered nothing any more
    (EMBEDDED, "rebuild.tidy", 1),
    (ONE_FILE, "embed.stored", 3),
    (ONE_FILE, "move.remembered", 1),
    (ONE_FILE, "move.gone_over", 1),
]


@pytest.fixture
def server() -> Iterator[Embeddings]:
    one = Embeddings()
    yield one
    one.stop()


def child(*arguments: str) -> int:
    done = children.run("tests.faults.rebuilder", *arguments)
    if done.returncode not in (0, -signal.SIGKILL):
        raise AssertionError(done.stderr)
    return done.returncode


async def found(hda: HybridDataArchitecture) -> set[str]:
    return {hit.value.id for hit in await hda.collection(Leaf).similar("바람", limit=100)}


@pytest.mark.parametrize(("profile", "point", "hit"), KILLS)
def test_a_rebuild_that_was_killed_is_gone_on_with(
    profile: str, point: str, hit: int, server: Embeddings, tmp_path: Path
) -> None:
    store, every = profile.format(tmp_path), {one.id for one in LEAVES}

    async def written() -> None:
        async with opening(store, server.url, "m-1") as hda:
            await hda.collection(Leaf).put_many(LEAVES)
            await hda.settle(30)

    async def between() -> None:
        """The application runs on, with the old model or the new one."""
        async with opening(store, server.url, "m-2") as hda:
            assert await found(hda) == every
            await hda.collection(Leaf).put(Leaf(id="later", text="나중에 온 잎"))

    async def after() -> None:
        async with opening(store, server.url, "m-2") as hda:
            await hda.settle(30)
            assert await found(hda) == every | {"later"}
            verifier = Verifier(hda.stores, hda.manager.placements, hda.manager.embedders)
            assert [one async for one in verifier.differences("leaf")] == []
            home = hda.stores[hda.manager.placements["leaf"].home]
            kept = await home.call(SupportsJournal.vectors, [Key("", "leaf", one.id) for one in LEAVES])
            assert {one.embedder for one in kept} == {"m-2:12"}
            assert (await home.call(SupportsJournal.backlog)).parked == {}
            placement = hda.manager.placements["leaf"]
            assert (placement.upcoming, placement.leaving, placement.previous) == ({}, {}, {})

    asyncio.run(written())
    assert child(store, server.url, point, str(hit)) == -signal.SIGKILL
    asyncio.run(between())
    assert child(store, server.url) == 0
    asyncio.run(after())
    made = Counter(
        text for request in server.requests if request["model"] == "m-2" for text in request["input"] if "잎" in text
    )
    assert made.keys() == {*(one.text for one in LEAVES), "나중에 온 잎"}
    # The batch under way may have been made for nothing when the one was killed, and when the other was closed.
    assert sum(made.values()) <= len(LEAVES) + 1 + 2 * BATCH
