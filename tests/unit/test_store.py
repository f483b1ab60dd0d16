"""A store: what travels together, what touches nobody else, and how errors are named."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from polystore.config import StoreConfig
from polystore.errors import (
    CircuitOpen,
    ConfigurationError,
    DecodeError,
    InvalidData,
    OutcomeUnknown,
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreTimeout,
    Unavailable,
    UnsupportedOperation,
    VersionConflict,
)
from polystore.layers import tracing
from polystore.model import Change, Commit, Committed, Key, Written
from polystore.protocols import Repository, SupportsCommit, SupportsFilter
from polystore.store import Settings, Store, open_store
from tests.unit.doubles import Fake, InlineFake, LoopEnv, commit, key, record, virtually


def store_of(fake: Fake, **settings: Any) -> Store:
    return Store("main", fake, env=LoopEnv(), settings=Settings(**settings))


def change(id: str) -> Change:
    return Change(key(id), 1, 0, {}, b"", 0)


def failing_on(id: str, error: Exception) -> Any:
    """Trouble for every call that is about this id."""

    async def trouble(asked: Sequence[Key | Commit] | None) -> None:
        for one in asked or ():
            if id in ([one.id] if isinstance(one, Key) else [write.key.id for write in one.writes]):
                raise type(error)(*error.args)

    return trouble


# -- reads ------------------------------------------------------------------------------------------------------------


def test_gets_of_one_tick_are_one_call_with_each_key_once_and_answers_in_the_order_asked() -> None:
    async def main() -> None:
        fake = Fake()
        store = store_of(fake)
        answers = await asyncio.gather(
            store.get([key("a")]), store.get([key("b"), key("none"), key("a")]), store.get([key("c")])
        )
        assert [[r and r.key.id for r in records] for records in answers] == [["a"], ["b", None, "a"], ["c"]]
        assert len(fake.gets) == 1
        assert sorted(one.id for one in fake.gets[0]) == ["a", "b", "c", "none"]

    asyncio.run(main())


def test_a_call_carries_one_type_and_tenant() -> None:
    async def main() -> None:
        fake = Fake()
        keys = [key("1"), key("2", etype="other"), key("3", tenant="acme"), key("4")]
        assert [r and r.key for r in await store_of(fake).get(keys)] == keys
        assert sorted([one.id for one in call] for call in fake.gets) == [["1", "4"], ["2"], ["3"]]

    asyncio.run(main())


def test_batches_are_split_at_the_stores_limit() -> None:
    async def main() -> None:
        fake = Fake(batch_max=3)
        keys = [key(str(i)) for i in range(7)]
        assert [r and r.key for r in await store_of(fake).get(keys)] == keys
        assert sorted(len(call) for call in fake.gets) == [1, 3, 3]

    asyncio.run(main())


def test_nothing_asked_is_no_call() -> None:
    async def main() -> None:
        fake = Fake()
        assert await store_of(fake).get([]) == []
        assert fake.gets == []

    asyncio.run(main())


def test_two_who_ask_for_the_same_record_share_no_value() -> None:
    async def main() -> None:
        store = store_of(Fake())
        (one,), (other,), (twice, again) = await asyncio.gather(
            store.get([key("a")]), store.get([key("a")]), store.get([key("a"), key("a")])
        )
        bodies = [r.body for r in (one, other, twice, again) if r is not None and r.body is not None]
        assert len(bodies) == 4
        bodies[0]["tags"].append("mine")
        assert [body["tags"] for body in bodies[1:]] == [["a"]] * 3

    asyncio.run(main())


def test_a_cancelled_get_touches_no_other() -> None:
    async def main() -> None:
        store = store_of(Fake())
        tasks = [asyncio.create_task(store.get([key(id)])) for id in "abc"]
        await asyncio.sleep(0)
        tasks[0].cancel()
        await asyncio.wait(tasks)
        assert tasks[0].cancelled()
        assert [task.result()[0] for task in tasks[1:]] == [record(key("b")), record(key("c"))]

    asyncio.run(main())


def test_a_record_that_cannot_be_read_fails_only_for_those_who_asked_for_it() -> None:
    async def main() -> None:
        fake = Fake()
        fake.trouble = failing_on("bad", DecodeError("torn"))
        store = store_of(fake)
        answers: Sequence[Any] = await asyncio.gather(
            store.get([key("good")]),
            store.get([key("bad")]),
            store.get([key("good"), key("bad")]),
            return_exceptions=True,
        )
        good, bad, both = answers
        assert good == [record(key("good"))]
        assert isinstance(bad, DecodeError)
        assert isinstance(both, DecodeError)

    asyncio.run(main())


def test_an_outage_is_everybodys_and_named_with_each_callers_key_in_one_call() -> None:
    async def main() -> None:
        fake = Fake()

        async def down(_: object) -> None:
            raise Unavailable("down")

        fake.trouble = down
        store = store_of(fake, attempts=1)
        errors = await asyncio.gather(store.get([key("a")]), store.get([key("b")]), return_exceptions=True)
        assert [str(error) for error in errors] == ["main get key 'a': down", "main get key 'b': down"]
        assert len(fake.gets) == 1

    asyncio.run(main())


def test_a_read_is_tried_again_through_a_short_outage() -> None:
    async def main() -> None:
        fake = Fake()
        errors = [Unavailable("restarting"), OutcomeUnknown("connection lost")]

        async def trouble(_: object) -> None:
            if errors:
                raise errors.pop()

        fake.trouble = trouble
        assert await store_of(fake).get([key("a")]) == [record(key("a"))]

    virtually(main)


# -- inline reads -----------------------------------------------------------------------------------------------------


def test_a_single_key_is_read_inline_and_counted() -> None:
    async def main() -> None:
        fake = InlineFake()
        store = store_of(fake)
        with tracing.collect() as trace:
            assert await store.get([key("a")]) == [record(key("a"))]
        assert fake.gets == []
        assert store.metrics.of("get").count == 1
        assert [(step.store, step.verb, step.n) for step in trace.steps] == [("main", "get", 1)]

    asyncio.run(main())


def test_an_inline_read_that_would_wait_goes_the_ordinary_way_and_counts_once() -> None:
    async def main() -> None:
        fake = InlineFake()
        fake.inline_error = Unavailable("locked")
        store = store_of(fake)
        with pytest.raises(Unavailable, match="main get key 'a': locked"):
            store.get_now(key("a"))
        assert await store.get([key("a")]) == [record(key("a"))]
        assert len(fake.gets) == 1
        assert (store.metrics.of("get").count, store.metrics.of("get").errors) == (1, 0)

    asyncio.run(main())


@pytest.mark.parametrize("error", [StoreCorrupt("torn page"), DecodeError("torn")])
def test_an_inline_read_of_damaged_data_fails_and_is_not_asked_again(error: Exception) -> None:
    async def main() -> None:
        fake = InlineFake()
        fake.inline_error = error
        store = store_of(fake)
        with pytest.raises(type(error)) as caught:
            await store.get([key("a")])
        if isinstance(caught.value, StoreError):
            assert (caught.value.store, caught.value.operation, caught.value.key) == ("main", "get", "a")
        assert fake.gets == []
        assert store.metrics.of("get").errors == 1

    asyncio.run(main())


# -- writes -----------------------------------------------------------------------------------------------------------


def test_commits_of_one_tick_are_one_call_and_each_caller_gets_its_own_result() -> None:
    async def main() -> None:
        fake = Fake()
        store = store_of(fake)
        answers = await asyncio.gather(*(store.commit(commit(*ids)) for ids in ("a", "bc", "d")))
        assert [len(answer.written) for answer in answers] == [1, 2, 1]
        assert len(fake.commits) == 1

    asyncio.run(main())


def test_a_call_carries_at_most_batch_max_writes_and_no_commit_is_torn() -> None:
    async def main() -> None:
        fake = Fake(batch_max=3)
        store = store_of(fake)
        sizes = ["ab", "cd", "e", "fghij", "k"]
        await asyncio.gather(*[store.commit(commit(*ids)) for ids in sizes])
        sent = [["".join(w.key.id for w in one.writes) for one in call] for call in fake.commits]
        assert sent == [["ab"], ["cd", "e"], ["fghij"], ["k"]]

    asyncio.run(main())


class Refusing(Fake):
    """Its answers hold errors, as the contract has it."""

    async def commit(self, commits: Sequence[Commit]) -> list[Committed | Exception]:
        self.commits.append(list(commits))
        refused = {"old": VersionConflict("is at 9", actual=9), "full": StoreFull("no room")}
        return [refused.get(one.writes[0].key.id) or Committed([Written(7, False)]) for one in commits]


def test_a_refused_commit_raises_its_own_error_and_touches_no_other() -> None:
    async def main() -> None:
        store = store_of(Refusing())
        answers: Sequence[Any] = await asyncio.gather(
            store.commit(commit("good")),
            store.commit(commit("old")),
            store.commit(commit("full")),
            return_exceptions=True,
        )
        good, old, full = answers
        assert isinstance(good, Committed)
        assert isinstance(old, VersionConflict)
        assert old.actual == 9
        assert isinstance(full, StoreFull)
        assert (full.store, full.operation) == ("main", "commit")

    asyncio.run(main())


@pytest.mark.parametrize("who", [0, 1, 2])
@pytest.mark.parametrize("after_ticks", [1, 2, 3])
def test_a_commit_that_travels_with_others_is_carried_out_when_its_caller_is_cancelled(
    who: int, after_ticks: int
) -> None:
    async def main() -> None:
        fake = Fake()
        done = list[Commit]()

        async def slow(commits: Sequence[Commit]) -> None:
            await asyncio.sleep(0.001)
            done.extend(commits)

        fake.trouble = slow
        store = store_of(fake)
        tasks = [asyncio.create_task(store.commit(commit(str(i)))) for i in range(3)]
        await asyncio.sleep(0)  # they have asked
        for _ in range(after_ticks):
            await asyncio.sleep(0)
        tasks[who].cancel()
        await asyncio.wait(tasks)
        assert tasks[who].cancelled()
        await store.aclose()
        assert [one.writes[0].key.id for one in done] == ["0", "1", "2"]

    asyncio.run(main())


def test_a_commit_that_travels_alone_ends_with_its_caller() -> None:
    async def main() -> None:
        fake = Fake()
        fake.trouble = lambda _: asyncio.sleep(1000)
        store = store_of(fake)
        task = asyncio.create_task(store.commit(commit("a")))
        await asyncio.sleep(0)
        assert len(fake.commits) == 1
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        fake.trouble = lambda _: asyncio.sleep(0)
        assert len((await store.commit(commit("b"))).written) == 1

    asyncio.run(main())


def test_an_error_for_a_whole_call_of_commits_is_sorted_out_one_by_one() -> None:
    async def main() -> None:
        fake = Fake()
        fake.trouble = failing_on("bad", InvalidData("too odd for this store"))
        store = store_of(fake)
        answers: Sequence[Any] = await asyncio.gather(
            store.commit(commit("good")),
            store.commit(commit("bad")),
            store.commit(commit("other")),
            return_exceptions=True,
        )
        good, bad, other = answers
        assert isinstance(good, Committed)
        assert isinstance(bad, InvalidData)
        assert isinstance(other, Committed)

    asyncio.run(main())


@pytest.mark.parametrize("error", [OutcomeUnknown("connection lost"), RuntimeError("a mistake in the adapter")])
def test_commits_of_unknown_fate_are_never_sent_again(error: Exception) -> None:
    async def main() -> None:
        fake = Fake()
        fake.trouble = failing_on("a", error)
        store = store_of(fake)
        answers = await asyncio.gather(store.commit(commit("a")), store.commit(commit("b")), return_exceptions=True)
        assert [type(answer) for answer in answers] == [type(error)] * 2
        assert len(fake.commits) == 1

    virtually(main)


def test_a_commit_that_was_not_written_is_tried_again() -> None:
    async def main() -> None:
        fake = Fake()
        errors = [Unavailable("restarting")]

        async def trouble(_: object) -> None:
            if errors:
                raise errors.pop()

        fake.trouble = trouble
        assert len((await store_of(fake).commit(commit("a"))).written) == 1

    virtually(main)


def test_a_commit_without_an_answer_is_of_unknown_outcome_at_the_deadline() -> None:
    async def main() -> None:
        fake = Fake()
        fake.trouble = lambda _: asyncio.sleep(1000)
        with pytest.raises(OutcomeUnknown, match="main commit key 'a': no answer within 2 s"):
            await store_of(fake, timeout_s=2).commit(commit("a"))

    virtually(main)


# -- any call ---------------------------------------------------------------------------------------------------------


def test_a_missing_capability_is_refused_before_any_call() -> None:
    async def main() -> None:
        fake = Fake()
        store = store_of(fake)
        with pytest.raises(UnsupportedOperation, match="main count: this store has no SupportsFilter"):
            await store.call(SupportsFilter.count, "thing", "", None)
        with pytest.raises(UnsupportedOperation):
            store.get_now(key("a"))
        fake.capabilities = frozenset()
        with pytest.raises(UnsupportedOperation):
            await store_of(fake).commit(commit("a"))
        assert (fake.gets, fake.commits) == ([], [])

    asyncio.run(main())


def test_every_method_of_the_contract_can_be_called_and_is_traced() -> None:
    async def main() -> None:
        store = store_of(Fake())
        with tracing.collect() as trace:
            assert (await store.call(Repository.ping)).server == "fake"
            await store.get([key("a"), key("b")])
            await asyncio.gather(*(store.commit(commit(*ids)) for ids in ("a", "bc", "d")))
            await store.deliver([change("a")])
        assert [(step.verb, step.n) for step in trace.steps] == [
            ("ping", 1), ("get", 2), ("commit", 1), ("commit", 2), ("commit", 1), ("apply", 1),
        ]  # fmt: skip
        assert {verb: m.count for verb, m in store.metrics.verbs.items()} == {
            "ping": 1, "get": 1, "commit": 1, "apply": 1,
        }  # fmt: skip

    asyncio.run(main())


def test_delivery_is_tried_once() -> None:
    async def main() -> None:
        fake = Fake()

        async def down(_: object) -> None:
            raise Unavailable("down")

        fake.trouble = down
        with pytest.raises(Unavailable, match="main apply key 'a': down"):
            await store_of(fake).deliver([change("a")])
        assert fake.applied == 1

    asyncio.run(main())


def test_an_error_that_names_its_store_keeps_the_name() -> None:
    async def main() -> None:
        fake = Fake()

        async def replica(_: object) -> None:
            raise StoreCorrupt("torn", store="replica 2", operation="fetch", key="x")

        fake.trouble = replica
        with pytest.raises(StoreCorrupt, match="replica 2 fetch key 'x': torn"):
            await store_of(fake).call(Repository.ping)

    asyncio.run(main())


def test_a_store_that_keeps_failing_is_left_alone_until_a_ping_succeeds() -> None:
    async def main() -> None:
        fake = InlineFake()
        outage = True

        async def trouble(_: object) -> None:
            if outage:
                raise Unavailable("down")

        fake.trouble = trouble
        store = store_of(fake, attempts=1)
        for _ in range(5):
            with pytest.raises(Unavailable, match="down"):
                await store.deliver([change("a")])
        asked = fake.applied
        with pytest.raises(CircuitOpen, match="main apply key 'a'"):
            await store.deliver([change("a")])
        with pytest.raises(CircuitOpen):
            await store.get([key("a")])  # not inline either
        await asyncio.sleep(10)
        assert fake.applied == asked
        assert fake.pings >= 4
        outage = False
        await asyncio.sleep(2)
        await store.deliver([change("a")])
        await store.aclose()

    virtually(main)


def test_a_ping_without_an_answer_does_not_stop_the_probing() -> None:
    async def main() -> None:
        fake = Fake()
        fake.trouble = lambda _: asyncio.sleep(1000)
        store = store_of(fake, timeout_s=1)
        for _ in range(5):
            with pytest.raises(StoreTimeout):
                await store.deliver([change("a")])
        await asyncio.sleep(10)
        assert fake.pings >= 3
        await store.aclose()
        assert len(asyncio.all_tasks()) == 1

    virtually(main)


def test_aclose_closes_the_repository_and_leaves_no_task() -> None:
    async def main() -> None:
        fake = Fake()
        store = store_of(fake)
        under_way = [asyncio.create_task(store.get([key(id)])) for id in "abc"]
        await asyncio.sleep(0)
        await store.aclose()
        await store.aclose()
        assert fake.closed
        await asyncio.wait(under_way)
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())


# -- opening ----------------------------------------------------------------------------------------------------------


def test_roles_default_to_what_the_repository_can_and_others_are_refused() -> None:
    class Home(Fake):
        capabilities = frozenset({SupportsCommit, SupportsFilter})

    assert Store("main", Home(), env=LoopEnv()).roles == frozenset()
    with pytest.raises(ConfigurationError, match=r"stores\.main\.roles: this store cannot be 'graph'"):
        Store("main", Home(), env=LoopEnv(), roles=["graph"])


def test_opening_names_the_store_in_every_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(url: str, options: object, env: object) -> Repository:
        raise StoreCorrupt("not a database")

    async def hang(url: str, options: object, env: object) -> None:
        await asyncio.sleep(1000)

    async def main() -> None:
        with pytest.raises(ConfigurationError, match=r"stores\.main: the URL scheme 'nowhere' is not known"):
            await open_store("main", StoreConfig(url="nowhere:x"), LoopEnv())
        monkeypatch.setattr("polystore.store.connect", refuse)
        with pytest.raises(StoreCorrupt, match="main connect: not a database"):
            await open_store("main", StoreConfig(url="sqlite:x"), LoopEnv())
        monkeypatch.setattr("polystore.store.connect", hang)
        with pytest.raises(StoreTimeout, match="main connect: no answer within 10 s"):
            await open_store("main", StoreConfig(url="sqlite:x"), LoopEnv())

    virtually(main)


def test_opening_takes_the_settings_of_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Fake()

    async def connect(url: str, options: object, env: object) -> Repository:
        return fake

    monkeypatch.setattr("polystore.store.connect", connect)

    async def main() -> None:
        store = await open_store("main", StoreConfig(url="x:", timeout_s=2), LoopEnv())
        assert (store.name, store.supports(SupportsCommit)) == ("main", True)
        fake.trouble = lambda _: asyncio.sleep(1000)
        with pytest.raises(StoreTimeout, match="within 2 s"):
            await store.call(Repository.ping)

    virtually(main)
    with pytest.raises(ConfigurationError):
        asyncio.run(open_store("main", StoreConfig(url="x:", roles=("graph",)), LoopEnv()))
    assert fake.closed
