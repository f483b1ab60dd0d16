"""Joining transactions that see the past."""

from __future__ import annotations

import asyncio

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from polystore import ConfigurationError
from tests.applications import sqlalchemy_url
from tests.integration.sqlalchemy.test_on_postgresql import Note, world


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
