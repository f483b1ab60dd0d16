"""How messages sounded, how long they were, how long an answer took: points over time."""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec

from agent.entities import AGENT, USER, Person
from agent.moods import valence
from polystore import HybridDataArchitecture, WriteResult

PEOPLE = 4
"""Of so many a chart is shown: of those who spoke last."""


class Span(msgspec.Struct):
    """An hour or a day of somebody: the averages of their messages."""

    at: datetime
    messages: int
    valence: float
    length: float
    answer_ms: float | None


class Feelings:
    def __init__(self, hda: HybridDataArchitecture) -> None:
        self._people = hda.collection(Person)

    async def note(self, text: str, answer: str | None, answer_ms: float) -> Sequence[tuple[str, WriteResult]]:
        """Measure a turn of the chat; what became of each point."""
        people = self._people
        points = {
            "your valence": people.append(Person.valence, USER, valence(text)),
            "your length": people.append(Person.length, USER, len(text)),
            "my answer time": people.append(Person.answer_ms, AGENT, answer_ms),
        }
        if answer is not None:
            points["my valence"] = people.append(Person.valence, AGENT, valence(answer))
            points["my length"] = people.append(Person.length, AGENT, len(answer))
        return list(zip(points, await asyncio.gather(*points.values()), strict=True))

    async def chart(self, days: int) -> dict[str, Sequence[Span]]:
        """By person the last days, oldest first; by hour when it is two or fewer. Whoever said nothing is left out."""
        now = datetime.now().astimezone()
        every, start = ("1h", now - timedelta(days=days)) if days <= 2 else ("1d", _midnight(now, days))
        names = [person.id async for person in self._people.stream()]
        last = await self._people.last(Person.valence, [*names])
        spoke = sorted(((one.at, name) for one, name in zip(last, names, strict=True) if one), reverse=True)
        shown = [name for at, name in spoke if at >= start][:PEOPLE]
        return {name: await self._spans(name, start, every) for name in shown}

    async def _spans(self, name: str, start: datetime, every: str) -> Sequence[Span]:
        people, zone = self._people, start.tzinfo
        counts = await people.series(Person.valence, name, start=start, every=every, aggregate="count", tz=zone)
        moods = await people.series(Person.valence, name, start=start, every=every, tz=zone)
        lengths = await people.series(Person.length, name, start=start, every=every, tz=zone)
        answers = await people.series(Person.answer_ms, name, start=start, every=every, tz=zone)
        length_at = {one.at: one.value for one in lengths}
        answer_at = {one.at: one.value for one in answers}
        return [
            Span(one.at, one.value, mood.value, length_at.get(one.at, 0.0), answer_at.get(one.at))
            for one, mood in zip(counts, moods, strict=False)
        ]


def _midnight(now: datetime, days: int) -> datetime:
    """The beginning of the first of the last days, today included."""
    first = now - timedelta(days=days - 1)
    return first.replace(hour=0, minute=0, second=0, microsecond=0)
