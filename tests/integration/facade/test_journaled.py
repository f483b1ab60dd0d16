"""Records whose home cannot commit: what is promised when it is slow, down, or has lost something."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import sqlite3
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar, cast

import pytest
import sqlalchemy as sa

from polystore import (
    Collection,
    ConfigurationError,
    F,
    FileRef,
    FullText,
    HybridDataArchitecture,
    IntegrityViolation,
    Measure,
    NotFound,
    SchemaMismatch,
    StalenessTimeout,
    StoreCorrupt,
    Unavailable,
    Unique,
    UnsupportedOperation,
    entity,
    journaled,
)
from polystore.consistency import Settings
from polystore.consistency.verify import Verifier
from polystore.model import JOURNAL_BODY, Key, RetryRow, Settlement, key_hash
from polystore.protocols import SupportsJournal
from polystore.selection import explanation
from polystore.testing.documents import Documents, documents_by_url

R = TypeVar("R")

PROMPT = Settings(awaken_spread_s=0.01, retry_max_s=0.1, poll_s=0.05)


@entity(data_type="conversation")
@dataclass(kw_only=True)
class Talk:
    id: str
    topic: Annotated[str, FullText()]
    slug: Annotated[str | None, Unique()] = None
    turns: list[str] = field(default_factory=list[str])
    stars: int = 0


@entity()
@dataclass(kw_only=True)
class Member:
    id: str
    name: str


@entity(name="talk", data_type="conversation")
@dataclass(kw_only=True)
class Post:
    id: str
    text: str
    photo: FileRef | None = None
    mood: ClassVar[Measure[float]] = Measure(float, on_delete="erase")


@entity()
@dataclass(kw_only=True)
class Named:
    id: str
    name: Annotated[str, FullText()]


@pytest.fixture(autouse=True)
def documents() -> Iterator[None]:
    with documents_by_url():
        yield


def config(directory: Path, **more: Mapping[str, Any]) -> dict[str, Any]:
    stores = {
        "main": {"url": f"sqlite:{directory}/main.db"},
        "docs": {"url": f"documents:sqlite:{directory}/docs.db"},
        **more,
    }
    return {"stores": stores, "pins": {"talk": {"home": "docs"}}}


def opened(directory: Path, *entities: type[Any], **more: Mapping[str, Any]) -> Any:
    return HybridDataArchitecture.open(config(directory, **more), entities=entities or [Talk, Member], settings=PROMPT)


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


def home(hda: HybridDataArchitecture) -> Any:
    """The home as the test can break it."""
    return cast(Documents, hda.stores["docs"].repository)


def one_star_more(talk: Talk) -> Talk:
    return dataclasses.replace(talk, stars=talk.stars + 1)


async def kept(hda: HybridDataArchitecture, id: str) -> bool:
    """Whether the journal has the body."""
    (record,) = await hda.stores["main"].repository.get([Key("", "talk", id)])
    assert record is not None
    assert record.body is not None
    return record.body[JOURNAL_BODY] is not None


async def _owed(hda: HybridDataArchitecture, copy: str, number: int) -> bool:
    backlog = await hda.stores["main"].call(SupportsJournal.backlog)
    return backlog.retry.get(copy) == number


async def differences(hda: HybridDataArchitecture) -> list[tuple[str, str, str]]:
    await hda.settle(30)
    verifier = Verifier(hda.stores, hda.manager.placements, hda.manager.embedders)
    return [(one.store, one.key.id, one.problem) async for one in verifier.differences("talk")]


async def until(ask: Callable[[], Awaitable[R]], timeout_s: float) -> R:
    """The first answer that is one; a store may not answer for a while."""
    async with asyncio.timeout(timeout_s):
        while True:
            with contextlib.suppress(Unavailable):
                if answer := await ask():
                    return answer
            await asyncio.sleep(0.02)


async def _none(talks: Collection[Talk]) -> bool:
    return await talks.get("a") is None and not await talks.count()


async def _parked(hda: HybridDataArchitecture) -> Sequence[RetryRow]:
    return (await hda.stores["main"].call(SupportsJournal.parked, None, None, 9))[0]


class Down:
    """Inside, the home does not answer."""

    def __init__(self, hda: HybridDataArchitecture) -> None:
        self._home = home(hda)

    def __enter__(self) -> None:
        async def nothing(*_: object) -> Any:
            raise Unavailable("it is down")

        for verb in ("get", "apply", "find", "ping"):
            setattr(self._home, verb, nothing)

    def __exit__(self, *_: object) -> None:
        for verb in ("get", "apply", "find", "ping"):
            delattr(self._home, verb)


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
                await until(lambda: _owed(hda, "words", 1), 20)
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
            await until(lambda: _none(talks), 20)
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


# -- what was lost ----------------------------------------------------------------------------------------------------


async def _forgotten(hda: HybridDataArchitecture, id: str) -> None:
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
            await _forgotten(hda, "3")
            with pytest.raises(StalenessTimeout, match="lost there"):
                await talks.get("3")
            assert await talks.get("4") == Talk(id="4", topic="x")
            assert await differences(hda) == [("docs", "3", "lost")]
        words = {"url": f"sqlite:{tmp_path}/words.db", "roles": ["full_text"]}
        async with opened(tmp_path, words=words) as hda:  # a new copy gets the others, and says what it lacks
            parked = await until(lambda: _parked(hda), 60)
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
