"""A class changes between two starts of an application: its records, its copies and its searches follow."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import pytest

from polystore import (
    Collection,
    Embedding,
    F,
    FullText,
    HashedEmbedder,
    HybridDataArchitecture,
    Index,
    SchemaMismatch,
    Unavailable,
    Unique,
    entity,
)
from polystore.consistency.verify import Verifier

URLS = pytest.mark.parametrize("url", ["embedded:{}/data", "sqlite:{}/data.db"])
TEXTS = {"a": "봄이 왔다", "b": "여름이 왔다", "c": "spring is here"}


@entity(name="note")
@dataclass
class Old:
    id: str
    txt: str
    stars: int = 0
    nick: str | None = None


@entity(name="note", renamed={"text": "txt"})
@dataclass
class New:
    id: str
    text: Annotated[str, FullText(), Embedding()]
    stars: Annotated[float, Index()] = 0.0
    nick: str = "-"
    tags: list[str] = field(default_factory=list[str])


async def opened(
    url: str, cls: type[Any], body: Callable[[HybridDataArchitecture, Collection[Any]], Awaitable[None]], **more: Any
) -> None:
    """Run `body` on the notes as `cls`, with all copies filled, and check that they equal their home before the end."""
    async with HybridDataArchitecture.open(url, entities=[cls], **more) as hda:
        await filled(hda)
        await body(hda, hda.collection(cls))
        await hda.settle(5.0)
        verifier = Verifier(hda.stores, hda.manager.placements, hda.manager.embedders)
        assert [one async for one in verifier.differences("note")] == []


async def filled(hda: HybridDataArchitecture) -> None:
    for name in hda.manager.placements["note"].copies():
        for _ in range(100):
            try:
                hda.manager.readable("note", name)
                break
            except Unavailable:
                await asyncio.sleep(0.05)
        else:
            pytest.fail(f"{name} was not filled")


async def write_old(hda: HybridDataArchitecture, notes: Collection[Any]) -> None:
    await notes.put_many([Old(id, text, stars) for stars, (id, text) in enumerate(TEXTS.items())])
    await notes.put(Old("d", "gone"))
    await notes.delete("d")


@URLS
def test_records_follow_their_class_with_all_copies_and_searches(url: str, tmp_path: Path) -> None:
    url = url.format(tmp_path)

    async def read_new(hda: HybridDataArchitecture, notes: Collection[Any]) -> None:
        assert await notes.get_many(["a", "c", "d"]) == [New("a", TEXTS["a"]), New("c", TEXTS["c"], 2.0), None]
        assert [note.id for note in await notes.find(F.stars > 0.5, order_by=[F.stars])] == ["b", "c"]
        assert {hit.value.id for hit in await notes.search("왔다")} == {"a", "b"}
        assert (await notes.similar(TEXTS["c"], limit=1))[0].value.id == "c"
        version = (await notes.load("a")).version
        assert (await notes.update("a", {"tags": ["x"]}, expect_version=version)).existed

    async def main() -> None:
        await opened(url, Old, write_old)
        await opened(url, New, read_new)
        await opened(url, New, nothing_to_do)

    asyncio.run(main())


async def nothing_to_do(hda: HybridDataArchitecture, notes: Collection[Any]) -> None:
    assert await notes.get("a") == New("a", TEXTS["a"], tags=["x"])


@URLS
def test_a_field_that_was_taken_away_comes_back_with_its_values(url: str, tmp_path: Path) -> None:
    url = url.format(tmp_path)

    @entity(name="note")
    @dataclass
    class Less:
        id: str
        txt: str

    @entity(name="note")
    @dataclass
    class Again:
        id: str
        txt: str
        stars: int = 7

    async def write_less(hda: HybridDataArchitecture, notes: Collection[Any]) -> None:
        assert await notes.get("c") == Less("c", TEXTS["c"])
        await notes.put(Less("c", "written without"))
        await notes.put(Less("e", "new"))

    async def read_again(hda: HybridDataArchitecture, notes: Collection[Any]) -> None:
        found = await notes.get_many(["b", "c", "e"])
        assert found == [Again("b", TEXTS["b"], 1), Again("c", "written without", 2), Again("e", "new", 7)]

    async def main() -> None:
        await opened(url, Old, write_old)
        await opened(url, Less, write_less)
        await opened(url, Again, read_again)

    asyncio.run(main())


def note(*facets: Embedding, more: Sequence[Embedding] = ()) -> type[Any]:
    """A class of notes whose texts are embedded in these ways."""

    @entity(name="note", facets={"text": facets, "more": more})
    @dataclass
    class Note:
        id: str
        text: str
        more: str = "more"

    return Note


@URLS
@pytest.mark.parametrize(
    ("before", "after"),
    [
        (note(), note(Embedding())),
        (note(Embedding()), note(Embedding(metric="l2"))),
        (note(Embedding()), note(Embedding("small"))),
        (note(Embedding("changing")), note(Embedding("changing"))),
        (note(Embedding()), note(Embedding(), more=[Embedding()])),
    ],
    ids=["new", "metric", "embedder", "dimension", "another field"],
)
def test_vectors_that_are_made_differently_are_made_anew(
    before: type[Any], after: type[Any], url: str, tmp_path: Path
) -> None:
    url = url.format(tmp_path)

    async def write(hda: HybridDataArchitecture, notes: Collection[Any]) -> None:
        await notes.put_many([before(id, text) for id, text in TEXTS.items()])

    async def read(hda: HybridDataArchitecture, notes: Collection[Any]) -> None:
        for id, text in TEXTS.items():
            hits = await notes.similar(text, field="text")
            assert (len(hits), hits[0].value.id) == (3, id)
        if "more" in hda.types["note"].embeddings:
            assert len(await notes.similar("more", field="more")) == 3

    async def main() -> None:
        embedders = {"small": HashedEmbedder(64), "changing": HashedEmbedder(64)}
        await opened(url, before, write, embedders=embedders)
        await opened(url, after, read, embedders=embedders | {"changing": HashedEmbedder(128)})

    asyncio.run(main())


@URLS
def test_a_change_that_is_refused_changes_nothing(url: str, tmp_path: Path) -> None:
    url = url.format(tmp_path)

    @entity(name="note")
    @dataclass
    class Retyped:
        id: str
        txt: int
        added: int = 0

    @entity(name="note", renamed={"text": "txt"})
    @dataclass
    class Shared:
        id: str
        text: str
        stars: Annotated[int, Unique()] = 0
        nick: Annotated[str | None, Unique()] = None

    async def read_old(hda: HybridDataArchitecture, notes: Collection[Any]) -> None:
        assert await notes.get("a") == Old("a", TEXTS["a"])

    async def write_twice(hda: HybridDataArchitecture, notes: Collection[Any]) -> None:
        await write_old(hda, notes)
        await notes.put(Old("e", "another without stars"))

    async def main() -> None:
        await opened(url, Old, write_twice)
        with pytest.raises(SchemaMismatch, match=r"Retyped\.txt: its stored values do not fit: the type was str"):
            await opened(url, Retyped, read_old)
        with pytest.raises(SchemaMismatch, match=r"Shared\.stars: stored records share a value"):
            await opened(url, Shared, read_old)
        await opened(url, Old, read_old)

    asyncio.run(main())
