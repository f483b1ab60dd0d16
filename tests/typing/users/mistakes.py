"""Mistakes that a checker must find: a line that stops being one fails as an unused comment."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import ClassVar

import polystore
from polystore import Collection, F, Found, HybridDataArchitecture, Measure, Point, entity


@entity()
@dataclass
class Note:
    id: str
    text: str
    mood: ClassVar[Measure[float]] = Measure(float)


@entity()
@dataclass
class Person:
    id: str
    name: str


def shout(note: Note) -> str:
    return note.text.upper()


async def main(hda: HybridDataArchitecture, notes: Collection[Note]) -> None:
    print(polystore.Colection)  # type: ignore[attr-defined]
    await notes.put(Person("p", "x"))  # type: ignore[arg-type]
    await notes.find(where=True)  # type: ignore[arg-type]
    await notes.get(1.5)  # type: ignore[arg-type]
    await notes.put(Note("a", "b"), ack=True)  # type: ignore[arg-type]
    await notes.update("a", shout)  # type: ignore[arg-type]
    print((await notes.load("a")).value.title)  # type: ignore[attr-defined]
    await notes.related("a", "ABOUT", direction="up")  # type: ignore[call-overload]
    people: Collection[Person] = hda.collection(Note)  # type: ignore[arg-type]
    found: Found[Person] = await notes.find(F.id == "a")  # type: ignore[assignment]
    await hda.read_operation({"kind": "sql", "entity": "note"})  # type: ignore[typeddict-item]
    await hda.write_operation({"points": []}, entity=Note, key="a")  # type: ignore[typeddict-item]
    await notes.append(Note.mood, "a", "sad")  # type: ignore[misc]
    await notes.append_many(Note.mood, [("a", datetime.now(UTC), "sad")])  # type: ignore[misc]
    await notes.series(Note.mood, "a", start=datetime.now(UTC), every="1h", aggregate="median")  # type: ignore[call-overload]
    words: Sequence[Point[str]] = await notes.series(Note.mood, "a", start=datetime.now(UTC))  # type: ignore[arg-type]
    print(people, found, words)
