"""The agent of examples/, run as its users run it."""

from __future__ import annotations

import asyncio
import os
import pty
import random
import re
import signal
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest
from agent.agent import Agent, Answer
from agent.entities import Message, Topic
from agent.reading import Line, UnreadableInput, read
from agent.topics import about, find_topics

from polystore import Collection, HybridDataArchitecture
from polystore.consistency.verify import Verifier
from tests import agent_child

R = TypeVar("R")


def remembered(data: Path, ask: Callable[[HybridDataArchitecture], Awaitable[R]]) -> R:
    """The answer of the agent's memory, asked through the configuration in its data directory."""

    async def asked() -> R:
        async with HybridDataArchitecture.open(data / "polystore.toml") as hda:
            return await ask(hda)

    return asyncio.run(asked())


async def said(agent: Agent, text: str) -> Answer:
    answer = await agent.listen(text)
    assert isinstance(answer, Answer)
    return answer


# -- the tour -----------------------------------------------------------------------------------------------------


def test_the_tour_answers_in_korean_and_english_and_a_second_start_remembers_it(tmp_path: Path) -> None:
    first = agent_child.run("--data", tmp_path)
    assert "korean: 31 new, 0 known" in first
    assert "english: 29 new, 0 known" in first
    assert "오늘은 따뜻한 차를 마시고 일찍 쉬어." in first
    assert "To the lighthouse on the island." in first
    for store in ("home", "full_text", "vector", "graph", "facts", "state"):
        assert re.search(rf"│ {store} ", first), store
    assert re.search(r"remembered message as /chat-\S+, version \d+: home committed, full_text applied", first)
    assert "remembered your valence as you: facts committed" in first
    assert "I remember 60 messages of 8 people" in first
    second = agent_child.run("--data", tmp_path)
    assert "korean: 0 new, 31 known" in second
    assert "I remember 71 messages of 8 people" in second  # five questions, five answers, the name of a file
    assert "you write English. 5 turns so far." in second
    assert "This visit goes on: 5 turns." in second
    assert "  agent: To the lighthouse on the island" in second
    assert "  you: moods.toml" in second


def test_a_file_and_its_speakers_may_be_called_like_the_chat_and_the_agent(tmp_path: Path) -> None:
    (tmp_path / "chat.txt").write_text("you: 참새는 어떻게 울어?\nagent: 짹짹\n", encoding="utf-8")
    agent_child.run("--input", tmp_path / "chat.txt", "--data", tmp_path)

    async def ask(hda: HybridDataArchitecture) -> None:
        agent = Agent(hda, 100)
        await agent.begin()
        assert (await said(agent, "참새는 어떻게 울어?")).text == "짹짹"
        assert (await said(agent, "짹짹")).recalled.memory is None  # nobody replied to that

    remembered(tmp_path, ask)


def test_samples_do_not_mix_with_a_conversation_of_the_user(tmp_path: Path) -> None:
    source = agent_child.write_csv(tmp_path / "mine.csv", [("참새", "짹짹")])
    assert "mine: 2 new, 0 known" in agent_child.run("--input", source, "--data", tmp_path / "data")
    again = agent_child.run("--data", tmp_path / "data")
    assert "I remember 8 messages" in again  # 2, a file, and the tour's five questions, to which it knew nothing
    assert "그런 이야기는 기억나지 않아요." in again


def test_one_file_for_all_or_a_file_for_each_role_as_it_was_at_the_first_start(tmp_path: Path) -> None:
    first = agent_child.run("--data", tmp_path / "one", "--store", "sqlite")
    assert "korean: 31 new, 0 known" in first
    assert "main committed" in first
    assert sorted(path.name for path in (tmp_path / "one").glob("*.db")) == ["agent.db"]
    agent_child.verify(tmp_path / "one")
    assert "korean: 0 new, 31 known" in agent_child.run("--data", tmp_path / "one")
    shown = agent_child.run("--data", tmp_path / "one", "--store", "embedded", code=2)
    assert "polystore.toml says another store than embedded:.; leave --store out" in shown


def test_the_data_directory_may_be_moved_and_its_configuration_edited(tmp_path: Path) -> None:
    agent_child.run("--data", tmp_path / "data")
    (tmp_path / "data").rename(tmp_path / "moved")
    agent_child.verify(tmp_path / "moved")
    config = tmp_path / "moved" / "polystore.toml"
    config.write_text(config.read_text(encoding="utf-8") + "# mine\n", encoding="utf-8")
    assert "english: 0 new, 29 known" in agent_child.run("--data", tmp_path / "moved")
    assert config.read_text(encoding="utf-8").endswith("# mine\n")


# -- the chat at a terminal ---------------------------------------------------------------------------------------


CTRL_C, CTRL_D = "\x03", "\x04"


def at_terminal(data: Path, typed: list[str], meanwhile: Callable[[], object] = lambda: None) -> tuple[int, str]:
    """Type each line when the agent asks for one, the last after `meanwhile`; its exit code and what the terminal
    showed."""
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        agent_child.arguments("--data", data),
        env={**agent_child.environment(), "TERM": "dumb"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    rest = list(typed)
    while True:
        try:
            shown += os.read(ours, 4096)
        except OSError:  # the other side is closed
            break
        if rest and shown.endswith("you › ".encode()):
            line = rest.pop(0)
            if not rest:
                meanwhile()
            child.send_signal(signal.SIGINT) if line == CTRL_C else os.write(
                ours, line.encode(errors="surrogateescape")
            )
    os.close(ours)
    assert rest == []
    return child.wait(timeout=60), os.fsdecode(shown).replace("\r\n", "\n")


def test_a_chat_at_a_terminal_beside_which_commands_work(tmp_path: Path) -> None:
    code, shown = at_terminal(
        tmp_path,
        ["배고픈데 뭐 먹지?\n", "/why\n", "\n", "/help\n", "[bold]?[/bold] \udcec\n", "/quit\n"],
        lambda: agent_child.verify(tmp_path),
    )
    assert code == 0
    assert "agent › 비 오는 날에는 칼국수가 최고지." in shown
    assert "민지 said “발표가 끝나니까 갑자기 배가 고파. 뭐 먹지?”" in shown
    assert "people: 민지, 준호" in shown
    assert "topics: 발표, 칼국수" in shown
    assert "answered from korean-0000002, found at version" in shown
    assert "/why              which stores answered" in shown
    assert "[bold]?[/bold]" in shown  # and half a letter
    assert "I remember nothing like that." in shown


@pytest.mark.parametrize(("keys", "code"), [(CTRL_D, 0), (CTRL_C, 130)], ids=["ctrl-d", "ctrl-c"])
def test_the_keys_that_end_a_chat(keys: str, code: int, tmp_path: Path) -> None:
    ended, shown = at_terminal(tmp_path, ["내 이름은 기억이야\n", keys])
    assert ended == code
    assert ("Interrupted. What is remembered is whole" in shown) == (code == 130)
    assert "Traceback" not in shown
    assert "you: 내 이름은 기억이야" in agent_child.run("--data", tmp_path)


def test_what_was_said_in_the_chat_is_remembered_but_not_what_the_agent_said(tmp_path: Path) -> None:
    agent_child.run("--data", tmp_path)

    async def ask(hda: HybridDataArchitecture) -> None:
        agent = Agent(hda, 100)
        unknown = await said(agent, "우리 집 고양이 이름은 나비야")
        assert unknown.recalled.memory is None
        mine = await said(agent, "고양이 이름")
        assert mine.recalled.memory
        assert (mine.text, mine.recalled.memory.value.speaker) == ("우리 집 고양이 이름은 나비야", "you")
        known = [(await said(agent, "주말에 뭐 할까?")).recalled.memory for _ in range(2)]
        assert [memory.value.source for memory in known if memory] == ["korean", "korean"]

    remembered(tmp_path, ask)


# -- the import ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A data directory after an import, and the texts imported."""
    folder = tmp_path_factory.mktemp("talk")
    said = agent_child.pairs(1000, seed=9)
    source = agent_child.write_csv(folder / "talk.csv", said)
    assert "talk: 2,000 new, 0 known; every store has them" in agent_child.run("--input", source, "--data", folder)
    return folder, [text for pair in said for text in pair]


def test_messages_replies_people_and_topics_are_connected(talk: tuple[Path, list[str]]) -> None:
    data, texts = talk

    async def ask(hda: HybridDataArchitecture) -> None:
        messages = hda.collection(Message)
        answer = await messages.load("talk-0000001")
        assert (answer.value.text, answer.value.speaker, answer.value.reply_to) == (texts[1], "A", "talk-0000000")
        (reply,) = await messages.related("talk-0000000", "REPLY_TO", direction="in", into=Message)
        assert reply.value == answer.value
        assert "친구" in {topic.id async for topic in hda.collection(Topic).stream()}
        friend = next(i for i, text in enumerate(texts) if "친구" in text)
        topics = await messages.related(f"talk-{friend:07}", "ABOUT", into=Topic)
        assert "친구" in {found.value.id for found in topics}
        verifier = Verifier(hda.stores, hda.manager.placements, hda.manager.embedders)
        for etype in hda.manager.placements:
            assert [difference async for difference in verifier.differences(etype)] == []

    remembered(data, ask)


def test_every_two_syllables_inside_a_word_find_exactly_the_messages_that_hold_them(
    talk: tuple[Path, list[str]],
) -> None:
    data, texts = talk
    inside = sorted({two for text in texts for two in re.findall(r"(?=([가-힣]{2}))", text)})

    async def ask(hda: HybridDataArchitecture) -> None:
        messages = hda.collection(Message)
        for two in random.Random(1).sample(inside, 200):
            hits = await messages.search(two, limit=10_000)
            found = sorted(hit.value.text for hit in hits if hit.value.source == "talk")
            assert found == sorted(text for text in texts if two in text), two

    remembered(data, ask)


def changed(text: str, rng: random.Random) -> str:
    """The text with another syllable in one place."""
    at = rng.choice([i for i, letter in enumerate(text) if "가" <= letter <= "힣"])
    return text[:at] + chr(rng.randrange(ord("가"), ord("힣") + 1)) + text[at + 1 :]


def test_a_sentence_is_most_similar_to_itself_and_found_with_a_syllable_changed(talk: tuple[Path, list[str]]) -> None:
    data, texts = talk
    rng = random.Random(2)

    async def ask(hda: HybridDataArchitecture) -> None:
        messages: Collection[Message] = hda.collection(Message)
        for text in rng.sample(texts, 50):
            assert (await messages.similar(text, limit=1))[0].value.text == text
            near = await messages.similar(changed(text, rng), limit=3)
            assert text in {hit.value.text for hit in near}

    remembered(data, ask)


def test_an_import_that_is_interrupted_goes_on(tmp_path: Path) -> None:
    source = agent_child.write_csv(tmp_path / "talk.csv", agent_child.pairs(2000, seed=3))
    child = agent_child.start("--input", source, "--data", tmp_path)
    agent_child.wait_until_imported(child, tmp_path, 500)
    child.send_signal(signal.SIGINT)
    shown, _ = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "start again with the same arguments to go on" in shown
    assert "Traceback" not in shown
    before = agent_child.imported(tmp_path)
    assert 500 <= before < 4000
    again = agent_child.run("--input", source, "--data", tmp_path)
    assert f"talk: {4000 - before:,} new, {before:,} known" in again


def test_a_new_edition_of_a_file_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    said = agent_child.pairs(20, seed=4)
    source = agent_child.write_csv(tmp_path / "talk.csv", said)
    agent_child.run("--input", source, "--data", tmp_path)
    first = source.read_bytes()
    said[3] = (said[3][0], "완전히 다른 대답")
    agent_child.write_csv(source, said[:18])
    assert "talk: 1 new, 35 known" in agent_child.run("--input", source, "--data", tmp_path)
    assert agent_child.imported(tmp_path) == 36
    assert "talk: 0 new, 36 known" in agent_child.run("--input", source, "--data", tmp_path)
    source.write_bytes(first)
    assert "talk: 5 new, 35 known" in agent_child.run("--input", source, "--data", tmp_path)


# -- reading ------------------------------------------------------------------------------------------------------

MISTAKES: dict[str, tuple[str, bytes, str]] = {
    "empty": ("talk.csv", b"", "line 1: the columns are missing"),
    "only a header": ("talk.csv", b"Q,A\n", "is empty"),
    "nothing said": ("talk.txt", b"\n\n", "is empty"),
    "other columns": (
        "talk.csv",
        b"question,answer\na,b\n",
        "line 1: the columns are question, answer; needed: Q and A",
    ),
    "too few columns": ("talk.csv", b"Q,A,label\na,b,0\nc,d\n", "line 3: 2 columns; the first line has 3"),
    "an open quote": ("talk.csv", b'Q,A\n"a,b\n', "this is not CSV"),
    "no encoding": ("talk.csv", "Q,A\n가,나\n".encode("utf-16"), "neither UTF-8 nor CP949"),
    "not text": ("talk.txt", b"a: b\0\n", "neither UTF-8 nor CP949"),
    "no JSON": ("talk.jsonl", b'{"speaker": "a", "text": "b"}\nx\n', "line 2: JSON is malformed"),
    "no text": ("talk.jsonl", b'{"speaker": "a"}\n', "line 1: Object missing required field `text`"),
    "no colon": ("talk.txt", b"a: b\n\nwell\n", "line 3: needed: speaker: text"),
    "no speaker": ("talk.csv", b"speaker,text\n ,b\n", "line 2: nobody is named as the speaker"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_file_that_is_no_conversation(mistake: str, tmp_path: Path) -> None:
    name, content, message = MISTAKES[mistake]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnreadableInput, match=re.escape(message)) as raised:
        read(tmp_path / name)
    assert str(tmp_path / name) in str(raised.value)


def test_an_input_that_cannot_be_read_leaves_nothing_behind(tmp_path: Path) -> None:
    data = tmp_path / "data"
    missing = agent_child.run("--input", tmp_path / "no.csv", "--data", data, code=2)
    assert "no.csv cannot be read: No such file or directory" in missing
    assert "cannot be read: Is a directory" in agent_child.run("--input", tmp_path, "--data", data, code=2)
    assert not data.exists()


def test_a_directory_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    shown = agent_child.run("--data", tmp_path / "file", code=2)
    assert f"agent: {tmp_path / 'file'} cannot be used: File exists" in shown
    (tmp_path / "home.db").write_text("not a database" * 100)
    shown = agent_child.run("--data", tmp_path, code=1)
    assert "agent: StoreCorrupt: " in shown
    assert "Traceback" not in shown


def test_wrong_arguments_and_help() -> None:
    assert "unrecognized arguments: --nonsense" in agent_child.run("--nonsense", code=2)
    shown = agent_child.run("--help")
    assert "columns Q and A" in shown
    assert "Exit codes" in shown


def test_a_cp949_file_is_read_and_said_so(tmp_path: Path) -> None:
    source = agent_child.write_csv(tmp_path / "talk.csv", [("똠방각하 안녕", "반가워요")], encoding="cp949")
    shown = agent_child.run("--input", source, "--data", tmp_path)
    assert "talk is no UTF-8; read as CP949" in shown
    assert "talk: 2 new" in shown


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("talk.csv", "\ufeffSpeaker,Text\na,안녕\na,뭐 해?\nb,\nb,밥\n"),
        (
            "talk.jsonl",
            '{"speaker": "a", "text": "안녕"}\n\n{"text": "뭐 해?", "speaker": " a "}\n{"speaker":"b","text":"밥"}',
        ),
        ("talk.txt", "a: 안녕\r\na: 뭐 해?\r\nb: 밥\r\n"),
    ],
)
def test_whoever_speaks_after_somebody_else_answers(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8", newline="")
    conversation = read(tmp_path / name)
    assert conversation.name == "talk"
    assert conversation.lines == [Line("a", "안녕", False), Line("a", "뭐 해?", False), Line("b", "밥", True)]


def test_an_empty_line_in_plain_text_begins_anew(tmp_path: Path) -> None:
    (tmp_path / "talk.txt").write_text("a: 안녕: 친구\n\nb: 밥\n", encoding="utf-8")
    assert read(tmp_path / "talk.txt").lines == [Line("a", "안녕: 친구", False), Line("b", "밥", False)]


def test_an_answer_without_a_question_answers_nothing(tmp_path: Path) -> None:
    source = agent_child.write_csv(tmp_path / "talk.csv", [("하나", "둘"), ("", "셋")])
    assert read(source).lines == [Line("Q", "하나", False), Line("A", "둘", True), Line("A", "셋", False)]


# -- topics -------------------------------------------------------------------------------------------------------


def test_topics_are_nouns_that_come_back_without_their_particles() -> None:
    texts = [
        "친구가 좋아",
        "친구를 만났어",
        "친구랑 좋아해",
        "my garden is green",
        "the gardens of the garden",
        "Would you?",
    ]
    topics = find_topics([*texts, "would it", "좋아 좋아"])
    assert topics == {"친구", "garden"}
    assert about("그 친구와 친구는 the GARDEN에서", topics) == ["친구", "garden"]


def test_topics_are_found_in_decomposed_text() -> None:
    decomposed = "친구를"
    assert about(decomposed, find_topics(["친구가", "친구는"])) == ["친구"]
