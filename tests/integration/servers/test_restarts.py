"""An application on three servers, each of which restarts in the middle of its writes: nothing acknowledged is lost, no
reader sees what is old, and everybody has caught up afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Annotated, Any

from compose.native.own import OwnServer
from polystore import FullText, HybridDataArchitecture, OutcomeUnknown, StoreError, entity
from polystore.consistency.verify import Verifier
from polystore.model import Key
from polystore.protocols import Repository
from tests.stack import own_server

WRITERS = 4
NOTES_EACH = 5


@entity(cache="strict")
@dataclass
class Note:
    id: str
    text: Annotated[str, FullText()]
    n: int


@entity(data_type="live_state")
@dataclass
class Turns:
    id: str
    n: int = 0


class Application:
    """Writers that each have notes and a counter of their own, and readers of them all."""

    def __init__(self, hda: HybridDataArchitecture) -> None:
        self.hda = hda
        self.enough = asyncio.Event()
        self.told: dict[str, tuple[int, int]] = {}
        """Note -> version and number that its writer was told is written."""
        self.counted = [0] * WRITERS
        self.perhaps = [0] * WRITERS
        self.read = 0

    async def write(self, writer: int) -> None:
        notes = self.hda.collection(Note)
        n = 0
        while not self.enough.is_set():
            n += 1
            id = f"{writer}-{n % NOTES_EACH}"
            with self.tolerant():
                result = await notes.put(Note(id, f"글 {writer} 번호 {n}", n))
                assert result.version is not None
                self.told[id] = result.version, n
            await asyncio.sleep(0.002)

    async def count(self, writer: int) -> None:
        turns = self.hda.state(Turns)
        while not self.enough.is_set():
            with self.tolerant():
                try:
                    await turns.incr(str(writer), "n")
                except OutcomeUnknown:
                    self.perhaps[writer] += 1
                    raise
                self.counted[writer] += 1
            await asyncio.sleep(0.005)

    async def look(self, seed: int) -> None:
        notes, r = self.hda.collection(Note), random.Random(seed)
        while not self.enough.is_set():
            id = f"{r.randrange(WRITERS)}-{r.randrange(NOTES_EACH)}"
            _, acknowledged = self.told.get(id, (0, 0))
            with self.tolerant():
                note = await notes.get(id)
                assert (0 if note is None else note.n) >= acknowledged, "a reader sees what is older than a told write"
                self.read += 1
            await asyncio.sleep(0.001)

    @contextlib.contextmanager
    def tolerant(self) -> Generator[None]:
        """An outage is an error to who asks meanwhile, and of the kind that says so."""
        try:
            yield
        except StoreError as e:
            if not (e.retryable or isinstance(e, OutcomeUnknown)):
                raise

    async def more(self, progress: Callable[[], int], by: int = 30) -> None:
        wanted = progress() + by
        async with asyncio.timeout(60):
            while progress() < wanted:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    def versions(self) -> int:
        return max((version for version, _ in self.told.values()), default=0)


async def restarted(app: Application, server: OwnServer, *, goes_on: bool) -> None:
    """It is killed and started again while everybody works; `goes_on`: the writers do without it."""
    await app.more(app.versions)
    await asyncio.to_thread(server.kill)
    if goes_on:
        await app.more(app.versions)
    await asyncio.to_thread(server.start)
    await app.more(app.versions)


def test_each_server_restarts_in_the_middle_of_writes() -> None:
    async def main(home: OwnServer, words: OwnServer, live: OwnServer) -> None:
        config = {
            "stores": {
                "home": {"url": home.url, "roles": ["home", "journal"]},
                "words": {"url": words.url, "roles": ["full_text"]},
                "live": {"url": live.url, "roles": ["cache", "live_state"]},
            }
        }
        async with HybridDataArchitecture.open(config, entities=[Note, Turns]) as hda:
            app = Application(hda)
            async with asyncio.TaskGroup() as working:
                for i in range(WRITERS):
                    working.create_task(app.write(i))
                    working.create_task(app.count(i))
                    working.create_task(app.look(i))
                await restarted(app, words, goes_on=True)
                await restarted(app, home, goes_on=False)
                await app.more(lambda: sum(app.counted))
                await asyncio.to_thread(live.stop)
                await asyncio.to_thread(live.start)
                await app.more(lambda: sum(app.counted))
                await app.more(app.versions)
                app.enough.set()
            assert app.read > 100
            await check(hda, app)

    with own_server("postgresql") as home, own_server("mariadb") as words, own_server("redis") as live:
        asyncio.run(main(home, words, live))


async def check(hda: HybridDataArchitecture, app: Application) -> None:
    await hda.settle(60)
    verifier = Verifier(hda.stores, hda.manager.placements, hda.manager.embedders)
    assert [one async for one in verifier.differences("note")] == []
    notes = hda.collection(Note)
    keys = [Key("", "note", id) for id in sorted(app.told)]
    for key, record in zip(keys, await hda.stores["home"].call(Repository.get, keys), strict=True):
        version, n = app.told[key.id]
        assert record is not None
        assert record.body is not None
        assert record.version >= version, "an acknowledged write is lost"
        assert record.body["n"] >= n
        assert await notes.get(key.id) == Note(key.id, record.body["text"], record.body["n"])
    assert len(await notes.search("글", limit=100)) == len(app.told) == WRITERS * NOTES_EACH
    for writer in range(WRITERS):
        found = await hda.state(Turns).get(str(writer))
        assert found is not None
        assert app.counted[writer] <= found.n <= app.counted[writer] + app.perhaps[writer]
    backlog: Any = hda.manager.lines["home"].backlog
    assert backlog.parked == {}, "an outage is no poison"
