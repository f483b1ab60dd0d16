"""Preparing a store: made once, kept, compared, and carried along when a class changes in a way that loses nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Protocol, cast

import pytest

from polystore.entity import EntityType, entity, entity_type
from polystore.errors import IntegrityViolation, SchemaMismatch
from polystore.facets import FullText, Index, Relation, Unique
from polystore.filters import F
from polystore.model import EVERYTHING
from polystore.protocols import (
    Repository,
    SupportsCommit,
    SupportsFilter,
    SupportsSchema,
    SupportsTextSearch,
    SupportsTraversal,
)
from polystore.testing.conformance.base import Conformance, change, key_of, layouts, live, removal, same, state
from polystore.text import query


class Prepared(Repository, SupportsSchema, Protocol):
    pass


@entity(name="kit_note")
@dataclass(kw_only=True)
class Note:
    """A class as it was at first."""

    id: str
    text: str
    stars: int = 0
    owner: str | None = None
    extra: str = "kept"


@entity(name="kit_note")
@dataclass(kw_only=True)
class WithMore:
    id: str
    text: str
    stars: int = 0
    owner: str | None = None
    extra: str = "kept"
    mood: str = "calm"
    seen: int | None = None
    tags: list[str] | None = None


@entity(name="kit_note")
@dataclass(kw_only=True)
class WithLess:
    id: str
    text: str


@entity(name="kit_note", renamed={"body": "text"})
@dataclass(kw_only=True)
class Renamed:
    id: str
    body: str
    stars: int = 0
    owner: str | None = None
    extra: str = "kept"


@entity(name="kit_note")
@dataclass(kw_only=True)
class Widened:
    id: str
    text: str | None
    stars: float = 0.0
    owner: str = "nobody"
    extra: str = "kept"


@entity(name="kit_note")
@dataclass(kw_only=True)
class WithFacets:
    id: str
    text: Annotated[str, FullText(), Index()]
    stars: Annotated[int, Unique()] = 0
    owner: Annotated[str | None, Relation("OF", to="kit_note")] = None
    extra: str = "kept"


@entity(name="kit_note")
@dataclass(kw_only=True)
class Retyped:
    id: str
    text: int
    stars: int = 0
    owner: str | None = None
    extra: str = "kept"


@entity(name="kit_note")
@dataclass(kw_only=True)
class Demanding:
    id: str
    text: str
    due: str
    stars: int = 0
    owner: str | None = None
    extra: str = "kept"


@entity(name="kit_note")
@dataclass(kw_only=True)
class Rekeyed:
    id: int
    text: str
    stars: int = 0
    owner: str | None = None
    extra: str = "kept"


def noted(cls: type[Any]) -> EntityType[Any]:
    return entity_type(cls)


NOTE = noted(Note)
NOTES = (
    Note(id="a", text="학교 이야기", stars=1, owner="b"),
    Note(id="b", text="", stars=2),
    Note(id="가", text='it\'s "quoted"', stars=3, owner="a", extra=""),
)
CHANGES: Sequence[tuple[type[Any], Mapping[str, Mapping[str, Any]]]] = (
    (WithMore, {id: {"mood": "calm", "seen": None, "tags": None} for id in ("a", "b", "가")}),
    (WithLess, {}),
    (Renamed, {"a": {"body": "학교 이야기"}, "b": {"body": ""}, "가": {"body": 'it\'s "quoted"'}}),
    (Widened, {"a": {"stars": 1.0}, "b": {"stars": 2.0, "owner": "nobody"}, "가": {"stars": 3.0}}),
    (WithFacets, {}),
)
"""New class -> id -> what its records have that the old ones had not."""


class SchemaConformance(Conformance):
    """`prepare`. Subclass it for the copy, and with `home = True` for the home."""

    protocol = SupportsSchema

    async def prepared(self, cls: type[Any], *, create: bool = True) -> Prepared:
        """A connection of its own, prepared for this class only."""
        store: Prepared = cast(Any, await self.connection())
        await store.prepare(layouts(store, [noted(cls)], home=self.home), create=create)
        return store

    async def filled(self) -> dict[str, int]:
        """Write the notes, and close. Returns id -> version."""
        store = await self.prepared(Note)
        versions = await self.write(store, [change(NOTE, note, i) for i, note in enumerate(NOTES, 1)])
        await self.write(store, [change(NOTE, Note(id="gone", text="x"), 8)])
        await self.write(store, [removal(key_of(NOTE, "gone"), 9)])
        await store.aclose()
        return {key.id: version for key, version in versions.items()}

    async def test_what_is_prepared_may_be_prepared_again_and_stays(self) -> None:
        versions = await self.filled()
        for create in (True, False, True):
            store = await self.prepared(Note, create=create)
            for note in NOTES:
                version, body = await live(store, key_of(NOTE, note.id))
                assert version == versions[note.id]
                assert same(dict(body), NOTE.encode(note))
            gone = await state(store, key_of(NOTE, "gone"))
            assert gone is not None
            assert gone.deleted
            await store.aclose()

    async def test_several_that_prepare_an_empty_store_at_once_all_may_work(self) -> None:
        stores: list[Prepared] = [cast(Any, await self.connection()) for _ in range(4)]
        given = layouts(stores[0], [noted(Note)], home=self.home)
        await asyncio.gather(*(store.prepare(given, create=True) for store in stores))
        await self.write(stores[0], [change(NOTE, note, i) for i, note in enumerate(NOTES, 1)])
        for store in stores:
            records = await store.get([key_of(NOTE, note.id) for note in NOTES])
            assert [record is not None and record.deleted for record in records] == [False] * len(NOTES)

    async def test_nothing_is_made_unasked(self) -> None:
        for _ in range(2):
            with pytest.raises(SchemaMismatch, match="kit_note"):
                await self.prepared(Note, create=False)
        await self.filled()
        await self.prepared(Note, create=False)

    @pytest.mark.parametrize(("cls", "fresh"), CHANGES)
    async def test_a_changed_class_finds_its_records_carried_along(
        self, cls: type[Any], fresh: Mapping[str, Mapping[str, Any]]
    ) -> None:
        versions = await self.filled()
        with pytest.raises(SchemaMismatch, match="kit_note"):
            await self.prepared(cls, create=False)
        store = await self.prepared(cls)
        etype = noted(cls)
        hashes: dict[str, bytes] = {}
        for note in NOTES:
            old = NOTE.encode(note)
            wanted = {name: old.get(name) for name in etype.fields} | dict(fresh.get(note.id, {}))
            record = await state(store, key_of(etype, note.id))
            assert record is not None
            assert record.body is not None
            assert same({name: record.body[name] for name in etype.fields}, wanted)
            assert record.version == versions[note.id]
            etype.decode(record.body)
            hashes[note.id] = etype.content_hash(wanted)
        page = await store.scan(etype.name, "", EVERYTHING, None, 100)
        assert {s.id: s.hash for s in page.stamps} == hashes
        assert not any(s.fault for s in page.stamps)
        if SupportsFilter in store.capabilities:
            await self._found(cast(SupportsFilter, store), etype, hashes)
        await self.prepared(cls, create=False)

    async def _found(self, store: SupportsFilter, etype: EntityType[Any], ids: Mapping[str, Any]) -> None:
        field = "body" if "body" in etype.fields else "text"
        where = etype.condition(F[field] == "학교 이야기")
        (found,) = await store.find(etype.name, "", where, etype.sort([F.id]), 10)
        assert found.key.id == "a"
        assert await store.count(etype.name, "", None) == len(ids)

    async def test_a_field_that_was_removed_comes_back_with_its_values(self) -> None:
        await self.filled()
        store = await self.prepared(WithLess)
        less = noted(WithLess)
        await self.write(store, [change(less, WithLess(id="new", text="x"), 20)])
        _, body = await live(store, key_of(less, "a"))
        assert less.decode(body) == WithLess(id="a", text="학교 이야기")
        await store.aclose()
        store = await self.prepared(Note)
        assert NOTE.decode((await live(store, key_of(NOTE, "a")))[1]) == NOTES[0]
        assert NOTE.decode((await live(store, key_of(NOTE, "new")))[1]) == Note(id="new", text="x")

    @pytest.mark.parametrize("cls", [Retyped, Demanding, Rekeyed])
    async def test_a_change_that_would_lose_something_is_refused_and_nothing_happens(self, cls: type[Any]) -> None:
        versions = await self.filled()
        for create in (True, False):
            with pytest.raises(SchemaMismatch, match="Note|kit_note|" + cls.__name__):
                await self.prepared(cls, create=create)
        store = await self.prepared(Note, create=False)
        assert {id: (await live(store, key_of(NOTE, id)))[0] for id in versions} == versions

    async def test_new_facets_serve_the_records_that_were_there(self) -> None:
        versions = await self.filled()
        store: Any = await self.prepared(WithFacets)
        if SupportsTextSearch in store.capabilities:
            found = await store.search("kit_note", "", query("학교"), None, 10, None)
            assert [(m.id, m.version) for m in found] == [("a", versions["a"])]
        if SupportsTraversal in store.capabilities:
            reached = await store.traverse("kit_note", "", "a", ("OF",), "both", 1, None, 10)
            assert [(r.etype, r.id) for r in reached] == [("kit_note", "b"), ("kit_note", "가")]
        if self.home and SupportsCommit in store.capabilities:
            with pytest.raises(IntegrityViolation):
                await self.write(store, [change(noted(WithFacets), WithFacets(id="c", text="", stars=1), 30)])

    async def test_stored_values_that_are_not_unique_cannot_become_so_at_a_home(self) -> None:
        """A copy follows its home and holds nobody to anything."""
        await self.filled()
        store = await self.prepared(Note)
        await self.write(store, [change(NOTE, Note(id="twin", text="x", stars=1), 20)])
        await store.aclose()
        if self.home:
            with pytest.raises(SchemaMismatch, match="stars"):
                await self.prepared(WithFacets)
            store = await self.prepared(Note, create=False)
        else:
            store = await self.prepared(WithFacets)
        assert (await live(store, key_of(NOTE, "twin")))[1]["stars"] == 1
