"""How many of the nearest an approximate index finds, and what it costs: PostgreSQL with pgvector, and ChromaDB.

    python -m benchmarks.recall --url postgresql://user@host/database --vectors 100000 --texts sentences.csv
    python -m benchmarks.recall --url chromadb://host:8000 --vectors 100000 --texts sentences.csv

Makes a database of its own on the server, with pgvector, or collections of its own, and drops them afterwards. Texts
are the cells of the CSV file and, until there are enough, these with one syllable changed; without a file they are made
up.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import importlib
import random
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Protocol
from urllib.parse import urlsplit
from uuid import uuid4

from polystore_adapters import chromadb, postgresql

from benchmarks.measure import load
from polystore import Embedding, entity
from polystore.embedding import HashedEmbedder
from polystore.entity import EntityType, entity_types
from polystore.env import Env
from polystore.model import Change, Key, Match, key_hash
from polystore.protocols import Layout, Repository, SupportsSchema, SupportsVectorSearch, VectorSpec
from polystore.testing.places.chromadb import own_prefix

LIMIT = 10
SAME = 1e-9
"""Scores nearer than this are equal: either record is right."""
BATCH = 500


class Vectors(Repository, SupportsSchema, SupportsVectorSearch, Protocol):
    """A store of vectors."""


@entity()
@dataclass(kw_only=True)
class Sentence:
    id: str
    text: Annotated[str, Embedding()]


class Figures(NamedTuple):
    recall: float
    index_ms: float
    exact_ms: float
    write_us: float
    build_s: float


async def measured(
    url: str, count: int, options: Mapping[str, Any], queries: int = 200, texts: Sequence[str] = ()
) -> Figures:
    """The share of the nearest ten by the index, over questions half of which are stored texts and half of which differ
    from one by a syllable. The index is made when everything is there."""
    work = Work.of(count, queries, texts)
    async with _opened(postgresql.connect, url, {**options, "vector_index": "none"}, work.layout) as plain:
        write_us = await _written(plain, work)
        wanted, exact_ms = await _nearest(plain, work.asked)
    started = time.perf_counter()
    with_index = {"vector_index": "hnsw", **options, "approximate_min": 0}
    async with _opened(postgresql.connect, url, with_index, work.layout) as by_index:
        build_s = time.perf_counter() - started
        found, index_ms = await _nearest(by_index, work.asked)
    recall = _recall([best[-1].score for best in wanted], found)
    return Figures(recall, index_ms, exact_ms, write_us, build_s)


async def measured_chromadb(
    url: str, count: int, options: Mapping[str, Any], queries: int = 200, texts: Sequence[str] = ()
) -> Figures:
    """The same, where the index is made with each write and cannot be left out: what is right is found here."""
    work = Work.of(count, queries, texts)
    with own_prefix(url) as prefix:
        async with _opened(chromadb.connect, url, {**options, "prefix": prefix}, work.layout) as store:
            write_us = await _written(store, work)
            found, index_ms = await _nearest(store, work.asked)
    started = time.perf_counter()
    wanted = work.scores_of_the_last()
    exact_ms = (time.perf_counter() - started) / len(work.asked) * 1e3
    return Figures(_recall(wanted, found), index_ms, exact_ms, write_us, 0.0)


class Work(NamedTuple):
    """What is stored and what is asked."""

    etype: EntityType[Sentence]
    layout: Layout
    texts: Sequence[str]
    vectors: Sequence[bytes]
    asked: Sequence[bytes]

    @classmethod
    def of(cls, count: int, queries: int, texts: Sequence[str]) -> Work:
        etype: EntityType[Sentence] = entity_types([Sentence])["sentence"]
        embedder, r = HashedEmbedder(), random.Random(1)
        given = _enough(list(dict.fromkeys(texts)), count, r)
        vectors = embedder.embed_now(given)
        changed = [_varied(one, r) for one in r.sample(given, queries // 2)]
        asked = [*r.sample(vectors, queries // 2), *embedder.embed_now(changed)]
        spec = VectorSpec(embedder.dimension, "cosine", embedder.name)
        return cls(etype, Layout(etype, False, frozenset({"vector"}), {"text": spec}), given, vectors, asked)

    def scores_of_the_last(self) -> list[float]:
        """For each question the score of the tenth nearest, of all."""
        np: Any = importlib.import_module("numpy")
        rows = np.frombuffer(b"".join(self.vectors), "<f4").reshape(len(self.vectors), -1).astype("f8")
        rows /= np.sqrt(np.square(rows).sum(axis=1, keepdims=True))
        last: list[float] = []
        for one in self.asked:
            wanted = np.frombuffer(one, "<f4").astype("f8")
            scores = rows @ wanted / np.sqrt(np.square(wanted).sum())
            last.append(float(np.partition(scores, -LIMIT)[-LIMIT]))
        return last


def _recall(wanted: Sequence[float], found: Sequence[Sequence[Match]]) -> float:
    """`wanted`: the score of the last that is right, for each question."""
    hits = sum(sum(one.score >= last - SAME for one in some) for last, some in zip(wanted, found, strict=True))
    return hits / (LIMIT * len(found))


async def _written(store: Vectors, work: Work) -> float:
    """Microseconds of one record with its vector."""
    started, count = time.perf_counter(), len(work.texts)
    for first in range(0, count, BATCH):
        some = range(first, min(count, first + BATCH))
        await store.apply([_change(work.etype, i, work.texts[i], work.vectors[i]) for i in some])
    return (time.perf_counter() - started) / count * 1e6


def _enough(texts: list[str], count: int, r: random.Random) -> list[str]:
    """So many texts, no two the same."""
    known = dict.fromkeys(texts or ["".join(chr(r.randrange(0xAC00, 0xB000)) for _ in range(24)) for _ in range(100)])
    first = list(known)
    while len(known) < count:
        known[_varied(r.choice(first), r)] = None
    return list(known)[:count]


def _varied(text: str, r: random.Random) -> str:
    """With another syllable in place of one."""
    places = [i for i, letter in enumerate(text) if "가" <= letter <= "힣"] or [len(text)]
    place = r.choice(places)
    return f"{text[:place]}{chr(r.randrange(0xAC00, 0xD7A4))}{text[place + 1 :]}"


def _change(etype: EntityType[Sentence], number: int, text: str, vector: bytes) -> Change:
    key = Key("", etype.name, f"{number}")
    body = etype.encode(Sentence(id=key.id, text=text))
    h = key_hash(key.tenant, key.etype, key.id)
    return Change(key, number + 1, h, body, etype.content_hash(body), number + 1, {"text": vector})


@asynccontextmanager
async def _opened(
    connect: Callable[[str, Mapping[str, Any], Env], Awaitable[Vectors]],
    url: str,
    options: Mapping[str, Any],
    layout: Layout,
) -> AsyncGenerator[Vectors]:
    store = await connect(url, options, Env())
    try:
        await store.prepare([layout], create=True)
        yield store
    finally:
        await store.aclose()


async def _nearest(store: Vectors, asked: Sequence[bytes]) -> tuple[list[list[Match]], float]:
    """The answers, and the milliseconds of one."""
    started = time.perf_counter()
    found = [await store.similar("sentence", "", "text", vector, None, LIMIT) for vector in asked]
    return found, (time.perf_counter() - started) / len(asked) * 1e3


async def _in_a_database(url: str, count: int, options: Mapping[str, Any], texts: Sequence[str]) -> Figures:
    asyncpg: Any = importlib.import_module("asyncpg")
    name = f"recall_{uuid4().hex[:8]}"
    server = await asyncpg.connect(url)
    try:
        await server.execute(f"CREATE DATABASE {name}")
        own = urlsplit(url)._replace(path=f"/{name}").geturl()
        return await measured(own, count, {**options, "vectors": "pgvector"}, texts=texts)
    finally:
        await server.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        await server.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recall", description=__doc__)
    parser.add_argument(
        "--url", required=True, help="a PostgreSQL server on which the user may make databases, or a ChromaDB server"
    )
    parser.add_argument("--vectors", type=int, default=20_000)
    parser.add_argument("--texts", type=Path, help="a file of sentences")
    parser.add_argument("--index", choices=["hnsw", "hnsw_half"], default="hnsw", help="of PostgreSQL")
    parser.add_argument("--m", type=int, default=16)
    parser.add_argument("--ef-construction", type=int, help="64 on PostgreSQL, 100 on ChromaDB, as they come")
    parser.add_argument("--ef-search", type=int, default=200)
    given = parser.parse_args()
    texts: list[str] = []
    if given.texts is not None:
        with given.texts.open(encoding="utf-8", newline="") as lines:
            texts = [cell for row in csv.reader(lines) for cell in row]
    if given.url.startswith("chromadb"):
        options = {
            "max_neighbors": given.m,
            "ef_construction": given.ef_construction or 100,
            "ef_search": given.ef_search,
        }
        figures = asyncio.run(measured_chromadb(given.url, given.vectors, options, texts=texts))
        how = "with its index"
    else:
        options = {
            "vector_index": given.index,
            "hnsw_m": given.m,
            "hnsw_ef_construction": given.ef_construction or 64,
            "hnsw_ef_search": given.ef_search,
        }
        figures = asyncio.run(_in_a_database(given.url, given.vectors, options, texts))
        how = f"without the index, which was then made in {figures.build_s:.1f} s"
    shown = ", ".join(f"{name}={value}" for name, value in options.items())
    sys.stdout.write(
        f"{given.vectors} vectors of 256, {shown}: recall at {LIMIT} {figures.recall:.4f}; a search "
        f"{figures.index_ms:.1f} ms by the index, {figures.exact_ms:.1f} ms exactly; a vector written in "
        f"{figures.write_us:.0f} us {how}; load {load()}\n"
    )


if __name__ == "__main__":
    main()
