"""Stores that are full, in the middle of an application's writes: who cannot write is told, the others go on, and all
is well once there is room. (Elasticsearch: in the tests of its adapter.)

Not done, since these servers know no limit for what they keep: PostgreSQL, MongoDB, Neo4j and ChromaDB.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import sqlite3
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, ClassVar
from urllib.parse import urlsplit

import httpx
import obstore
import pytest
from polystore_adapters.s3.driver import get_session
from polystore_adapters.s3.options import read_options
from redis import Redis

from polystore import (
    FileRef,
    FullText,
    HybridDataArchitecture,
    Measure,
    OutcomeUnknown,
    StoreFull,
    Unavailable,
    entity,
)
from polystore.consistency import Settings
from polystore.consistency.verify import Verifier
from polystore.results import StoreStatus
from polystore.testing.places import fresh_name
from tests.loops import in_a_loop, settled
from tests.mysql import run
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


@entity()
@dataclass
class Diary:
    id: str
    mood: ClassVar[Measure[str]] = Measure(str)


def test_an_influxdb_whose_cache_is_full_is_kept_points_for(tmp_path: Path) -> None:
    """A shard refuses points while those that are not in a file yet take as much memory as they may."""
    settings = ["--storage-cache-max-memory-size=20000"]
    with own_server("influxdb", settings) as server:
        stores = {"home": {"url": f"sqlite:{tmp_path}/home.db", "roles": ["home"]}, "points": {"url": server.url}}

        async def main() -> None:
            async with HybridDataArchitecture.open({"stores": stores}, entities=[Diary], settings=PROMPT) as hda:
                diaries, moods, began = hda.collection(Diary), list[str](), datetime.now(UTC)

                async def append() -> StoreStatus:
                    moods.append(f"{len(moods)} {'x' * 1000}")
                    return (await diaries.append(Diary.mood, "a", moods[-1])).stores["points"]

                async def found() -> list[str]:
                    return [point.value for point in await diaries.series(Diary.mood, "a", start=began)]

                while await append() == "committed":
                    assert len(moods) < APPENDS_MAX, "it is never full"
                for _ in range(5):
                    assert await append() == "pending"
                assert await found() == moods[:-6], "what is there is read"
                await asyncio.to_thread(server.stop)
                settings.clear()
                await asyncio.to_thread(server.start)
                await settled(hda)
                assert await append() == "committed"
                assert await found() == moods

        asyncio.run(main())


@entity()
@dataclass
class Letter:
    """Its home is full."""

    id: str
    text: Annotated[str, FullText()]
    weight: str


@entity()
@dataclass
class Card:
    """Its copy is full."""

    id: str
    text: Annotated[str, FullText()]
    weight: str


Limited = tuple[Mapping[str, Any], Callable[[], object]]
"""A store as a configuration says it, which takes some tens of records of this weight; and what gives it more room."""
HEAVY = "x" * (1 << 20)
WRITES_MAX, APPENDS_MAX = 200, 100_000
"""Of one writer, until something must be full."""


@contextmanager
def sqlite(path: Path) -> Generator[Limited]:
    def other(statement: str) -> None:
        with contextlib.closing(sqlite3.connect(path)) as db:
            db.execute(statement)
            db.commit()

    settings = {"url": f"sqlite:{path}", "options": {"page_limit": (24 << 20) // 4096}}
    asyncio.run(opened({"stores": {"full": settings}}))
    other("CREATE TABLE other AS SELECT zeroblob(12 << 20)")
    yield settings, lambda: other("DROP TABLE other")


async def opened(config: Mapping[str, Any]) -> None:
    async with HybridDataArchitecture.open(config, entities=[Note]):
        """The file is polystore's."""


@contextmanager
def mysql(path: Path) -> Generator[Limited]:
    with own_server("mysql", [_file("48M")]) as mine:
        run(mine.url, "CREATE TABLE polystore.other AS SELECT REPEAT('x', 20 << 20)")
        yield {"url": mine.url}, lambda: run(mine.url, "DROP TABLE polystore.other")


@contextmanager
def mariadb(path: Path) -> Generator[Limited]:
    """Where there is no room, nothing can be removed either."""
    settings = [_file("32M")]
    with own_server("mariadb", settings) as mine:

        def more() -> None:
            mine.stop()
            settings[:] = [_file("256M")]
            mine.start()

        yield {"url": mine.url}, more


def _file(most: str) -> str:
    """For all tables, see https://dev.mysql.com/doc/refman/en/innodb-parameters.html#sysvar_innodb_data_file_path."""
    return f"--innodb-data-file-path=ibdata1:12M:autoextend:max:{most}"


class Records:
    """Of one class, as they were acknowledged."""

    def __init__(self, hda: HybridDataArchitecture, cls: type[Letter | Card]) -> None:
        self.cls = cls
        self.records = hda.collection(cls)
        self.written: dict[str, Letter | Card] = {}

    async def write(self, id: str) -> None:
        value = self.cls(id, f"글 {id}", HEAVY)
        await self.records.put(value)
        self.written[id] = value

    async def until_full(self, writer: str) -> None:
        async def write() -> None:
            for i in range(WRITES_MAX):
                await self.write(f"{writer}{i}")

        with pytest.raises(StoreFull, match="full"):
            await write()

    async def are_read(self) -> None:
        assert [one async for one in self.records.stream()] == [self.written[id] for id in sorted(self.written)]

    async def are_found(self) -> None:
        found = await self.records.search("글", limit=100)
        assert {hit.value.id for hit in found} == self.written.keys()


@pytest.mark.parametrize("limited", [sqlite, mysql, mariadb])
def test_a_full_database_refuses_writes_as_a_home_and_is_owed_them_as_a_copy(
    limited: Callable[[Path], AbstractContextManager[Limited]], tmp_path: Path
) -> None:
    with limited(tmp_path / "full.db") as (settings, more):
        config = {
            "stores": {"free": {"url": f"sqlite:{tmp_path}/free.db"}, "full": settings},
            "pins": {"letter": {"home": "full", "full_text": "free"}, "card": {"home": "free", "full_text": "full"}},
        }
        asyncio.run(filled(config, tmp_path / "free.db", more))


async def filled(config: Mapping[str, Any], journal: Path, more: Callable[[], object]) -> None:
    async with HybridDataArchitecture.open(config, entities=[Letter, Card], settings=PROMPT) as hda:
        letters, cards = Records(hda, Letter), Records(hda, Card)
        async with asyncio.TaskGroup() as writing:
            for writer in "abc":
                writing.create_task(letters.until_full(writer))
        with pytest.raises(StoreFull, match="full"):
            await letters.records.put(Letter("a0", "더 크게", HEAVY * 2))
        for i in range(5):
            await cards.write(str(i))
        await letters.are_read()
        await cards.are_read()
        await the_reason_is_told(journal)
        await asyncio.to_thread(more)
        await again(lambda: letters.write("a0"))
        await cards.write("0")
        await nothing_is_owed(hda)
        for records in (letters, cards):
            await records.are_read()
            await records.are_found()


async def the_reason_is_told(journal: Path) -> None:
    with contextlib.closing(sqlite3.connect(journal)) as db:
        async with asyncio.timeout(60):
            while set(db.execute("SELECT error_class FROM ps_retry")) != {("transient:StoreFull",)}:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def again(write: Callable[[], Awaitable[object]]) -> None:
    """Until it is done: who was connected to a server that was stopped is told so."""
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(Unavailable, OutcomeUnknown):
                await write()
                return
            await asyncio.sleep(0.05)


async def nothing_is_owed(hda: HybridDataArchitecture) -> None:
    await settled(hda)
    verifier = Verifier(hda.stores, hda.manager.placements, hda.manager.embedders)
    for etype in ("letter", "card"):
        assert [one async for one in verifier.differences(etype)] == []
    for line in hda.manager.lines.values():
        assert line.backlog is not None
        assert line.backlog.parked == {}
