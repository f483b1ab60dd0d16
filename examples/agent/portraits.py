"""Somebody, or a topic, by what relates to it."""

from collections import Counter
from collections.abc import Sequence

import msgspec

from agent.entities import Message, Person, Topic
from polystore import F, HybridDataArchitecture, Related

LATEST = 500
"""Messages that are looked at for whom they are about, or by."""


class Portrait(msgspec.Struct):
    """Who or what it is; the topics near it, with how often; the people, with how they are reached."""

    kind: str
    name: str
    topics: Sequence[tuple[str, int]]
    people: Sequence[Related[Person]]
    path: Sequence[tuple[str, str, str]]
    """A way between it and the topic that is nearest."""


class Portraits:
    def __init__(self, hda: HybridDataArchitecture) -> None:
        self._people = hda.collection(Person)
        self._topics = hda.collection(Topic)
        self._messages = hda.collection(Message)

    async def of(self, name: str) -> Sequence[Portrait]:
        """Of the person, the topic, or both with this name."""
        found: list[Portrait] = []
        if await self._people.exists(name):
            found.append(await self._person(name))
        if await self._topics.exists(name):
            found.append(await self._topic(name))
        return found

    async def _person(self, name: str) -> Portrait:
        said = await self._messages.find(F.speaker == name, order_by=[F.id.desc()], limit=LATEST)
        topics = Counter(topic for message in said for topic in message.about).most_common(6)
        answered = await self._people.related(name, "KNOWS", into=Person, depth=2, limit=6)
        answering = await self._people.related(name, "KNOWS", into=Person, direction="in", limit=6)
        both = ["ABOUT", "SAID_BY"]
        way = await self._topics.path(topics[0][0], name, both, into=Person, direction="both") if topics else ()
        return Portrait("person", name, topics, [*answered, *answering], way)

    async def _topic(self, name: str) -> Portrait:
        found = await self._topics.related(name, "ABOUT", into=Message, direction="in", limit=LATEST)
        beside = Counter(topic for one in found for topic in one.value.about if topic != name).most_common(6)
        people = await self._topics.related(name, ["ABOUT", "SAID_BY"], into=Person, direction="both", depth=2, limit=6)
        way = await self._topics.path(name, beside[0][0], "ABOUT", into=Topic, direction="both") if beside else ()
        return Portrait("topic", name, beside, people, way)
