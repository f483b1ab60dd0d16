"""The agent's memory: everything it does with polystore is in this file."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from agent.entities import Message, Person, Source, Topic
from agent.reading import Conversation
from agent.topics import about, candidates, find_topics
from polystore import F, Hit, HybridDataArchitecture, ImportReport, WriteResult, new_id
from polystore.text import matches, query

CHAT = "/chat"
"""The source of what is said in the chat; no file has this name."""
AGENT, USER = "agent", "you"
ECHO = (F.source == CHAT) & (F.speaker == AGENT)
"""What the agent said. It is no memory of its own: answers would come from answers."""
RECALLED = 10
CLOSE_KOREAN, CLOSE_OTHER = 0.47, 0.7
"""Least cosine at which a message is a memory of what was asked although it does not hold all its words. By the hashed
embedder unrelated Korean texts stay below 0.45; unrelated English ones, of only 26 letters, reach 0.67."""


class Answer(msgspec.Struct):
    """What the agent says, and why: the memory it answers from, the reply that was given then, what else came up."""

    text: str
    memory: Hit[Message] | None = None
    reply: Message | None = None
    people: Sequence[str] = ()
    topics: Sequence[str] = ()
    others: Sequence[Message] = ()
    remembered: Sequence[WriteResult] = ()


class Memory:
    """What was said, who said it, and what it was about."""

    def __init__(self, hda: HybridDataArchitecture) -> None:
        self.hda = hda
        self.sources = hda.collection(Source)
        self.messages = hda.collection(Message)
        self.people = hda.collection(Person)
        self.topics = hda.collection(Topic)

    # -- conversations ------------------------------------------------------------------------------------------

    async def learn(self, conversation: Conversation, progress: Callable[[ImportReport], None]) -> ImportReport:
        """Remember a conversation. Interrupted at any moment, the next call goes on; repeated, it changes nothing. A
        file of the same name with another content is a new edition: what differs is written over, what is gone is
        forgotten.

        Returns when every store holds it.
        """
        name, lines = conversation.name, conversation.lines
        source = await self._edition(conversation)
        if source.complete:
            return ImportReport(read=len(lines), skipped=len(lines))
        topics = find_topics([line.text for line in lines])
        await self.topics.import_many(Topic(id=word) for word in sorted(topics))
        await self.meet({line.speaker for line in lines})
        report = await self.messages.import_many(
            _messages(conversation, topics), resume=f"{name} {source.edition}", progress=progress
        )
        for position in range(len(lines), source.messages):
            await self.messages.delete(_id(name, position))
        await self.hda.settle()
        await self.sources.update(name, {"messages": len(lines), "complete": True})
        return report

    async def _edition(self, conversation: Conversation) -> Source:
        """What is known of the conversation; a new edition when it is another one than before."""
        known = await self.sources.get(conversation.name)
        if known and known.digest == conversation.digest:
            return known
        edition, messages = (known.edition + 1, known.messages) if known else (1, 0)
        new = Source(
            id=conversation.name,
            edition=edition,
            digest=conversation.digest,
            messages=max(messages, len(conversation.lines)),
            complete=False,
        )
        await self.sources.put(new)
        return new

    async def meet(self, names: Iterable[str]) -> None:
        """Know these people."""
        await self.people.import_many(Person(id=name) for name in sorted(names))

    async def knows_only(self, sources: Sequence[str]) -> bool:
        """Whether nothing is remembered but these sources and the chat."""
        return not await self.messages.count(~F.source.in_([*sources, CHAT]))

    async def counts(self) -> tuple[int, int, int]:
        """Messages, people, topics."""
        return await self.messages.count(), await self.people.count(), await self.topics.count()

    async def last_said(self, limit: int) -> Sequence[Message]:
        """The end of the chat, oldest first."""
        found = await self.messages.find(F.source == CHAT, order_by=[F.id.desc()], limit=limit)
        return list(reversed(found))

    # -- the chat -----------------------------------------------------------------------------------------------

    async def answer(self, text: str) -> Answer:
        """Answer from what was said, then remember question and answer in one commit."""
        answer = await self._recall(text)
        answer.remembered = await self._remember(text, answer)
        return answer

    async def _recall(self, text: str) -> Answer:
        """The reply that somebody gave to the most similar message that has one; else that message itself."""
        fused = await self.messages.hybrid(text, where=~ECHO, limit=RECALLED)
        among = F.id.in_([hit.value.id for hit in fused])
        least = CLOSE_KOREAN if _korean(text) else CLOSE_OTHER
        close = {hit.value.id for hit in await self.messages.similar(text, where=among) if hit.score >= least}
        words = query(text)
        hits = [hit for hit in fused if hit.value.id in close or matches(hit.value.text, words)]
        replies = await asyncio.gather(*(self._reply(hit.value) for hit in hits))
        replied = [(hit, reply) for hit, reply in zip(hits, replies, strict=True) if reply]
        memory, reply = next(iter([*replied, *((hit, None) for hit in hits if hit.value.text != text)]), (None, None))
        if memory is None:
            return Answer("그런 이야기는 기억나지 않아요." if _korean(text) else "I remember nothing like that.")
        said = [memory.value, reply] if reply else [memory.value]
        people = await asyncio.gather(*(self.messages.related(one.id, "SAID_BY", into=Person) for one in said))
        topics = await asyncio.gather(*(self.messages.related(one.id, "ABOUT", into=Topic) for one in said))
        shown = {text, *(one.text for one in said)}
        others = {hit.value.text: hit.value for hit in hits if hit.value.text not in shown}
        return Answer(
            said[-1].text,
            memory,
            reply,
            list({person.value.id: None for found in people for person in found}),
            list({topic.value.id: None for found in topics for topic in found}),
            list(others.values())[:2],
        )

    async def _reply(self, message: Message) -> Message | None:
        found = await self.messages.related(message.id, "REPLY_TO", direction="in", into=Message, where=~ECHO, limit=1)
        return found[0].value if found else None

    async def _remember(self, text: str, answer: Answer) -> Sequence[WriteResult]:
        """Returns when searches find this turn of the chat."""
        known = await self.topics.get_many(candidates(text))
        turn = f"{CHAT}-{new_id()}"
        asked = Message(id=f"{turn}-1", source=CHAT, speaker=USER, text=text, about=[one.id for one in known if one])
        async with self.hda.transaction(ack="visible") as tx:
            tx.put(asked)
            if answer.memory:
                tx.put(Message(id=f"{turn}-2", source=CHAT, speaker=AGENT, text=answer.text, reply_to=asked.id))
        return tx.result


def _id(source: str, position: int) -> str:
    return f"{source}-{position:07}"


def _messages(conversation: Conversation, topics: frozenset[str]) -> Iterator[Message]:
    for position, line in enumerate(conversation.lines):
        yield Message(
            id=_id(conversation.name, position),
            source=conversation.name,
            speaker=line.speaker,
            text=line.text,
            reply_to=_id(conversation.name, position - 1) if line.answers else None,
            about=about(line.text, topics),
        )


def _korean(text: str) -> bool:
    return any("가" <= letter <= "힣" for letter in text)
