"""Rows 9 to 12: the embedded profile against sqlite3, aiosqlite, an executor and numpy by hand."""

from __future__ import annotations

import asyncio
import queue
import random
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import aiosqlite
import numpy as np

from benchmarks.data import DIMENSION, Item, Point, Searchable, Sentence, sentences
from benchmarks.measure import Ratio, at_least, at_most, below, interleaved, per_operation
from polystore import HybridDataArchitecture
from polystore.text import FTS5_TOKENIZE, fts5_match, query, terms

TASKS = 32


async def get_by_id(directory: Path) -> list[Ratio]:
    """Row 9."""
    path = directory / "get.db"
    async with HybridDataArchitecture.open(f"sqlite:{path}", entities=[Item]) as hda:
        items = hda.collection(Item)
        await items.put_many([Item(id=f"k{i}") for i in range(500)])
        raw = sqlite3.connect(path, isolation_level=None)
        select = "SELECT * FROM item WHERE ps_tenant = '' AND id = ?"
        async with aiosqlite.connect(path) as later:

            async def by_hand(i: int) -> object:
                return raw.execute(select, (f"k{i % 500}",)).fetchone()

            async def by_aiosqlite(i: int) -> object:
                async with later.execute(select, (f"k{i % 500}",)) as cursor:
                    return await cursor.fetchone()

            times = await interleaved(
                {
                    "ours": lambda: per_operation(lambda i: items.get(f"k{i % 500}"), 4000),
                    "sqlite3": lambda: per_operation(by_hand, 4000),
                    "aiosqlite": lambda: per_operation(by_aiosqlite, 1000),
                }
            )
        raw.close()
    return [
        at_most(9, "embedded get by id", "sqlite3 inline", 3, times["ours"], times["sqlite3"]),
        at_least(9, "embedded get by id", "aiosqlite", 4, times["ours"], times["aiosqlite"]),
    ]


class RawGroupCommit:
    """One writer thread that commits what has queued up, as one would write it by hand for speed: no versions read, no
    guard, no errors told apart."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._jobs: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        db = opened(self._path)
        while True:
            batch = [self._jobs.get()]
            while not self._jobs.empty():
                batch.append(self._jobs.get())
            stop = batch[-1] is None
            if stop:
                batch.pop()
            db.execute("BEGIN IMMEDIATE")
            for row, _ in batch:
                write(db, row)
            db.execute("COMMIT")
            self._loop.call_soon_threadsafe(self._done, [future for _, future in batch])
            if stop:
                db.close()
                return

    def _done(self, futures: list[asyncio.Future[None]]) -> None:
        for future in futures:
            future.set_result(None)

    def write(self, row: tuple[Any, ...]) -> asyncio.Future[None]:
        future: asyncio.Future[None] = self._loop.create_future()
        self._jobs.put((row, future))
        return future

    def close(self) -> None:
        self._jobs.put(None)
        self._thread.join()


def opened(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")
    db.execute("CREATE TABLE IF NOT EXISTS searchable (id TEXT PRIMARY KEY, body TEXT, version INTEGER)")
    db.execute("CREATE TABLE IF NOT EXISTS outbox (version INTEGER PRIMARY KEY, id TEXT, targets INTEGER)")
    return db


def write(db: sqlite3.Connection, row: tuple[Any, ...]) -> None:
    version = db.execute("INSERT INTO outbox (id, targets) VALUES (?, 1)", row[:1]).lastrowid
    db.execute(
        "INSERT INTO searchable VALUES (?, ?, ?) ON CONFLICT (id) DO UPDATE SET body = excluded.body, "
        "version = excluded.version",
        (*row, version),
    )


async def write_and_outbox(directory: Path) -> list[Ratio]:
    """Row 10: writes of a type with a copy, so that each owes a delivery; nobody delivers meanwhile, on any side."""
    raw = RawGroupCommit(directory / "raw.db")
    pool = ThreadPoolExecutor(1)
    loop = asyncio.get_running_loop()
    alone = await loop.run_in_executor(pool, opened, directory / "executor.db")

    def in_a_transaction(row: tuple[Any, ...]) -> None:
        alone.execute("BEGIN IMMEDIATE")
        write(alone, row)
        alone.execute("COMMIT")

    rng = random.Random(3)
    config = {
        "stores": {
            "home": {"url": f"sqlite:{directory}/ours.db", "roles": ["home", "journal"]},
            "search": {"url": f"sqlite:{directory}/search.db", "roles": ["full_text"]},
        }
    }
    async with HybridDataArchitecture.open(config, entities=[Searchable]) as hda:
        ours = hda.collection(Searchable)
        for line in hda.manager.lines.values():
            await line.stop()

        async def round_of(one: Callable[[str], Awaitable[object]], count: int) -> float:
            async def task(name: int) -> None:
                for _ in range(count):
                    await one(f"{name}-{rng.randrange(1 << 30)}")

            started = time.perf_counter()
            await asyncio.gather(*(task(i) for i in range(TASKS)))
            return (time.perf_counter() - started) / (TASKS * count)

        body = Searchable(id="").body
        times = await interleaved(
            {
                "ours": lambda: round_of(lambda id: ours.put(Searchable(id=id)), 60),
                "raw": lambda: round_of(lambda id: raw.write((id, body)), 60),
                "executor": lambda: round_of(lambda id: loop.run_in_executor(pool, in_a_transaction, (id, body)), 20),
            }
        )
    raw.close()
    await loop.run_in_executor(pool, alone.close)
    pool.shutdown()
    return [
        at_least(10, f"embedded write + outbox, {TASKS} tasks", "raw group commit", 0.6, times["ours"], times["raw"]),
        at_least(10, f"embedded write + outbox, {TASKS} tasks", "executor", 2, times["ours"], times["executor"]),
    ]


async def vector_query(directory: Path) -> list[Ratio]:
    """Row 11."""
    count = 20_000
    rng = np.random.default_rng(11)
    matrix = rng.standard_normal((count, DIMENSION)).astype(np.float32)
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    queries = rng.standard_normal((64, DIMENSION)).astype(np.float32)
    path = directory / "vectors.db"
    async with HybridDataArchitecture.open(f"sqlite:{path}", entities=[Point]) as hda:
        points = hda.collection(Point)
        await points.import_many(Point(id=f"p{i:05d}", place=row.tolist()) for i, row in enumerate(matrix))
        raw = sqlite3.connect(path, isolation_level=None)
        lists = [one.tolist() for one in queries]

        async def by_hand(i: int) -> object:
            wanted = queries[i % 64] / np.linalg.norm(queries[i % 64])
            scores = matrix @ wanted
            best = np.argpartition(-scores, 10)[:10]
            best = best[np.argsort(-scores[best])]
            return [raw.execute("SELECT * FROM point WHERE ps_rid = ?", (int(n) + 1,)).fetchone() for n in best]

        times = await interleaved(
            {
                "ours": lambda: per_operation(lambda i: points.similar(lists[i % 64], limit=10), 50),
                "numpy": lambda: per_operation(by_hand, 50),
            }
        )
        raw.close()
    return [at_most(11, f"vector query, {count} x {DIMENSION}", "numpy + rows", 1.5, times["ours"], times["numpy"])]


async def full_text(directory: Path) -> list[Ratio]:
    """Row 12."""
    texts = sentences(12_000)
    path = directory / "text.db"
    async with HybridDataArchitecture.open(f"sqlite:{path}", entities=[Sentence]) as hda:
        repository = hda.collection(Sentence)
        await repository.import_many(Sentence(id=f"s{i:05d}", text=text) for i, text in enumerate(texts))
        raw = sqlite3.connect(directory / "raw-text.db", isolation_level=None)
        raw.execute("CREATE TABLE sentence (rid INTEGER PRIMARY KEY, id TEXT, text TEXT)")
        raw.execute(f"CREATE VIRTUAL TABLE words USING fts5 (text, tokenize = '{FTS5_TOKENIZE}')")
        raw.execute("BEGIN")
        for i, text in enumerate(texts):
            raw.execute("INSERT INTO sentence VALUES (?, ?, ?)", (i + 1, f"s{i:05d}", text))
            raw.execute("INSERT INTO words (rowid, text) VALUES (?, ?)", (i + 1, " ".join(terms(text))))
        raw.execute("COMMIT")
        words = sorted(
            {word[at : at + 2] for text in texts for word in text.split()[:5] for at in range(len(word) - 1)}
        )
        recall = await _recall(repository, texts, words)

        async def by_hand(i: int) -> object:
            match = fts5_match(query(words[i % len(words)]))
            return raw.execute(
                "SELECT s.* FROM (SELECT rowid AS rid, rank FROM words WHERE words MATCH ? ORDER BY rank LIMIT 10) f "
                "JOIN sentence s USING (rid) ORDER BY f.rank",
                (match,),
            ).fetchall()

        async def ours(i: int) -> object:
            return await repository.search(words[i % len(words)], limit=10)

        times = await interleaved(
            {"ours": lambda: per_operation(ours, 100), "fts5": lambda: per_operation(by_hand, 100)}
        )
        raw.close()
    missed = below(12, "Korean full text, two-syllable strings not found exactly", "strings", 0, [recall])
    return [missed, at_most(12, "Korean full text, hydrated", "raw FTS5 bigram", 1.5, times["ours"], times["fts5"])]


async def _recall(repository: Any, texts: list[str], words: list[str]) -> float:
    """How many of the strings are not answered with exactly the sentences that hold them."""
    wrong = 0
    for word in random.Random(5).sample(words, 40):
        wanted = {f"s{i:05d}" for i, text in enumerate(texts) if word in text}
        found: set[str] = set()
        cursor = None
        while True:
            page = await repository.search(word, limit=1000, cursor=cursor)
            found |= {hit.value.id for hit in page}
            cursor = page.cursor
            if cursor is None:
                break
        wrong += found != wanted
    return float(wrong)
