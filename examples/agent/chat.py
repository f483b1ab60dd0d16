"""The chat: at a terminal with whoever sits there, without one a fixed tour."""

import asyncio
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from agent.memory import AGENT, USER, Answer, Memory
from polystore import PolystoreError
from polystore.layers.tracing import Step

TOUR = (
    "오늘 너무 힘들어",
    "/why",
    "주말에 뭐 할까?",
    "배고픈데 뭐 먹지?",
    "What helps when I cannot sleep?",
    "/why",
    "Where should we travel?",
)
HELP = """Say anything, in Korean or English: the answer is what was once said to something like it.
/why   which stores answered, how long they took, which versions were seen
/help  this
/quit  leave; everything is remembered"""


class Chat:
    def __init__(self, memory: Memory, console: Console) -> None:
        self._memory = memory
        self._console = console
        self._last: tuple[Answer, Sequence[Step]] | None = None

    async def greet(self) -> None:
        messages, people, topics = await self._memory.counts()
        self._console.print(f"I remember {messages:,} messages of {people:,} people about {topics:,} topics.")
        last = await self._memory.last_said(2)
        if last:
            self._console.print("We talked last about:", style="dim")
        for message in last:
            self._console.print(f"  {message.speaker}: {message.text}", style="dim")

    async def terminal(self) -> None:
        """Answer until /quit or the end of the input."""
        self._console.print("Ask me something. /help explains, /quit leaves.", style="dim")
        while (line := await self._typed()) and line.strip() != "/quit":
            await self.turn(line.strip())

    async def tour(self) -> None:
        self._console.print("No terminal to chat at: a tour.", style="dim")
        for line in TOUR:
            self._console.print(f"\n{USER} › {line}", style="bold")
            await self.turn(line)

    async def turn(self, line: str) -> None:
        """One line of the user. What a store refuses is said, and the chat goes on."""
        try:
            if line == "/why":
                self._why()
            elif line.startswith("/"):
                self._console.print(HELP)
            elif line:
                with self._memory.hda.trace() as trace:
                    answer = await self._memory.answer(line)
                self._last = answer, trace.steps
                self._show(answer)
        except PolystoreError as e:
            self._console.print(f"{type(e).__name__}: {e}", style="red")

    async def _typed(self) -> str:
        """The next line, "" at the end. Not `input`: deliveries go on meanwhile, and Ctrl-C ends it at once."""
        self._console.print(f"\n{USER} › ", style="bold", end="")
        loop, ready = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(sys.stdin, ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_reader(sys.stdin)
        return sys.stdin.readline()

    def _show(self, answer: Answer) -> None:
        self._console.print(f"{AGENT} › {answer.text}", style="green")
        if answer.memory is None:
            return
        asked = answer.memory.value
        self._console.print(f"  from {asked.source}: {asked.speaker} said “{asked.text}”", style="dim")
        self._console.print(f"  people: {', '.join(answer.people)}", style="dim")
        if answer.topics:
            self._console.print(f"  topics: {', '.join(answer.topics)}", style="dim")
        for other in answer.others:
            self._console.print(f"  also: {other.speaker} said “{other.text}”", style="dim")

    def _why(self) -> None:
        if self._last is None:
            self._console.print("Nothing was asked yet.")
            return
        answer, steps = self._last
        table = Table("store", "operation", "calls", "items", "ms")
        for (store, verb), group in _grouped(steps).items():
            calls, items, ms = len(group), sum(step.n for step in group), sum(step.ms for step in group)
            table.add_row(store, verb, f"{calls}", f"{items}", f"{ms:.1f}")
        self._console.print(table)
        if answer.memory:
            found, now = answer.memory.match_version, answer.memory.version
            self._console.print(f"answered from {answer.memory.value.id}, found at version {found}, now at {now}")
        for result in answer.remembered:
            stores = ", ".join(f"{store} {status}" for store, status in result.stores.items())
            self._console.print(f"remembered as {result.key}, version {result.version}: {stores}")


def _grouped(steps: Sequence[Step]) -> dict[tuple[str, str], list[Step]]:
    groups: dict[tuple[str, str], list[Step]] = {}
    for step in steps:
        groups.setdefault((step.store, step.verb), []).append(step)
    return groups
