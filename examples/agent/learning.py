"""Conversations become memories: messages, who said them and what about, how they sounded, what came with them."""

import asyncio
import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html import escape

from agent.entities import AGENT, ECHO, USER, Attachment, Exchange, Message, Person, Source, Topic, Weight
from agent.moods import valence
from agent.reading import Conversation, Line
from agent.topics import about, find_topics
from polystore import Edge, HybridDataArchitecture, ImportReport

APART = timedelta(minutes=1)
CARD_EVERY = 100
"""One of so many messages of a file comes with a card, made here, so that there are files to keep."""
TOGETHER = 50
"""Files that are saved at the same time."""
PATIENCE_S = 600
"""How long a store that is down is waited for at the end. What it is owed is not lost after that, either."""


class Learner:
    def __init__(self, hda: HybridDataArchitecture) -> None:
        self._hda = hda
        self._sources = hda.collection(Source)
        self._people = hda.collection(Person)
        self._topics = hda.collection(Topic)
        self._messages = hda.collection(Message)
        self._attachments = hda.collection(Attachment)

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
        await self._topics.import_many(Topic(id=word) for word in sorted(topics))
        await self.meet({line.speaker for line in lines})
        report, *_ = await asyncio.gather(
            self._messages.import_many(
                _messages(conversation, topics), resume=f"{name} {source.edition}", progress=progress
            ),
            self._measure(source, lines),
            self._attach(name, lines),
        )
        for position in range(len(lines), source.messages):
            await self._messages.delete(_id(name, position))
            await self._attachments.delete(_id(name, position))
        await self._acquaint()
        await self._hda.settle(PATIENCE_S)
        await self._sources.update(name, {"messages": len(lines), "complete": True})
        return report

    async def meet(self, names: Iterable[str]) -> None:
        """Know these people; whom they know stays as it is."""
        await self._people.import_many((Person(id=name) for name in sorted(names)), on_conflict="skip")

    async def answered(self) -> None:
        """The agent has answered the user once more. Returns when walks along relations see it."""

        def once_more(agent: Person) -> Person:
            knows = {edge.to: edge.properties.weight for edge in agent.knows}
            return replace(agent, knows=_edges({**knows, USER: knows.get(USER, 0) + 1}))

        await self._people.update(AGENT, once_more, ack="visible")

    async def _edition(self, conversation: Conversation) -> Source:
        """What is known of the conversation; a new edition when it is another one than before."""
        known = await self._sources.get(conversation.name)
        if known and known.digest == conversation.digest:
            return known
        count = len(conversation.lines)
        new = Source(
            id=conversation.name,
            edition=known.edition + 1 if known else 1,
            digest=conversation.digest,
            messages=max(known.messages if known else 0, count),
            complete=False,
            began=known.began if known else datetime.now(UTC) - count * APART,
            exchanges=_exchanges(conversation.lines),
        )
        await self._sources.put(new)
        return new

    async def _measure(self, source: Source, lines: Sequence[Line]) -> None:
        """Points are known by person and time: whatever an interrupted run appended is appended again, and is one."""
        times = [source.began + position * APART for position in range(len(lines))]
        moods = ((line.speaker, at, valence(line.text)) for line, at in zip(lines, times, strict=True))
        await self._people.append_many(Person.valence, moods)
        lengths = ((line.speaker, at, len(line.text)) for line, at in zip(lines, times, strict=True))
        await self._people.append_many(Person.length, lengths)

    async def _attach(self, name: str, lines: Sequence[Line]) -> None:
        """Content first, then the records that name it. What was saved and never named is swept away by itself."""
        cards = {_id(name, at): _card(lines[at]) for at in range(0, len(lines), CARD_EVERY)}
        ids = list(cards)
        for some in (ids[at : at + TOGETHER] for at in range(0, len(ids), TOGETHER)):
            known = await self._attachments.get_many(some)
            missing = [
                id
                for id, one in zip(some, known, strict=True)
                if one is None or one.content.sha256 != hashlib.sha256(cards[id]).hexdigest()
            ]
            saved = await asyncio.gather(
                *(self._hda.files.save(cards[id], content_type="image/svg+xml") for id in missing)
            )
            await self._attachments.put_many(
                [Attachment(id=id, to=id, name="card.svg", content=ref) for id, ref in zip(missing, saved, strict=True)]
            )

    async def _acquaint(self) -> None:
        """Who answered somebody knows them: as often as all conversations and the chat together say."""
        known: dict[str, Counter[str]] = defaultdict(Counter)
        async for source in self._sources.stream():
            for one in source.exchanges:
                known[one.who][one.whom] += one.times
        known[AGENT][USER] += await self._messages.count(ECHO)
        await self._people.import_many(  # whoever knows the same people as before is not written
            [replace(person, knows=_edges(known[person.id])) async for person in self._people.stream()]
        )


def _edges(times: Mapping[str, int]) -> list[Edge[Weight]]:
    return [Edge(whom, Weight(n)) for whom, n in sorted(times.items()) if n]


def _exchanges(lines: Sequence[Line]) -> list[Exchange]:
    pairs = zip(lines[1:], lines, strict=False)
    times = Counter((line.speaker, before.speaker) for line, before in pairs if line.answers)
    return [Exchange(who, whom, n) for (who, whom), n in sorted(times.items())]


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


def _card(line: Line) -> bytes:
    """What was said, as a picture."""
    text = f'<text x="20" y="60" font-size="20">{escape(line.speaker)}: {escape(line.text)}</text>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" width="900" height="100">{text}</svg>\n'.encode()
