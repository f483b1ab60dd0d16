"""Who is there just now: profiles, live state, the session, how much one may say, and the log of what was done."""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from agent.entities import AGENT, USER, Deed, Presence, Profile, Session
from polystore import Allowance, AlreadyExists, HybridDataArchitecture, WriteResult

ABOUT_AGENT = (
    "You are a friendly companion who remembers conversations. Answer in one or two short sentences, in the language "
    "you are spoken to, from what you remember; say so when you remember nothing that helps."
)
STAYS = 0.7
"""So much of the agent's mood stays when somebody says something; the rest is theirs."""


class Company:
    def __init__(self, hda: HybridDataArchitecture, per_minute: int) -> None:
        self._profiles = hda.collection(Profile)
        self._presence = hda.state(Presence)
        self._sessions = hda.state(Session)
        self._log = hda.log(Deed)
        self._limiter = hda.limiter("messages", limit=per_minute, per_s=60)

    async def begin(self) -> tuple[Profile, Presence, Session]:
        """Who the user is, how they were when last seen, and the session, which goes on when it is not over yet."""
        now = datetime.now(UTC)
        for profile in (Profile(id=AGENT, since=now, about=ABOUT_AGENT), Profile(id=USER, since=now)):
            with contextlib.suppress(AlreadyExists):
                await self._profiles.create(profile)
        for id in (AGENT, USER):
            with contextlib.suppress(AlreadyExists):
                await self._presence.create(Presence(id=id))
        before = await self._presence.get(USER) or Presence(id=USER)
        session = await self._sessions.get(before.session) if before.session else None
        if session is None:
            session = Session(user=USER, began=now)
            await self._sessions.put(session)
            await self._presence.update(USER, {"session": session.id})
        return await self.profile(USER), before, session

    async def profile(self, id: str) -> Profile:
        return (await self._profiles.load(id)).value

    async def may_speak(self) -> Allowance:
        """Take one message from what the user may say in a minute."""
        return await self._limiter.take(USER)

    async def note(self, mood: float, topic: str | None, language: str) -> None:
        """The user said something."""
        changes: dict[str, object] = {"mood": mood, "last_seen": datetime.now(UTC)}
        if topic is not None:
            changes["topic"] = topic
        user, *_ = await asyncio.gather(
            self._presence.update(USER, changes),
            self._presence.incr(USER, "turns"),
            self._presence.update(AGENT, lambda one: replace(one, mood=STAYS * one.mood + (1 - STAYS) * mood)),
        )
        if await self._sessions.touch(user.session):
            await self._sessions.incr(user.session, "turns")
        if (await self.profile(USER)).language != language:
            await self._profiles.update(USER, {"language": language})

    async def moods(self) -> tuple[Presence, Presence]:
        """How the user and the agent are now."""
        user, agent = await self._presence.get_many([USER, AGENT])
        return user or Presence(id=USER), agent or Presence(id=AGENT)

    # -- the log --------------------------------------------------------------------------------------------------

    async def did(self, what: str, ms: float) -> WriteResult:
        return await self._log.append(Deed(at=datetime.now(UTC), what=what, ms=round(ms, 1)))

    async def deeds(self, words: str, limit: int) -> Sequence[Deed]:
        """What was done last, newest first; of it what holds the words."""
        return await (self._log.search(words, limit=limit) if words else self._log.range(limit=limit))
