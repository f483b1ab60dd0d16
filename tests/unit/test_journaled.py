"""How a record is put together whose body only its home has."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import cast

from msgspec.structs import replace

from polystore.entity import entity_type
from polystore.env import SYSTEM_ENV
from polystore.journaled import JournalEntity, Lent, LentBodies
from polystore.model import JOURNAL_BODY, Key, Record, Write
from polystore.store import Store
from tests.unit.consistency.world import Note

KEY = Key("", "note", "a")
NOTE = entity_type(Note)


class Home:
    """Gives one answer after the other, and the last one from then on."""

    def __init__(self, *answers: Record | None) -> None:
        self.answers = list(answers)

    async def get(self, keys: Sequence[Key]) -> list[Record | None]:
        return [self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]]


def test_a_record_that_is_written_while_its_body_is_waited_for_is_never_shown_in_the_journal_s_form() -> None:
    body = {"id": "a", "text": "글"}
    journal = JournalEntity(NOTE)
    kept = journal.whole(Write("put", KEY, 0, body, NOTE.content_hash(body))).body or {}
    first = Record(KEY, 1, {**kept, JOURNAL_BODY: None})
    second = replace(first, version=2)
    whole = Record(KEY, 2, body, NOTE.content_hash(body))
    home = Home(None, None, whole)  # it is late with the first version, and never shows it
    lent = LentBodies(SYSTEM_ENV, "home", {"note": Lent(journal, cast(Store, home), [])})
    assert asyncio.run(lent.completed([KEY], Home(first, first, second).get)) == [whole]
