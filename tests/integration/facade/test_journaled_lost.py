"""Records whose home cannot commit: when the home has lost something, and when the class changes."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import pytest

from polystore import (
    FullText,
    HybridDataArchitecture,
    SchemaMismatch,
    StalenessTimeout,
    Unique,
    entity,
    journaled,
)
from polystore.testing.documents import documents_by_url
from tests.integration.facade.journaled import Down, Talk, dead_letters, differences, home, opened, run, until


@pytest.fixture(autouse=True)
def documents() -> Iterator[None]:
    with documents_by_url():
        yield


# -- what was lost ----------------------------------------------------------------------------------------------------


async def forgotten(hda: HybridDataArchitecture, id: str) -> None:
    """The home loses the record, as a server does that is restored to an older state."""
    inner = home(hda).inner

    def delete(db: sqlite3.Connection, _: object) -> None:
        db.execute("DELETE FROM talk WHERE id = ?", (id,))

    await inner._db.write_one(delete, None)


def test_what_its_home_has_lost_is_told_and_never_taken_for_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journaled, "PATIENCE_S", 0.1)

    async def test() -> None:
        async with opened(tmp_path) as hda:
            talks = hda.collection(Talk)
            await talks.put_many([Talk(id=f"{i}", topic="x") for i in range(5)])
            await hda.settle(10)
            await forgotten(hda, "3")
            with pytest.raises(StalenessTimeout, match="lost there"):
                await talks.get("3")
            assert await talks.get("4") == Talk(id="4", topic="x")
            assert await differences(hda) == [("docs", "3", "lost")]
        words = {"url": f"sqlite:{tmp_path}/words.db", "roles": ["full_text"]}
        async with opened(tmp_path, words=words) as hda:  # a new copy gets the others, and says what it lacks
            parked = await until(lambda: dead_letters(hda), 60)
            assert [one.key.id for one in parked] == ["3"]
            assert len(await until(lambda: hda.collection(Talk).search("x"), 20)) == 4
            await hda.collection(Talk).put(Talk(id="3", topic="x again"))
            assert await differences(hda) == []

    run(test())


def test_a_home_that_begins_anew_is_filled_from_a_copy_of_whole_records(tmp_path: Path) -> None:
    async def test() -> None:
        words = {"url": f"sqlite:{tmp_path}/words.db", "roles": ["full_text"]}
        async with opened(tmp_path, words=words) as hda:
            await hda.collection(Talk).put_many([Talk(id=f"{i}", topic="x", turns=["t"]) for i in range(20)])
            await hda.settle(10)
        for name in ("docs.db", "docs.db-wal", "docs.db-shm"):
            (tmp_path / name).unlink(missing_ok=True)
        async with opened(tmp_path, words=words) as hda:
            talks = hda.collection(Talk)
            assert await until(lambda: talks.count(), 60) == 20
            assert await talks.get("7") == Talk(id="7", topic="x", turns=["t"])
            assert await differences(hda) == []

    run(test())


# -- a class that changes ---------------------------------------------------------------------------------------------


def test_bodies_in_the_journal_follow_a_class_that_changes(tmp_path: Path) -> None:
    @entity(name="talk", data_type="conversation", renamed={"subject": "topic"})
    @dataclass(kw_only=True)
    class Later:
        id: str
        subject: Annotated[str, FullText()]
        slug: Annotated[str | None, Unique()] = None
        turns: list[str] = field(default_factory=list[str])
        stars: float = 0.0
        mood: str = "calm"

    @entity(name="talk", data_type="conversation", renamed={"subject": "topic"})
    @dataclass(kw_only=True)
    class Unfit:
        id: str
        subject: str
        turns: list[str] = field(default_factory=list[str])
        mood: Annotated[str | None, Unique()] = None

    async def test() -> None:
        async with opened(tmp_path) as hda:
            await hda.collection(Talk).put(Talk(id="delivered", topic="x", stars=1))
            await hda.settle(10)
            with Down(hda):
                await hda.collection(Talk).put(Talk(id="kept", topic="y", stars=2, turns=["t"]))
        async with opened(tmp_path, Later) as hda:
            talks = hda.collection(Later)
            assert await talks.get("kept") == Later(id="kept", subject="y", stars=2.0, turns=["t"])
            assert await talks.get("delivered") == Later(id="delivered", subject="x", stars=1.0)
            assert await differences(hda) == []
            await talks.update("delivered", {"mood": "wild"})
            assert await talks.get("delivered") == Later(id="delivered", subject="x", stars=1.0, mood="wild")
            assert await differences(hda) == []
        with pytest.raises(SchemaMismatch, match="its journal keeps this field from now on"):
            async with opened(tmp_path, Unfit):
                pass

    run(test())
