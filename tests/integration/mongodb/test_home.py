"""MongoDB as a home whose journal is another store, through the facade; what is there is read with PyMongo."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import pytest
from pymongo import MongoClient

from polystore import F, FullText, HybridDataArchitecture, Index, OutcomeUnknown, StalenessTimeout, Unavailable, entity
from polystore.consistency.verify import Verifier
from polystore.facets import Unique
from tests import homes
from tests.mongodb import fresh_database
from tests.sockets import forgotten_connections
from tests.stack import own_server

pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
WRITERS = 4


@dataclass
class Message:
    role: str
    text: str


@entity(data_type="conversation")
@dataclass(kw_only=True)
class Conversation:
    id: str
    user: Annotated[str, Index()]
    topic: Annotated[str, FullText()] = ""
    number: Annotated[str | None, Unique()] = None
    messages: list[Message] = field(default_factory=list[Message])


@pytest.fixture(autouse=True)
def forgotten() -> Generator[None]:
    with forgotten_connections():
        yield


@contextmanager
def asked(url: str) -> Generator[Any]:
    """The collection, as another program has it."""
    with MongoClient[dict[str, Any]](url) as client:
        yield client.get_database("app").conversation


async def differences(hda: HybridDataArchitecture) -> list[object]:
    await hda.settle(60)
    verifier = Verifier(hda.stores, hda.manager.placements, hda.manager.embedders)
    return [one async for one in verifier.differences("conversation")]


@pytest.mark.parametrize("journal", ["sqlite", "postgresql", "mariadb"])
def test_a_conversation_lives_in_mongodb_by_its_type_alone(journal: str, tmp_path: Path) -> None:
    async def main(stores: Mapping[str, Any], name: str) -> None:
        async with HybridDataArchitecture.open({"stores": stores}, entities=[Conversation]) as hda:
            placement = hda.remembered["conversation"].placement
            assert (placement.home, placement.journal, dict(placement.facets)) == (
                "documents",
                "journal",
                {"full_text": "documents"},
            )
            conversations = hda.collection(Conversation)
            said = [Message("user", "안녕"), Message("agent", "$text")]
            result = await conversations.put(
                Conversation(id="a", user="u", topic="우리 학교", number="1", messages=said)
            )
            await conversations.update("a", {"topic": "우리 집"}, expect_version=result.version)
            await conversations.put(Conversation(id="b", user="u", messages=said[:1]))
            await conversations.delete("b")
            assert await differences(hda) == []
            assert [one.messages for one in await conversations.find(F.user == "u")] == [said]
            assert [hit.value.id for hit in await conversations.search("우리")] == ["a"]
            mine = hda.client("documents").get_database(name).conversation
            found = await mine.find_one({"ps_tenant": "", "messages.text": "안녕"})
            assert (found["topic"], found["messages"][1]) == ("우리 집", {"role": "agent", "text": "$text"})
            assert (await mine.find_one({"ps_deleted": True}))["_id"] == {"tenant": "", "id": "b"}

    with homes.HOMES[journal](tmp_path) as stores, fresh_database() as url:
        commits = {"journal": {**stores["main"], "roles": ["journal"]}}
        asyncio.run(main({**commits, "documents": {"url": url}}, url.rpartition("/")[2].partition("?")[0]))


def test_mongodb_is_killed_in_the_middle_of_writes_and_has_caught_up_afterwards(tmp_path: Path) -> None:
    """Writes go on without it: the journal has committed them. A reader sees what was acknowledged, or an error."""
    told: dict[str, int] = {}

    async def writer(hda: HybridDataArchitecture, mine: str, stop: asyncio.Event) -> None:
        conversations, turn = hda.collection(Conversation), 0
        while not stop.is_set():
            turn += 1
            id = f"{mine}-{turn % 10}"
            messages = [Message("user", str(turn)), Message("agent", "네")]
            await conversations.put(Conversation(id=id, user=mine, topic=f"이야기 {turn}", messages=messages))
            told[id] = turn
            await asyncio.sleep(0.002)

    async def reader(hda: HybridDataArchitecture, stop: asyncio.Event) -> None:
        conversations = hda.collection(Conversation)
        while not stop.is_set():
            for id, turn in list(told.items()):
                try:
                    found = await conversations.get(id)
                except (Unavailable, OutcomeUnknown, StalenessTimeout):
                    continue
                assert found is not None
                assert int(found.messages[0].text) >= turn
            await asyncio.sleep(0.002)

    async def more() -> None:
        wanted = sum(told.values()) + 300
        async with asyncio.timeout(60):
            while sum(told.values()) < wanted:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async def main() -> None:
        with own_server("mongodb") as mine:
            options = {"database": "app", "connect_timeout_s": 1}
            stores = {
                "journal": {"url": f"sqlite:{tmp_path}/journal.db", "roles": ["journal"]},
                "documents": {"url": mine.url, "options": options},
            }
            async with HybridDataArchitecture.open({"stores": stores}, entities=[Conversation]) as hda:
                stop = asyncio.Event()
                async with asyncio.TaskGroup() as working:
                    for i in range(WRITERS):
                        working.create_task(writer(hda, f"w{i}", stop))
                    working.create_task(reader(hda, stop))
                    ends: tuple[Callable[[], None], ...] = (mine.kill, lambda: mine.kill("postgres"))
                    for end in ends:
                        await more()
                        await asyncio.to_thread(end)
                        await more()
                        await asyncio.to_thread(mine.start)
                    await more()
                    stop.set()
                assert await differences(hda) == []
                backlog: Any = hda.manager.lines["journal"].backlog
                assert backlog.parked == {}, "an outage is no poison"
            with asked(mine.url) as conversations:
                there = {one["_id"]["id"]: one["messages"][0]["text"] for one in conversations.find({"ps_tenant": ""})}
            assert there == {id: str(turn) for id, turn in told.items()}

    asyncio.run(main())
