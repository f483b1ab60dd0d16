"""Servers that are full, in the middle of an application's writes: who cannot write is told, the others go on, and all
is well once there is room. (Elasticsearch and the file of SQLite: in the tests of their adapters.)"""

from __future__ import annotations

import importlib
import json
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import httpx
import obstore
import pytest
from polystore_adapters.s3.driver import get_session
from polystore_adapters.s3.options import read_options
from redis import Redis

from polystore import FileRef, FullText, HybridDataArchitecture, StoreFull, entity
from polystore.consistency import Settings
from polystore.consistency.verify import Verifier
from polystore.testing.places import fresh_name
from tests.loops import in_a_loop, settled
from tests.stack import own_server, url_of

PROMPT = Settings(awaken_spread_s=0.01, retry_max_s=0.1)


@entity()
@dataclass
class Note:
    id: str
    text: Annotated[str, FullText()]
    photo: FileRef | None = None


@entity(data_type="live_state")
@dataclass
class Turns:
    id: str
    n: int = 0


@in_a_loop
async def test_a_redis_without_room_refuses_state_and_is_passed_over_as_a_cache(tmp_path: Path) -> None:
    with own_server("redis") as server:
        driver: Any = Redis
        client = driver.from_url(server.url)
        stores = {
            "home": {"url": f"sqlite:{tmp_path}/home.db", "roles": ["home", "full_text"]},
            "live": {"url": server.url, "roles": ["cache", "live_state"]},
            "files": {"url": f"file:{tmp_path}/files"},
        }
        config = {"stores": stores, "pins": {"note": {"cache": "live"}}}
        async with HybridDataArchitecture.open(config, entities=[Note, Turns], settings=PROMPT) as hda:
            notes, turns = hda.collection(Note), hda.state(Turns)
            for i in range(20):
                await notes.put(Note(str(i), "전"), ack="applied")
                await notes.get(str(i))
            assert await turns.incr("a", "n") == 1
            client.config_set("maxmemory-policy", "noeviction")
            client.config_set("maxmemory", 1)
            for i in range(20):
                told = await notes.put(Note(str(i), "후"))
                assert await notes.get(str(i), after=told.token) == Note(str(i), "후")
            with pytest.raises(StoreFull, match="live"):
                await turns.incr("a", "n")
            client.config_set("maxmemory", 0)
            assert await turns.incr("a", "n") == 2
            await settled(hda)
            assert [one.text for one in await notes.get_many([str(i) for i in range(20)]) if one] == ["후"] * 20
            verifier = Verifier(hda.stores, hda.manager.placements, hda.manager.embedders)
            assert [one async for one in verifier.differences("note")] == []
        client.close()


def quota(url: str, size: int) -> None:
    """Of a bucket, as MinIO's own client sets it: https://github.com/minio/madmin-go, SetBucketQuota."""
    place = read_options(url, {})
    body = json.dumps({"quota": size, "quotatype": "hard"})
    asked = f"http://{urlsplit(url).netloc.rpartition('@')[2]}/minio/admin/v3/set-bucket-quota?bucket={place.bucket}"
    auth, made, credentials = (
        importlib.import_module(f"botocore.{one}") for one in ("auth", "awsrequest", "credentials")
    )
    request: Any = made.AWSRequest("PUT", asked, data=body)
    who = credentials.Credentials(place.options.access_key, place.options.secret_key)
    auth.S3SigV4Auth(who, "s3", "us-east-1").add_auth(request)
    httpx.put(asked, content=body, headers=dict(request.headers.items())).raise_for_status()


@contextmanager
def bucket() -> Generator[str]:
    """The URL of a bucket that `open` makes and that is removed at the end."""
    url = f"{url_of('minio').rpartition('/')[0]}/{fresh_name().replace('_', '-')}"
    try:
        yield url
    finally:
        place = read_options(url, {})
        found: Any = obstore.list(place.store())  # pyright: ignore[reportUnknownMemberType]
        obstore.delete(place.store(), [one["path"] for one in found.collect()])
        client: Any = get_session().create_client(
            "s3",
            endpoint_url=f"http://{urlsplit(url).netloc.rpartition('@')[2]}",
            aws_access_key_id=place.options.access_key,
            aws_secret_access_key=place.options.secret_key,
            region_name="us-east-1",
        )
        client.delete_bucket(Bucket=place.bucket)
        client.close()


@in_a_loop
async def test_a_bucket_at_its_quota_refuses_content_and_nothing_else(tmp_path: Path) -> None:
    with bucket() as url:
        stores = {"home": {"url": f"sqlite:{tmp_path}/home.db"}, "files": {"url": url, "required": False}}
        async with HybridDataArchitecture.open({"stores": stores}, entities=[Note], settings=PROMPT) as hda:
            notes = hda.collection(Note)
            quota(url, 1 << 20)
            small = await hda.files.save(b"fits")
            await notes.put(Note("a", "가", small))
            with pytest.raises(StoreFull, match="files"):
                await hda.files.save(b"x" * (2 << 20))
            await notes.put(Note("b", "나"))
            assert await hda.files.read(small) == b"fits"
            quota(url, 8 << 20)
            large = await hda.files.save(b"x" * (2 << 20))
            await notes.put(Note("b", "나", large))
            assert len(await hda.files.read(large)) == 2 << 20
            assert (await hda.sweep_files(older_than_s=0)).removed == 0, "nothing stays of what was refused"
