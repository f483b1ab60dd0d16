"""The agent: what happens when somebody says something."""

import asyncio
import time
from collections.abc import Awaitable, Sequence
from datetime import datetime

import msgspec

from agent.company import Company
from agent.entities import AGENT, USER, Presence, Profile, Session
from agent.feelings import Feelings
from agent.learning import Learner
from agent.memory import Memory, Recalled, korean
from agent.models import Model, ModelFailed, Said
from agent.moods import valence
from agent.portraits import Portraits
from polystore import Allowance, HybridDataArchitecture, WriteResult

Written = Sequence[tuple[str, WriteResult]]
"""What was written, and what became of it."""
REMINDED = 6
"""Messages of the chat that a language model is told again."""


class Remembered(msgspec.Struct):
    """What became of a part of a turn: `at` when it had reached these stores, `ms` after it was sent."""

    what: str
    result: WriteResult
    at: datetime
    ms: float


class Answer(msgspec.Struct):
    """What the agent says. `model`: of which language model, "" when it is what was recalled. `trouble`: why the model
    did not answer. `written`: what became of the turn."""

    text: str
    recalled: Recalled
    model: str
    trouble: str
    written: Sequence[Remembered]


class Agent:
    def __init__(self, hda: HybridDataArchitecture, per_minute: int, model: Model | None = None) -> None:
        self.hda = hda
        self.learner = Learner(hda)
        self.memory = Memory(hda)
        self.feelings = Feelings(hda)
        self.company = Company(hda, per_minute)
        self.portraits = Portraits(hda)
        self._model = model

    async def begin(self) -> tuple[Profile, Presence, Session]:
        """The user comes in: who they are, how they were when last seen, and their session."""
        await self.learner.meet([AGENT, USER])
        return await self.company.begin()

    async def listen(self, text: str) -> Answer | Allowance:
        """Answer from what was said, then remember the turn; nothing when too much was said within a minute."""
        allowance = await self.company.may_speak()
        if not allowance.allowed:
            return allowance
        started = time.perf_counter()
        recalled = await self.memory.recall(text)
        said, model, trouble = recalled.text, "", ""
        if self._model:
            try:
                said = await self._model.reply(await self._prompt(text, recalled))
                model = self._model.name or ""
            except ModelFailed as e:
                trouble = str(e)
        ms = (time.perf_counter() - started) * 1000
        written = await self._remember(text, said if model or recalled.memory else None, ms)
        return Answer(said, recalled, model, trouble, written)

    async def _remember(self, text: str, answer: str | None, ms: float) -> Sequence[Remembered]:
        topics = await self.memory.about(text)
        messages = await _timed(self._messages(text, answer, topics))
        did = f"answered “{text}”" if answer else f"knew nothing about “{text}”"
        language = "Korean" if korean(text) else "English"
        points, line, _ = await asyncio.gather(
            _timed(self.feelings.note(text, answer, ms)),
            _timed(self._did(did, ms)),
            self.company.note(valence(text), topics[0] if topics else None, language),
        )
        if answer is not None:
            await self.learner.answered()
        return [*messages, *points, *line]

    async def _messages(self, text: str, answer: str | None, topics: Sequence[str]) -> Written:
        return [("message", one) for one in await self.memory.remember(text, answer, topics)]

    async def _did(self, what: str, ms: float) -> Written:
        return [("log", await self.company.did(what, ms))]

    async def _prompt(self, text: str, recalled: Recalled) -> Sequence[Said]:
        """Who it is, whom it talks to, what it remembers of this, and what was just said."""
        me, you = await self.company.profile(AGENT), await self.company.profile(USER)
        hit = recalled.memory
        known = [hit.value] if hit else []
        known += [recalled.reply] if recalled.reply else []
        lines = "\n".join(f"{one.speaker}: {one.text}" for one in (*known, *recalled.others)) or "nothing"
        last = await self.memory.last_said(REMINDED)
        return [
            Said("system", f"{me.about}\nThey write {you.language or 'any language'}.\nYou remember:\n{lines}"),
            *(Said("assistant" if one.speaker == AGENT else "user", one.text) for one in last),
            Said("user", text),
        ]


async def _timed(writing: Awaitable[Written]) -> Sequence[Remembered]:
    started = time.perf_counter()
    written = await writing
    at, ms = datetime.now().astimezone(), (time.perf_counter() - started) * 1000
    return [Remembered(what, result, at, ms) for what, result in written]
