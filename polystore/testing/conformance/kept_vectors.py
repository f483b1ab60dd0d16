"""The journal of a home: the vectors that are kept beside the records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from polystore.model import StoredVector, Write, text_hash
from polystore.testing.conformance.base import commit, delete, key_of, update, write
from polystore.testing.conformance.entities import SPOT, Spot
from polystore.testing.conformance.outbox import JournalCase


class KeptVectorsConformance(JournalCase):
    """What embedders made, and what callers gave."""

    async def test_vectors_of_embedders_are_kept_for_the_text_they_were_made_of(self) -> None:
        store = await self.journal()
        await commit(store, spot("a", "one"), spot("b", "two"))
        first = [stored("a", "one", b"\1" * 16), stored("b", "two", b"\2" * 16)]
        other = stored("a", "one", b"\3" * 16, embedder="another")
        await store.put_vectors([*first, other])
        assert by_place(await store.vectors([key_of(SPOT, "a"), key_of(SPOT, "b")])) == by_place([*first, other])
        newer = stored("a", "one", b"\4" * 16)
        await store.put_vectors([newer])
        assert by_place(await store.vectors([key_of(SPOT, "a"), key_of(SPOT, "x")])) == by_place([newer, other])
        assert await store.vectors([]) == []

    async def test_vectors_of_other_embedders_are_forgotten_part_by_part(self) -> None:
        store = await self.journal()
        given = write("put", SPOT, Spot(id="c", text="three"), vectors={"text": b"\5" * 16}, keep=frozenset({"text"}))
        await commit(store, spot("a", "one"), spot("b", "two"), given)
        await store.put_vectors([stored("a", "one", b"\1" * 16), stored("b", "two", b"\2" * 16)])
        old = [stored(id, text, b"\3" * 16, embedder="old") for id, text in (("a", "one"), ("b", "two"))]
        await store.put_vectors(old)
        assert [await store.forget_vectors("another_type", ["kit"], 10)] == [0]
        assert [await store.forget_vectors(SPOT.name, ["kit"], 1) for _ in range(3)] == [1, 1, 0]
        left = await store.vectors([key_of(SPOT, id) for id in "abc"])
        assert sorted((one.key.id, one.embedder) for one in left) == [("a", "kit"), ("b", "kit"), ("c", "caller")]

    async def test_vectors_given_by_the_caller_are_kept_until_their_field_changes(self) -> None:
        store = await self.journal()
        given = {"text": b"\1" * 16, "by_cosine": b"\2" * 16}

        async def kept() -> list[tuple[str, bytes]]:
            vectors = await store.vectors([key_of(SPOT, "a")])
            assert all(v.embedder == "caller" and v.key == key_of(SPOT, "a") for v in vectors)
            return sorted((v.field, v.vector) for v in vectors)

        both = sorted(given.items())
        fields: dict[str, Any] = {"vectors": given, "keep": frozenset(given)}
        await commit(store, write("create", SPOT, Spot(id="a", text="one", by_cosine=[1.0] * 4), **fields))
        assert await kept() == both
        await commit(store, update(SPOT, "a", {"stars": 2}))
        assert await kept() == both
        await commit(store, write("insert", SPOT, Spot(id="a", text="never")))
        assert await kept() == both
        await commit(store, update(SPOT, "a", {"text": "two"}, vectors={"text": b"\3" * 16}))
        assert await kept() == both[:1]
        await commit(store, write("put", SPOT, Spot(id="a", text="one"), **fields))
        assert await kept() == both
        await commit(store, spot("a", "one"))
        assert await kept() == []
        await commit(store, write("put", SPOT, Spot(id="a", text="one"), vectors=given, keep=frozenset({"text"})))
        assert await kept() == both[1:]
        await commit(store, delete(SPOT, "a"))
        assert await kept() == []


def spot(id: str, text: str) -> Write:
    return write("put", SPOT, Spot(id=id, text=text))


def stored(id: str, text: str, vector: bytes, embedder: str = "kit") -> StoredVector:
    return StoredVector(key_of(SPOT, id), "text", embedder, text_hash(text), vector)


def by_place(vectors: Sequence[StoredVector]) -> list[StoredVector]:
    return sorted(vectors, key=lambda v: (v.key.id, v.field, v.embedder))
