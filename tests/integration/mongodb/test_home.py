"""MongoDB as a home whose journal is another store, through the facade; what is there is read with PyMongo."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import pytest
from motor.motor_asyncio import AsyncIOMotorClient
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


@entity(data_type="skill")
@dataclass(kw_only=True)
class Skill:
    id: str
    name: Annotated[str, FullText()]
    spec: dict[str, Any]


@entity(data_type="memory")
@dataclass(kw_only=True)
class Memory:
    id: str
    text: Annotated[str, FullText()]
    under: Annotated[str | None, Index()] = None
    path: list[str] = field(default_factory=list[str])


SUM = {"단계": 3, "예문": ["안녕", {"말": "반가워", "$name": "$topic"}], "빈": None, "큰 수": 1 << 60}
GREET = {"단계": "쉬움", "예문": {"말": "안녕"}}


@pytest.fixture(autouse=True)
def forgotten() -> Generator[None]:
    with forgotten_connections():
        yield


@contextmanager
def asked(url: str) -> Generator[Any]:
    """The collection, as another program has it."""
    with MongoClient[dict[str, Any]](url) as client:
        yield client.get_database("app").conversation


async def differences(hda: HybridDataArchitecture, etype: str = "conversation") -> list[object]:
    await hda.settle(60)
    verifier = Verifier(hda.stores, hda.manager.placements, hda.manager.embedders)
    return [one async for one in verifier.differences(etype)]


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


@pytest.mark.parametrize("driver", ["pymongo", "motor"])
def test_skills_of_any_form_and_memories_under_memories_live_in_mongodb(driver: str, tmp_path: Path) -> None:
    """`motor`: through a client of the program's own, which is past its end of life."""

    async def skills_of(hda: HybridDataArchitecture) -> None:
        skills = hda.collection(Skill)
        await skills.put_many(
            [Skill(id="sum", name="더하기", spec=SUM), Skill(id="greet", name="인사하기", spec=GREET)]
        )
        await skills.put(Skill(id="gone", name="없어질 것", spec={}))
        await skills.delete("gone")
        await skills.update("greet", {"spec": {**GREET, "새것": [[1, 2.5]]}})
        assert await differences(hda, "skill") == []
        for where, ids in (
            (F.spec["단계"] >= 2, ["sum"]),
            (F.spec["예문"].contains("안녕"), ["sum"]),
            (F.spec["예문"]["말"] == "안녕", ["greet"]),
            (F.spec["빈"].is_null(), ["greet", "sum"]),
            (F.spec["큰 수"] == 1 << 60, ["sum"]),
            (~(F.spec["단계"] == "쉬움"), ["sum"]),
        ):
            assert [one.id for one in await skills.find(where, order_by=F.id)] == ids, repr(where)
        assert [hit.value.spec for hit in await skills.search("더하기")] == [SUM]

    async def memories_of(hda: HybridDataArchitecture) -> None:
        memories = hda.collection(Memory)
        await memories.put(Memory(id="삶", text="지금까지"))
        await memories.put(Memory(id="학교", text="학교에 다닐 때", under="삶", path=["삶"]))
        await memories.put(Memory(id="짝꿍", text="학교 짝꿍", under="학교", path=["삶", "학교"]))
        assert await differences(hda, "memory") == []
        assert [one.id for one in await memories.find(F.under == "삶")] == ["학교"]
        assert [one.id for one in await memories.find(F.path.contains("삶"), order_by=F.id)] == ["짝꿍", "학교"]
        assert {hit.value.id for hit in await memories.search("학교")} == {"학교", "짝꿍"}

    async def main(url: str) -> None:
        name = url.rpartition("/")[2].partition("?")[0]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of motor
            client = AsyncIOMotorClient[dict[str, Any]](url) if driver == "motor" else None
        mine = {"url": url} if client is None else {"url": "mongodb:", "options": {"client": client, "database": name}}
        stores = {"journal": {"url": f"sqlite:{tmp_path}/journal.db", "roles": ["journal"]}, "documents": mine}
        async with HybridDataArchitecture.open({"stores": stores}, entities=[Skill, Memory]) as hda:
            assert {one.placement.home for one in hda.remembered.values()} == {"documents"}
            await skills_of(hda)
            await memories_of(hda)
        if client is not None:
            client.close()
        with MongoClient[dict[str, Any]](url) as theirs:
            database = theirs.get_default_database()
            assert database.skill.find_one({"spec.예문.말": "반가워"}, {"_id": 0, "spec": 1}) == {"spec": SUM}
            up = {"from": "memory", "startWith": "$under", "connectFromField": "under", "connectToField": "id"}
            steps = [{"$match": {"id": "짝꿍"}}, {"$graphLookup": up | {"as": "above"}}]
            (found,) = database.memory.aggregate(steps)
            assert sorted(one["id"] for one in found["above"]) == ["삶", "학교"]

    with fresh_database() as url:
        asyncio.run(main(url))


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
