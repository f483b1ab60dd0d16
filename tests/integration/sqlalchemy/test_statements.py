"""Statements of captured sessions that others come between."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.orm import Session, sessionmaker

from polystore import HybridDataArchitecture
from polystore.sqlalchemy import capture
from tests.applications import sqlalchemy_url
from tests.integration.sqlalchemy import models
from tests.integration.sqlalchemy.application import load
from tests.integration.sqlalchemy.models import differences
from tests.postgresql import configured, fresh_schema

# A class of its own: what is captured here stays captured for the process.
OWN: Any = load(Path(models.__file__))
Book = OWN.Book

STATEMENTS: dict[str, Callable[[], Any]] = {
    "UPDATE": lambda: sa.update(Book).where(Book.title.like("alt%")).values(title="neu"),
    "DELETE": lambda: sa.delete(Book).where(Book.title.like("alt%")),
}


@pytest.mark.parametrize("verb", STATEMENTS)
def test_a_row_that_comes_before_a_statement_is_followed_or_left_alone(verb: str) -> None:
    async def scenario() -> None:
        engine = sa.create_engine(sqlalchemy_url(schema))
        OWN.Base.metadata.create_all(engine)
        async with HybridDataArchitecture.open({"stores": {"main": configured(schema)}}, entities=[Book]) as hda:
            sessions = sessionmaker(engine)
            capture(sessions, [Book])
            with sessions.begin() as session:
                session.add_all([Book(id=i, title=f"alt {i}") for i in (1, 2)])
            come: list[int] = []

            def between(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
                if statement.startswith(f"{verb} ") and not come:
                    come.append(3)
                    with sessions.begin() as other:
                        other.add(Book(id=3, title="alt 3"))

            event.listen(engine, "before_cursor_execute", between)
            with sessions.begin() as session:
                found: Any = session.execute(STATEMENTS[verb]())
                assert found.rowcount == 2
            assert come
            assert await differences(hda) == []
            with Session(engine) as session:
                assert session.scalars(sa.select(Book.id).where(Book.title == "alt 3")).all() == [3]

        engine.dispose()

    with fresh_schema() as schema:
        asyncio.run(scenario())
