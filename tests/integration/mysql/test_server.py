"""What happens to calls when the server restarts, is killed or refuses, and what other programs find in the tables."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, cast

import pytest
from polystore_adapters.mysql import connect, full_text
from polystore_adapters.mysql.pool import Session
from polystore_adapters.mysql.repository import MysqlRepository

from polystore.embedding import pack
from polystore.entity import EntityType
from polystore.env import Env
from polystore.errors import (
    ConfigurationError,
    OutcomeUnknown,
    PermissionDenied,
    PolystoreError,
    SchemaMismatch,
    Unavailable,
    ValueTooLarge,
    WorkLimitExceeded,
)
from polystore.model import Change, Commit, Committed, Key, OpId, TargetRow, Write, key_hash
from polystore.protocols import Layout, VectorSpec
from polystore.testing.conformance.entities import ACCOUNT, ARTICLE, SPOT, THING, Account, Article, Spot, Thing
from tests.mysql import FLAVOURS, fresh_database, run
from tests.stack import own_server, url_of

on_both = pytest.mark.parametrize("server", FLAVOURS)


def put(etype: EntityType[Any], value: Any) -> Write:
    body = etype.encode(value)
    key = Key("", etype.name, value.id)
    return Write("put", key, key_hash("", etype.name, value.id), body, etype.content_hash(body))


def account(id: str, owner: str = "") -> Commit:
    return Commit([put(ACCOUNT, Account(id=id, email=f"{id}@x", owner=owner))])


@asynccontextmanager
async def home(url: str, *, etype: EntityType[Any] = ACCOUNT, **options: Any) -> AsyncGenerator[MysqlRepository]:
    store = await connect(url, options, Env())
    try:
        await store.prepare([Layout(etype, True, frozenset({"full_text"}))], create=True)
        yield store
    finally:
        await store.aclose()
        assert store.checked_out == 0


async def committed(store: MysqlRepository, one: Commit) -> Committed:
    (answer,) = await store.commit([one])
    if isinstance(answer, Exception):
        raise answer
    return answer


async def again(call: Callable[[], Awaitable[Any]]) -> Any:
    """What the retry layer does: ask again while nothing was done."""
    for _ in range(400):
        try:
            return await call()
        except Unavailable:
            await asyncio.sleep(0.05)
    raise AssertionError("the server never came back")


@on_both
def test_a_restart_in_the_middle_of_writes_loses_nothing_that_was_acknowledged(server: str) -> None:
    acknowledged: dict[str, int] = {}
    unknown: set[str] = set()

    async def writer(store: MysqlRepository, number: int, stop: asyncio.Event) -> None:
        turn = 0
        while not stop.is_set():
            id = f"{number}-{turn}"
            turn += 1
            try:
                done = await again(lambda: committed(store, account(id)))  # noqa: B023
                acknowledged[id] = done.written[0].version
            except OutcomeUnknown:
                unknown.add(id)

    async def more() -> None:
        count = len(acknowledged)
        for _ in range(3_000):
            if len(acknowledged) >= count + 20:
                return
            await asyncio.sleep(0.01)
        raise AssertionError("no write succeeds any more")

    async def main() -> None:
        with own_server(server) as mine:
            async with home(mine.url, pool_size=4) as store:
                await store.set_target(TargetRow(ACCOUNT.name, "copy", 0, "active"))
                before = await store.ping()
                stop = asyncio.Event()
                writers = [asyncio.create_task(writer(store, i, stop)) for i in range(6)]
                for end in (mine.kill, mine.stop):
                    await more()
                    await asyncio.to_thread(end)
                    await asyncio.to_thread(mine.start)
                await more()
                stop.set()
                await asyncio.gather(*writers)
                after = await again(store.ping)
                assert (after.data_id, after.run_id != before.run_id) == (before.data_id, True)
                records = await store.get([Key("", ACCOUNT.name, id) for id in acknowledged])
                assert [record and record.version for record in records] == list(acknowledged.values())
                assert len({*acknowledged.values()}) == len(acknowledged), "no version is given twice"
                there = [r is not None for r in await store.get([Key("", ACCOUNT.name, id) for id in sorted(unknown)])]
                assert (await store.backlog()).outbox == len(acknowledged) + sum(there), "each write has its duty"

    asyncio.run(main())


@on_both
def test_of_many_writers_none_deadlocks_and_each_version_is_drawn_under_the_lock_of_its_key(server: str) -> None:
    async def main(url: str) -> None:
        async with home(url, pool_size=6) as store:

            async def writer(number: int) -> None:
                ids = [f"{i}" for i in (range(20) if number % 2 else reversed(range(20)))]
                for turn in range(5):
                    await committed(store, Commit([account(id, f"{number}-{turn}").writes[0] for id in ids]))

            await asyncio.gather(*(writer(i) for i in range(6)))
            records = await store.get([Key("", ACCOUNT.name, f"{i}") for i in range(20)])
            owners = {cast(Any, record).body["owner"] for record in records}
            assert len(owners) == 1, "the last commit wrote all of them"

    with fresh_database(server) as url:
        asyncio.run(main(url))


@on_both
def test_a_commit_is_two_round_trips(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []
    send = Session._send  # pyright: ignore[reportPrivateUsage]

    async def counted(session: Session, packet: Any) -> int:
        sent.append(len(packet))
        return await send(session, packet)

    async def main(url: str) -> None:
        async with home(url) as store:
            await store.set_target(TargetRow(ACCOUNT.name, "copy", 0, "active"))
            many = Commit([account(f"{i}").writes[0] for i in range(50)], op=OpId("", "op", b"asked"), marks={"m": "1"})
            gone = Write("delete", Key("", ACCOUNT.name, "1"), key_hash("", ACCOUNT.name, "1"), None)
            for one in (account("a"), many, Commit([gone])):
                sent.clear()
                await committed(store, one)
                assert len(sent) == 2, "one locks, reads and draws versions, one writes and commits"

    monkeypatch.setattr(Session, "_send", counted)
    with fresh_database(server) as url:
        asyncio.run(main(url))


def test_more_vectors_than_can_be_compared_one_by_one_are_refused() -> None:
    layout = Layout(SPOT, False, frozenset({"vector"}), {"by_cosine": VectorSpec(4, "cosine", "caller")})
    changes = [
        Change(Key("", SPOT.name, f"{i}"), i + 1, i, SPOT.encode(Spot(id=f"{i}")), b"", 1, {"by_cosine": pack([i] * 4)})
        for i in range(3)
    ]

    async def main(url: str) -> None:
        store = await connect(url, {"exact_vectors_max": 2}, Env())
        try:
            await store.prepare([layout], create=True)
            await store.apply(changes[:2])
            asked = (SPOT.name, "", "by_cosine", pack([1] * 4), None, 5)
            assert len(await store.similar(*asked)) == 2
            await store.apply(changes)
            with pytest.raises(WorkLimitExceeded, match="more than 2 vectors"):
                await store.similar(*asked)
        finally:
            await store.aclose()

    with fresh_database() as url:
        asyncio.run(main(url))


@on_both
def test_another_program_finds_the_values_in_columns_of_their_own(server: str) -> None:
    async def main(url: str) -> None:
        async with home(url, etype=THING) as store:
            at = datetime(2024, 2, 29, 23, 59, 59, 123456, tzinfo=UTC)
            thing = Thing(id="가", word="학교", number=7, at=at, price=Decimal("1.10"), tags=["a", "b"])
            await committed(store, Commit([put(THING, thing)]))

    with fresh_database(server) as url:
        asyncio.run(main(url))
        database = url.rpartition("/")[2]
        columns = "id, word, number, CAST(at AS CHAR), JSON_EXTRACT(tags, '$[1]'), ps_exact"
        (row,) = run(url, f"SELECT {columns} FROM {database}.kit_thing")
        assert row == ("가", "학교", 7, "2024-02-29 23:59:59.123456", '"b"', '{"price":"1.10"}')


@on_both
def test_korean_is_found_by_the_server_s_own_index_with_its_settings_as_they_are(server: str) -> None:
    async def main(url: str) -> None:
        async with home(url, etype=ARTICLE) as store:
            await committed(store, Commit([put(ARTICLE, Article(id="a", title="우리 학교에서 만나요"))]))

    with fresh_database(server) as url:
        asyncio.run(main(url))
        token = "z" + "학교".encode("utf-16-be").hex()
        table = f"{url.rpartition('/')[2]}.kit_article"
        assert run(url, f"SELECT id FROM {table} WHERE MATCH (ps_terms) AGAINST ('+{token}' IN BOOLEAN MODE)") == [
            ("a",)
        ]
        plan = run(url, f"EXPLAIN SELECT id FROM {table} WHERE MATCH (ps_terms) AGAINST ('+{token}' IN BOOLEAN MODE)")
        assert "ps_text" in str(plan)


@on_both
@pytest.mark.parametrize("words", [(2, 81), (5, 85)])
def test_a_server_whose_index_would_leave_words_out_is_refused_for_full_text(
    server: str, words: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it stands, the settings are 3 and 84: here shorter or longer words are needed than that."""

    async def main(url: str) -> None:
        async with home(url):
            pass
        monkeypatch.setattr(full_text, "WORDS", words)
        with pytest.raises(ConfigurationError, match="innodb_ft_min_token_size must be at most"):
            async with home(url, etype=ARTICLE):
                pass

    with fresh_database(server) as url:
        asyncio.run(main(url))


@on_both
def test_own_tables_tell_texts_apart_whatever_the_collation_of_the_database_is(server: str) -> None:
    names = ["a", "A", "á", "a ", "a\u0301"]

    async def main(url: str) -> None:
        async with home(url) as store:
            assert [await store.hold_lease(name, f"w{i}", 60.0) for i, name in enumerate(names)] == [True] * len(names)

    with fresh_database(server) as url:
        database = url.rpartition("/")[2]
        run(url, f"ALTER DATABASE {database} COLLATE utf8mb4_general_ci")
        asyncio.run(main(url))
        others = run(
            url,
            "SELECT table_name, column_name, collation_name FROM information_schema.columns WHERE table_schema = "
            f"'{database}' AND collation_name NOT IN ('utf8mb4_nopad_bin', 'utf8mb4_0900_bin')",
        )
        assert others == []


@on_both
def test_what_is_told_of_a_second_place_names_the_database_beside(server: str) -> None:
    async def main(url: str) -> None:
        store = await connect(url, {"place": 2}, Env())
        with pytest.raises(SchemaMismatch, match=f"{url.rpartition('/')[2]}_2: .*nothing is stored") as told:
            await store.prepare([Layout(SPOT, False, frozenset())], create=False)
        assert "polystore-test" not in str(told.value)
        await store.aclose()

    with fresh_database(server) as url:
        try:
            asyncio.run(main(url))
        finally:
            run(url, f"DROP DATABASE IF EXISTS {url.rpartition('/')[2]}_2")


def test_what_cannot_work_is_told_and_never_shows_the_password() -> None:
    async def refused(url: str) -> Exception:
        with pytest.raises(PolystoreError) as caught:
            async with home(url):
                pass
        assert "polystore-test" not in str(caught.value)
        return caught.value

    async def main() -> None:
        good = url_of("mariadb")
        assert isinstance(
            await refused(good.rpartition("/")[0] + "/nothing_here"), (ConfigurationError, PermissionDenied)
        )
        assert isinstance(await refused(good.replace(":polystore-test@", ":wrong@")), PermissionDenied)
        assert isinstance(await refused("mysql://polystore:polystore-test@127.0.0.1:1/x"), Unavailable)
        for url in (good.rpartition("/")[0], good + "?sslmode=require", good + "?ssl_ca=/nothing/here"):
            assert isinstance(await refused(url), ConfigurationError)
        for options in ({"pool_size": 0}, {"poolsize": 3}):
            with pytest.raises(ConfigurationError, match="options of a mysql"):
                await connect(good, options, Env())

    asyncio.run(main())


def test_a_record_that_no_packet_of_the_server_holds_is_refused_before_it_is_sent() -> None:
    async def main(url: str) -> None:
        async with home(url) as store:
            (answer,) = await store.commit([account("a", "x" * (16 << 20))])
            assert isinstance(answer, ValueTooLarge)
            await committed(store, account("a"))

    with fresh_database() as url:
        asyncio.run(main(url))


@on_both
@pytest.mark.parametrize("damage", ["DROP TABLE {}", "ALTER TABLE {} DROP COLUMN owner"])
def test_a_table_that_another_program_has_changed_is_told_and_not_made_anew(server: str, damage: str) -> None:
    async def main(url: str) -> None:
        async with home(url) as store:
            await committed(store, account("a"))
        await asyncio.to_thread(run, url, damage.format(f"{url.rpartition('/')[2]}.kit_account"))
        store = await connect(url, {}, Env())
        for create in (False, True):
            with pytest.raises(SchemaMismatch, match=r"another program .* owner"):
                await store.prepare([Layout(ACCOUNT, True, frozenset({"full_text"}))], create=create)
        await store.aclose()

    with fresh_database(server) as url:
        asyncio.run(main(url))


@on_both
def test_a_database_of_a_long_name_is_prepared_under_a_lock_of_its_own(server: str) -> None:
    name = f"kit_{'n' * 60}"

    async def main(url: str) -> None:
        async with home(url) as store:
            await committed(store, account("a"))

    base = url_of(server)
    run(base, f"DROP DATABASE IF EXISTS {name}", f"CREATE DATABASE {name}")
    try:
        asyncio.run(main(base.rpartition("/")[0] + f"/{name}"))
    finally:
        run(base, f"DROP DATABASE {name}")


def test_options_of_tls_that_mean_nothing_are_refused() -> None:
    async def main() -> None:
        for query in ("ssl=1", "ssl=True", "ssl=yes", "ssl=false&ssl_ca=ca.pem", "ssl_cert=c.pem", "ssl_key=k.pem"):
            with pytest.raises(ConfigurationError, match="ssl"):
                await connect(f"{url_of('mariadb')}?{query}", {}, Env())

    asyncio.run(main())
