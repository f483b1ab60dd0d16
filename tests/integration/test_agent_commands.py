"""What each command of the agent's chat shows, on the sample conversations."""

from __future__ import annotations

import asyncio
import io
import json
import re
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest
from agent.agent import Agent
from agent.chat import Chat
from agent.entities import AGENT, USER, Attachment, Message, Person, Presence, Profile, Session, Source, Topic
from agent.learning import Learner
from agent.moods import valence
from agent.reading import read
from rich.console import Console

from polystore import HybridDataArchitecture
from tests import agent_child
from tests.docs.pages import blocks

ENTITIES = [Attachment, Message, Person, Source, Topic]


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with the sample conversations, after the tour."""
    folder = tmp_path_factory.mktemp("learned")
    agent_child.run("--data", folder / "data")
    return folder / "data"


@pytest.fixture
def data(learned: Path, tmp_path: Path) -> Path:
    shutil.copytree(learned, tmp_path / "data")
    return tmp_path / "data"


def talk(data: Path, *lines: str, per_minute: int = 1000) -> str:
    """What the chat shows for these lines."""
    shown = io.StringIO()

    async def typed() -> None:
        async with HybridDataArchitecture.open(data / "polystore.toml") as hda:
            console = Console(file=shown, width=200, highlight=False, markup=False, emoji=False)
            chat = Chat(Agent(hda, per_minute), console)
            await chat.greet()
            for line in lines:
                if not await chat.turn(line):
                    break

    asyncio.run(typed())
    return shown.getvalue()


def rows(shown: str) -> list[list[str]]:
    """The cells of the tables in what was shown."""
    return [[cell.strip() for cell in line.strip("│┃").split("│")] for line in shown.splitlines() if line[:1] == "│"]


@pytest.mark.parametrize(
    ("words", "speaker", "text", "source"),
    [
        ("바다 여행", "수진", "바다 이야기를 하니까 바다에 가고 싶다. 우리 여름 여행은 어디로 갈까?", "korean-0000014"),
        (
            "coffee garden",
            "Mina",
            "I drink enough coffee for a whole garden, so that is easy.",
            "english-0000016",
        ),
    ],
)
def test_memory_finds_by_words_and_by_meaning(words: str, speaker: str, text: str, source: str, data: Path) -> None:
    first, *others = rows(talk(data, f"/memory {words}"))
    assert first[2:] == [speaker, text, source]
    assert float(first[0]) > 1
    assert all(0 < float(row[1]) <= 1 for row in [first, *others])
    assert {row[0] for row in others} == {""}  # they do not hold both words


def test_memory_marks_what_was_found_and_asks_for_words(data: Path) -> None:
    shown = io.StringIO()

    async def typed() -> None:
        async with HybridDataArchitecture.open(data / "polystore.toml") as hda:
            chat = Chat(Agent(hda, 1), Console(file=shown, width=200, force_terminal=True, color_system="standard"))
            await chat.turn("/memory 칼국수집")

    asyncio.run(typed())
    assert "\x1b[1;33m칼국수집\x1b[0m" in shown.getvalue()
    assert "Which words? /memory WORDS" in talk(data, "/memory ")


def test_graph_of_a_person_shows_topics_and_whom_they_answered_how_often(data: Path) -> None:
    answered: Counter[tuple[str, str]] = Counter()
    for sample in (agent_child.EXAMPLES / "agent/sample").glob("*.jsonl"):
        speakers = [json.loads(line)["speaker"] for line in sample.read_text(encoding="utf-8").splitlines()]
        answered.update((who, whom) for whom, who in pairwise(speakers))
    shown = talk(data, "/graph 준호", "/graph Mina")
    assert "person 준호" in shown
    for who, whom in ("준호", "민지"), ("Mina", "Tom"):
        assert [f"person {whom}", f"{answered[who, whom]}", f"{who} –KNOWS→ {whom}"] in rows(shown)
        assert [f"person {whom}", f"{answered[whom, who]}", f"{whom} –KNOWS→ {who}"] in rows(shown)
    topics = {row[0]: row for row in rows(shown)}
    assert topics["topic 칼국수"][1] == "3"
    assert any("–ABOUT→" in row[2] and "–SAID_BY→ 준호" in row[2] for row in topics.values())


def test_graph_of_a_topic_shows_people_and_topics_on_the_way_over_messages(data: Path) -> None:
    shown = rows(talk(data, "/graph 칼국수", "/graph coffee"))
    assert ["topic 친구", "1", "korean-0000030 –ABOUT→ 칼국수, korean-0000030 –ABOUT→ 친구"] in shown
    assert ["person 준호", "", "korean-0000003 –ABOUT→ 칼국수, korean-0000003 –SAID_BY→ 준호"] in shown
    assert ["person Ada", "", "english-0000015 –ABOUT→ coffee, english-0000015 –SAID_BY→ Ada"] in shown


def test_graph_of_what_nobody_knows(data: Path) -> None:
    shown = talk(data, "/graph 아무개", "/graph")
    assert "I know no person and no topic called “아무개”; /memory looks into messages." in shown
    assert "I know no person and no topic called “”" in shown


def test_the_agent_knows_the_user_as_often_as_it_answered(data: Path) -> None:
    assert ["person you", "6", "agent –KNOWS→ you"] in rows(talk(data, "주말에 뭐 할까?", "/graph agent"))
    assert ["person agent", "6", "agent –KNOWS→ you"] in rows(talk(data, "/graph you"))


@pytest.fixture
def noon(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A zone where it is about noon: all that was just said is of one day."""
    monkeypatch.setenv("TZ", f"UTC{datetime.now(UTC).hour - 12:+d}")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("noon")
def test_mood_shows_days_and_hours_of_those_who_spoke_last(data: Path) -> None:
    shown = talk(data, "정말 행복해", "/mood", "/mood 1")
    days = [row for row in rows(shown) if len(row) == 7]
    (you,) = [row for row in days if row[0] == "you" and ":" not in row[1]]
    assert you[2] == "+0.00"  # one of six was sad, one is glad
    assert you[4:6] == ["6", "15"]
    assert any(row[0] == "agent" and row[6].endswith(" ms") for row in days)
    assert len({row[0] for row in days if row[0]}) == 4
    assert "Just now: you glad, agent" in shown
    for wrong in ("0", "-1", "soon", "99999"):
        assert "How many days? A number from 1 to 3,650: /mood 30" in talk(data, f"/mood {wrong}")


def test_files_are_kept_and_come_back_as_they_were(data: Path, tmp_path: Path) -> None:
    (tmp_path / "내 그림.png").write_bytes(bytes(range(256)) * 3000)
    shown = talk(data, f"/file {tmp_path / '내 그림.png'}", "/file", "/memory 그림")
    assert "Kept 내 그림.png: 768,000 bytes of image/png." in shown
    first, second, *_ = rows(shown)
    assert first[:3] == ["내 그림.png", "image/png", "768,000"]
    assert second[:2] == ["moods.toml", "application/octet-stream"]
    assert ["you", "내 그림.png"] in [row[2:4] for row in rows(shown) if len(row) == 5]

    async def ask() -> None:
        async with HybridDataArchitecture.open(data / "polystore.toml") as hda:
            (mine,) = [one async for one in hda.collection(Attachment).stream() if one.name == "내 그림.png"]
            assert await hda.files.read(mine.content) == bytes(range(256)) * 3000

    asyncio.run(ask())


def test_a_file_that_cannot_be_read(data: Path, tmp_path: Path) -> None:
    shown = talk(data, f"/file {tmp_path / 'no.png'}", f"/file {tmp_path}", "/file /dev/zero")
    assert "no.png cannot be read: No such file or directory" in shown
    assert shown.count("cannot be read: It is no file") == 2


def test_stores_says_what_each_holds_and_is_owed(data: Path) -> None:
    shown = talk(data, "/stores")
    held = {row[0]: row for row in rows(shown) if row[0]}
    assert set(held) == {"home", "full_text", "vector", "graph", "facts", "state", "files"}
    assert held["home"][1] == "home: attachment, message, person, profile, source, topic"
    assert held["facts"][1:] == ["time_series: person", held["facts"][2], "0"]
    assert held["files"][1] == "file: attachment"
    assert held["state"][1] == "home: presence, session"
    assert held["home"][2].startswith("sqlite 3.")


def test_why_says_which_stores_answered_and_where_the_turn_is(data: Path) -> None:
    assert "Nothing was asked yet." in talk(data, "/why")
    shown = talk(data, "주말에 뭐 할까?", "/why")
    calls = {(row[0], row[1]) for row in rows(shown)}
    assert calls >= {
        ("state", "take_allowance"),
        ("full_text", "search"),
        ("vector", "similar"),
        ("graph", "traverse"),
        ("home", "commit"),
        ("facts", "append_points"),
        ("full_text", "append_lines"),
    }
    assert "answered from korean-0000006, found at version" in shown
    assert re.search(r"full_text applied, vector applied, graph applied at \d\d:\d\d:\d\d, after [\d.]+ ms\n", shown)


def test_the_log_tells_what_was_done_and_is_searched_by_words(data: Path) -> None:
    told = [row[1] for row in rows(talk(data, "/log"))]
    assert told[0] == "kept the file moods.toml"
    assert told[-2:] == ["learned 31 messages of korean", "learned 29 messages of english"]
    assert [row[1] for row in rows(talk(data, "/log 힘들어"))] == ["answered “오늘 너무 힘들어”"]
    assert "The log says nothing of that." in talk(data, "/log 등대지기")


def test_help_and_what_is_no_command(data: Path) -> None:
    shown = talk(data, "/help", "/sing a song", "/quit", "/help")
    for name in ("/memory", "/graph", "/mood", "/file", "/stores", "/why", "/log", "/help", "/quit"):
        assert shown.count(f"\n{name} ") == 1, name
    assert "There is no /sing. There are /memory, /graph, /mood, /file, /stores, /why, /log, /help and /quit." in shown


def test_who_says_too_much_in_a_minute_waits(data: Path) -> None:
    shown = talk(data, *["주말에 뭐 할까?"] * 3, per_minute=7)  # the tour took five
    assert shown.count("agent › 토요일에는 한강에서") == 2
    assert shown.count("That was too much at once. Say it again in ") == 1
    assert "I remember 75 messages" in talk(data)  # 71, two questions, two answers


def test_profile_presence_and_session_are_kept_as_what_they_are(data: Path) -> None:
    talk(data, "바다에 가서 정말 행복해")

    async def ask() -> None:
        async with HybridDataArchitecture.open(data / "polystore.toml") as hda:
            profile = (await hda.collection(Profile).load(USER)).value
            presence = await hda.state(Presence).get(USER)
            assert presence
            assert (profile.language, presence.mood, presence.topic, presence.turns) == ("Korean", 1.0, "바다", 6)
            agent = await hda.state(Presence).get(AGENT)
            assert agent
            assert 0 < agent.mood < 1
            session = await hda.state(Session).get(presence.session)
            assert session
            assert session.turns == 6
            left_s = await hda.state(Session).ttl(presence.session)
            assert left_s
            assert 1700 < left_s <= 1800
            await hda.state(Session).delete(presence.session)
            assert len(await hda.collection(Person).series(Person.answer_ms, AGENT, start=profile.since)) == 6

    asyncio.run(ask())
    shown = talk(data)
    assert "glad, when we came to 바다; you write Korean. 6 turns so far." in shown
    assert "This visit goes on" not in shown


def test_a_new_edition_is_counted_in_the_place_of_the_old_one(tmp_path: Path) -> None:
    source = tmp_path / "talk.txt"

    async def weights(text: str) -> dict[str, dict[str, int]]:
        source.write_text(text, encoding="utf-8")
        async with HybridDataArchitecture.open("embedded:" + str(tmp_path / "data"), entities=ENTITIES) as hda:
            await Learner(hda).learn(read(source), lambda report: None)
            people = [one async for one in hda.collection(Person).stream()]
            return {one.id: {edge.to: edge.properties.weight for edge in one.knows} for one in people}

    assert asyncio.run(weights("a: 1\nb: 2\na: 3\nb: 4\n")) == {"a": {"b": 1}, "b": {"a": 2}}
    assert asyncio.run(weights("a: 1\nb: 2\nc: 3\n")) == {"a": {}, "b": {"a": 1}, "c": {"b": 1}}


@pytest.mark.parametrize(
    ("text", "sounds"),
    [
        ("정말 행복해!", 1.0),
        ("I love this WONDERFUL day", 1.0),
        ("너무 슬프고 우울해", -1.0),
        ("It’s terrible, I am so lonely", -1.0),
        ("안 좋아", -1.0),
        ("좋지 않아", -1.0),
        ("not good", -1.0),
        ("I don’t hate it", 1.0),
        ("힘들지만 고마워", 0.0),
        ("the train leaves at nine", 0.0),
        ("행복", 1.0),
        ("", 0.0),
    ],
)
def test_how_a_text_sounds(text: str, sounds: float) -> None:
    assert valence(text) == sounds


def test_the_chat_in_the_how_to_is_what_the_agent_shows(data: Path) -> None:
    page = Path(__file__).parents[2] / "docs/how-to/agent.md"
    chat = next(block.text for block in blocks(page) if block.text.startswith("you › "))
    said = [line.removeprefix("you › ") for line in chat.splitlines() if line.startswith("you › ")]
    shown = {" ".join(line.replace("┃", "│").split()) for line in talk(data, *said).splitlines()}
    told = [" ".join(line.split()) for line in chat.splitlines() if line and not line.startswith("you › ")]
    assert [line for line in told if line not in shown] == []
