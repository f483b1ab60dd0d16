"""Which indexes the server uses for what is asked most: its own plans, on tables with some thousand rows."""

from __future__ import annotations

import asyncio
import json
import random
import struct
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any

import pytest
from polystore_adapters.postgresql import connect
from polystore_adapters.postgresql.full_text import needle, search_sql, tsquery
from polystore_adapters.postgresql.pgvector import search_begin
from polystore_adapters.postgresql.repository import PostgresRepository

from polystore.entity import EntityType, entity, entity_types
from polystore.env import Env
from polystore.facets import Embedding, FullText, Index, Unique
from polystore.filters import Expr, F, Field
from polystore.model import Change
from polystore.protocols import Layout, VectorSpec
from polystore.testing.conformance.base import change
from polystore.text import query
from tests.postgresql import fresh_schema, server
from tests.stack import url_of

ROWS = 2_000
SYLLABLES = [chr(code) for code in range(ord("가"), ord("힣"), 7)]


@entity()
@dataclass(kw_only=True)
class Person:
    id: str
    name: Annotated[str, Index()]
    mail: Annotated[str, Unique()]
    text: Annotated[str, FullText()]
    way: Annotated[list[float] | None, Embedding(dimension=8)] = None
    rest: list[str] = field(default_factory=list[str])


PERSON: EntityType[Person] = entity_types([Person])["person"]
LAYOUT = Layout(PERSON, False, frozenset({"full_text", "vector"}), {"way": VectorSpec(8, "cosine", "caller")})


def persons() -> list[Change]:
    r = random.Random(5)
    found: list[Change] = []
    for i in range(ROWS):
        name, text = ("".join(r.choices(SYLLABLES, k=3)) for _ in range(2))
        one = Person(id=f"{i:05}", name=name, mail=f"{i}@x", text=f"{text} {i}")
        vector = struct.pack("<8f", *(r.gauss(0, 1) for _ in range(8)))
        found.append(change(PERSON, one, i + 1, vectors={"way": vector}))
    return found


@asynccontextmanager
async def opened(path: str) -> AsyncGenerator[PostgresRepository]:
    options = {"schema": path, "vectors": "pgvector", "vector_index": "hnsw"}
    store = await connect(url_of("postgresql"), options, Env())
    try:
        await store.prepare([LAYOUT], create=True)
        yield store
    finally:
        await store.aclose()


@pytest.fixture(scope="module")
def people() -> Generator[str]:
    """The search path of a schema with them."""

    async def fill(path: str) -> None:
        given = persons()
        async with opened(path) as store:
            for first in range(0, ROWS, 500):
                await store.apply(given[first : first + 500])

    with fresh_schema() as path:
        asyncio.run(fill(path))
        server().run(f"ANALYZE {path.partition(',')[0]}.person")
        yield path


Asked = Callable[[PostgresRepository], tuple[str, Sequence[Any]]]


def plan(path: str, asked: Asked, *, begin: str = "BEGIN") -> tuple[set[str], set[str]]:
    """The kinds of nodes of a plan, and the indexes of them."""

    async def explained() -> Any:
        async with opened(path) as store, store.client.acquire() as connection:
            sql, given = asked(store)
            await connection.execute(begin)
            return json.loads(await connection.fetchval(f"EXPLAIN (FORMAT JSON) {sql}", *given))

    kinds: set[str] = set()
    indexes: set[str] = set()

    def walk(node: dict[str, Any]) -> None:
        kinds.add(node["Node Type"])
        indexes.update([node["Index Name"]] if "Index Name" in node else [])
        for below in node.get("Plans", ()):
            walk(below)

    walk(asyncio.run(explained())[0]["Plan"])
    return kinds, indexes


BY_NAME = [F.name]


@pytest.mark.parametrize(
    ("where", "order", "index"),
    [
        (F.name == "학교에", [], "ps_index_person_name"),
        (F.name.in_(["학교에", "가나다"]), [], "ps_index_person_name"),
        (F.name.between("하", "학"), [], "ps_index_person_name"),
        (F.mail == "7@x", [], "ps_index_person_mail"),
        (None, BY_NAME, "ps_index_person_name"),
        (F.name > "학교", BY_NAME, "ps_index_person_name"),
        (F.id > "01000", [], "ps_key_person"),
    ],
    ids=["equal", "in", "between", "unique", "first by name", "next by name", "next by key"],
)
def test_what_a_find_looks_for_is_found_by_an_index(
    people: str, where: Expr | None, order: list[Field], index: str
) -> None:
    def asked(store: PostgresRepository) -> tuple[str, Sequence[Any]]:
        statements = store._tables["person"].statements  # pyright: ignore[reportPrivateUsage]
        return statements.find("", PERSON.condition(where), PERSON.sort(order), 20)

    kinds, indexes = plan(people, asked)
    assert indexes == {index}
    assert "Seq Scan" not in kinds
    if order == BY_NAME:
        assert "Sort" not in kinds, "Korean names come in the order of the index, by code point"


def test_korean_text_is_looked_up_in_the_index_of_its_terms(people: str) -> None:
    def asked(store: PostgresRepository) -> tuple[str, Sequence[Any]]:
        (phrase,) = query("학교에")
        source = store._tables["person"].source  # pyright: ignore[reportPrivateUsage]
        return search_sql(source, '"id"', 1, "TRUE"), ("", 10, None, None, tsquery([phrase]), needle(phrase))

    _, indexes = plan(people, asked)
    assert "ps_text_person" in indexes


def test_the_nearest_vectors_are_looked_up_in_hnsw(people: str) -> None:
    def asked(store: PostgresRepository) -> tuple[str, Sequence[Any]]:
        table = store._tables["person"]  # pyright: ignore[reportPrivateUsage]
        column = table.vectors["way"]
        vector = column.sent(struct.pack("<8f", *range(8)))
        return column.nearest_sql('"id"', table.source, "TRUE"), ("", vector, 10)

    _, indexes = plan(people, asked, begin=search_begin(40))
    assert indexes == {"ps_near_person_way_cosine_vector_16_64"}
