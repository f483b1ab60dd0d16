"""The chat: at a terminal with whoever sits there, without one a fixed tour."""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from rich.console import Console

from agent import show
from agent.agent import Agent, Answer
from agent.entities import AGENT, USER
from agent.stores import report
from polystore import Allowance, PolystoreError
from polystore.layers.tracing import Step

FOUND, LINES, DAYS, DAYS_MAX = 5, 10, 7, 3650
TOUR = (
    "오늘 너무 힘들어",
    "/why",
    "주말에 뭐 할까?",
    "배고픈데 뭐 먹지?",
    "What helps when I cannot sleep?",
    "Where should we travel?",
    "/memory 바다 여행",
    "/memory coffee garden",
    "/graph 칼국수",
    "/graph Mina",
    "/graph nobody",
    "/mood",
    f"/file {Path(__file__).with_name('moods.toml')}",
    "/file",
    "/stores",
    "/log answered",
    "/sing",
    "/help",
    "/quit",
)


class Chat:
    def __init__(self, agent: Agent, console: Console) -> None:
        self._agent = agent
        self._console = console
        self._last: tuple[Answer, Sequence[Step]] | None = None
        self._commands: dict[str, tuple[str, str, Callable[[str], Awaitable[None]]]] = {
            "/memory": ("WORDS", "what is remembered of these words, by words and by meaning", self._memory),
            "/graph": ("NAME", "a person or a topic, what relates to it, and how", self._graph),
            "/mood": (
                "[DAYS]",
                f"how messages sounded over time; {DAYS} days unless you say more or fewer",
                self._mood,
            ),
            "/file": ("[PATH]", "attach a file; without a path: those attached last", self._file),
            "/stores": ("", "which store holds what, whether it answers, what it is owed", self._stores),
            "/why": ("", "which stores answered last, how long they took, where the turn is now", self._why),
            "/log": ("[WORDS]", "what the agent did last", self._log),
            "/help": ("", "this", self._help),
        }

    async def greet(self) -> None:
        profile, before, session = await self._agent.begin()
        messages, people, topics = await self._agent.memory.counts()
        self._console.print(f"I remember {messages:,} messages of {people:,} people about {topics:,} topics.")
        if before.last_seen:
            seen = f"I saw you last at {before.last_seen.astimezone():%Y-%m-%d %H:%M}, {show.mood_word(before.mood)}"
            about = f", when we came to {before.topic}" if before.topic else ""
            writes = f"; you write {profile.language}" if profile.language else ""
            self._console.print(f"{seen}{about}{writes}. {before.turns:,} turns so far.")
        if session.turns:
            self._console.print(f"This visit goes on: {session.turns:,} turns.")
        last = await self._agent.memory.last_said(2)
        if last:
            self._console.print("We talked last about:", style="dim")
        for message in last:
            self._console.print(f"  {message.speaker}: {message.text}", style="dim")

    async def terminal(self) -> None:
        """Answer until /quit or the end of the input."""
        self._console.print("Ask me something. /help explains, /quit leaves.", style="dim")
        while (line := await self._typed()) and await self.turn(line.strip()):
            pass

    async def tour(self) -> None:
        self._console.print("No terminal to chat at: a tour.", style="dim")
        for line in TOUR:
            self._console.print(f"\n{USER} › {line}", style="bold")
            await self.turn(line)

    async def turn(self, line: str) -> bool:
        """One line of the user; False when they leave. What a store refuses is said, and the chat goes on."""
        name, _, rest = line.partition(" ")
        if name == "/quit":
            return False
        try:
            if name in self._commands:
                await self._commands[name][2](rest.strip())
            elif name.startswith("/"):
                self._console.print(f"There is no {name}. There are {', '.join(self._commands)} and /quit.")
            elif line:
                await self._say(line)
        except PolystoreError as e:
            self._console.print(f"{type(e).__name__}: {e}", style="red")
        return True

    async def _typed(self) -> str:
        """The next line, "" at the end. Not `input`: deliveries go on meanwhile, and Ctrl-C ends it at once."""
        self._console.print(f"\n{USER} › ", style="bold", end="")
        loop, ready = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(sys.stdin, ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_reader(sys.stdin)
        return sys.stdin.buffer.readline().decode(sys.stdin.encoding, "replace")  # half a letter, after a backspace

    async def _say(self, line: str) -> None:
        with self._agent.hda.trace() as trace:
            answer = await self._agent.listen(line)
        if isinstance(answer, Allowance):
            self._console.print(
                f"That was too much at once. Say it again in {answer.retry_after_s:.0f} s.", style="yellow"
            )
            return
        self._last = answer, trace.steps
        self._show(answer)

    def _show(self, answer: Answer) -> None:
        if answer.trouble:
            self._console.print(f"The model does not answer: {answer.trouble}. From memory, then:", style="yellow")
        self._console.print(f"{AGENT} › {answer.text}", style="green")
        recalled = answer.recalled
        if answer.model:
            self._console.print(f"  said by {answer.model}", style="dim")
        if recalled.memory is None:
            return
        asked = recalled.memory.value
        self._console.print(f"  from {asked.source}: {asked.speaker} said “{asked.text}”", style="dim")
        self._console.print(f"  people: {', '.join(recalled.people)}", style="dim")
        if recalled.topics:
            self._console.print(f"  topics: {', '.join(recalled.topics)}", style="dim")
        for other in recalled.others:
            self._console.print(f"  also: {other.speaker} said “{other.text}”", style="dim")

    # -- commands -------------------------------------------------------------------------------------------------

    async def _memory(self, words: str) -> None:
        if not words:
            self._console.print("Which words? /memory WORDS")
            return
        found = await self._agent.memory.find(words, FOUND)
        self._console.print(show.memories(found) if found else "I remember nothing like that.")

    async def _graph(self, name: str) -> None:
        portraits = await self._agent.portraits.of(name) if name else ()
        for one in portraits:
            self._console.print(show.portrait(one))
        if not portraits:
            self._console.print(f"I know no person and no topic called “{name}”; /memory looks into messages.")

    async def _mood(self, days: str) -> None:
        if days and not (days.isascii() and days.isdecimal() and 1 <= int(days) <= DAYS_MAX):
            self._console.print(f"How many days? A number from 1 to {DAYS_MAX:,}: /mood 30")
            return
        charts = await self._agent.feelings.chart(int(days or DAYS))
        self._console.print(show.moods(charts))
        you, me = await self._agent.company.moods()
        self._console.print(f"Just now: {USER} {show.mood_word(you.mood)}, {AGENT} {show.mood_word(me.mood)}.")

    async def _file(self, path: str) -> None:
        if not path:
            attached = await self._agent.memory.attached(LINES)
            self._console.print(show.files(attached) if attached else "No file was attached yet: /file PATH")
            return
        started = time.perf_counter()
        try:
            attachment = await self._agent.memory.attach(_path(path))
        except OSError as e:
            self._console.print(f"{path} cannot be read: {e.strerror}")
            return
        await self._agent.company.did(f"kept the file {attachment.name}", (time.perf_counter() - started) * 1000)
        content = attachment.content
        self._console.print(f"Kept {attachment.name}: {content.size:,} bytes of {content.content_type}.")

    async def _stores(self, _: str) -> None:
        self._console.print(show.stores(await report(self._agent.hda)))

    async def _why(self, _: str) -> None:
        if self._last is None:
            self._console.print("Nothing was asked yet.")
            return
        answer, steps = self._last
        self._console.print(show.steps(steps))
        if memory := answer.recalled.memory:
            found, now = memory.match_version, memory.version
            self._console.print(f"answered from {memory.value.id}, found at version {found}, now at {now}")
        for one in answer.written:
            result = one.result
            reached = ", ".join(f"{store} {status}" for store, status in result.stores.items())
            version = "" if result.version is None else f", version {result.version}"
            when = f"{one.at:%H:%M:%S}, after {one.ms:.1f} ms"
            self._console.print(f"remembered {one.what} as {result.key}{version}: {reached} at {when}")

    async def _log(self, words: str) -> None:
        deeds = await self._agent.company.deeds(words, LINES)
        self._console.print(show.deeds(deeds) if deeds else "The log says nothing of that.")

    async def _help(self, _: str) -> None:
        self._console.print(
            "Say anything, in Korean or English: the answer is what was once said to something like it."
        )
        for name, (argument, what, _command) in self._commands.items():
            self._console.print(f"{f'{name} {argument}':<18}{what}")
        self._console.print(f"{'/quit':<18}leave; everything is remembered")


def _path(text: str) -> Path:
    return Path(text).expanduser()
