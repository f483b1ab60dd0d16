"""A server whose own settings are unusual, that ends or refuses connections, or that says no: what the caller sees."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Generator, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import pytest
import sqlalchemy as sa
from asyncmy.constants import FIELD_TYPE
from polystore_adapters.mysql.driver import DriverError
from polystore_adapters.mysql.locks import bucket, lock
from polystore_adapters.mysql.repository import MysqlRepository

from compose.native.own import OwnServer
from polystore import F
from polystore.env import Env
from polystore.errors import (
    ConfigurationError,
    IntegrityViolation,
    InvalidData,
    PermissionDenied,
    PolystoreError,
    SchemaMismatch,
    StoreCorrupt,
    StoreError,
    StoreFull,
    Unavailable,
    ValueTooLarge,
)
from polystore.model import Commit, Committed, Key, Write, key_hash
from polystore.protocols import Layout
from polystore.testing.conformance.entities import ARTICLE, THING, Article, Thing
from polystore.text import query
from tests.mysql import FLAVOURS, connected, run
from tests.stack import own_server

STRANGE = (
    "--sql-mode=ANSI_QUOTES,NO_BACKSLASH_ESCAPES,PIPES_AS_CONCAT,PAD_CHAR_TO_FULL_LENGTH,NO_AUTO_VALUE_ON_ZERO",
    "--default-time-zone=+09:00",
    "--transaction-isolation=SERIALIZABLE",
    "--completion-type=CHAIN",
    "--character-set-server=latin1",
    "--loose-skip-character-set-client-handshake",
    "--autocommit=0",
)
KEYS = ["key", "Key", "KEY", "kéy", "key ", "key  ", "열쇠", "열쇠 ", "😀", "😁", "👩‍👩‍👧", "a'b\"c`d\\e%s;--", "𠀀"]
Test = Callable[[MysqlRepository], Awaitable[None]]


@pytest.fixture(scope="module", params=FLAVOURS)
def mine(request: pytest.FixtureRequest) -> Generator[OwnServer]:
    with own_server(str(request.param), STRANGE) as server:
        run(
            server.url,
            *("SET GLOBAL sql_select_limit = 3", "SET GLOBAL sql_safe_updates = 1"),
            *("CREATE USER app IDENTIFIED BY 'x'", f"GRANT ALL ON {sa.make_url(server.url).database}.* TO app"),
        )
        yield server


def of_user(mine: OwnServer, user: str = "app") -> str:
    """The URL of a user who has rights on the database and no others."""
    return sa.make_url(mine.url).set(username=user, password="x").render_as_string(hide_password=False)


def on(url: str, test: Test, **options: Any) -> None:
    """Run it on a home of articles and things at the URL."""

    async def main() -> None:
        store: Any = await connected(Env(), url, **options)
        try:
            layouts = [Layout(one, True, frozenset({"full_text"})) for one in (THING, ARTICLE)]
            await store.prepare(layouts, create=True)
            await test(store)
        finally:
            await store.aclose()
        assert store.checked_out == 0

    asyncio.run(main())


def thing(id: str, **fields: Any) -> Write:
    body = THING.encode(Thing(id=id, **fields))
    return Write("put", Key("", THING.name, id), key_hash("", THING.name, id), body, THING.content_hash(body))


async def commit(store: MysqlRepository, *writes: Write) -> None:
    (answer,) = await store.commit([Commit(list(writes))])
    if isinstance(answer, Exception):
        raise answer
    assert isinstance(answer, Committed)


def test_settings_of_the_server_change_nothing(mine: OwnServer) -> None:
    at = datetime(2024, 12, 31, 23, 59, 59, 1, tzinfo=UTC)
    text = 'it\'s a "quoted" \\ back\\slash\n%s `tick` 😀 한글'

    async def test(store: MysqlRepository) -> None:
        await commit(store, *(thing(id, word=f"{text}{i}", number=i, at=at) for i, id in enumerate(KEYS)))
        found = await store.get([Key("", THING.name, id) for id in KEYS])
        assert [one and one.body and (one.body["word"], one.body["at"]) for one in found] == [
            (f"{text}{i}", at) for i in range(len(KEYS))
        ]
        everything = await store.find(THING.name, "", None, [], 100)
        assert sorted(one.key.id for one in everything) == sorted(KEYS), "all, though the server cuts answers"
        where = THING.condition(F.at == at)
        assert len(await store.find(THING.name, "", where, [], 100)) == len(KEYS)
        await store.commit([Commit([_article("a", "우리 학교에서 만나요 😀 school")])])
        for word in ("학교", "교에", "만", "school", "학교에서 만나요"):
            assert [one.id for one in await store.search(ARTICLE.name, "", query(word), None, 5, None)] == ["a"], word
        assert await store.bump_epoch() == 2
        await store.beat("w")  # no transaction is begun behind the last one

    on(of_user(mine), test, pool_size=1)
    (row,) = run(mine.url, "SET NAMES utf8mb4", f"SELECT CAST(at AS CHAR) FROM {_table(mine)} WHERE id = '열쇠 '")
    assert row == ("2024-12-31 23:59:59.000001",), "in UTC, in letters that others read, in a row of its own"
    assert run(mine.url, f"SELECT id FROM {sa.make_url(mine.url).database}.ps_worker") == [("w",)]


def _article(id: str, title: str) -> Write:
    body = ARTICLE.encode(Article(id=id, title=title))
    return Write("put", Key("", ARTICLE.name, id), key_hash("", ARTICLE.name, id), body, ARTICLE.content_hash(body))


def _table(mine: OwnServer) -> str:
    return f"{sa.make_url(mine.url).database}.kit_thing"


@pytest.mark.parametrize("password", ["p@ss:/w?rd#%25 '\"\\", "비밀번호é"])
def test_a_password_of_any_letters_opens_it_by_the_network_and_by_a_socket(mine: OwnServer, password: str) -> None:
    run(
        mine.url,
        *("SET NAMES utf8mb4", "SET SESSION sql_mode = 'NO_BACKSLASH_ESCAPES'", "DROP USER IF EXISTS odd"),
        "CREATE USER odd IDENTIFIED BY '{}'".format(password.replace("'", "''")),
        "GRANT ALL ON *.* TO odd",
    )
    ((socket,),) = run(mine.url, "SELECT @@socket")
    parts = sa.make_url(mine.url)
    server = f"mysql://odd:{quote(password, safe='')}@{parts.host}"

    async def main() -> None:
        for url in (f"{server}:{parts.port}/{parts.database}", f"{server}:1/{parts.database}?unix_socket={socket}"):
            store = await connected(Env(), url)
            assert (await store.ping()).server
            await store.aclose()

    asyncio.run(main())


def test_a_connection_that_the_server_has_ended_while_it_rested_is_not_used_again(mine: OwnServer) -> None:
    async def test(store: MysqlRepository) -> None:
        connections = store._pool._connections  # pyright: ignore[reportPrivateUsage]
        await store.drop(None, None)
        (resting,) = connections._idle  # pyright: ignore[reportPrivateUsage]
        await asyncio.to_thread(run, mine.url, f"KILL {resting.thread_id()}")
        await _until(lambda: not connections._alive(resting))  # pyright: ignore[reportPrivateUsage]
        assert await store.drop(None, None) == 0, "else its outcome would be unknown"

    on(of_user(mine), test, pool_size=1)


async def _until(holds: Callable[[], bool]) -> None:
    for _ in range(1_000):
        if holds():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come to that")


@pytest.mark.parametrize("kill", ["KILL QUERY", "KILL"])
def test_a_call_that_the_server_ends_has_written_nothing_and_is_tried_again(mine: OwnServer, kill: str) -> None:
    async def test(store: MysqlRepository) -> None:
        connections = store._pool._connections  # pyright: ignore[reportPrivateUsage]
        key = Key("", THING.name, kill)
        async with store._pool.transaction() as db:  # pyright: ignore[reportPrivateUsage]
            await lock(db, [bucket(key)])
            late = asyncio.create_task(commit(store, thing(kill)))
            await _until(lambda: len(connections._out) == 2)  # pyright: ignore[reportPrivateUsage]
            (waits,) = {one.thread_id() for one in connections._out} - {  # pyright: ignore[reportPrivateUsage]
                db.connection.thread_id()
            }
            while not late.done():  # once it is carried out; before, there is nothing to end
                await asyncio.to_thread(_kill, mine.url, f"{kill} {waits}")
                await asyncio.wait([late], timeout=0.05)
        with pytest.raises(Unavailable):
            await late
        assert await store.get([key]) == [None]
        await commit(store, thing(kill))

    on(of_user(mine), test)


def _kill(url: str, statement: str) -> None:
    with contextlib.suppress(DriverError):  # it is gone already
        run(url, statement)


def test_more_connections_than_the_server_gives_are_unavailable_until_there_is_room(mine: OwnServer) -> None:
    async def test(store: MysqlRepository) -> None:
        async def too_many(sessions: contextlib.AsyncExitStack) -> None:
            for _ in range(30):
                await sessions.enter_async_context(store._pool.session())  # pyright: ignore[reportPrivateUsage]

        async with contextlib.AsyncExitStack() as sessions:
            with pytest.raises(Unavailable, match="no connections"):
                await too_many(sessions)
        assert (await store.ping()).server
        assert store.checked_out == 0

    run(mine.url, "SET GLOBAL max_connections = 10")
    try:
        on(of_user(mine), test, pool_size=30)
    finally:
        run(mine.url, "SET GLOBAL max_connections = 300")


def test_a_server_that_becomes_read_only_takes_no_writes_and_still_answers(mine: OwnServer) -> None:
    async def test(store: MysqlRepository) -> None:
        await commit(store, thing("a", word="before"))
        await asyncio.to_thread(run, mine.url, "SET GLOBAL read_only = 1")
        try:
            with pytest.raises(Unavailable, match="read-only"):
                await commit(store, thing("a", word="late"))
            (record,) = await store.get([Key("", THING.name, "a")])
            assert record is not None
            assert record.body is not None
            assert record.body["word"] == "before"
            with pytest.raises(PermissionDenied, match="cannot be a home"):
                await store.prepare([Layout(THING, True, frozenset({"full_text"}))], create=False)
        finally:
            await asyncio.to_thread(run, mine.url, "SET GLOBAL read_only = 0")
        await commit(store, thing("a", word="after"))

    on(of_user(mine), test)


def test_a_call_that_is_cancelled_anywhere_leaves_no_connection_with_the_rest_of_its_answer(mine: OwnServer) -> None:
    async def test(store: MysqlRepository) -> None:
        await commit(store, *(thing(f"{i}", word="x" * 50_000) for i in range(20)))
        keys = [Key("", THING.name, f"{i}") for i in range(20)]
        for turn in range(25):
            call = asyncio.create_task(store.get(keys))
            for _ in range(turn):
                await asyncio.sleep(0)
            call.cancel()
            await asyncio.wait([call])
            assert [one and one.key for one in await store.get(keys[:3])] == keys[:3]
            assert store.checked_out == 0

    on(of_user(mine), test, pool_size=2)


def test_an_error_amid_an_answer_ends_the_connection(mine: OwnServer) -> None:
    async def test(store: MysqlRepository) -> None:
        async with store._pool.session() as db:  # pyright: ignore[reportPrivateUsage]
            before = db.connection.thread_id()
            db.connection._decoders |= {FIELD_TYPE.LONG: _refuse, FIELD_TYPE.LONGLONG: _refuse}
        with pytest.raises(ValueError, match="amid"):
            await store._pool.fetch("SELECT 1; SELECT 2")  # pyright: ignore[reportPrivateUsage]
        async with store._pool.session() as db:  # pyright: ignore[reportPrivateUsage]
            assert await db.value("SELECT 3") == 3
            assert db.connection.thread_id() != before

    on(of_user(mine), test, pool_size=1)


def _refuse(_: object) -> object:
    raise ValueError("amid")


def test_a_server_that_takes_a_connection_and_says_nothing_is_unavailable_in_time(mine: OwnServer) -> None:
    async def main() -> None:
        store = await connected(Env(), of_user(mine), connect_timeout_s=0.2)
        with pytest.raises(Unavailable):
            await store.ping()
        await store.aclose()

    mine.freeze()
    try:
        asyncio.run(main())
    finally:
        mine.thaw()


ERRORS: dict[type[PolystoreError], Sequence[int]] = {
    Unavailable: (
        *(1020, 1205, 1213, 3101),  # gives way
        *(1036, 1290, 1792, 1836),  # read-only
        *(1038, 1040, 1041, 1135, 1203, 1206, 1226),  # no room for one more
        *(1053, 1317, 1927, 1969, 2006, 2013, 3024),  # ended
        *(1047, 1129, 3032, 3100),  # away
    ),
    StoreFull: (3, 1021, 1026, 1114),
    PermissionDenied: (1044, 1045, 1130, 1142, 1227, 1698, 1820, 1862, 3118, 4151),
    ConfigurationError: (1049, 1665, 3159),
    SchemaMismatch: (1051, 1054, 1146, 1305),
    ValueTooLarge: (1071, 1118, 1153, 1301),
    InvalidData: (1048, 1264, 1292, 1366, 1406, 1690, 3140),
    IntegrityViolation: (1062, 1586, 1451, 1452, 3819, 4025),
    StoreCorrupt: (1034, 1194, 1712, 1877),
    StoreError: (1064, 1105),
}


def test_each_error_of_the_server_is_known_by_its_number(mine: OwnServer) -> None:
    async def test(store: MysqlRepository) -> None:
        for kind, codes in ERRORS.items():
            for code in codes:
                with pytest.raises(kind) as caught:
                    await store._pool.fetch(  # pyright: ignore[reportPrivateUsage]
                        f"SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = {code}, MESSAGE_TEXT = 'a secret of 7654321'"
                    )
                assert type(caught.value) is kind, code
                assert "7654321" not in str(caught.value)
        assert (await store.ping()).server

    on(of_user(mine), test)
