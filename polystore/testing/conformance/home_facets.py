"""A home that serves facets itself: they follow every kind of write, in its own commit."""

from __future__ import annotations

from typing import Protocol, cast

import msgspec
import pytest

from polystore.errors import NotFound
from polystore.model import StoredVector, text_hash
from polystore.protocols import (
    Repository,
    SupportsCommit,
    SupportsJournal,
    SupportsSchema,
    SupportsTextSearch,
    SupportsTraversal,
    SupportsVectorSearch,
)
from polystore.testing.conformance.base import Conformance, commit, delete, key_of, layouts, update, write
from polystore.testing.conformance.entities import ARTICLE, PERSON, SPOT, TOPIC, Article, Person, Spot
from polystore.testing.conformance.vectors import pack
from polystore.text import query

EAST, NORTH, WEST = (1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0), (-1.0, 0.0, 0.0, 0.0)


class TextHome(Repository, SupportsCommit, SupportsTextSearch, Protocol):
    pass


class HomeTextConformance(Conformance):
    """Full text at a home."""

    protocol = SupportsTextSearch
    home = True
    types = (ARTICLE,)

    async def found(self, store: TextHome, *texts: str) -> list[list[str]]:
        """For each text the ids that hold it."""
        answers = [await store.search(ARTICLE.name, "", query(text), None, 10, None) for text in texts]
        return [sorted(match.id for match in answer) for answer in answers]

    async def test_the_index_follows_every_kind_of_write(self) -> None:
        store: TextHome = await self.open()
        await commit(store, write("create", ARTICLE, Article(id="a", title="학교", body="이야기")))
        await commit(store, write("insert", ARTICLE, Article(id="a", title="공원")))
        assert await self.found(store, "학교", "공원") == [["a"], []]
        await commit(store, update(ARTICLE, "a", {"title": "공원"}))
        assert await self.found(store, "학교", "공원", "이야기") == [[], ["a"], ["a"]]
        await commit(store, update(ARTICLE, "a", {"stars": 3}))
        assert await self.found(store, "공원 이야기") == [["a"]]
        await commit(store, write("skip", ARTICLE, Article(id="a", title="집")))
        assert await self.found(store, "공원", "집") == [[], ["a"]]
        await commit(store, delete(ARTICLE, "a"))
        assert await self.found(store, "집") == [[]]

    async def test_a_commit_that_fails_leaves_the_index_as_it_was(self) -> None:
        store: TextHome = await self.open()
        await commit(store, write("put", ARTICLE, Article(id="a", title="학교")))
        with pytest.raises(NotFound):
            await commit(
                store,
                write("put", ARTICLE, Article(id="a", title="공원")),
                write("put", ARTICLE, Article(id="b", title="공원")),
                update(ARTICLE, "absent", {"stars": 1}),
            )
        assert await self.found(store, "학교", "공원") == [["a"], []]


class VectorHome(Repository, SupportsCommit, SupportsJournal, SupportsVectorSearch, Protocol):
    pass


class HomeVectorConformance(Conformance):
    """Vectors at a home with a journal, where those of embedders arrive after the write."""

    protocol = SupportsVectorSearch
    home = True
    types = (SPOT,)

    async def near(self, store: VectorHome, field: str) -> list[str]:
        """All that have a vector in this field, from the east to the west."""
        return [m.id for m in await store.similar(SPOT.name, "", field, pack(EAST), None, 10)]

    async def test_an_update_keeps_the_vectors_of_the_fields_it_leaves_alone(self) -> None:
        store: VectorHome = await self.open()
        vectors = {"by_cosine": pack(EAST), "by_distance": pack(EAST), "text": pack(EAST)}
        value = Spot(id="a", by_cosine=list(EAST), by_distance=list(EAST), text="one")
        other = Spot(id="b", by_cosine=list(NORTH))
        await commit(store, write("put", SPOT, value, vectors=vectors))
        await commit(store, write("put", SPOT, other, vectors={"by_cosine": pack(NORTH)}))
        await commit(store, update(SPOT, "a", {"stars": 5}))
        assert await self.near(store, "by_cosine") == ["a", "b"]
        await commit(store, update(SPOT, "a", {"by_cosine": list(WEST)}, vectors={"by_cosine": pack(WEST)}))
        assert await self.near(store, "by_cosine") == ["b", "a"]
        assert await self.near(store, "by_distance") == await self.near(store, "text") == ["a"]
        await commit(store, update(SPOT, "a", {"by_distance": None}))
        assert await self.near(store, "by_distance") == []
        await commit(store, update(SPOT, "a", {"text": "two"}))
        assert await self.near(store, "text") == [], "an old vector under a new text"
        await commit(store, write("put", SPOT, Spot(id="a")))
        assert await self.near(store, "by_cosine") == ["b"]

    async def test_a_commit_that_fails_leaves_the_vectors_as_they_were(self) -> None:
        store: VectorHome = await self.open()
        east, west = ({"by_cosine": pack(vector)} for vector in (EAST, WEST))
        await commit(store, write("put", SPOT, Spot(id="a", by_cosine=list(EAST)), vectors=east))
        await commit(store, write("put", SPOT, Spot(id="b", by_cosine=list(WEST)), vectors=west))
        with pytest.raises(NotFound):
            await commit(
                store,
                delete(SPOT, "a"),
                write("put", SPOT, Spot(id="b", by_cosine=list(EAST)), vectors=east),
                write("put", SPOT, Spot(id="c", by_cosine=list(EAST)), vectors=east),
                update(SPOT, "absent", {"stars": 1}),
            )
        assert await self.near(store, "by_cosine") == ["a", "b"]

    async def test_an_embedders_vectors_serve_while_their_text_stands(self) -> None:
        store: VectorHome = await self.open()
        await commit(store, write("put", SPOT, Spot(id="a", text="one")), write("put", SPOT, Spot(id="b", text="two")))
        assert await self.near(store, "text") == []
        await store.put_vectors([embedded("a", "one", EAST), embedded("b", "two", WEST)])
        assert await self.near(store, "text") == ["a", "b"]
        await commit(store, update(SPOT, "a", {"text": "three"}))
        await store.put_vectors([embedded("a", "one", EAST), embedded("gone", "x", EAST)])
        assert await self.near(store, "text") == ["b"], "made of a text that is gone"
        await store.put_vectors([embedded("a", "three", EAST), embedded("a", "three", WEST, embedder="another")])
        assert await self.near(store, "text") == ["a", "b"]

    async def test_a_vector_given_by_the_caller_stands_before_the_embedders(self) -> None:
        store: VectorHome = await self.open()
        given = write("put", SPOT, Spot(id="a", text="one"), vectors={"text": pack(WEST)}, keep=frozenset({"text"}))
        await commit(store, given, write("put", SPOT, Spot(id="b", text="two"), vectors={"text": pack(NORTH)}))
        await store.put_vectors([embedded("a", "one", EAST)])
        assert await self.near(store, "text") == ["b", "a"]

    async def test_another_embedders_vectors_serve_once_the_home_is_prepared_for_it(self) -> None:
        store: VectorHome = await self.open()
        given = write("put", SPOT, Spot(id="c", text="three"), vectors={"text": pack(NORTH)}, keep=frozenset({"text"}))
        spots = [write("put", SPOT, Spot(id=id, text=text)) for id, text in (("a", "one"), ("b", "two"))]
        await commit(store, *spots, given)
        await store.put_vectors([embedded("a", "one", EAST), embedded("b", "two", WEST)])
        await store.put_vectors([embedded("a", "one", WEST, embedder="another")])
        assert await self.near(store, "text") == ["a", "c", "b"]
        (layout,) = layouts(store, [SPOT], home=True)
        specs = {**layout.vectors, "text": msgspec.structs.replace(layout.vectors["text"], embedder="another")}
        await cast(SupportsSchema, store).prepare([msgspec.structs.replace(layout, vectors=specs)], create=True)
        assert await self.near(store, "text") == ["c", "a"], "what another embedder made is another vector"
        await store.put_vectors([embedded("b", "two", EAST, embedder="another"), embedded("a", "one", EAST)])
        assert await self.near(store, "text") == ["b", "c", "a"]


class EdgeHome(Repository, SupportsCommit, SupportsTraversal, Protocol):
    pass


class HomeTraversalConformance(Conformance):
    """Edges at a home."""

    protocol = SupportsTraversal
    home = True
    types = (PERSON, TOPIC)

    async def reached(self, store: EdgeHome, id: str) -> tuple[list[str], list[str]]:
        """What the record likes, and whom it reports to."""
        likes, boss = [
            [r.id for r in await store.traverse(PERSON.name, "", id, (relation,), "out", 1, None, 10)]
            for relation in ("LIKES", "REPORTS_TO")
        ]
        return likes, boss

    async def test_edges_follow_every_kind_of_write(self) -> None:
        store: EdgeHome = await self.open()
        await commit(store, write("create", PERSON, Person(id="a", boss="b", likes=["tea", "jam"])))
        await commit(store, update(PERSON, "a", {"name": "A"}))
        assert await self.reached(store, "a") == (["jam", "tea"], ["b"])
        await commit(store, update(PERSON, "a", {"likes": ["jam"], "boss": None}))
        assert await self.reached(store, "a") == (["jam"], [])
        await commit(store, write("insert", PERSON, Person(id="a", boss="c")))
        assert await self.reached(store, "a") == (["jam"], [])
        await commit(store, delete(PERSON, "a"))
        assert await self.reached(store, "a") == ([], [])

    async def test_a_commit_that_fails_leaves_the_edges_as_they_were(self) -> None:
        store: EdgeHome = await self.open()
        await commit(store, write("put", PERSON, Person(id="a", likes=["tea"])))
        with pytest.raises(NotFound):
            await commit(
                store,
                write("put", PERSON, Person(id="a", likes=["jam"])),
                write("put", PERSON, Person(id="b", boss="a")),
                update(PERSON, "absent", {"name": "x"}),
            )
        assert await self.reached(store, "a") == (["tea"], [])
        assert await self.reached(store, "b") == ([], [])


def embedded(id: str, text: str, vector: tuple[float, ...], *, embedder: str = "kit") -> StoredVector:
    return StoredVector(key_of(SPOT, id), "text", embedder, text_hash(text), pack(vector))
