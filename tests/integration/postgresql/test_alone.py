"""PostgreSQL alone is a complete profile: entities of every facet through the facade, and nothing beside it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, ClassVar

from polystore import (
    Edge,
    Embedding,
    F,
    FileRef,
    FullText,
    HybridDataArchitecture,
    Index,
    Measure,
    Relation,
    Unique,
    entity,
)
from polystore.consistency.verify import Verifier
from tests.postgresql import configured, fresh_schema, server

NOON = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=1)


@entity()
@dataclass(kw_only=True)
class Topic:
    id: str
    name: Annotated[str, Unique()]


@dataclass
class About:
    weight: float


@entity()
@dataclass(kw_only=True)
class Note:
    id: str
    author: Annotated[str, Index()] = "minji"
    text: Annotated[str, FullText(), Embedding()]
    shape: Annotated[list[float] | None, Embedding(dimension=3, metric="l2")] = None
    about: Annotated[list[Edge[About]], Relation("ABOUT", to="Topic")] = field(default_factory=list[Edge[About]])
    photo: FileRef | None = None
    mood: ClassVar[Measure[float]] = Measure(float, on_delete="erase")


@entity(data_type="log", ttl_s=3600 * 24 * 30)
@dataclass(kw_only=True)
class Visit:
    id: str
    at: datetime
    text: Annotated[str, FullText()]


@entity(data_type="session", ttl_s=60)
@dataclass
class Session:
    id: str
    clicks: int = 0


TEXTS = {
    "n1": "어제 한강에서 자전거를 탔다",
    "n2": "자전거 브레이크가 고장 났다",
    "n3": "비가 오는 날에는 파전을 먹는다",
}


async def _write(hda: HybridDataArchitecture) -> None:
    notes = hda.collection(Note)
    ref = await hda.files.save("사진".encode() * 200_000, content_type="image/png")
    async with hda.transaction() as tx:
        tx.put(Topic(id="bike", name="자전거"))
        for i, (id, text) in enumerate(TEXTS.items()):
            edges = [Edge("bike", About(i / 10))] if "자전거" in text else []
            tx.put(Note(id=id, text=text, shape=[float(i), 0, 0], about=edges, photo=ref if id == "n1" else None))
    await notes.append_many(Note.mood, [("n1", NOON + timedelta(minutes=i), i / 10) for i in range(120)])
    await hda.log(Visit).append(Visit(id="v1", at=NOON, text="한강 공원"))
    await hda.state(Session).put(Session("s1"))
    await hda.settle(30)


async def _read(hda: HybridDataArchitecture) -> None:
    notes = hda.collection(Note)
    note = await notes.get("n1")
    assert note is not None
    assert note.photo is not None
    assert await hda.files.read(note.photo) == "사진".encode() * 200_000
    assert {hit.value.id for hit in await notes.search("전거")} == {"n1", "n2"}
    assert [hit.value.id for hit in await notes.similar("자전거 브레이크가 고장 났어", field="text", limit=1)] == ["n2"]
    near = await notes.similar([1.2, 0.0, 0.0], field="shape", where=F.author == "minji", limit=2)
    assert [hit.value.id for hit in near] == ["n2", "n3"]
    assert (await notes.hybrid("한강 자전거", limit=1))[0].value.id == "n1"
    (topic,) = await notes.related("n2", "ABOUT", into=Topic)
    assert (topic.value, topic.properties) == (Topic(id="bike", name="자전거"), {"weight": 0.1})
    windows = await notes.series(Note.mood, "n1", start=NOON, every="1h", aggregate="max")
    assert [point.value for point in windows] == [5.9, 11.9]
    assert [line.id for line in await hda.log(Visit).search("공원")] == ["v1"]
    assert await hda.state(Session).incr("s1", "clicks") == 1


def test_an_application_with_every_kind_of_data_needs_no_other_store() -> None:
    async def main(config: Any, path: str) -> None:
        entities = [Topic, Note, Visit, Session]
        async with HybridDataArchitecture.open(config, entities=entities) as hda:
            await _write(hda)
            await _read(hda)
            assert set(hda.stores) == {"main"}
        async with HybridDataArchitecture.open(config, entities=entities) as hda:
            assert await hda.collection(Note).last(Note.mood, "n1") is not None
            verifier = Verifier(hda.stores, hda.manager.placements, hda.manager.embedders)
            for etype in hda.manager.placements:
                assert [difference async for difference in verifier.differences(etype)] == []
            await hda.collection(Note).delete("n1")
            await hda.settle(30)
            assert await hda.collection(Note).last(Note.mood, "n1") is None
            assert [hit.value.id for hit in await hda.collection(Note).search("전거")] == ["n2"]
        held = "SELECT (SELECT count(*) FROM {0}.note) || ' ' || (SELECT count(*) FROM {0}.ps_point)"
        assert server().value(held.format(path.partition(",")[0])) == "2 0"

    with fresh_schema() as path:
        asyncio.run(main({"stores": {"main": configured(path)}}, path))
