"""Bad input gets a clear error, and nothing is written."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from functools import reduce
from pathlib import Path
from typing import Annotated, Any

import pytest

from polystore import (
    Collection,
    Condition,
    ConfigurationError,
    DimensionMismatch,
    Embedding,
    F,
    FullText,
    HybridDataArchitecture,
    InvalidData,
    PermissionDenied,
    SchemaMismatch,
    StoreCorrupt,
    StoreFull,
    ValueTooLarge,
    entity,
)
from polystore.conditions import COMPARISONS_MAX, DEPTH_MAX, VALUES_MAX


@entity()
@dataclass(kw_only=True)
class Sample:
    id: str = "s"
    text: Annotated[str, FullText()] = ""
    vector: Annotated[list[float], Embedding(dimension=3)] = field(default_factory=lambda: [1.0, 2.0, 3.0])
    number: int = 0
    ratio: float = 0.0
    amount: Decimal = Decimal(0)
    at: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    data: bytes = b""
    extra: dict[str, Any] = field(default_factory=dict[str, Any])


def with_samples(url: str, test: Callable[[Collection[Sample]], Awaitable[None]]) -> None:
    config = {"stores": {"main": {"url": url, "timeout_s": 60.0}}}  # what is large may take its time on a busy machine

    async def main() -> None:
        async with HybridDataArchitecture.open(config, entities=[Sample]) as hda:
            await test(hda.collection(Sample))

    asyncio.run(main())


BAD_VALUES = {
    "wrong dimension": (Sample(vector=[1.0]), DimensionMismatch, "Sample.vector.* 1 components.* declares 3"),
    "NaN in a vector": (Sample(vector=[1.0, float("nan"), 0.0]), InvalidData, "Sample.vector: item 1: NaN"),
    "NaN": (Sample(ratio=float("nan")), InvalidData, "Sample.ratio: NaN"),
    "infinity": (Sample(ratio=float("-inf")), InvalidData, "Sample.ratio: NaN and infinity"),
    "oversized text": (Sample(text="가" * 6_000_000), ValueTooLarge, "Sample.text: the text has 18000000 bytes"),
    "oversized bytes": (Sample(data=bytes(17 << 20)), ValueTooLarge, "Sample.data: the value has 17825792 bytes"),
    "oversized in all": (
        Sample(text="x" * (9 << 20), data=bytes(8 << 20)),
        ValueTooLarge,
        "Sample: the record has 178.* bytes, the limit is 16777216 for all its fields together",
    ),
    "oversized inside": (Sample(extra={"a": ["x" * (9 << 20)] * 2}), ValueTooLarge, "Sample: the record has 188"),
    "lone surrogate": (Sample(text="\ud800"), InvalidData, "Sample.text: .*lone surrogate"),
    "lone surrogate inside": (Sample(extra={"a": ["\udfff"]}), InvalidData, "Sample.extra: .*lone surrogate"),
    "NUL in a key": (Sample(id="a\0b"), InvalidData, "Sample.id: .*NUL"),
    "empty id": (Sample(id=""), InvalidData, "Sample.id: the key is empty"),
    "10,000 characters of id": (Sample(id="x" * 10_000), InvalidData, "Sample.id: the key has 10000 bytes"),
    "naive datetime": (Sample(at=datetime(2026, 1, 1)), InvalidData, r"Sample.at: .*naive.*datetime.now\(UTC\)"),  # noqa: DTZ001
    "integer beyond 64 bits": (Sample(number=1 << 63), InvalidData, "Sample.number: .*64 bits"),
    "integer beyond 64 bits inside": (Sample(extra={"n": -(1 << 63) - 1}), InvalidData, "Sample.extra: .*64 bits"),
    "infinite decimal": (Sample(amount=Decimal("Infinity")), InvalidData, "Sample.amount: .*finite"),
    "too precise a decimal": (Sample(amount=Decimal("1." + "1" * 40)), InvalidData, "Sample.amount: .*34 significant"),
    "text for a number": (Sample(number="7"), InvalidData, "Sample.number: an int is needed, not str"),  # type: ignore[arg-type]
    "bool for a number": (Sample(number=True), InvalidData, "Sample.number: an int is needed, not bool"),
    "None for a text": (Sample(text=None), InvalidData, "Sample.text: a str is needed, not NoneType"),  # type: ignore[arg-type]
    "no JSON inside": (Sample(extra={"a": object()}), InvalidData, "Sample.extra: .*JSON-like"),
}


@pytest.mark.parametrize("name", BAD_VALUES)
def test_a_bad_value_is_refused_by_every_write_and_nothing_is_written(name: str, tmp_path: Path) -> None:
    value, error, words = BAD_VALUES[name]

    async def test(samples: Collection[Sample]) -> None:
        for write in (samples.put, samples.create):
            with pytest.raises(error, match=words) as caught:
                await write(value)
            assert len(str(caught.value)) < 300  # never the value itself
        with pytest.raises(error, match=words):
            await samples.put_many([Sample(id="good"), value])
        assert await samples.count() == 0

    with_samples(f"sqlite:{tmp_path}/one.db", test)


@pytest.mark.parametrize("store", ["sqlite", "memory"])
def test_a_record_cannot_grow_over_the_limit_by_updates(store: str, tmp_path: Path) -> None:
    async def test(samples: Collection[Sample]) -> None:
        await samples.put(Sample(text="x" * (9 << 20)))
        with pytest.raises(ValueTooLarge, match="Sample: the record has 178"):
            await samples.update("s", {"data": bytes(8 << 20)})
        assert (await samples.load("s")).value.data == b""
        await samples.update("s", {"data": bytes(6 << 20)})

    with_samples("memory:" if store == "memory" else f"sqlite:{tmp_path}/one.db", test)


def any_of(conditions: Iterable[Condition]) -> Condition:
    return reduce(lambda a, b: a | b, conditions)


def all_of(conditions: Iterable[Condition]) -> Condition:
    return reduce(lambda a, b: a & b, conditions)


def negated(condition: Condition, times: int) -> Condition:
    return reduce(lambda inner, _: ~inner, range(times), condition)


LARGEST = {
    "alternatives": any_of(F.number == i for i in range(COMPARISONS_MAX)),
    "alternatives inside": any_of(F.extra.n == i for i in range(COMPARISONS_MAX)),
    "items of a free-form value": any_of(F.extra.tags.contains(f"t{i}") for i in range(COMPARISONS_MAX)),
    "all hold": all_of(F.number != i + 5 for i in range(COMPARISONS_MAX)),
    "all hold inside": all_of(F.extra.word.startswith("") for _ in range(COMPARISONS_MAX)),
    "values": F.number.in_(range(VALUES_MAX)),
    "values inside": F.extra.n.in_(range(VALUES_MAX)),
    "values in many lists": any_of(F.number.in_(range(i, i + 25)) for i in range(COMPARISONS_MAX)),
    "negated": negated(F.number == 1, DEPTH_MAX - 1 & ~1),
    "negated inside": negated(F.extra.n != 2, DEPTH_MAX - 1 & ~1),
    "all at once": all_of(
        [
            negated(F.extra.n != 2, DEPTH_MAX - 2 & ~1),
            *(F.extra.tags.contains("t1") for _ in range(COMPARISONS_MAX - 2)),
            F.extra.n.in_(range(VALUES_MAX)),
        ]
    ),
}


@pytest.mark.parametrize("name", LARGEST)
@pytest.mark.parametrize("store", ["sqlite", "memory"])
def test_a_condition_of_the_largest_size_is_answered(store: str, name: str, tmp_path: Path) -> None:
    async def test(samples: Collection[Sample]) -> None:
        await samples.put(Sample(id="a", number=1, text="x", extra={"n": 1, "word": "w", "tags": ["t1"]}))
        await samples.put(Sample(id="b", number=-1, text="x", extra={"n": -1.5}))
        await samples.put(Sample(id="c", number=1, text="x", extra={"n": 1, "word": "w", "tags": ["t1"]}))
        where = LARGEST[name]
        wanted = {"a", "b", "c"} if name == "all hold" or name == "negated inside" else {"a", "c"}
        first = await samples.find(where, order_by=F.ratio.desc(), limit=1)
        rest = await samples.find(where, order_by=F.ratio.desc(), cursor=first.cursor)
        assert {one.id for one in [*first, *rest]} == wanted
        assert {hit.value.id for hit in await samples.search("x", where=where)} == wanted
        assert {hit.value.id for hit in await samples.similar([1.0, 2.0, 3.0], where=where)} == wanted

    with_samples("memory:" if store == "memory" else f"sqlite:{tmp_path}/one.db", test)


def test_keys_are_checked_by_reads_and_deletes_too(tmp_path: Path) -> None:
    async def test(samples: Collection[Sample]) -> None:
        for bad in ("", "a\0b", "x" * 10_000, "\ud800"):
            for call in (samples.get, samples.load, samples.exists, samples.delete):
                with pytest.raises(InvalidData, match=r"Sample\.id"):
                    await call(bad)
        with pytest.raises(InvalidData, match="a str is needed, not int"):
            await samples.get(7)

    with_samples(f"sqlite:{tmp_path}/one.db", test)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("oracle:x", "known: "),
        ("sqllite:x.db", "sqlite"),
        ("sqlite:", "followed by a path"),
        ("embedded:", "followed by a path"),
    ],
)
def test_a_url_that_cannot_work_names_what_could(url: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        asyncio.run(opened(url))


async def opened(url: str) -> None:
    async with HybridDataArchitecture.open(url, entities=[Sample]):
        pass


async def filled(url: str, count: int, size: int = 10) -> None:
    async with HybridDataArchitecture.open(url, entities=[Sample]) as hda:
        for i in range(count):
            await hda.collection(Sample).put(Sample(id=f"s{i}", text="나무 " * size), ack="applied")


def refuse(url: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        asyncio.run(opened(url))


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    place = tmp_path / "a file"
    place.write_text("not a directory")
    refuse(f"embedded:{place}/data", PermissionDenied, "a file")
    refuse("embedded:/proc/no/such/place", PermissionDenied, "/proc/no")  # refuses root too


def test_a_full_disk_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """While it is full it is read; with more room it is written again."""

    def stores(limit: int) -> dict[str, Any]:
        return {"stores": {"main": {"url": f"sqlite:{tmp_path}/one.db", "options": {"page_limit": limit}}}}

    async def main() -> list[str]:
        acknowledged: list[str] = []
        async with HybridDataArchitecture.open(stores(150), entities=[Sample]) as hda:
            samples = hda.collection(Sample)

            async def fill() -> None:
                for i in range(1000):
                    await samples.put(Sample(id=f"s{i}", text="나무 " * 50))
                    acknowledged.append(f"s{i}")

            with pytest.raises(StoreFull, match="main"):
                await fill()
            assert [one.id async for one in samples.stream()] == sorted(acknowledged)
        async with HybridDataArchitecture.open(stores(1000), entities=[Sample]) as hda:
            samples = hda.collection(Sample)
            await samples.delete("s0")
            assert [one.id async for one in samples.stream()] == sorted(acknowledged)[1:]
        return acknowledged

    assert len(asyncio.run(main())) > 3


def test_a_full_copy_does_not_stop_the_home_and_catches_up(tmp_path: Path) -> None:
    def stores(limit: int) -> dict[str, Any]:
        return {
            "main": {"url": f"sqlite:{tmp_path}/main.db", "roles": ["home", "journal", "vector"]},
            "search": {"url": f"sqlite:{tmp_path}/search.db", "roles": ["full_text"], "options": {"page_limit": limit}},
        }

    async def main() -> None:
        async with HybridDataArchitecture.open({"stores": stores(60)}, entities=[Sample]) as hda:
            results = [await hda.collection(Sample).put(Sample(id=f"s{i}", text="나무 " * 60)) for i in range(60)]
            assert all(result.stores["main"] == "committed" for result in results)
        async with HybridDataArchitecture.open({"stores": stores(100_000)}, entities=[Sample]) as hda:
            await hda.settle(30)
            assert len(await hda.collection(Sample).search("나무", limit=100)) == 60

    asyncio.run(main())


@pytest.mark.parametrize("file", ["home.db", "full_text.db"])
def test_a_database_of_a_newer_schema_is_left_alone(file: str, tmp_path: Path) -> None:
    url = f"embedded:{tmp_path}/data"
    asyncio.run(filled(url, 3))
    with sqlite3.connect(tmp_path / "data" / file) as db:
        changed = db.execute("UPDATE ps_meta SET v = 999 WHERE k = 'schema'").rowcount
    assert changed == 1
    db.close()
    refuse(url, SchemaMismatch, "999")


@pytest.mark.parametrize("file", ["home.db", "vector.db"])
def test_a_truncated_database_is_corrupt_and_never_empty(file: str, tmp_path: Path) -> None:
    url = f"embedded:{tmp_path}/data"
    asyncio.run(filled(url, 30, size=200))
    path = tmp_path / "data" / file
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(StoreCorrupt, match=file):
        asyncio.run(read_all(url))


async def read_all(url: str) -> None:
    async with HybridDataArchitecture.open(url, entities=[Sample]) as hda:
        found = [one async for one in hda.collection(Sample).stream()]
        await hda.collection(Sample).similar([1.0, 2.0, 3.0])
        assert len(found) == 30


@pytest.mark.parametrize("file", ["home.db", "graph.db", "full_text.db"])
def test_a_text_file_in_the_place_of_a_database_is_not_overwritten(file: str, tmp_path: Path) -> None:
    (tmp_path / file).write_text("dear diary " * 500)
    stores = {"home": {"url": f"sqlite:{tmp_path}/home.db"}, "copy": {"url": f"sqlite:{tmp_path}/{file}"}}
    config = {"stores": {"copy": stores["copy"]} if file == "home.db" else stores}
    with pytest.raises(StoreCorrupt, match=file):
        asyncio.run(HybridDataArchitecture.open(config, entities=[Sample]).__aenter__())
    assert (tmp_path / file).read_text() == "dear diary " * 500
