"""What the memory adapter adds to the contract, which the conformance kit holds: servers shared by name, calls that can
be lost, classes that change between two connections, and the vectors of a home."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest
from polystore_adapters.memory import MemoryRepository, MemoryServer, connect, forget_servers

from polystore.embedding import pack
from polystore.entity import EntityType, entity, entity_type
from polystore.env import Env
from polystore.errors import (
    AlreadyExists,
    ConfigurationError,
    DimensionMismatch,
    IntegrityViolation,
    SchemaMismatch,
    Unavailable,
    UnsupportedOperation,
)
from polystore.facets import Edge, Embedding, FullText, Relation, Unique
from polystore.model import (
    EVERYTHING,
    Change,
    Commit,
    Committed,
    Key,
    Outcome,
    RetryRow,
    Settlement,
    StoredVector,
    TargetRow,
    Write,
    Written,
    key_hash,
    text_hash,
)
from polystore.protocols import Layout, VectorSpec
from polystore.text import query


@dataclass
class Since:
    year: int


@entity()
@dataclass
class Note:
    id: str
    title: Annotated[str, FullText()] = ""
    text: Annotated[str | None, FullText(), Embedding(embedder="far")] = None
    slug: Annotated[str | None, Unique()] = None
    tags: list[str] = field(default_factory=list[str])
    knows: Annotated[list[Edge[Since]], Relation("KNOWS", to="note")] = field(default_factory=list[Edge[Since]])
    about: Annotated[list[str], Relation("ABOUT", to="topic")] = field(default_factory=list[str])


NOTE = entity_type(Note)
FACETS: frozenset[Literal["full_text", "vector", "graph"]] = frozenset({"full_text", "vector", "graph"})
VECTORS = {"text": VectorSpec(2, "cosine", "far")}


def layout(of: EntityType[Any] = NOTE, *, home: bool = True, facets: frozenset[Any] = FACETS) -> Layout:
    return Layout(of, home, facets, VECTORS if of.embeddings else {})


class FakeEnv(Env):
    """A clock that stands still and crashpoints that are remembered."""

    def __init__(self) -> None:
        super().__init__()
        self.random.seed(1)
        self.us = 1_000_000_000
        self.passed: list[str] = []

    def now_us(self) -> int:
        return self.us

    def crashpoint(self, name: str) -> None:
        self.passed.append(name)


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    forget_servers()
    yield
    forget_servers()


def home(env: Env | None = None) -> MemoryServer:
    server = MemoryServer(env or FakeEnv())
    server.prepare([layout()], create=True)
    return server


def key(id: str, tenant: str = "", etype: str = "note") -> Key:
    return Key(tenant, etype, id)


def put(id: str, tenant: str = "", **fields: Any) -> Write:
    special = {name: fields.pop(name) for name in ("kind", "vectors", "keep", "expect_version") if name in fields}
    body = NOTE.encode(Note(id, **fields))
    at = key(id, tenant)
    return Write(special.pop("kind", "put"), at, key_hash(tenant, "note", id), body, NOTE.content_hash(body), **special)


def update(id: str, vectors: dict[str, bytes] | None = None, **fields: Any) -> Write:
    return Write("update", key(id), key_hash("", "note", id), NOTE.encode_patch(fields), vectors=vectors or {})


def delete(id: str) -> Write:
    return Write("delete", key(id), key_hash("", "note", id), None)


def commit(server: MemoryServer, *writes: Write) -> list[Written]:
    (answer,) = server.commit([Commit(writes)])
    if isinstance(answer, Exception):
        raise answer
    return list(answer.written)


def change(id: str, version: int, **fields: Any) -> Change:
    body = NOTE.encode(Note(id, **fields))
    return Change(key(id), version, key_hash("", "note", id), body, NOTE.content_hash(body), 7)


def found(server: MemoryServer, text: str, tenant: str = "") -> list[str]:
    return [match.id for match in server.search("note", tenant, query(text), None, 10, None)]


# -- connections ------------------------------------------------------------------------------------------------------


def in_a_loop(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def run() -> None:
        asyncio.run(test())

    run.__name__ = test.__name__
    return run


async def opened(url: str, env: Env | None = None) -> MemoryRepository:
    repository = await connect(url, {}, env or FakeEnv())
    await repository.prepare([layout()], create=True)
    return repository


@in_a_loop
async def test_connections_to_one_name_share_a_server_and_all_others_are_apart() -> None:
    env = FakeEnv()
    one, same, other, private, second_private = [
        await opened(url, env) for url in ("memory:x", "memory:x", "memory:y", "memory:", "memory:")
    ]
    await one.commit([Commit([put("a")])])
    stored = [await r.get([key("a")]) for r in (one, same, other, private, second_private)]
    assert [record is not None for (record,) in stored] == [True, True, False, False, False]
    assert (await one.ping()).run_id == (await same.ping()).run_id != (await other.ping()).run_id


@in_a_loop
async def test_forgotten_servers_are_kept_by_their_connections_only() -> None:
    before = await opened("memory:x")
    await before.commit([Commit([put("a")])])
    forget_servers()
    after = await opened("memory:x")
    assert await after.get([key("a")]) == [None]
    assert await before.get([key("a")]) != [None]


@pytest.mark.parametrize("url", ["memory://x", "memory:a/b", "memory:x?y=1", "memory", "sqlite:x"])
def test_an_impossible_url_is_a_configuration_error(url: str) -> None:
    with pytest.raises(ConfigurationError, match="memory:NAME"):
        asyncio.run(connect(url, {}, FakeEnv()))


def test_options_are_refused_by_name() -> None:
    with pytest.raises(ConfigurationError, match="unknown field `size`"):
        asyncio.run(connect("memory:", {"size": 1}, FakeEnv()))


@in_a_loop
async def test_a_closed_connection_refuses_every_call_and_leaves_the_others_open() -> None:
    one, same = await opened("memory:x"), await opened("memory:x")
    under_way = asyncio.create_task(one.commit([Commit([put("a")])]))
    await asyncio.sleep(0)
    await one.aclose()
    await one.aclose()
    with pytest.raises(Unavailable):
        await under_way
    with pytest.raises(Unavailable):
        await one.ping()
    with pytest.raises(Unavailable):
        one.get_now(key("a"))
    assert same.get_now(key("a")) is None


@in_a_loop
async def test_a_call_can_be_lost_before_the_server_and_its_answer_after_it() -> None:
    env = FakeEnv()
    repository = await opened("memory:", env)
    env.passed.clear()

    async def cancelled_after(steps: int, id: str) -> list[str]:
        task = asyncio.create_task(repository.commit([Commit([put(id)])]))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        passed, env.passed = env.passed, []
        return passed

    assert await cancelled_after(1, "lost") == ["memory.commit.before"]
    assert await cancelled_after(2, "written") == ["memory.commit.before", "memory.commit.after"]
    assert [record is not None for record in await repository.get([key("lost"), key("written")])] == [False, True]


@in_a_loop
async def test_crashpoints_stand_around_every_verb_of_a_delivery() -> None:
    env = FakeEnv()
    repository = await opened("memory:", env)
    env.passed.clear()
    await repository.claim("w", frozenset(), ["note"], 1)
    await repository.get([key("a")])
    await repository.apply([])
    await repository.settle(Settlement())
    verbs = ("claim", "get", "apply", "settle")
    assert env.passed == [f"memory.{verb}.{side}" for verb in verbs for side in ("before", "after")]


# -- records ----------------------------------------------------------------------------------------------------------


def test_values_given_and_returned_share_nothing_with_the_server() -> None:
    server = home()
    given = put("a", tags=["one"], knows=[Edge("b", Since(1))])
    (written,) = commit(server, given)
    for body in (given.body, written.body, server.get([key("a")])[0].body):  # type: ignore[union-attr]
        assert body is not None
        body["tags"].append("changed")
        body["knows"][0]["properties"]["year"] = 9
    (reached,) = server.traverse("note", "", "a", ["KNOWS"], "out", 1, None, 9)
    assert isinstance(reached.properties, dict)
    reached.properties["year"] = 9
    record = server.get_now(key("a"))
    assert record is not None
    assert record.body is not None
    assert record.body["tags"] == ["one"]
    assert server.traverse("note", "", "a", ["KNOWS"], "out", 1, None, 9)[0].properties == {"year": 1}


def test_a_commit_that_fails_late_leaves_nothing_behind() -> None:
    server = home()
    server.set_target(TargetRow("note", "copy", 0, "active"))
    commit(server, put("a", title="first", slug="s"))
    before = server.backlog()
    with pytest.raises(AlreadyExists):
        commit(server, put("a", title="second"), put("b", title="second", slug="s"), put("a", kind="create"))
    with pytest.raises(DimensionMismatch):
        commit(server, put("b", title="second"), put("c", text="x", vectors={"text": pack([1.0])}))
    assert (found(server, "first"), found(server, "second")) == (["a"], [])
    assert server.get([key("b"), key("c")]) == [None, None]
    assert server.backlog() == before
    with pytest.raises(IntegrityViolation):
        commit(server, put("b", slug="s"))


def test_a_unique_value_can_be_handed_over_within_a_commit() -> None:
    server = home()
    commit(server, put("a", slug="one"), put("b", slug="two"))
    commit(server, put("a", slug="three"), put("b", slug="one"), put("c", slug="two"))
    with pytest.raises(IntegrityViolation):
        commit(server, put("a", slug="one"), put("b", slug="two"))
    commit(server, delete("b"), put("d", slug="one"))
    commit(server, put("f"), put("d"), put("f", slug="one"))  # the taker is staged before the giver
    for taken in ("one", "two", "three"):
        with pytest.raises(IntegrityViolation):
            commit(server, put("e", slug=taken))


def test_a_bad_change_is_rejected_alone_and_changes_nothing() -> None:
    server = MemoryServer(FakeEnv())
    server.prepare([layout(home=False)], create=True)
    assert server.apply([change("a", 1, title="old")]) == [Outcome("applied")]
    bad = Change(key("a"), 2, 1, {"id": "a", "title": "new", "knows": [{"properties": None}]}, b"", 0)
    short = Change(key("a"), 2, 1, {"id": "a", "title": "new"}, b"", 0, vectors={"text": b"1234"})
    outcomes = server.apply([bad, short, change("b", 1)])
    assert [outcome.status for outcome in outcomes] == ["rejected", "rejected", "applied"]
    assert isinstance(outcomes[1].error, DimensionMismatch)
    assert (found(server, "old"), found(server, "new")) == (["a"], [])


def test_scan_tells_the_hash_of_what_is_stored_not_the_one_that_was_sent() -> None:
    server = home()
    sent = change("a", 1, title="x")
    server.apply([Change(sent.key, 1, sent.h, sent.body, b"wrong", 0)])
    assert [stamp.hash for stamp in server.scan("note", "", EVERYTHING, None, 9).stamps] == [sent.hash]


def test_a_deleted_text_no_longer_weighs_in_the_scores() -> None:
    def scores(server: MemoryServer) -> list[float]:
        return [match.score for match in server.search("note", "", query("x"), None, 9, None)]

    server, other = home(), home()
    for one in (server, other):
        commit(one, put("a", title="x x"), put("b", title="x"), *(put(f"{i}", title="y") for i in range(5)))
    commit(other, *(put(f"gone {i}", title="x z") for i in range(3)))
    assert scores(server) != scores(other)
    commit(other, *(delete(f"gone {i}") for i in range(3)))
    assert scores(server) == scores(other)


def test_copies_do_not_hold_records_to_unique_values() -> None:
    server = MemoryServer(FakeEnv())
    server.prepare([layout(home=False)], create=True)
    outcomes = server.apply([change("b", 1, slug="s"), change("a", 2, slug="s")])
    assert [outcome.status for outcome in outcomes] == ["applied", "applied"]


# -- vectors of a home ------------------------------------------------------------------------------------------------

EAST, NORTH = pack([1.0, 0.0]), pack([0.0, 1.0])


def embedded(text: str, vector: bytes, embedder: str = "far") -> StoredVector:
    return StoredVector(key("a"), "text", embedder, text_hash(text), vector)


def nearest(server: MemoryServer) -> list[tuple[str, float]]:
    return [(match.id, match.score) for match in server.similar("note", "", "text", EAST, None, 10)]


def test_an_embedders_result_enters_the_home_only_while_its_text_stands() -> None:
    server = home()
    commit(server, put("a", text="one"))
    assert nearest(server) == []
    server.put_vectors([embedded("before", EAST), embedded("one", NORTH, embedder="another")])
    assert nearest(server) == []
    assert server.vectors([key("a")]) == [embedded("one", NORTH, embedder="another")]
    server.put_vectors([embedded("one", EAST)])
    assert nearest(server) == [("a", 1.0)]
    commit(server, update("a", title="x"))
    assert nearest(server) == [("a", 1.0)]
    commit(server, update("a", text="two"))
    assert nearest(server) == []
    server.put_vectors([embedded("one", EAST)])
    assert nearest(server) == []
    commit(server, delete("a"))
    server.put_vectors([embedded("two", EAST)])
    assert server.vectors([key("a")]) == []


def test_the_callers_vector_stays_before_the_embedders() -> None:
    server = home()
    commit(server, put("a", text="one", vectors={"text": NORTH}, keep=frozenset({"text"})))
    server.put_vectors([embedded("one", EAST)])
    assert nearest(server) == [("a", 0.0)]
    assert server.scan("note", "", EVERYTHING, None, 9).stamps[0].vectors.keys() == {"text"}


def test_queries_of_facets_that_were_not_prepared_are_refused() -> None:
    server = MemoryServer(FakeEnv())
    server.prepare([layout(facets=frozenset({"vector"}))], create=True)
    with pytest.raises(UnsupportedOperation, match="full_text"):
        found(server, "x")
    with pytest.raises(UnsupportedOperation, match="graph"):
        server.traverse("note", "", "a", ["KNOWS"], "out", 1, None, 1)
    with pytest.raises(UnsupportedOperation, match="title"):
        server.similar("note", "", "title", EAST, None, 1)
    with pytest.raises(DimensionMismatch):
        server.similar("note", "", "text", b"1234", None, 1)


def test_a_path_reads_from_the_record_that_has_the_edge_in_either_direction() -> None:
    server = home()
    commit(
        server,
        put("a", about=["t"]),
        put("b", about=["t"], knows=[Edge("c", Since(3))]),
        put("x", "other", about=["t"]),
    )
    reached = server.traverse("note", "", "a", ["ABOUT", "KNOWS"], "both", 9, None, 9)
    assert [(one.etype, one.id, one.depth, one.path) for one in reached] == [
        ("topic", "t", 1, (("a", "ABOUT", "t"),)),
        ("note", "b", 2, (("a", "ABOUT", "t"), ("b", "ABOUT", "t"))),
        ("note", "c", 3, (("a", "ABOUT", "t"), ("b", "ABOUT", "t"), ("b", "KNOWS", "c"))),
    ]
    commit(server, delete("b"))
    assert [one.id for one in server.traverse("note", "", "a", ["ABOUT", "KNOWS"], "both", 9, None, 9)] == ["t"]


# -- the journal ------------------------------------------------------------------------------------------------------


def test_workers_live_for_five_seconds_by_the_servers_own_clock() -> None:
    clock = FakeEnv()
    server = MemoryServer(clock)
    server.beat("one")
    clock.us += 4_999_999
    assert server.beat("two") == {"one", "two"}
    clock.us += 1
    assert server.beat("two") == {"two"}


def test_a_workers_own_old_rows_are_not_claimed_again() -> None:
    """They may be in its hands still: `claimed` tells it which, and others may take them."""
    clock = FakeEnv()
    server = home(clock)
    server.set_target(TargetRow("note", "copy", 0, "active"))
    server.commit([Commit([put("a")], owner="one")])
    clock.us += 61_000_000
    assert server.claim("one", frozenset(), ["note"], 9) == []
    assert [row.key for row in server.claimed("one", clock.us, 9)] == [key("a")]
    assert [row.claims for row in server.claim("two", frozenset({"one"}), ["note"], 9)] == [0]


def test_a_late_failure_of_an_older_version_does_not_park_the_newer_one() -> None:
    server = home()
    at, h = key("a"), key_hash("", "note", "a")
    server.settle(Settlement(owed=[RetryRow("copy", at, h, 7, 7, "r", attempts=1, first_us=50)]))
    server.settle(
        Settlement(owed=[RetryRow("copy", at, h, 5, 5, "p", attempts=4, hard_fails=3, first_us=10, error="x")])
    )
    (row,) = server.due("copy", ["note"], 100, 9)
    assert row == RetryRow("copy", at, h, 7, 5, "r", attempts=4, hard_fails=3, first_us=50)


def test_a_redriven_dead_letter_begins_anew() -> None:
    clock = FakeEnv()
    server = home(clock)
    at, h = key("a"), key_hash("", "note", "a")
    server.settle(Settlement(owed=[RetryRow("copy", at, h, 7, 5, "p", 20, 3, first_us=1, next_us=2)]))
    assert server.redrive(None, None) == 1
    assert server.due("copy", ["note"], clock.us, 9) == [
        RetryRow("copy", at, h, 7, 5, "o", 0, 0, first_us=clock.us, next_us=clock.us)
    ]


def test_a_copy_is_owed_what_was_committed_since_it_was_added_and_every_version_of_a_retry_row() -> None:
    server = home()
    server.set_target(TargetRow("note", "old", 0, "active"))
    (written,) = commit(server, put("a"))
    server.set_target(TargetRow("note", "new", 1, "active"))
    h, version = key_hash("", "note", "a"), written.version
    assert [server.pending("note", name, [(h, version)]) for name in ("old", "new")] == [True, False]
    server.settle(Settlement(owed=[RetryRow("new", key("a"), h, version + 9, version + 2, "r")]))
    assert [server.pending("note", "new", [(h, version + step)]) for step in (1, 2, 5, 20)] == [False, True, True, True]


def test_two_workers_that_add_copies_at_once_never_share_a_bit() -> None:
    server = home()
    server.set_target(TargetRow("note", "one", 0, "active"))
    for bad in (TargetRow("note", "two", 0, "active"), TargetRow("note", "one", 1, "active")):
        with pytest.raises(IntegrityViolation, match="for good"):
            server.set_target(bad)
    server.set_target(TargetRow("other", "two", 0, "active"))
    server.set_target(TargetRow("note", "one", 0, "off"))
    assert server.targets() == [TargetRow("note", "one", 0, "off"), TargetRow("other", "two", 0, "active")]


def test_a_backfill_does_not_undo_a_status_that_was_set_meanwhile() -> None:
    server = home()
    commit(server, put("a"), put("b"))
    old = TargetRow("note", "copy", 0, "backfilling")
    server.set_target(TargetRow("note", "copy", 0, "off"))
    assert server.backfill(old, 1).status == "off"
    for _ in range(2):  # at its end it stays there
        assert server.backfill(server.targets()[0], 1) == TargetRow("note", "copy", 0, "off", "")


def test_one_seed_makes_one_history() -> None:
    def history() -> tuple[str, list[int]]:
        server = home(FakeEnv())
        rows = [RetryRow("copy", key(str(i)), i, 1, 1, "r") for i in range(20)]
        server.settle(Settlement(owed=rows))
        server.awaken("copy", None, 1_000_000)
        return server.ping().run_id, [row.next_us for row in server.due("copy", ["note"], 1 << 60, 99)]

    assert history() == history()


# -- classes that change ----------------------------------------------------------------------------------------------


def prepared(server: MemoryServer, cls: type[Any], **options: Any) -> EntityType[Any]:
    one = entity_type(cls)
    server.prepare([layout(one, **options)], create=True)
    return one


def test_records_follow_their_class() -> None:
    @entity(name="note", renamed={"words": "text"})
    @dataclass
    class Newer:
        id: str
        words: Annotated[str | None, FullText(), Embedding(embedder="far")] = None
        stars: int = 3

    server = home()
    (written,) = commit(server, put("a", title="title", text="text", slug="s", vectors={"text": EAST}))
    server.apply([Change(key("gone"), 9, 1, None, b"", 0)])
    one = entity_type(Newer)
    spec = {"words": VECTORS["text"]}
    with pytest.raises(SchemaMismatch):
        server.prepare([Layout(one, True, FACETS, spec)], create=False)
    server.prepare([Layout(one, True, FACETS, spec)], create=True)
    server.prepare([Layout(one, True, FACETS, spec)], create=False)
    record = server.get_now(key("a"))
    assert record is not None
    assert (record.version, record.body) == (
        written.version,
        {
            "id": "a",
            "words": "text",
            "stars": 3,
        },
    )
    assert (
        record.hash
        == one.content_hash(record.body or {})
        == server.scan("note", "", EVERYTHING, None, 9).stamps[0].hash
    )
    assert (found(server, "title"), found(server, "text")) == ([], ["a"])
    assert [m.id for m in server.similar("note", "", "words", EAST, None, 9)] == ["a"]
    assert server.get([key("gone")]) != [None]

    prepared(server, Note)
    record = server.get_now(key("a"))
    assert record is not None
    assert record.body is not None
    assert (record.body["title"], record.body["slug"]) == ("title", "s")


def test_a_facet_added_later_finds_the_records_written_before() -> None:
    server = MemoryServer(FakeEnv())
    server.prepare([layout(facets=frozenset())], create=True)
    commit(server, put("a", title="title", about=["t"]))
    server.prepare([layout()], create=True)
    assert found(server, "title") == ["a"]
    assert [one.id for one in server.traverse("note", "", "a", ["ABOUT"], "out", 1, None, 9)] == ["t"]


def test_vectors_of_another_embedder_or_dimension_are_not_compared() -> None:
    server = home()
    commit(server, put("a", text="one", vectors={"text": EAST}))
    other = Layout(NOTE, True, FACETS, {"text": VectorSpec(2, "cosine", "other")})
    with pytest.raises(SchemaMismatch):
        server.prepare([other], create=False)
    assert nearest(server) == [("a", 1.0)]
    server.prepare([other], create=True)
    assert nearest(server) == []


def test_a_field_does_not_become_unique_over_equal_values() -> None:
    @entity(name="note")
    @dataclass
    class Stricter:
        id: str
        title: Annotated[str, Unique()] = ""

    server = home()
    commit(server, put("a", title="same"), put("b", title="same"))
    with pytest.raises(SchemaMismatch, match=r"Stricter\.title"):
        prepared(server, Stricter)
    assert found(server, "same") == ["a", "b"]
    commit(server, put("b", title="other"))
    prepared(server, Stricter)
    with pytest.raises(IntegrityViolation):
        commit(server, put("c", title="same"))


def test_a_type_that_is_not_prepared_is_named() -> None:
    server = MemoryServer(FakeEnv())
    with pytest.raises(SchemaMismatch, match="'note'"):
        server.get([key("a")])
    with pytest.raises(SchemaMismatch, match="'note'"):
        server.prepare([layout()], create=False)
    (answer,) = server.commit([Commit([put("a")])])
    assert isinstance(answer, SchemaMismatch)
    assert server.commit([Commit([], marks={"m": "1"})]) == [Committed([])]
