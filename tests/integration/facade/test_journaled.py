"""Records whose home cannot commit: where they live, how they are written and read, and what holds while it is down."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from polystore import (
    ConfigurationError,
    F,
    HybridDataArchitecture,
    IntegrityViolation,
    NotFound,
    StalenessTimeout,
    StoreCorrupt,
    Unavailable,
    UnsupportedOperation,
)
from polystore.model import Key, RetryRow, Settlement, key_hash
from polystore.protocols import SupportsJournal
from polystore.selection import explanation
from polystore.testing.documents import documents_by_url
from tests.integration.facade.journaled import (
    Down,
    Member,
    Named,
    Post,
    Talk,
    config,
    differences,
    home,
    kept,
    nothing_there,
    one_star_more,
    opened,
    owes,
    run,
    until,
)


@pytest.fixture(autouse=True)
def documents() -> Iterator[None]:
    with documents_by_url():
        yield


# -- where it lives -------------------------------------------------------------------------------------------------


def test_a_home_that_cannot_commit_needs_a_journal(tmp_path: Path) -> None:
    async def test() -> None:
        alone = {"stores": {"docs": {"url": f"documents:sqlite:{tmp_path}/docs.db"}}}
        with pytest.raises(ConfigurationError, match="a store that commits, with the role journal"):
            await HybridDataArchitecture.open(alone, entities=[Talk])

    run(test())


def test_the_placement_says_who_is_the_journal_and_is_remembered(tmp_path: Path) -> None:
    async def test() -> None:
        async with opened(tmp_path) as hda:
            text = explanation(hda.remembered["talk"])
            assert "home       docs" in text
            assert "journal    main (versions, and bodies until the home has them)" in text
            await hda.collection(Talk).put(Talk(id="a", topic="x"))
        lost = config(tmp_path)
        del lost["stores"]["main"]
        lost["stores"]["other"] = {"url": f"sqlite:{tmp_path}/other.db"}
        with pytest.raises(StoreCorrupt, match="'docs' holds versions of talk that 'other', its journal, has not"):
            await HybridDataArchitecture.open(lost, entities=[Talk])
        unpinned: dict[str, Any] = {**config(tmp_path), "pins": {}}
        async with HybridDataArchitecture.open(unpinned, entities=[Talk, Member]) as hda:
            assert hda.manager.placements["talk"].home == "docs"
            assert await hda.collection(Talk).get("a") == Talk(id="a", topic="x")

    run(test())


def test_a_journal_without_whole_records_does_not_begin_to_serve_a_facet(tmp_path: Path) -> None:
    async def test() -> None:
        words = {"url": f"sqlite:{tmp_path}/words.db", "roles": ["full_text"]}
        async with opened(tmp_path, words=words) as hda:
            await hda.collection(Talk).put(Talk(id="a", topic="x"))
        moved = config(tmp_path)
        moved["pins"]["talk"]["full_text"] = "main"
        with pytest.raises(ConfigurationError, match="keeps no whole records, so it cannot serve full_text"):
            await HybridDataArchitecture.open(moved, entities=[Talk])

    run(test())


# -- writing and reading ----------------------------------------------------------------------------------------------


def test_a_write_is_at_its_home_when_it_returns_and_then_nowhere_else(tmp_path: Path) -> None:
    async def test() -> None:
        async with opened(tmp_path) as hda:
            talks = hda.collection(Talk)
            result = await talks.put(Talk(id="a", topic="학교", turns=["안녕"]))
            assert result.stores == {"main": "committed", "docs": "applied"}
            assert (await home(hda).get([Key("", "talk", "a")]))[0].version == result.version
            await hda.settle(10)
            assert not await kept(hda, "a")
            assert await talks.get("a") == Talk(id="a", topic="학교", turns=["안녕"])
            assert (await talks.load("a")).version == result.version
            assert [hit.value.id for hit in await talks.search("학교", after=result.token)] == ["a"]
            result = await talks.update("a", {"stars": 3})
            (found,) = await talks.find(F.stars == 3, after=result.token)
            assert found == Talk(id="a", topic="학교", turns=["안녕"], stars=3)
            await talks.update("a", one_star_more)
            gone = await talks.delete("a")
            assert await talks.get("a") is None
            assert await talks.count(after=gone.token) == 0
            assert await differences(hda) == []

    run(test())


def test_while_the_home_is_down_writes_are_committed_and_read_and_delivered_later(tmp_path: Path) -> None:
    async def test() -> None:
        async with opened(tmp_path) as hda:
            talks = hda.collection(Talk)
            await talks.put(Talk(id="old", topic="x"))
            await hda.settle(10)
            with Down(hda):
                result = await talks.put(Talk(id="a", topic="y"))
                assert result.stores == {"main": "committed", "docs": "pending"}
                assert await talks.get("a") == Talk(id="a", topic="y")
                await talks.update("a", {"stars": 1})
                with pytest.raises(Unavailable):
                    await talks.get("old")
                with pytest.raises(Unavailable):
                    await talks.update("old", {"stars": 1})
                with pytest.raises((Unavailable, StalenessTimeout)):
                    await talks.find(after=result.token)
                await talks.put(Talk(id="old", topic="z"))
                assert await talks.get("old") == Talk(id="old", topic="z")
            assert await differences(hda) == []
            assert not await kept(hda, "a")
            assert await talks.get("a") == Talk(id="a", topic="y", stars=1)

    run(test())


def test_a_home_that_is_down_holds_up_no_other_type(tmp_path: Path) -> None:
    async def test() -> None:
        words = {"url": f"sqlite:{tmp_path}/words.db", "roles": ["full_text"]}
        async with opened(tmp_path, Talk, Named, words=words) as hda:
            journal = hda.stores["main"]
            first = await hda.collection(Talk).put(Talk(id="a", topic="x"))
            second = await hda.collection(Named).put(Named(id="n", name="이름"))
            await hda.settle(10)
            with Down(hda):  # the copy is owed both again, the one whose body is at the home first
                owed = [
                    RetryRow("words", key, key_hash("", key.etype, key.id), version, version, "b")
                    for key, version in ((Key("", "talk", "a"), first.version), (Key("", "named", "n"), second.version))
                    if version is not None
                ]
                await journal.call(SupportsJournal.settle, Settlement(owed=owed))
                await until(lambda: owes(hda, "words", 1), 20)
            assert await differences(hda) == []

    run(test())


def test_what_a_process_left_undelivered_the_next_one_delivers(tmp_path: Path) -> None:
    async def test() -> None:
        async with opened(tmp_path) as hda:
            with Down(hda):
                await hda.collection(Talk).put(Talk(id="a", topic="y", turns=["1"]))
        async with opened(tmp_path) as hda:
            assert await differences(hda) == []
            assert not await kept(hda, "a")
            assert await hda.collection(Talk).get("a") == Talk(id="a", topic="y", turns=["1"])

    run(test())


def test_types_of_one_journal_share_a_transaction(tmp_path: Path) -> None:
    async def test() -> None:
        async with opened(tmp_path) as hda:
            talks, members = hda.collection(Talk), hda.collection(Member)
            await talks.put(Talk(id="a", topic="x", turns=["1"]))
            async with hda.transaction() as tx:
                tx.put(Member(id="m", name="n"))
                tx.update(Talk, "a", {"stars": 5})
                tx.create(Talk(id="b", topic="y", slug="s"))
            refused = hda.transaction()
            refused.put(Member(id="m", name="other"))
            refused.update(Talk, "none", {"stars": 5})
            with pytest.raises(NotFound):
                await refused.__aexit__(None, None, None)
            assert await members.get("m") == Member(id="m", name="n")
            assert await talks.get("a") == Talk(id="a", topic="x", turns=["1"], stars=5)
            assert await differences(hda) == []

    run(test())


def test_a_transaction_of_the_application_is_not_joined(tmp_path: Path) -> None:
    async def test() -> None:
        engine = sa.create_engine("sqlite://")
        async with opened(tmp_path) as hda:
            with engine.connect() as connection:
                joined = hda.transaction(join=connection)
                joined.put(Talk(id="c", topic="z"))
                with pytest.raises(UnsupportedOperation):
                    await joined.__aexit__(None, None, None)
            assert await hda.collection(Talk).get("c") is None
        engine.dispose()

    run(test())


def test_what_has_expired_is_absent_at_both(tmp_path: Path) -> None:
    async def test() -> None:
        async with opened(tmp_path) as hda:
            talks = hda.collection(Talk)
            result = await talks.put(Talk(id="a", topic="x", slug="s"), ttl_s=0.2)
            await talks.find(after=result.token)
            await until(lambda: nothing_there(talks), 20)
            await talks.put(Talk(id="b", topic="x", slug="s"))
            assert await differences(hda) == []

    run(test())


def test_files_and_points_belong_to_records_whose_bodies_are_elsewhere(tmp_path: Path) -> None:
    async def test() -> None:
        journal_only = {"url": f"sqlite:{tmp_path}/main.db", "roles": ["journal", "file", "time_series"]}
        async with opened(tmp_path, Post, main=journal_only) as hda:
            posts = hda.collection(Post)
            first, second = [await hda.files.save(content) for content in (b"one", b"two")]
            await posts.put_many([Post(id="a", text="x", photo=first), Post(id="b", text="y", photo=second)])
            await hda.settle(10)
            with pytest.raises(IntegrityViolation):
                await posts.put(Post(id="c", text="z", photo=first))
            await posts.append(Post.mood, "a", 0.5)
            report = await hda.sweep_files(older_than_s=0)
            assert report.removed == 0
            assert await hda.files.read(second) == b"two"
            await posts.update("b", {"photo": None})
            await posts.delete("a")
            await hda.settle(10)
            await posts.put(Post(id="a", text="anew"))
            assert await posts.last(Post.mood, "a") is None
            assert await posts.get("b") == Post(id="b", text="y")

    run(test())
