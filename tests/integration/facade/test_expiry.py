"""Records that live for a time, through the facade: absent everywhere when it is over, then deleted everywhere."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, ClassVar

import msgspec
import pytest

from polystore import (
    Embedding,
    FullText,
    HybridDataArchitecture,
    IntegrityViolation,
    InvalidData,
    Measure,
    NotFound,
    Relation,
    Unique,
    entity,
)
from polystore.consistency.verify import Verifier
from polystore.model import Key, Record
from polystore.protocols import Repository
from polystore.testing.conformance import MovableEnv
from tests.integration.facade.world import PROMPT, config_of, profiles


@entity(ttl_s=3600)
class Note(msgspec.Struct, kw_only=True):
    id: str
    text: Annotated[str, FullText(), Embedding()] = ""
    next: Annotated[str | None, Relation("NEXT", to="Note")] = None


Test = Callable[[HybridDataArchitecture, MovableEnv], Coroutine[Any, Any, None]]


def timed(test: Test) -> Callable[[str, Path], None]:
    """Run a test with a clock that it can set forward, on every profile."""

    @pytest.mark.parametrize("profile", profiles())
    def run(profile: str, tmp_path: Path) -> None:
        async def main() -> None:
            env = MovableEnv()
            config = config_of(profile, tmp_path)
            async with HybridDataArchitecture.open(config, entities=[Note], settings=PROMPT, env=env) as hda:
                await test(hda, env)

        asyncio.run(main())

    run.__doc__ = test.__doc__
    return run


@timed
async def test_after_its_time_no_read_shows_a_record(hda: HybridDataArchitecture, env: MovableEnv) -> None:
    notes = hda.collection(Note)
    await notes.put(Note(id="a", text="한강에서 자전거를 탔다", next="b"), ttl_s=60)
    await notes.put(Note(id="b", text="한강에서 걸었다"))
    await hda.settle(10)
    assert len(await notes.search("한강에서")) == 2
    stored = await notes.load("a")
    assert stored.expires_at is not None
    assert 50 < (stored.expires_at - datetime.now(UTC)).total_seconds() < 61
    env.forward(61)
    assert await notes.get("a") is None
    assert await notes.get_many(["a", "b"]) == [None, await notes.get("b")]
    assert not await notes.exists("a")
    with pytest.raises(NotFound):
        await notes.load("a")
    assert [one.id for one in await notes.find()] == ["b"]
    assert await notes.count() == 1
    for hydrate in (True, False):
        assert [hit.value.id for hit in await notes.search("한강에서", hydrate=hydrate)] == ["b"]
        assert [hit.value.id for hit in await notes.similar("한강에서 자전거", hydrate=hydrate)] == ["b"]
    assert await notes.related("b", "NEXT", into=Note, direction="in") == []


@timed
async def test_the_sweeper_deletes_what_is_over_at_the_home_and_in_every_copy(
    hda: HybridDataArchitecture, env: MovableEnv
) -> None:
    notes = hda.collection(Note)
    await notes.put_many([Note(id=f"n{i}", text=f"사라질 글 {i}") for i in range(20)])
    await notes.put(Note(id="stays", text="남을 글"), ttl_s=7200)
    await hda.settle(10)
    env.forward(3601)
    key = Key("", "note", "n0")

    def gone(record: Record | None) -> bool:
        return record is None or (record.body is None and record.version > 0)

    line = hda.manager.line("note")
    await line.step()
    await hda.settle(10)
    placement = hda.manager.placements["note"]
    for name in {placement.home, *placement.copies()}:
        store = hda.stores[name]
        assert gone((await store.call(Repository.get, [key]))[0])
        assert await store.call(Repository.newest, "note") > 0
    home = hda.stores[placement.home]
    assert await home.repository.expired(["note"], 10) == []  # type: ignore[attr-defined]
    verifier = Verifier(hda.stores, hda.manager.placements, hda.manager.embedders)
    assert [one async for one in verifier.differences("note")] == []
    assert [one.id for one in await notes.find()] == ["stays"]


@timed
async def test_touch_prolongs_a_life_and_calls_nobody_back(hda: HybridDataArchitecture, env: MovableEnv) -> None:
    notes = hda.collection(Note)
    first = await notes.create(Note(id="a", text="a"), ttl_s=60)
    env.forward(50)
    touched = await notes.touch("a", ttl_s=60)
    assert (touched.version or 0) > (first.version or 0)
    env.forward(50)
    assert await notes.get("a") == Note(id="a", text="a")
    await hda.settle(10)
    env.forward(11)
    with pytest.raises(NotFound):
        await notes.touch("a", ttl_s=60)
    with pytest.raises(NotFound):
        await notes.update("a", {"text": "b"})
    assert (await notes.create(Note(id="a", text="new"))).existed is False


@timed
async def test_the_entity_says_how_long_and_a_write_may_say_otherwise(
    hda: HybridDataArchitecture, env: MovableEnv
) -> None:
    notes = hda.collection(Note)
    async with hda.transaction() as tx:
        tx.put(Note(id="declared"))
        tx.create(Note(id="said"), ttl_s=60)
    await notes.put_many([Note(id="many")])

    def louder(note: Note) -> Note:
        note.text = "louder"
        return note

    await notes.update("said", louder)
    env.forward(61)
    assert [one.id for one in await notes.find()] == ["declared", "many"]
    env.forward(3600)
    assert await notes.count() == 0


@timed
async def test_a_time_that_is_none_is_refused_before_anything_is_written(
    hda: HybridDataArchitecture, env: MovableEnv
) -> None:
    notes = hda.collection(Note)
    bad: Any
    for bad in (0, -1, "60", True, float("nan"), float("inf"), 1e12):
        with pytest.raises(InvalidData, match="ttl_s="):
            await notes.put(Note(id="a"), ttl_s=bad)
        with pytest.raises(InvalidData, match="ttl_s="):
            await notes.touch("a", ttl_s=bad)
    assert await notes.count() == 0


@entity()
class Member(msgspec.Struct, kw_only=True):
    id: str
    mail: Annotated[str, Unique()]
    steps: ClassVar[Measure[float]] = Measure(float, on_delete="erase")


@pytest.mark.parametrize("profile", ["one memory", "sqlite", "embedded"])
def test_an_expired_record_that_holds_a_unique_value_takes_its_points_along(profile: str, tmp_path: Path) -> None:
    """Whoever gets the value next, no point of the old record is left where they are erased with it."""

    async def main() -> None:
        env = MovableEnv()
        config = config_of(profile, tmp_path)
        async with HybridDataArchitecture.open(config, entities=[Member], settings=PROMPT, env=env) as hda:
            members = hda.collection(Member)
            await members.put(Member(id="old", mail="m@x"), ttl_s=60)
            at = datetime.now(UTC)
            await members.append(Member.steps, "old", 1.0, at=at)
            env.forward(61)
            new = Member(id="new", mail="m@x")
            try:
                await members.put(new)
            except IntegrityViolation:  # free when the sweeper, who knows of the points, has come
                await hda.manager.line("member").step()
                await members.put(new)
            await hda.manager.line("member").step()
            await hda.settle(10)
            assert list(await members.series(Member.steps, "old", start=at - timedelta(days=1))) == []

    asyncio.run(main())
