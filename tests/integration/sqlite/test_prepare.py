"""A file follows its classes: what SQLite needs beyond what the kit asks of every store."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
from polystore_adapters.sqlite import connect
from polystore_adapters.sqlite.repository import SqliteRepository

from polystore.embedding import pack
from polystore.entity import EntityType, entity, entity_types
from polystore.env import Env
from polystore.errors import EntityError, SchemaMismatch
from polystore.facets import Embedding, FullText, Index, Unique
from polystore.filters import F
from polystore.model import Change, Commit, HashSpan, Key, StoredVector, Write, key_hash, text_hash
from polystore.protocols import Layout, VectorSpec
from polystore.text import query

NEAR = pack([1.0, 0.0])
SPEC = VectorSpec(2, "cosine", "model")


@entity(name="note")
@dataclass
class Plain:
    id: str
    text: str = ""
    number: int = 0


@entity(name="note")
@dataclass
class Searched:
    id: str
    text: Annotated[str, FullText(), Embedding("model", 2)] = ""
    number: int = 0


@entity(name="note", renamed={"words": "text"})
@dataclass
class Renamed:
    id: str
    words: Annotated[str, FullText(), Embedding("model", 2)] = ""
    number: int = 0


@entity(name="note")
@dataclass
class Widened:
    id: str
    text: str = ""
    number: Annotated[float, Index()] = 0.0


@entity(name="note")
@dataclass
class Distinct:
    id: str
    text: Annotated[str, Unique()] = ""
    number: int = 0


def compiled(cls: type[Any]) -> EntityType[Any]:
    return entity_types([cls])["note"]


def change(id: str, version: int, fields: Mapping[str, Any], vectors: Mapping[str, bytes] = {}) -> Change:
    return Change(Key("", "note", id), version, key_hash("", "note", id), {"id": id, **fields}, b"", version, vectors)


async def prepared(
    path: Path, cls: type[Any], *, home: bool = False, facets: str = "", create: bool = True
) -> SqliteRepository:
    store = await connect(f"sqlite:{path}", {}, Env())
    one = compiled(cls)
    vectors = dict.fromkeys(one.embeddings, SPEC)
    served: Any = frozenset(facets.split())
    try:
        await store.prepare([Layout(one, home, served, vectors)], create=create)
    except BaseException:
        await store.aclose()
        raise
    return store


def test_a_copy_that_gets_vectors_takes_the_same_versions_once_more(tmp_path: Path) -> None:
    async def main() -> None:
        store = await prepared(tmp_path / "app.db", Plain)
        await store.apply([change("a", 5, {"text": "hello", "number": 1})])
        await store.aclose()
        store = await prepared(tmp_path / "app.db", Searched, facets="vector")
        assert await store.similar("note", "", "text", NEAR, None, 5) == []
        delivered = change("a", 5, {"text": "hello", "number": 1}, {"text": NEAR})
        assert [one.status for one in await store.apply([delivered])] == ["applied"]
        assert [one.id for one in await store.similar("note", "", "text", NEAR, None, 5)] == ["a"]
        assert [one.status for one in await store.apply([delivered])] == ["stale"]
        await store.aclose()

    asyncio.run(main())


def test_a_home_that_gets_vectors_fills_them_from_what_embedders_made(tmp_path: Path) -> None:
    async def main() -> None:
        store = await prepared(tmp_path / "app.db", Searched, home=True)
        key = Key("", "note", "a")
        await store.commit([Commit([Write("put", key, 1, {"id": "a", "text": "hello", "number": 1}, b"h")])])
        await store.put_vectors([StoredVector(key, "text", "model", text_hash("hello"), NEAR)])
        await store.aclose()
        store = await prepared(tmp_path / "app.db", Searched, home=True, facets="vector")
        assert [one.id for one in await store.similar("note", "", "text", NEAR, None, 5)] == ["a"]
        await store.aclose()

    asyncio.run(main())


def test_a_renamed_field_keeps_its_terms_and_vectors(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "app.db"
        store = await prepared(path, Searched, facets="full_text vector")
        await store.apply([change("a", 5, {"text": "hello", "number": 1}, {"text": NEAR})])
        await store.aclose()
        store = await prepared(path, Renamed, facets="full_text vector")
        assert [one.id for one in await store.search("note", "", query("hello"), None, 5, None)] == ["a"]
        assert [one.id for one in await store.similar("note", "", "words", NEAR, None, 5)] == ["a"]
        (stamp,) = (await store.scan("note", "", HashSpan(), None, 5)).stamps
        assert (stamp.version, stamp.fault) == (5, "")
        await store.aclose()

    asyncio.run(main())


def test_search_that_comes_back_knows_what_happened_meanwhile(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "app.db"
        store = await prepared(path, Searched, facets="full_text")
        await store.apply([change("a", 1, {"text": "before"}), change("b", 1, {"text": "before"})])
        await store.aclose()
        store = await prepared(path, Plain)
        gone = Change(Key("", "note", "b"), 2, key_hash("", "note", "b"), None, b"", 2)
        await store.apply([change("a", 2, {"text": "after"}), gone, change("c", 1, {"text": "after"})])
        await store.aclose()
        store = await prepared(path, Searched, facets="full_text")
        assert await store.search("note", "", query("before"), None, 5, None) == []
        assert {one.id for one in await store.search("note", "", query("after"), None, 5, None)} == {"a", "c"}
        await store.aclose()

    asyncio.run(main())


def test_integers_become_floats_and_stay_floats(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "app.db"
        store = await prepared(path, Plain, home=True)
        key = Key("", "note", "a")
        await store.commit([Commit([Write("put", key, 1, {"id": "a", "text": "", "number": 3}, b"h")])])
        await store.aclose()
        store = await prepared(path, Widened, home=True)
        await store.commit(
            [Commit([Write("put", Key("", "note", "b"), 1, {"id": "b", "text": "", "number": 2.0}, b"h")])]
        )
        for record, number in zip(await store.get([key, Key("", "note", "b")]), (3.0, 2.0), strict=True):
            assert record is not None
            assert record.body is not None
            assert (record.body["number"], type(record.body["number"])) == (number, float)
        where = compiled(Widened).condition(F.number > 2.5)
        assert await store.count("note", "", where) == 1
        await store.aclose()

    asyncio.run(main())


def test_a_change_that_cannot_be_carried_out_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "app.db"
        store = await prepared(path, Plain, home=True)
        rows = [Write("put", Key("", "note", id), 1, {"id": id, "text": "same", "number": 1}, b"h") for id in "ab"]
        await store.commit([Commit(rows)])
        await store.aclose()
        before = dump(path)
        with pytest.raises(SchemaMismatch, match=r"Distinct\.text.*share a value"):
            await prepared(path, Distinct, home=True)
        assert dump(path) == before
        with pytest.raises(SchemaMismatch, match=r"'note'.*of another type: number; with other facets: number; run"):
            await prepared(path, Widened, home=True, create=False)
        assert dump(path) == before

    asyncio.run(main())


def dump(path: Path) -> list[str]:
    db = sqlite3.connect(path)
    try:
        return list(db.iterdump())
    finally:
        db.close()


def test_many_that_prepare_a_new_file_at_once_all_succeed(tmp_path: Path) -> None:
    async def main() -> None:
        stores = await asyncio.gather(
            *(prepared(tmp_path / "app.db", Searched, facets="full_text vector") for _ in range(6))
        )
        await stores[0].apply([change("a", 1, {"text": "hello"})])
        for store in stores:
            assert store.get_now(Key("", "note", "a")) is not None
            await store.aclose()

    asyncio.run(main())


def test_a_name_that_sqlite_keeps_for_itself_is_refused(tmp_path: Path) -> None:
    @entity(name="sqlite_note")
    @dataclass
    class Reserved:
        id: str

    async def main() -> None:
        store = await connect(f"sqlite:{tmp_path}/app.db", {}, Env())
        try:
            with pytest.raises(EntityError, match=r"Reserved.*sqlite_note"):
                await store.prepare([Layout(entity_types([Reserved])["sqlite_note"], True, frozenset())], create=True)
        finally:
            await store.aclose()

    asyncio.run(main())
