"""Several processes that deliver the same records to a store that cannot compare and write in one step."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import httpx
import pytest
from polystore_adapters.chromadb.repository import ChromadbRepository

from polystore import HybridDataArchitecture
from polystore.consistency.verify import Verifier
from tests.chromadb import COLLECTIONS, http, own_prefix
from tests.faults.vector_worker import PLACES, Place, stores
from tests.loops import in_a_loop
from tests.stack import server

chromadb = server("chromadb")
SCRIPT = Path(__file__).with_name("vector_worker.py")


@pytest.fixture
def prefix(chromadb: str) -> Iterator[str]:
    with own_prefix(chromadb) as own:
        yield own


def start(home: Path, url: str, prefix: str, ends: ExitStack) -> tuple[str, subprocess.Popen[str]]:
    """The worker of a child process, which ends with the block."""
    child = subprocess.Popen(
        [sys.executable, str(SCRIPT), f"sqlite:{home}", url, prefix],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    ends.enter_context(child)
    ends.callback(child.kill)
    assert child.stdout is not None
    return child.stdout.readline().strip(), child


def acknowledged(child: subprocess.Popen[str], count: int) -> None:
    assert child.stdout is not None
    assert all(child.stdout.readline() == "put\n" for _ in range(count))


def owner(home: Path) -> str:
    with closing(sqlite3.connect(home)) as db:
        (found,) = db.execute("SELECT owner FROM ps_lease WHERE name = 'copy:near'").fetchone()
    return str(found)


async def differences(hda: HybridDataArchitecture) -> list[object]:
    verifier = Verifier(hda.stores, hda.manager.placements, hda.manager.embedders)
    return [one async for one in verifier.differences("place")]


def test_no_version_goes_back_when_the_one_that_writes_is_killed(tmp_path: Path, chromadb: str, prefix: str) -> None:
    home = tmp_path / "home.db"
    with ExitStack() as ends:
        children = dict(start(home, chromadb, prefix, ends) for _ in range(3))
        for child in children.values():
            acknowledged(child, 10)
        writing = owner(home)
        children[writing].kill()
        children.pop(writing).communicate()
        for child in children.values():
            acknowledged(child, 30)
        for child in children.values():
            assert child.stdin is not None
            child.stdin.close()  # all, before anybody is waited for
        for child in children.values():
            assert child.stdout is not None
            child.stdout.read()
            child.stdout.close()
            assert child.wait(60) == 0
    assert owner(home) in children, "another one has taken over"

    async def judged() -> None:
        async with HybridDataArchitecture.open(stores(f"sqlite:{home}", chromadb, prefix), entities=[Place]) as hda:
            await hda.settle(60)
            assert await hda.collection(Place).count() == PLACES
            assert await differences(hda) == []

    asyncio.run(judged())


@in_a_loop
async def test_a_request_of_a_former_owner_that_lands_late_is_masked_and_repaired(
    tmp_path: Path, chromadb: str, prefix: str
) -> None:
    """Nothing can call it back: it puts what it was sent with over what is newer."""
    async with HybridDataArchitecture.open(
        stores(f"sqlite:{tmp_path}/home.db", chromadb, prefix), entities=[Place]
    ) as hda:
        places = hda.collection(Place)
        await places.put(Place(id="p", n=1, at=[1.0, 0.0]), ack="applied")
        near = hda.stores["near"].repository
        assert isinstance(near, ChromadbRepository)
        held = near._types["place"]  # pyright: ignore[reportPrivateUsage]
        async with httpx.AsyncClient(base_url=f"{http(chromadb)}{COLLECTIONS}") as client:
            sent = {
                id: (await client.post(f"{id}/get", json={"include": ["metadatas", "uris", "embeddings"]})).json()
                for id in [held.ids["at"]]
            }
            await places.put(Place(id="p", n=2, at=[0.0, 1.0]), ack="applied")
            for id, items in sent.items():
                late = {name: items[name] for name in ("ids", "metadatas", "uris", "embeddings")}
                (await client.post(f"{id}/upsert", json=late)).raise_for_status()
        (hit,) = await places.similar([1.0, 0.0])
        assert (hit.value.n, hit.match_version < hit.version) == (2, True)
        (found,) = await differences(hda)
        assert "p" in repr(found)
        await hda.repair("place")
        assert await differences(hda) == []
        (hit,) = await places.similar([1.0, 0.0])
        assert hit.match_version == hit.version
