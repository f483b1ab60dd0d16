"""Everything from the stores that an application began with into the next ones."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, ClassVar

import pytest
from typer.testing import CliRunner

from polystore import (
    Edge,
    Embedding,
    FileRef,
    FullText,
    HybridDataArchitecture,
    InvalidData,
    Measure,
    Relation,
    entity,
)
from polystore.cli.app import app
from polystore.consistency.verify import Verifier
from polystore.errors import ConfigurationError
from polystore.transfer import Transferred, transfer
from tests.loops import in_a_loop
from tests.postgresql import configured, fresh_schema
from tests.stack import server

postgresql = server("postgresql")
NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


@dataclass
class Since:
    year: int


@entity()
@dataclass(kw_only=True)
class Person:
    id: str
    text: Annotated[str, FullText(), Embedding()] = ""
    knows: Annotated[list[Edge[Since]], Relation("KNOWS", to="Person")] = field(default_factory=list[Edge[Since]])
    photo: FileRef | None = None
    mood: ClassVar[Measure[float]] = Measure(float)


@entity()
@dataclass(kw_only=True)
class Count:
    """Keys that are no texts."""

    id: int
    n: int = 0


@entity(data_type="log")
@dataclass(kw_only=True)
class Event:
    id: str
    at: datetime
    text: Annotated[str, FullText()]


CLASSES: list[type[Any]] = [Person, Count, Event]


def opened(config: str | Mapping[str, Any]) -> Any:
    return HybridDataArchitecture.open(config, entities=CLASSES)


async def fill(hda: HybridDataArchitecture) -> None:
    people = hda.collection(Person)
    photo = await hda.files.save("사진".encode() * 1000, content_type="image/png")
    await people.put_many(
        [Person(id=f"p{i}", text=f"하늘이 파랗다 {i}", knows=[Edge("p1", Since(2000 + i))]) for i in range(30)]
    )
    await people.put(Person(id="사진", text="바다 사진", photo=photo))
    await people.put(Person(id="soon", text="곧 사라진다"), ttl_s=3600)
    await hda.tenant("둘").collection(Person).put(Person(id="p1", text="다른 사람"))
    await people.append_many(Person.mood, (("p1", NOW + timedelta(minutes=i), i / 10) for i in range(90)))
    await hda.collection(Count).put_many([Count(id=i, n=i) for i in (-5, 0, 10, 9, 1 << 40)])
    await hda.log(Event).append_many(
        [Event(id=f"e{i}", at=NOW + timedelta(seconds=i), text="문이 열렸다") for i in range(5)]
    )


async def differences(hda: HybridDataArchitecture) -> list[object]:
    await hda.settle(30)
    verifier = Verifier(hda.manager.stores, hda.manager.placements, hda.manager.embedders)
    return [one for etype in hda.manager.placements for one in [d async for d in verifier.differences(etype)]]


def numbers(done: list[Transferred]) -> dict[str, tuple[int, int, int, int, int]]:
    return {one.entity: (one.read, one.written, one.deleted, one.points, one.files) for one in done}


def test_an_application_moves_from_the_embedded_profile_to_postgresql(postgresql: str, tmp_path: Path) -> None:
    async def scenario(schema: str) -> None:
        async with (
            opened(f"embedded:{tmp_path}/data") as before,
            opened({"stores": {"main": configured(schema)}}) as hda,
        ):
            await fill(before)
            done = numbers(await transfer(before, hda))
            assert done == {"person": (33, 33, 0, 90, 1), "count": (5, 5, 0, 0, 0), "event": (5, 5, 0, 0, 0)}
            here, there = before.collection(Person), hda.collection(Person)
            assert [one async for one in there.stream()] == [one async for one in here.stream()]
            assert [one async for one in hda.collection(Count).stream()] == [
                one async for one in before.collection(Count).stream()
            ]
            assert await hda.tenant("둘").collection(Person).get("p1") == Person(id="p1", text="다른 사람")
            assert list(await hda.log(Event).range()) == list(await before.log(Event).range())
            points = await there.series(Person.mood, "p1", start=NOW - timedelta(days=1))
            assert list(points) == list(await here.series(Person.mood, "p1", start=NOW - timedelta(days=1)))
            photo = await there.get("사진")
            assert photo is not None
            assert photo.photo is not None
            assert await hda.files.read(photo.photo) == "사진".encode() * 1000
            soon = (await there.load("soon")).expires_at
            was = (await here.load("soon")).expires_at
            assert soon is not None
            assert was is not None
            assert abs(soon - was) < timedelta(seconds=30)
            assert await differences(hda) == []
            assert [hit.value.id for hit in await there.search("바다")] == ["사진"]
            assert len(await there.related("p1", "KNOWS", direction="in", limit=100)) == 29
            # Again: what changed since, and nothing else.
            await here.put(Person(id="p2", text="고쳤다"))
            await here.delete("p3")
            await before.collection(Count).delete(9)
            again = numbers(await transfer(before, hda))
            assert again == {"person": (32, 2, 0, 90, 0), "count": (4, 0, 0, 0, 0), "event": (5, 0, 0, 0, 0)}
            assert await there.exists("p3")
            await there.put(Person(id="a new one"))
            last = numbers(await transfer(before, hda, delete=True))
            assert last["person"][:3] == (32, 1, 2)  # what expires is written anew each time
            assert last["count"][:3] == (4, 0, 1)
            assert not await there.exists("p3")
            assert [one.id async for one in hda.collection(Count).stream()] == [-5, 0, 10, 1 << 40]
            assert await hda.tenant("둘").collection(Person).exists("p1")

    with fresh_schema() as schema:
        asyncio.run(scenario(schema))


@in_a_loop
async def test_a_transfer_that_was_interrupted_is_repeated(tmp_path: Path) -> None:
    class Enough(Exception):
        pass

    def stop(now: Transferred) -> None:
        if now.read >= 600:
            raise Enough

    async with opened(f"sqlite:{tmp_path}/a.db") as before, opened(f"embedded:{tmp_path}/data") as hda:
        await before.collection(Person).import_many(Person(id=f"p{i:04}", text="하늘") for i in range(1200))
        with pytest.raises(Enough):
            await transfer(before, hda, progress=stop)
        begun = await hda.collection(Person).count()
        assert 0 < begun < 1200
        done = numbers(await transfer(before, hda))
        assert done["person"][:2] == (1200, 1200 - begun)
        assert await differences(hda) == []


@in_a_loop
async def test_a_record_ends_there_as_it_does_here(tmp_path: Path) -> None:
    """Also one whose end alone has changed since."""
    async with opened(f"sqlite:{tmp_path}/a.db") as before, opened(f"sqlite:{tmp_path}/b.db") as hda:
        here, there = before.collection(Person), hda.collection(Person)
        await here.put_many([Person(id="stays"), Person(id="ends", text="하늘")])
        await here.put(Person(id="stays"), ttl_s=3600)
        await transfer(before, hda)
        assert (await there.load("stays")).expires_at is not None
        await here.put(Person(id="stays"))
        await here.put(Person(id="ends", text="하늘"), ttl_s=3600)
        await transfer(before, hda)
        assert (await there.load("stays")).expires_at is None
        assert (await there.load("ends")).expires_at is not None


@in_a_loop
async def test_other_classes_and_damaged_content_are_refused(tmp_path: Path) -> None:
    async with opened(f"embedded:{tmp_path}/a") as before:
        other = HybridDataArchitecture.open(f"embedded:{tmp_path}/b", entities=[Person])
        async with other as hda:
            with pytest.raises(ConfigurationError, match="count, event"):
                await transfer(before, hda)
            ref = await before.files.save(b"content")
            with pytest.raises(InvalidData, match="not the content that was saved"):
                await hda.files.restore(ref, b"CONTENT")
            assert not await hda.files.exists(ref)
            for _ in range(2):
                await hda.files.restore(ref, b"content")
            assert await hda.files.read(ref) == b"content"


def test_the_command_says_what_it_brought(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with opened(f"embedded:{tmp_path}/old") as hda:
            await fill(hda)

    asyncio.run(main())
    monkeypatch.chdir(Path(__file__).parents[2])
    start = ["-c", f"sqlite:{tmp_path}/new.db", "-e", "tests.integration.test_transfer"]
    result = CliRunner().invoke(app, [*start, "transfer", f"embedded:{tmp_path}/old", "--json"])
    assert result.exit_code == 0, result.output + result.stderr
    rows = {row["entity"]: row for row in json.loads(result.stdout)}
    assert rows["person"] == {
        "entity": "person", "read": 33, "written": 33, "deleted": 0, "points": 90, "files": 1,
    }  # fmt: skip
    found = CliRunner().invoke(app, [*start, "get", "person", "p1", "--json"])
    assert found.exit_code == 0, found.output + found.stderr
    refused = CliRunner().invoke(app, [*start, "--tenant", "x", "transfer", f"embedded:{tmp_path}/old"])
    assert (refused.exit_code, "leave out --tenant" in refused.stderr) == (2, True)
