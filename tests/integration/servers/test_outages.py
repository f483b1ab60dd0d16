"""An application with copies on servers of its own. It is opened while all of them are down, which it says; then they
come, and each is paused in the middle of writes: nothing is lost, the others do not wait, and everybody has caught up
afterwards. (How each is killed: in the tests of its adapter.)

Those that start within a second or two; with POLYSTORE_TEST_ALL=1 all that there are.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import pytest

from compose.native.own import OwnServer
from polystore import FileRef, HybridDataArchitecture, Measure, Unavailable, entity
from polystore.consistency import Settings
from polystore.consistency.verify import Verifier
from polystore.protocols import SupportsJournal
from tests.integration.servers.declared import declared
from tests.loops import settled
from tests.stack import own_server

QUICK = {
    "minio": "file",
    "redis": "cache",
    "influxdb": "time_series",
    "chromadb": "vector",
    "mongodb": "full_text",
    "postgresql": "full_text",
}
"""Server -> what it is here."""
SLOW = {"mysql": "full_text", "elasticsearch": "full_text", "neo4j": "graph"}
ROLES = {**QUICK, **SLOW} if os.environ.get("POLYSTORE_TEST_ALL") else QUICK
COPIES = {
    name: declared(f"in_{name}", (role,)) for name, role in ROLES.items() if role in ("full_text", "vector", "graph")
}
PROMPT = Settings(awaken_spread_s=0.01, retry_max_s=0.1)
RECORDS_EACH = 20
BEGAN = datetime.now(UTC)


@entity()
@dataclass
class Note:
    """Cached, measured, and with files."""

    id: str
    text: str
    photo: FileRef | None = None
    mood: ClassVar[Measure[float]] = Measure(float)


class Application:
    """Writes records, points and files, and remembers what it was told of them."""

    def __init__(self, hda: HybridDataArchitecture) -> None:
        self.hda = hda
        self.enough = asyncio.Event()
        self.newest: dict[str, str] = {}
        self.n = 0
        self.points = 0
        self.files: list[tuple[FileRef, bytes]] = []

    async def once(self, writer: str, copies: Collection[str] = ()) -> None:
        """Write one record of each class; these copies have theirs when this returns."""
        self.n += 1
        text, id = f"글 {self.n:06}", f"{writer}{self.n % RECORDS_EACH}"
        self.newest[id] = text
        for name, cls in COPIES.items():
            value = cls(id=id, text=text, follows=["0"])
            wanted = [name] if name in copies else "committed"
            result = await self.hda.collection(cls).put(value, ack=wanted, ack_timeout_s=60)
            assert name not in copies or result.stores[name] == "applied"
        note = Note(id, text)
        told = await self.hda.collection(Note).put(note)
        assert await self.hda.collection(Note).get(id, after=told.token) == note

    async def write(self) -> None:
        while not self.enough.is_set():
            await self.once("w")
            await asyncio.sleep(0.05)

    async def measure(self) -> None:
        while not self.enough.is_set():
            await self.hda.collection(Note).append(Note.mood, "0", float(self.points))
            self.points += 1
            await asyncio.sleep(0.05)

    async def save(self) -> None:
        """Content has no other place meanwhile: an outage is told."""
        while not self.enough.is_set():
            content = f"내용 {len(self.files)}".encode()
            with contextlib.suppress(Unavailable):
                self.files.append((await self.hda.files.save(content), content))
            await asyncio.sleep(0.05)

    @contextlib.asynccontextmanager
    async def at_work(self) -> AsyncGenerator[None]:
        async with asyncio.TaskGroup() as working:
            for work in (self.write, self.measure, self.save):
                working.create_task(work())
            yield
            self.enough.set()


def test_each_server_is_down_at_the_start_and_paused_in_the_middle_of_writes(tmp_path: Path) -> None:
    with ExitStack() as all_of_them:
        servers = {name: all_of_them.enter_context(own_server(name)) for name in ROLES}
        stores: dict[str, Any] = {"home": {"url": f"sqlite:{tmp_path}/home.db", "roles": ["home", "journal"]}}
        for name, server in servers.items():
            stores[name] = {"url": server.url, "roles": [ROLES[name]], "required": name == "minio", "timeout_s": 3}
        stores["mongodb"]["options"] = {"database": "polystore"}
        pins = {f"in_{name}": {ROLES[name]: name} for name in COPIES}
        asyncio.run(outages({"stores": stores, "pins": {**pins, "note": {"cache": "redis"}}}, servers))


async def outages(config: Mapping[str, Any], servers: Mapping[str, OwnServer]) -> None:
    async with opened(patient(config)) as hda:
        await Application(hda).once("0", COPIES)
    for server in servers.values():
        server.kill()
    with pytest.raises(Unavailable, match="minio"):  # it is the home of files
        await opened(config)
    servers["minio"].start()
    async with opened(config) as hda:
        app = Application(hda)
        await everything_is_missed(app)
        async with app.at_work():
            await back(hda, servers)
            for name, server in servers.items():
                others = COPIES.keys() - {name}
                await app.once("m", COPIES)
                server.freeze()
                await app.once("m", others)
                server.thaw()
        await nothing_is_lost(app)


def patient(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """All are to be there: a server that was started a moment ago takes its time to answer first, Neo4j some 3 s."""
    stores = {name: {**one, "required": True, "timeout_s": 60} for name, one in config["stores"].items()}
    return {**config, "stores": stores}


def opened(config: Mapping[str, Any]) -> Any:
    return HybridDataArchitecture.open(config, entities=[*COPIES.values(), Note], settings=PROMPT)


async def back(hda: HybridDataArchitecture, servers: Mapping[str, OwnServer]) -> None:
    for server in servers.values():
        await asyncio.to_thread(server.start)
    async with asyncio.timeout(120):
        while set(hda.stores) != {"home", *servers}:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    came = servers.keys() - {"minio"}
    assert {f"{name} answers now, and gets what it missed" for name in came} <= hda.manager.problems.keys()


async def everything_is_missed(app: Application) -> None:
    """Nobody but the homes answers: what is written is owed, and whoever asks for more is told whom it lacks."""
    hda, notes = app.hda, app.hda.collection(Note)
    assert set(hda.stores) == {"home", "minio"}
    for name, cls in COPIES.items():
        records, value = hda.collection(cls), cls(id="01", text="글 000001")
        result = await records.put(value, ack="applied", ack_timeout_s=0.05)
        assert result.stores == {"home": "committed", name: "pending"}
        assert await records.get("01") == value
        asked = {
            "full_text": records.search("글"),
            "vector": records.similar("글"),
            "graph": records.related("01", f"NEXT_in_{name}", into=cls),
        }
        await refused(name, asked.pop(ROLES[name]))
        for other in asked.values():
            other.close()
    await refused("influxdb", notes.series(Note.mood, "0", start=BEGAN))
    assert (await notes.append(Note.mood, "0", -1.0)).stores == {"influxdb": "pending"}
    app.points += 1


async def refused(name: str, asked: Any) -> None:
    with pytest.raises(Unavailable, match=name):
        await asked


async def nothing_is_lost(app: Application) -> None:
    hda = app.hda
    await settled(hda)
    verifier = Verifier(hda.stores, hda.manager.placements, hda.manager.embedders)
    for etype in hda.manager.placements:
        assert [one async for one in verifier.differences(etype)] == []
    newest = {"01": "글 000001", **app.newest}
    for name, cls in COPIES.items():
        records = hda.collection(cls)
        if ROLES[name] == "full_text":
            assert {hit.value.id: hit.value.text for hit in await records.search("글", limit=100)} == newest
        if ROLES[name] == "vector":
            assert {hit.value.id: hit.value.text for hit in await records.similar("글", limit=100)} == newest
        assert {one.id: one.text for one in await records.get_many(list(newest)) if one} == newest
    points = await hda.collection(Note).series(Note.mood, "0", start=BEGAN, limit=10_000)
    assert len(points) == app.points
    for ref, content in app.files:
        assert await hda.files.read(ref) == content
    backlog = await hda.stores["home"].call(SupportsJournal.backlog)
    assert backlog.parked == {}, "an outage is no poison"
