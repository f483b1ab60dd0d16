"""What calls leave behind at the server, and what it says when it refuses: by its own words, not those of a double."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any

import pytest
from polystore_adapters.postgresql import connect
from polystore_adapters.postgresql.repository import PostgresRepository

from polystore import HybridDataArchitecture
from polystore.entity import EntityType, entity, entity_types
from polystore.env import Env
from polystore.errors import IntegrityViolation, PermissionDenied, PolystoreError, SchemaMismatch, Unavailable
from polystore.facets import Embedding, FullText
from polystore.model import Commit, Committed, Key, Write, key_hash
from polystore.protocols import Layout, VectorSpec
from polystore.text import query
from tests.postgresql import configured, fresh_database, fresh_schema, server
from tests.stack import url_of

VECTOR = struct.pack("<3f", 1, 2, 3)


@entity()
@dataclass(kw_only=True)
class Note:
    id: str
    text: Annotated[str, FullText()] = ""
    way: Annotated[list[float] | None, Embedding(dimension=3)] = None
    rest: list[str] = field(default_factory=list[str])


NOTE: EntityType[Note] = entity_types([Note])["note"]
LAYOUT = Layout(NOTE, True, frozenset({"full_text", "vector"}), {"way": VectorSpec(3, "cosine", "caller")})


def write(id: str) -> Write:
    body = NOTE.encode(Note(id=id, text="학교에서"))
    return Write("put", key(id), key_hash("", "note", id), body, NOTE.content_hash(body), vectors={"way": VECTOR})


def key(id: str) -> Key:
    return Key("", "note", id)


async def put(store: PostgresRepository, *ids: str) -> None:
    (answer,) = await store.commit([Commit([write(id) for id in ids])])
    if not isinstance(answer, Committed):
        raise answer


@asynccontextmanager
async def opened(url: str, **options: Any) -> AsyncGenerator[PostgresRepository]:
    store = await connect(url, {"vectors": "bytes", **options}, Env())
    try:
        await store.prepare([LAYOUT], create=True)
        yield store
    finally:
        await store.aclose()


async def soon(asked: Callable[[], bool]) -> None:
    for _ in range(1_000):
        if asked():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came so")


def waiting(path: str) -> int:
    """How many statements wait at the server for a lock of the schema's table."""
    return int(
        server().value(
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = $1::regclass",
            f"{path.partition(',')[0]}.note",
        )
    )


def test_who_gives_up_waiting_leaves_no_statement_waiting_at_the_server() -> None:
    async def main(path: str) -> None:
        url = url_of("postgresql")
        async with opened(url, schema=path) as holder, opened(url, schema=path, pool_size=2) as store:
            async with holder.client.acquire() as lock:
                await lock.execute("BEGIN; LOCK TABLE note")
                for work in (lambda: store.get([key("a")]), lambda: put(store, "a"), lambda: put(store, "a", "b")) * 2:
                    task = asyncio.create_task(work())
                    await soon(lambda: waiting(path) == 1)
                    task.cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await task
                    assert store.checked_out == 0
                    await soon(lambda: waiting(path) == 0)
                await lock.execute("COMMIT")
            assert await store.get([key("a"), key("b")]) == [None, None]

    with fresh_schema() as path:
        asyncio.run(main(path))


def test_nothing_stays_behind_in_the_connections_of_a_pooler() -> None:
    """Else who has the connection next stumbles on it: another process, with statements of the same names."""

    async def main(url: str) -> None:
        pooled: Any = {"pooler": "transaction", "pool_size": 1}
        other = await connect(url, pooled, Env())
        async with opened(url, **pooled) as store, other.client.acquire() as next_one:
            backend = await next_one.fetchval("SELECT pg_backend_pid()")
            calls: list[Callable[[], Awaitable[Any]]] = [
                lambda: put(store, *(f"{i}" for i in range(20))),
                lambda: put(store, "0"),
                lambda: store.similar("note", "", "way", VECTOR, None, 30),
                lambda: store.search("note", "", query("학교에"), None, 30, None),
                lambda: store.hold_lease("one", "me", 10),
                store.backlog,
            ]
            for call in calls:
                await call()
                assert await next_one.fetchval("SELECT pg_backend_pid()") == backend
                assert await next_one.fetch("SELECT name FROM pg_prepared_statements") == []
                held = "SELECT 1 FROM pg_locks WHERE pid = $1 AND locktype = 'advisory'"
                assert await next_one.fetch(held, backend) == []
                changed = "SELECT name FROM pg_settings WHERE name ~ '^(plan_cache|hnsw|lock_t)' AND source = 'session'"
                assert await next_one.fetch(changed) == []
        await other.aclose()

    with fresh_database() as database:
        asyncio.run(main(f"{url_of('pgbouncer').rpartition('/')[0]}/{database}"))


@pytest.mark.parametrize("state", ["40001", "40P01"])
def test_what_the_server_made_give_way_is_tried_again(state: str) -> None:
    """A number drawn from a sequence stays drawn, whatever becomes of the transaction."""

    async def main(path: str) -> None:
        schema = path.partition(",")[0]
        async with HybridDataArchitecture.open({"stores": {"main": configured(path)}}, entities=[Note]) as hda:
            notes = hda.collection(Note)
            server().run(
                f"CREATE SEQUENCE {schema}.turn; CREATE FUNCTION {schema}.give_way() RETURNS trigger LANGUAGE plpgsql "
                f"AS $$ BEGIN IF nextval('{schema}.turn') <= 2 THEN RAISE EXCEPTION 'give way' USING ERRCODE = "
                f"'{state}'; END IF; RETURN NEW; END $$; CREATE TRIGGER give_way BEFORE INSERT OR UPDATE ON "
                f"{schema}.note FOR EACH ROW EXECUTE FUNCTION {schema}.give_way()"
            )
            await notes.put(Note(id="a", text="하나"))
            assert server().value(f"SELECT last_value FROM {schema}.turn") == 3
            server().run(f"ALTER SEQUENCE {schema}.turn RESTART")
            async with hda.transaction() as tx:
                tx.put(Note(id="b"))
                tx.delete(Note, "a")
            assert await notes.get_many(["a", "b"]) == [None, Note(id="b")]

    with fresh_schema() as path:
        asyncio.run(main(path))


async def told(call: Awaitable[Any], kind: type[PolystoreError]) -> None:
    with pytest.raises(kind) as caught:
        await call
    assert type(caught.value) is kind
    assert "SQLSTATE" not in str(caught.value), "it is said in words"
    assert "polystore-test" not in str(caught.value)


def test_what_a_server_refuses_is_told_by_its_code() -> None:
    async def main(path: str) -> None:
        url, schema = url_of("postgresql"), path.partition(",")[0]
        async with opened(url, schema=path) as store, store.client.acquire() as other:
            await put(store, "a")
            async with opened(f"{url}?statement_timeout=50", schema=path) as hasty:
                await other.execute("BEGIN; LOCK TABLE note")
                await told(hasty.get([key("a")]), Unavailable)
                await told(put(hasty, "a"), Unavailable)
                await other.execute("COMMIT")
                assert await hasty.get([key("a")]) == await store.get([key("a")])
            await other.execute("BEGIN; LOCK TABLE note")
            task = asyncio.create_task(store.get([key("a")]))
            await soon(lambda: waiting(path) == 1)
            blocked = f"FROM pg_locks WHERE NOT granted AND relation = '{schema}.note'::regclass"
            server().run(f"SELECT pg_terminate_backend(pid) {blocked}")
            await told(task, Unavailable)
            await other.execute("COMMIT")
            assert (await store.get([key("a")]))[0] is not None, "with another connection"
            await other.execute(
                "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$; "
                "CREATE TRIGGER refuse BEFORE INSERT ON note FOR EACH ROW WHEN (NEW.id = 'b') EXECUTE FUNCTION refuse()"
            )
            await told(put(store, "b"), IntegrityViolation)
            await other.execute("ALTER TABLE note RENAME COLUMN rest TO rested")
            await told(store.get([key("a")]), SchemaMismatch)
            await other.execute("DROP TABLE note")
            await told(store.get([key("a")]), SchemaMismatch)

    with fresh_schema() as path:
        asyncio.run(main(path))


def test_a_user_who_may_not_is_refused_and_one_too_many_may_come_later() -> None:
    async def main(path: str) -> None:
        name = path.partition(",")[0]
        url = f"postgresql://{name}:kit@{url_of('postgresql').rpartition('@')[2]}"
        async with opened(url_of("postgresql"), schema=path):
            pass
        server().run(f"CREATE ROLE {name} LOGIN PASSWORD 'kit' CONNECTION LIMIT 0")
        try:
            async with opened(url_of("postgresql"), schema=path):
                store = await connect(url, {"schema": path}, Env())
                await told(store.ping(), Unavailable)
                server().run(f"ALTER ROLE {name} CONNECTION LIMIT 1; GRANT USAGE ON SCHEMA {name} TO {name}")
                await told(store.placements(), PermissionDenied)
                await store.aclose()
        finally:
            server().run(f"DROP OWNED BY {name}; DROP ROLE {name}")

    with fresh_schema() as path:
        asyncio.run(main(path))


def test_state_that_is_only_added_or_counted_does_not_stay_for_ever() -> None:
    async def main(path: str) -> None:
        async with opened(url_of("postgresql"), schema=path) as store:
            for i in range(30):
                assert await store.add_state(Key("", "once", f"{i}"), {}, 1)
                assert await store.increment(Key("", "hits", f"{i}"), "n", 1, 0, {}, 1) == 1
            assert server().value(f"SELECT count(*) FROM {path.partition(',')[0]}.ps_state") <= 20

    with fresh_schema() as path:
        asyncio.run(main(path))
