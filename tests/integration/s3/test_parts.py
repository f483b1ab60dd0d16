"""Parts whose sending fails in the middle, and parts that several processes discard."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import uuid4

import obstore
import pytest
from polystore_adapters.s3 import connect, driver, objects
from polystore_adapters.s3.options import read_options

from polystore import Unavailable
from polystore.env import Env
from polystore.model import StoredObject, Upload
from tests.loops import in_a_loop
from tests.stack import server

minio = server("minio")
PART = 5 << 20


@pytest.fixture
def place(minio: str) -> Iterator[str]:
    url = f"{minio}/test-{uuid4()}"
    yield url
    place = read_options(url, {})
    found: Any = obstore.list(place.store(), place.prefix)  # pyright: ignore[reportUnknownMemberType]
    obstore.delete(place.store(), [one["path"] for one in found.collect()])


@pytest.mark.parametrize("failing", [1, 2])
@in_a_loop
async def test_a_part_that_is_sent_again_brings_the_first_along(
    place: str, failing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    store: Any = await connect(place, {"part_mb": 5}, Env())
    try:
        await store.prepare([], create=True)
        ask, failed = store._bucket.ask, list[int]()

        async def failing_once(operation: str, **given: Any) -> Any:
            if given.get("PartNumber") == failing and not failed:
                failed.append(failing)
                raise OSError("the cable")
            return await ask(operation, **given)

        async def again(index: int, data: bytes) -> None:
            try:
                await store.put_part(upload, index, data)
            except (OSError, Unavailable):
                await store.put_part(upload, index, data)

        monkeypatch.setattr(store._bucket, "ask", failing_once)
        upload = Upload(f"k/{uuid4()}", str(uuid4()))
        data = bytes(PART) + b"the end"
        await again(0, data[:PART])
        await again(1, data[PART:])
        assert failed == [failing]
        made = StoredObject(upload.key, len(data), hashlib.sha256(data).hexdigest(), "image/png", 0)
        await store.finish_object(upload, made)
        assert await store.read_object(upload.key, 0, len(data)) == data
        await store.remove_objects([upload.key])
    finally:
        await store.aclose()


@in_a_loop
async def test_an_upload_that_somebody_else_discards_first_is_passed_over(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = Env()
    stores: list[Any] = [await connect(place, {"part_mb": 5}, env) for _ in range(2)]
    try:
        await stores[0].prepare([], create=True)
        upload = Upload(f"k/{uuid4()}", str(env.uuid7()))
        await stores[0].put_part(upload, 0, bytes(PART))
        await stores[0].put_part(upload, 1, b"more")
        listed, found = driver.listed, list[str]()

        async def overtaken(*args: Any, **given: Any) -> AsyncIterator[Any]:
            async for chunk in listed(*args, **given):
                monkeypatch.setattr(objects, "listed", listed)
                found.extend(one["path"] for one in chunk)
                assert not await stores[1].discard_parts(-60_000_000)
                yield chunk

        monkeypatch.setattr(objects, "listed", overtaken)
        assert not await stores[0].discard_parts(-60_000_000)
        assert len(found) == 1
    finally:
        for store in stores:
            await store.aclose()
