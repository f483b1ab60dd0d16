"""Files of an application in MinIO: what others find there, what a restart does, what a refusal says."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import obstore
import pytest
from polystore_adapters.s3 import connect
from polystore_adapters.s3.options import read_options

from polystore import (
    ConfigurationError,
    FileRef,
    HybridDataArchitecture,
    NotFound,
    PermissionDenied,
    PolystoreError,
    SchemaMismatch,
    StoreCorrupt,
    Unavailable,
    entity,
)
from polystore.env import Env
from polystore.model import StoredObject, Upload
from polystore.testing.places.s3 import own_objects
from tests.loops import in_a_loop
from tests.stack import own_server, server

minio = server("minio")
PART = 5 << 20


@entity()
@dataclass
class Photo:
    id: str
    content: FileRef | None = None


@pytest.fixture
def place(minio: str) -> Iterator[str]:
    """A prefix of the test's own."""
    with own_objects(minio) as url:
        yield url


def paths(url: str) -> list[str]:
    """All objects below the prefix, by the driver alone; but for the note of who owns it."""
    place = read_options(url, {})
    found: Any = obstore.list(place.store(), place.prefix)  # pyright: ignore[reportUnknownMemberType]
    return sorted(one["path"] for one in found.collect() if "~polystore" not in one["path"])


def application(folder: Path, url: str) -> Any:
    stores = {
        "home": {"url": f"sqlite:{folder}/home.db", "roles": ["home"]},
        "files": {"url": url, "roles": ["file"], "options": {"part_mb": 5}},
    }
    return HybridDataArchitecture.open({"stores": stores}, entities=[Photo])


async def parts_of(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 1 << 20):
        yield data[start : start + (1 << 20)]


@in_a_loop
async def test_content_is_an_object_that_others_read(tmp_path: Path, place: str) -> None:
    small, large = b"\x89PNG" * 100, Env().random.randbytes(2 * PART + 77)
    async with application(tmp_path, place) as hda:
        photos = hda.collection(Photo)
        for name, data in {"small": small, "large": large}.items():
            ref = await hda.files.save(parts_of(data), content_type="image/png")
            await photos.put(Photo(name, ref))
            assert ref.sha256 == hashlib.sha256(data).hexdigest()
            assert await hda.files.read(ref) == data
            async with hda.files.open(ref, start=3, end=len(data) - 1) as chunks:
                assert b"".join([chunk async for chunk in chunks]) == data[3:-1]
            async with httpx.AsyncClient() as client:
                assert (await client.get(await hda.files.url(ref, expires_s=60))).content == data
                bare = (await hda.files.url(ref)).partition("?")[0]
                assert (await client.get(bare)).status_code == 403
        folders = [path.split("/")[1] for path in paths(place)]
        assert folders == ["objects", "objects", "parts"], "and nothing is pending"
        head = hda.client("files").head_object(Bucket="polystore", Key=paths(place)[0])
        assert head["ContentType"] == "image/png"


@in_a_loop
async def test_content_that_no_record_names_is_swept_with_its_parts(tmp_path: Path, place: str) -> None:
    async with application(tmp_path, place) as hda:
        kept = await hda.files.save(parts_of(bytes(PART + 1)))
        await hda.collection(Photo).put(Photo("a", kept))
        gone = await hda.files.save(parts_of(bytes(PART + 2)))
        report = await hda.sweep_files(older_than_s=0)
        assert (report.examined, report.removed) == (2, 1)
        with pytest.raises(NotFound):
            await hda.files.read(gone)
        assert len(await hda.files.read(kept)) == PART + 1
        assert len(paths(place)) == 2


@in_a_loop
async def test_a_stream_that_breaks_leaves_nothing(tmp_path: Path, place: str) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield bytes(2 * PART)
        raise RuntimeError("the camera fell")

    async with application(tmp_path, place) as hda:
        with pytest.raises(RuntimeError, match="camera"):
            await hda.files.save(broken())
        assert paths(place) == []
        assert "Uploads" not in hda.client("files").list_multipart_uploads(Bucket="polystore", Prefix=place[-41:])


@in_a_loop
async def test_content_that_somebody_removed_is_corrupt_and_not_missing(tmp_path: Path, place: str) -> None:
    async with application(tmp_path, place) as hda:
        ref = await hda.files.save(parts_of(bytes(PART + 1)))
        obstore.delete(read_options(place, {}).store(), [path for path in paths(place) if "/parts/" in path])
        with pytest.raises(StoreCorrupt, match="missing"):
            await hda.files.read(ref)


@in_a_loop
async def test_an_object_of_somebody_else_is_named(place: str) -> None:
    store = await connect(place, {}, Env())
    await store.prepare([], create=True)
    where = read_options(place, {})
    obstore.put(where.store(), f"{where.prefix}objects/a!", b"mine")
    with pytest.raises(StoreCorrupt, match="not put there by polystore"):
        await store.stat_objects(["a"])
    await store.aclose()


@in_a_loop
async def test_a_server_that_restarts_has_what_it_answered_for() -> None:
    with own_server("minio") as mine:
        store = await connect(mine.url, {"part_mb": 5, "timeout_s": 5}, Env())
        await store.prepare([], create=True)
        upload, data = Upload("a", str(Env().uuid7())), Env().random.randbytes(PART + 9)
        await store.put_part(upload, 0, data[:PART])
        await store.put_part(upload, 1, data[PART:])
        mine.kill()
        for call in (
            store.stat_objects(["a"]),
            store.read_object("a", 0, 1),
            store.ping(),
            store.put_part(upload, 1, b""),
        ):
            with pytest.raises(Unavailable):
                await call
        mine.start()
        made = StoredObject("a", len(data), hashlib.sha256(data).hexdigest(), "text/plain")
        await store.finish_object(upload, made)
        mine.kill()
        mine.start()
        assert await store.read_object("a", PART, PART + 9) == data[PART:]
        await store.aclose()
        with pytest.raises(Unavailable):
            await store.ping()


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (("polystore-test@", "wrong@"), PermissionDenied, "policy"),
        (("/polystore/", "/no-such-bucket/"), SchemaMismatch, "no-such-bucket.*polystore init"),
    ],
)
@in_a_loop
async def test_a_refusal_says_what_to_do_and_no_secret(
    place: str, change: tuple[str, str], error: type[PolystoreError], says: str
) -> None:
    store = await connect(place.replace(*change), {}, Env())
    upload = Upload("a", "b")
    await store.put_part(upload, 0, b"x")
    for call in (store.prepare([], create=False), store.finish_object(upload, StoredObject("a", 1, "", "t"))):
        with pytest.raises(error, match=says) as caught:
            await call
        assert "polystore-test" not in str(caught.value)
    await store.aclose()


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("minio://host:1", {}),
        ("s3:bucket", {}),
        ("s3://bucket?x=1", {}),
        ("s3://bucket/a//b", {}),
        ("s3://bucket", {"part_mb": 1}),
        ("s3://bucket", {"access_key": "only"}),
        ("s3://bucket", {"acess_key": "typo"}),
    ],
)
@in_a_loop
async def test_what_makes_no_sense_is_refused_before_anything_is_asked(url: str, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        await connect(url, options, Env())
