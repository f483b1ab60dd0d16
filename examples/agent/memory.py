"""Recalling and remembering what was said."""

import asyncio
import errno
import stat
from collections.abc import Sequence
from mimetypes import guess_type
from pathlib import Path

import msgspec

from agent.entities import AGENT, CHAT, ECHO, USER, Attachment, Message, Person, Topic
from agent.topics import candidates
from polystore import F, Hit, HybridDataArchitecture, WriteResult, new_id
from polystore.text import matches, query

RECALLED = 10
CLOSE_KOREAN, CLOSE_OTHER = 0.47, 0.7
"""Least cosine at which a message is a memory of what was asked although it does not hold all its words. By the hashed
embedder unrelated Korean texts stay below 0.45; unrelated English ones, of only 26 letters, reach 0.67."""


class Recalled(msgspec.Struct):
    """What there is to say, and why: the memory it comes from, the reply that was given then, what else came up."""

    text: str
    memory: Hit[Message] | None = None
    reply: Message | None = None
    people: Sequence[str] = ()
    topics: Sequence[str] = ()
    others: Sequence[Message] = ()


class Found(msgspec.Struct):
    """A memory found by words, by meaning, or both; each with its score there."""

    hit: Hit[Message]
    words: float | None
    meaning: float | None


class Memory:
    """What was said, who said it, and what it was about."""

    def __init__(self, hda: HybridDataArchitecture) -> None:
        self._hda = hda
        self._messages = hda.collection(Message)
        self._people = hda.collection(Person)
        self._topics = hda.collection(Topic)
        self._attachments = hda.collection(Attachment)

    async def counts(self) -> tuple[int, int, int]:
        """Messages, people, topics."""
        return await self._messages.count(), await self._people.count(), await self._topics.count()

    async def knows_only(self, sources: Sequence[str]) -> bool:
        """Whether nothing is remembered but these sources and the chat."""
        return not await self._messages.count(~F.source.in_([*sources, CHAT]))

    async def last_said(self, limit: int) -> Sequence[Message]:
        """The end of the chat, oldest first."""
        found = await self._messages.find(F.source == CHAT, order_by=[F.id.desc()], limit=limit)
        return list(reversed(found))

    async def about(self, text: str) -> list[str]:
        """The topics in a text that are known."""
        return [topic.id for topic in await self._topics.get_many(candidates(text)) if topic]

    # -- recalling ------------------------------------------------------------------------------------------------

    async def find(self, text: str, limit: int) -> Sequence[Found]:
        """Messages by words and by meaning, the best in both first."""
        fused = await self._messages.hybrid(text, where=~ECHO, limit=limit)
        among = F.id.in_([hit.value.id for hit in fused])
        words, meaning = await asyncio.gather(
            self._messages.search(text, where=among, limit=limit),
            self._messages.similar(text, where=among, limit=limit),
        )
        by_words = {hit.value.id: hit.score for hit in words}
        by_meaning = {hit.value.id: hit.score for hit in meaning}
        return [Found(hit, by_words.get(hit.value.id), by_meaning.get(hit.value.id)) for hit in fused]

    async def recall(self, text: str) -> Recalled:
        """The reply that somebody gave to the most similar message that has one; else that message itself."""
        least = CLOSE_KOREAN if korean(text) else CLOSE_OTHER
        words = query(text)
        hits = [
            one.hit
            for one in await self.find(text, RECALLED)
            if (one.meaning or 0) >= least or matches(one.hit.value.text, words)
        ]
        replies = await asyncio.gather(*(self._reply(hit.value) for hit in hits))
        replied = [(hit, reply) for hit, reply in zip(hits, replies, strict=True) if reply]
        memory, reply = next(iter([*replied, *((hit, None) for hit in hits if hit.value.text != text)]), (None, None))
        if memory is None:
            return Recalled("그런 이야기는 기억나지 않아요." if korean(text) else "I remember nothing like that.")
        said = [memory.value, reply] if reply else [memory.value]
        people = await asyncio.gather(*(self._messages.related(one.id, "SAID_BY", into=Person) for one in said))
        topics = await asyncio.gather(*(self._messages.related(one.id, "ABOUT", into=Topic) for one in said))
        shown = {text, *(one.text for one in said)}
        others = {hit.value.text: hit.value for hit in hits if hit.value.text not in shown}
        return Recalled(
            said[-1].text,
            memory,
            reply,
            list({person.value.id: None for found in people for person in found}),
            list({topic.value.id: None for found in topics for topic in found}),
            list(others.values())[:2],
        )

    async def _reply(self, message: Message) -> Message | None:
        found = await self._messages.related(message.id, "REPLY_TO", direction="in", into=Message, where=~ECHO, limit=1)
        return found[0].value if found else None

    # -- remembering ----------------------------------------------------------------------------------------------

    async def remember(self, text: str, answer: str | None, topics: Sequence[str]) -> Sequence[WriteResult]:
        """Remember a turn of the chat, in one commit. Returns when searches find it."""
        turn = f"{CHAT}-{new_id()}"
        asked = Message(id=f"{turn}-1", source=CHAT, speaker=USER, text=text, about=list(topics))
        async with self._hda.transaction(ack="visible") as tx:
            tx.put(asked)
            if answer is not None:
                tx.put(Message(id=f"{turn}-2", source=CHAT, speaker=AGENT, text=answer, reply_to=asked.id))
        return tx.result

    async def attach(self, path: Path) -> Attachment:
        """Remember a file: its content, then a message of the chat with its name, and the record that names the
        content. Raises OSError when there is no file, or it cannot be read."""
        await asyncio.to_thread(_check_is_file, path)
        kind = guess_type(path.name)[0] or "application/octet-stream"
        content = await self._hda.files.save(path, content_type=kind)
        message = Message(id=f"{CHAT}-{new_id()}-1", source=CHAT, speaker=USER, text=path.name)
        attachment = Attachment(id=message.id, to=message.id, name=path.name, content=content)
        async with self._hda.transaction(ack="visible") as tx:
            tx.put(message)
            tx.put(attachment)
        return attachment

    async def attached(self, limit: int) -> Sequence[Attachment]:
        """The files that were attached in the chat, newest first."""
        return await self._attachments.find(F.id.startswith(CHAT), order_by=[F.id.desc()], limit=limit)


def _check_is_file(path: Path) -> None:
    if not stat.S_ISREG(path.stat().st_mode):  # a device may have no end
        raise OSError(errno.EINVAL, "It is no file")


def korean(text: str) -> bool:
    return any("가" <= letter <= "힣" for letter in text)
