"""What happens to calls when the server restarts, is killed or refuses, and what the driver is told and asked."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from motor.motor_asyncio import AsyncIOMotorClient
from polystore_adapters.mongodb import connect
from polystore_adapters.mongodb.repository import MongoRepository
from pymongo import AsyncMongoClient, MongoClient
from pymongo.monitoring import CommandListener, ConnectionPoolListener

from polystore.entity import EntityType
from polystore.env import Env
from polystore.errors import (
    ConfigurationError,
    IntegrityViolation,
    OutcomeUnknown,
    PermissionDenied,
    PolystoreError,
    SchemaMismatch,
    Unavailable,
    UnsupportedOperation,
    ValueTooLarge,
)
from polystore.filters import F
from polystore.model import EVERYTHING, Change, Key
from polystore.protocols import Layout
from polystore.testing.conformance.base import change, key_of, removal
from polystore.testing.conformance.entities import ACCOUNT, ARTICLE, THING, Account, Article, Thing
from polystore.text import query
from tests.mongodb import fresh_database
from tests.sockets import forgotten_connections
from tests.stack import own_server, url_of

pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
WRITES, READS = {"insert", "update", "delete", "findAndModify"}, {"find", "aggregate", "distinct", "count"}


@pytest.fixture(autouse=True)
def forgotten() -> Generator[None]:
    with forgotten_connections():
        yield


@pytest.fixture
def url() -> Generator[str]:
    with fresh_database() as url:
        yield url


@asynccontextmanager
async def store(url: str, *types: EntityType[Any], **options: Any) -> AsyncGenerator[MongoRepository]:
    made = await connect(url, options, Env())
    try:
        layouts = [Layout(one, False, frozenset({"full_text"} if one.full_text else ())) for one in types or (THING,)]
        await made.prepare(layouts, create=True)
        yield made
    finally:
        await made.aclose()


def thing(id: str, version: int, **fields: Any) -> Change:
    return change(THING, Thing(id=id, **fields), version)


def asked(url: str) -> MongoClient[dict[str, Any]]:
    """The driver's own client, as another program has it."""
    return MongoClient[dict[str, Any]](url)


class Commands(CommandListener):
    """What was sent."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []

    def started(self, event: Any) -> None:
        self.sent.append(dict(event.command))

    def succeeded(self, event: Any) -> None: ...

    def failed(self, event: Any) -> None: ...

    def named(self, name: str) -> list[dict[str, Any]]:
        return [one for one in self.sent if name in one]


def plain(command: Mapping[str, Any]) -> dict[str, Any]:
    """A command without what the driver adds of its own."""
    return {name: value for name, value in command.items() if name not in ("lsid", "$db", "$clusterTime")}


class CheckedOut(ConnectionPoolListener):
    """How many connections are in use."""

    def __init__(self) -> None:
        self.now = self.most = 0

    def connection_checked_out(self, event: Any) -> None:
        self.now += 1
        self.most = max(self.most, self.now)

    def connection_checked_in(self, event: Any) -> None:
        self.now -= 1

    def pool_created(self, event: Any) -> None: ...
    def pool_ready(self, event: Any) -> None: ...
    def pool_cleared(self, event: Any) -> None: ...
    def pool_closed(self, event: Any) -> None: ...
    def connection_created(self, event: Any) -> None: ...
    def connection_ready(self, event: Any) -> None: ...
    def connection_closed(self, event: Any) -> None: ...
    def connection_check_out_started(self, event: Any) -> None: ...
    def connection_check_out_failed(self, event: Any) -> None: ...


async def again(call: Callable[[], Awaitable[Any]]) -> Any:
    """What the retry layer does with changes, which may be repeated."""
    for _ in range(400):
        try:
            return await call()
        except (Unavailable, OutcomeUnknown):
            await asyncio.sleep(0.05)
    raise AssertionError("the server never came back")


# -- outages ------------------------------------------------------------------------------------------------------


def test_restarts_in_the_middle_of_writes_lose_nothing_that_was_acknowledged() -> None:
    acknowledged: dict[str, int] = {}
    latest: list[int] = []

    async def writer(mongo: MongoRepository, number: int, stop: asyncio.Event) -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            batch = [thing(f"{number}-{turn % 20}", turn, number=turn), thing("all", number * 100_000 + turn)]
            outcomes = await again(lambda: mongo.apply(batch))  # noqa: B023
            assert {one.status for one in outcomes} <= {"applied", "stale"}
            acknowledged[batch[0].key.id] = turn
            latest.append(batch[1].version)

    async def more() -> None:
        total = sum(acknowledged.values())
        for _ in range(3_000):
            if sum(acknowledged.values()) >= total + 200:
                return
            await asyncio.sleep(0.01)
        raise AssertionError("no write succeeds any more")

    async def main() -> None:
        with own_server("mongodb") as mine:
            async with store(f"{mine.url}&appname=x", database="app", connect_timeout_s=1) as mongo:
                before = await mongo.ping()
                stop = asyncio.Event()
                writers = [asyncio.create_task(writer(mongo, i, stop)) for i in range(4)]
                for end in (lambda: mine.kill("ferretdb"), lambda: mine.kill("postgres"), mine.stop):
                    await more()
                    await asyncio.to_thread(end)
                    await asyncio.to_thread(mine.start)
                await more()
                stop.set()
                await asyncio.gather(*writers)
                after = await again(mongo.ping)
                assert (after.data_id, after.run_id != before.run_id) == (before.data_id, True)
                records = await mongo.get([Key("", THING.name, id) for id in acknowledged])
                assert [one and one.version for one in records] == list(acknowledged.values())
                (shared,) = await mongo.get([Key("", THING.name, "all")])
                assert shared is not None
                assert shared.version == max(latest), "the newest of what all wrote stands"

    asyncio.run(main())


def test_a_server_that_is_away_is_unavailable_and_never_an_empty_answer() -> None:
    async def main() -> None:
        with own_server("mongodb") as mine:
            async with store(mine.url, THING, ARTICLE, database="app", connect_timeout_s=0.5) as mongo:
                await mongo.apply([thing("a", 1)])
                calls: Sequence[Callable[[], Awaitable[object]]] = (
                    lambda: mongo.get([Key("", THING.name, "a")]),
                    lambda: mongo.find(THING.name, "", None, (), 10),
                    lambda: mongo.search(ARTICLE.name, "", query("학교"), None, 10, None),
                    lambda: mongo.newest(THING.name),
                    lambda: mongo.tenants(THING.name),
                )
                for process in ("postgres", "ferretdb"):
                    await asyncio.to_thread(mine.kill, process)
                    for call in calls:
                        with pytest.raises(Unavailable):
                            await call()
                    with pytest.raises((Unavailable, OutcomeUnknown)):
                        await mongo.apply([thing("a", 2)])

    asyncio.run(main())


def test_cancelled_calls_leave_no_connection_in_use_and_no_more_are_made_than_allowed(url: str) -> None:
    async def main() -> None:
        seen = CheckedOut()
        async with store(url, pool_size=4, event_listeners=[seen]) as mongo:
            await mongo.apply([thing(f"{i}", 1) for i in range(50)])
            keys = [Key("", THING.name, f"{i}") for i in range(50)]
            for turn in range(60):
                tasks: list[asyncio.Task[Any]] = [
                    asyncio.create_task(mongo.get(keys)),
                    asyncio.create_task(mongo.apply([thing("a", turn + 1)])),
                    asyncio.create_task(mongo.find(THING.name, "", None, THING.sort([]), 10)),
                ]
                for _ in range(turn % 12):
                    await asyncio.sleep(0)
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                assert seen.now == 0
            await asyncio.gather(*(mongo.get(keys) for _ in range(20)))
            assert (seen.now, seen.most <= 4) == (0, True)

    asyncio.run(main())


# -- clients, URLs, options ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [AsyncMongoClient[dict[str, Any]], AsyncIOMotorClient])
def test_a_client_of_the_program_s_own_is_asked_and_stays_open(url: str, make: Callable[[str], Any]) -> None:
    async def main() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of motor, past its end of life
            client = make(url)
        async with store(
            "mongodb:", THING, ARTICLE, client=client, database=url.rpartition("/")[2].partition("?")[0]
        ) as mongo:
            assert mongo.client is client
            await mongo.apply([thing("a", 1, word="x"), removal(key_of(THING, "b"), 2)])
            await mongo.apply([change(ARTICLE, Article(id="a", title="우리 학교"), 1)])
            (found,) = await mongo.find(THING.name, "", THING.condition(F.word == "x"), THING.sort([]), 10)
            assert found.key.id == "a"
            assert [one.id for one in await mongo.search(ARTICLE.name, "", query("학교"), None, 10, None)] == ["a"]
            assert (await mongo.tenants(THING.name), await mongo.newest(THING.name)) == ([""], 2)
            assert (await mongo.ping()).data_id
        with pytest.raises(Unavailable, match="closed"):
            await mongo.get([Key("", THING.name, "a")])
        assert (await client.admin.command("ping"))["ok"] == 1
        closing = client.close()
        if closing is not None:
            await closing

    asyncio.run(main())


def test_the_url_and_options_are_the_driver_s_own_and_the_url_counts(url: str) -> None:
    async def main() -> None:
        async with store(f"{url}&maxPoolSize=3&w=1", pool_size=9, compressors="zlib") as mongo:
            options = mongo.client.options
            assert options.pool_options.max_pool_size == 3
            assert options.pool_options._compression_settings.compressors == ["zlib"]
            assert not options.retry_writes
        async with store(url, pool_size=9) as mongo:
            assert mongo.client.options.pool_options.max_pool_size == 9
        for given in ({"poolsize": 3}, {"tlsCAFile": "/nothing/here"}, {"pool_size": 0}, {"client": object()}):
            with pytest.raises(ConfigurationError) as caught:
                await connect(url, given, Env())
            assert "polystore-test" not in str(caught.value)
        for bad in (
            url.replace("/kit_", "/?x=kit_"),
            "mongodb://a:secret@@host/x",
            url_of("mongodb"),
            f"{url}&tls=perhaps",
        ):
            with pytest.raises(ConfigurationError) as caught:
                await connect(bad, {}, Env())
            assert "secret" not in str(caught.value)

    asyncio.run(main())


def test_what_is_refused_is_told_and_never_shows_the_password(url: str) -> None:
    async def refused(url: str) -> PolystoreError:
        with pytest.raises(PolystoreError) as caught:
            async with store(url, connect_timeout_s=0.5):
                pass
        assert "polystore-test" not in str(caught.value)
        assert "wrong" not in str(caught.value)
        return caught.value

    async def main() -> None:
        assert isinstance(await refused(url.replace(":polystore-test@", ":wrong@")), PermissionDenied)
        assert isinstance(await refused("mongodb://polystore:polystore-test@127.0.0.1:1/x"), Unavailable)
        assert isinstance(await refused("mongodb+srv://polystore:polystore-test@a.b.invalid/x"), Unavailable)
        async with store(url) as mongo:
            with pytest.raises(UnsupportedOperation, match="no facts or state"):
                await mongo.prepare([Layout(THING, True, frozenset(), kind="fact")], create=True)

    asyncio.run(main())


# -- what is refused ----------------------------------------------------------------------------------------------


def test_a_unique_index_of_another_program_rejects_one_record_and_no_other(url: str) -> None:
    """It looks like the race of two writers that insert the same record, which is none."""

    def account(id: str, email: str, version: int) -> Change:
        return change(ACCOUNT, Account(id=id, email=email), version)

    async def main() -> None:
        own = {
            ACCOUNT.name: {"indexes": {"theirs": {"keys": {"email": 1}, "options": {"unique": True, "sparse": True}}}}
        }
        async with store(url, ACCOUNT, collections=own) as mongo:
            await mongo.apply([account("a", "a@x", 1), account("b", "b@x", 1)])
            outcomes = await mongo.apply([account("a", "b@x", 2), account("c", "a@x", 2), account("d", "d@x", 2)])
            assert [one.status for one in outcomes] == ["rejected", "rejected", "applied"]
            for one in outcomes[:2]:
                assert isinstance(one.error, IntegrityViolation)
                assert "@x" not in str(one.error)
            found = await mongo.get([key_of(ACCOUNT, id) for id in "abcd"])
            assert [one and one.version for one in found] == [1, 1, None, 2]
            keys = [f"race-{i}" for i in range(40)]
            await asyncio.gather(*(mongo.apply([account(id, id, v)]) for id in keys for v in (1, 2, 3, 4)))
            assert {one and one.version for one in await mongo.get([key_of(ACCOUNT, id) for id in keys])} == {4}

    asyncio.run(main())


class Purge(CommandListener):
    """Removes tombstones, as the server does by their index, between the look at what stands and the write."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._looks: set[int] = set()
        self.removed = 0

    def started(self, event: Any) -> None:
        if event.command.get("find") == THING.name:
            self._looks.add(event.request_id)

    def failed(self, event: Any) -> None: ...

    def succeeded(self, event: Any) -> None:
        if event.request_id in self._looks:
            with asked(self._url) as client:
                things = client.get_default_database()[THING.name]
                self.removed += things.delete_many({"ps_deleted": True}).deleted_count


def test_what_is_purged_between_the_look_and_the_write_is_written(url: str) -> None:
    async def main() -> None:
        async with store(url) as mongo:
            await mongo.apply([removal(key_of(THING, id), 1) for id in "ab"])
        purge = Purge(url)
        async with store(url, event_listeners=[purge]) as mongo:
            outcomes = await mongo.apply([thing("a", 2), removal(key_of(THING, "b"), 2)])
            assert (purge.removed, [one.status for one in outcomes]) == (2, ["applied"] * 2)
        async with store(url) as mongo:
            found = await mongo.get([key_of(THING, id) for id in "ab"])
            assert [one and (one.version, one.body is None) for one in found] == [(2, False), (2, True)]

    asyncio.run(main())


def test_a_record_that_no_document_holds_is_rejected_before_it_is_sent(url: str) -> None:
    async def main() -> None:
        async with store(url, ARTICLE) as mongo:
            large = change(ARTICLE, Article(id="large", title="학교 " * 1_000_000), 1)
            first, second = await mongo.apply([large, change(ARTICLE, Article(id="small", title="학교"), 1)])
            assert isinstance(first.error, ValueTooLarge)
            assert second.status == "applied"

    asyncio.run(main())


def test_an_index_that_is_another_one_is_told_and_not_touched(url: str) -> None:
    async def main() -> None:
        async with store(url):
            pass
        with asked(url) as client:
            things = client.get_default_database()[THING.name]
            things.drop_index("ps_purge")
            with pytest.raises(SchemaMismatch, match="indexes are missing: ps_purge"):
                await prepared(url, create=False)
            things.create_index([("ps_purge_at", 1)], name="ps_purge", expireAfterSeconds=5)
            for create in (False, True):
                with pytest.raises(SchemaMismatch, match="'ps_purge' of 'kit_thing' is another one"):
                    await prepared(url, create=create)
            assert things.index_information()["ps_purge"]["expireAfterSeconds"] == 5
            things.drop_index("ps_purge")
        await prepared(url, create=True)
        await prepared(url, create=False)

    async def prepared(url: str, *, create: bool) -> None:
        mongo = await connect(url, {}, Env())
        try:
            await mongo.prepare([Layout(THING, False, frozenset())], create=create)
        finally:
            await mongo.aclose()

    asyncio.run(main())


def test_capped_collections_and_shard_keys_are_asked_for(url: str) -> None:
    """What the server makes of it is its own: FerretDB takes `capped` and keeps everything, and has no shards."""

    async def main() -> None:
        sent = Commands()
        capped = {"capped_bytes": 1 << 20, "capped_documents": 5}
        async with store(url, ARTICLE, event_listeners=[sent], collections={ARTICLE.name: capped}) as mongo:
            (made,) = sent.named("create")
            assert plain(made) == {"create": ARTICLE.name, "capped": True, "size": 1 << 20, "max": 5}
            (indexes,) = sent.named("createIndexes")
            # MongoDB before 7.1 makes no TTL index on a capped collection: error 67.
            assert not [one for one in indexes["indexes"] if "expireAfterSeconds" in one]
            await mongo.apply([change(ARTICLE, Article(id=f"{i}"), 1) for i in range(10)])
            await mongo.apply([change(ARTICLE, Article(id="9", title="a longer one"), 2)])
        async with store(url, ARTICLE, collections={ARTICLE.name: capped}):
            pass
        sharded = {"shard_key": {"_id": "hashed"}}
        for _ in range(2):  # that the collection was made by the first does not make the second right
            with pytest.raises(ConfigurationError, match="shard_key: the server is no router"):
                async with store(url, THING, event_listeners=[sent], collections={THING.name: sharded}):
                    pass
        for command in sent.named("shardCollection"):
            assert command["key"] == {"_id": "hashed"}
            assert command["shardCollection"].endswith(f".{THING.name}")
        assert len(sent.named("shardCollection")) == 2

    asyncio.run(main())


def test_indexes_of_the_program_s_own_are_made_beside_those_of_the_facets(url: str) -> None:
    async def main() -> None:
        indexes = {
            "by_topic": {"keys": {"topic": 1, "stars": -1}},
            "words": {"keys": {"title": "text", "body": "text"}, "options": {"default_language": "none"}},
        }
        for _ in range(2):
            async with store(url, ARTICLE, collections={ARTICLE.name: {"indexes": indexes}}) as mongo:
                await mongo.apply([change(ARTICLE, Article(id="a", title="quick fox", topic="t"), 1)])
        with asked(url) as client:
            articles = client.get_default_database()[ARTICLE.name]
            made = articles.index_information()
            assert made["by_topic"]["key"] == [("topic", 1), ("stars", -1)]
            assert made["ps_index_topic"]["key"] == [("ps_tenant", 1), ("topic", 1)]
            assert made["ps_text"]["key"] == [("ps_tenant", 1), ("ps_terms", 1)]
            assert made["ps_purge"]["expireAfterSeconds"] == 0
            assert [one["_id"]["id"] for one in articles.find({"$text": {"$search": "fox"}})] == ["a"]

    asyncio.run(main())


# -- what a server cannot do is not relied on ---------------------------------------------------------------------


def test_no_call_asks_for_a_transaction_or_a_change_stream_and_all_ask_for_what_a_majority_has(url: str) -> None:
    """FerretDB has neither; of a transaction that is aborted it keeps the writes."""

    async def main() -> None:
        sent = Commands()
        async with store(url, THING, ARTICLE, event_listeners=[sent]) as mongo:
            sent.sent.clear()
            await mongo.apply([thing("a", 1), removal(key_of(THING, "b"), 1)])
            await mongo.apply([thing("a", 2)])
            await mongo.get([key_of(THING, "a")])
            await mongo.find(THING.name, "", None, THING.sort([]), 10)
            await mongo.count(THING.name, "", None)
            await mongo.scan(THING.name, "", EVERYTHING, None, 10)
            await mongo.tenants(THING.name)
            await mongo.newest(THING.name)
            await mongo.search(ARTICLE.name, "", query("학교 a"), None, 10, None)
        writes, reads = ([one for one in sent.sent if one.keys() & names] for names in (WRITES, READS))
        assert {name for one in writes for name in one.keys() & WRITES} == {"insert", "update"}
        assert {name for one in reads for name in one.keys() & READS} == {"find", "aggregate"}
        others = [one for one in sent.sent if one and one not in writes and one not in reads]  # logins are shown as {}
        assert {next(iter(one)) for one in others} <= {"endSessions"}
        for one in sent.sent:
            assert not one.keys() & {"startTransaction", "autocommit"}
            assert not [step for step in one.get("pipeline", ()) if "$changeStream" in step]
        assert all(one["writeConcern"] == {"w": "majority", "j": True} for one in writes)
        assert all(one["readConcern"]["level"] == "majority" for one in reads)

    asyncio.run(main())
