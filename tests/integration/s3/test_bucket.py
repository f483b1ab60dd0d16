"""What the options ask of the bucket: versions, a life cycle, tags; asked for of the server itself."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest
from polystore_adapters.s3 import connect
from polystore_adapters.s3.options import read_options

from polystore import ConfigurationError, FileRef, HybridDataArchitecture, SchemaMismatch, entity
from polystore.env import Env
from polystore.protocols import SupportsObjects
from tests.loops import in_a_loop
from tests.stack import server

minio = server("minio")
ASKED = {"versioning": True, "noncurrent_days": 30, "tags": {"team": "archive"}}


@entity()
@dataclass
class Photo:
    id: str
    content: FileRef | None = None


@pytest.fixture
def place(minio: str) -> Iterator[str]:
    """A bucket of the test's own, with a prefix."""
    url = f"{minio.rpartition('/')[0]}/test-{uuid4()}/app"
    yield url
    client, bucket = control(url)
    try:
        listed = client.list_object_versions(Bucket=bucket)
        for one in [*listed.get("Versions", []), *listed.get("DeleteMarkers", [])]:
            client.delete_object(Bucket=bucket, Key=one["Key"], VersionId=one["VersionId"])
        client.delete_bucket(Bucket=bucket)
    finally:
        client.close()


def control(url: str) -> tuple[Any, str]:
    made = read_options(url, {})
    return made.control(), made.bucket


def opened(url: str, options: Mapping[str, Any]) -> Any:
    stores = {"main": {"url": "memory:"}, "files": {"url": url, "roles": ["file"], "options": dict(options)}}
    return HybridDataArchitecture.open({"stores": stores}, entities=[Photo])


async def validate(url: str) -> None:
    store: Any = await connect(url, ASKED, Env())
    try:
        await store.prepare([], create=False)
    finally:
        await store.aclose()


@in_a_loop
async def test_the_bucket_is_made_as_the_options_ask(place: str) -> None:
    async with opened(place, ASKED) as hda:
        client, bucket = hda.client("files"), control(place)[1]
        assert client.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
        (rule,) = client.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
        assert rule["NoncurrentVersionExpiration"] == {"NoncurrentDays": 30}
        assert (rule["Filter"], rule["Status"]) == ({"Prefix": "app/"}, "Enabled")
        assert client.get_bucket_tagging(Bucket=bucket)["TagSet"] == [{"Key": "team", "Value": "archive"}]
    await validate(place)  # nothing is different


@in_a_loop
async def test_what_somebody_else_has_set_stays(place: str) -> None:
    async with opened(place, {}) as hda:
        client, bucket = hda.client("files"), control(place)[1]
        other = {
            "ID": "theirs",
            "Status": "Enabled",
            "Filter": {"Prefix": "theirs/"},
            "Expiration": {"Days": 7},
        }
        client.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": [other]})
        client.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": [{"Key": "cost", "Value": "42"}]})
    with pytest.raises(SchemaMismatch, match=r"versioning is off, no rule removes .* 30 days ago, its tags are others"):
        await validate(place)
    for days in (30, 60):
        async with opened(place, {**ASKED, "noncurrent_days": days}) as hda:
            client = hda.client("files")
            rules = client.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
            kept = {one["ID"]: one.get("NoncurrentVersionExpiration", {}).get("NoncurrentDays") for one in rules}
            assert kept == {"theirs": None, "polystore app/": days}
            tags = {one["Key"]: one["Value"] for one in client.get_bucket_tagging(Bucket=bucket)["TagSet"]}
            assert tags == {"cost": "42", "team": "archive"}


@in_a_loop
async def test_a_version_of_removed_content_is_kept_by_the_server(place: str) -> None:
    async def content() -> AsyncIterator[bytes]:
        yield "사진".encode()

    async with opened(place, ASKED) as hda:
        ref = await hda.files.save(content())
        files = hda.stores["files"]
        await files.call(SupportsObjects.remove_objects, [ref.key])
        assert await files.call(SupportsObjects.stat_objects, [ref.key]) == [None]
        client, bucket = hda.client("files"), control(place)[1]
        versions = client.list_object_versions(Bucket=bucket, Prefix="app/objects/")["Versions"]
        (kept,) = [one for one in versions if ref.key in one["Key"]]
        body = client.get_object(Bucket=bucket, Key=kept["Key"], VersionId=kept["VersionId"])["Body"].read()
        assert body == "사진".encode()


@pytest.mark.parametrize("options", [{"noncurrent_days": 3}, {"versioning": True, "noncurrent_days": 0}])
def test_a_life_cycle_without_versions_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="needs versioning"):
        read_options("minio://a:b@127.0.0.1:9/bucket", options)
