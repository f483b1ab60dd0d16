"""Transactions that see the past: joined, and followed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session

from polystore import ConfigurationError
from polystore.model import TargetRow, key_hash
from polystore.protocols import SupportsJournal
from polystore.sqlalchemy import capture
from tests.applications import sqlalchemy_url
from tests.integration.sqlalchemy.test_on_postgresql import FULL, Book, Note, world


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_a_transaction_that_sees_the_past_is_not_joined(level: str) -> None:
    """What was deleted since it began would be written again."""

    async def scenario() -> None:
        async with world(Note) as one:
            notes = one.hda.collection(Note)
            await notes.put(Note("old", "vorher"))
            engine = create_async_engine(sqlalchemy_url(one.schema), isolation_level=level)
            try:
                async with engine.connect() as connection:
                    await connection.execute(sa.text("SELECT 1"))
                    await notes.delete("old")
                    with pytest.raises(ConfigurationError, match="READ COMMITTED"):
                        async with one.hda.transaction(join=connection) as tx:
                            tx.update(Note, "old", {"text": "nachher"})
                    await connection.commit()
                assert await notes.get("old") is None
            finally:
                await engine.dispose()

    asyncio.run(scenario())


@pytest.mark.parametrize("level", ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
def test_a_session_owes_its_changes_to_a_copy_that_came_after_it_began(level: str) -> None:
    class Captured(Session):
        pass

    async def scenario() -> None:
        async with world(Book) as one:
            journal = one.hda.stores["main"]
            engine = sa.create_engine(sqlalchemy_url(one.schema), isolation_level=level)
            capture(Captured, [Book])

            def begun() -> Captured:
                session = Captured(engine)
                session.execute(sa.text("SELECT 1"))
                return session

            def ended(session: Captured) -> None:
                session.add(Book(id=7, **FULL))
                session.commit()
                session.close()

            session = await asyncio.to_thread(begun)
            await journal.call(SupportsJournal.set_target, TargetRow("book", "late", 5, "active"))
            await asyncio.to_thread(ended, session)
            stored: Any = await one.hda.collection(Book).load(7)
            assert stored.value.title == FULL["title"]
            owed = [(key_hash("", "book", "7"), stored.version)]
            assert await journal.call(SupportsJournal.pending, "book", "late", owed)
            await asyncio.to_thread(engine.dispose)

    asyncio.run(scenario())
