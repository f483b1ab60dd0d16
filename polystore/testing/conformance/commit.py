"""A home's commits: unique values, all or nothing, done once, and versions that only grow."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated

import pytest

from polystore.entity import entity, entity_type
from polystore.errors import AlreadyExists, IntegrityViolation, InvalidData, NotFound, VersionConflict
from polystore.facets import Unique
from polystore.model import Commit, Committed, OpId, Write, Written
from polystore.testing.conformance.base import (
    account,
    commit,
    committed,
    delete,
    key_of,
    live,
    put,
    state,
    update,
    write,
)
from polystore.testing.conformance.entities import ACCOUNT, NUMBERED, THING, Account, Numbered, Thing
from polystore.testing.conformance.histories import watch
from polystore.testing.conformance.writes import KEY, Home, WritesConformance


@entity(name="kit_priced")
@dataclass(kw_only=True)
class Priced:
    id: str
    price: Annotated[Decimal, Unique()]


PRICED = entity_type(Priced)


def priced(id: str, price: str) -> Write:
    return write("put", PRICED, Priced(id=id, price=Decimal(price)))


class CommitConformance(WritesConformance):
    """What a home answers to each kind of write, alone and together, and what then stands there."""

    # -- unique values ----------------------------------------------------------------------------------------

    async def test_unique_values_are_held_by_one_live_record_of_a_tenant(self) -> None:
        store: Home = await self.open()
        await commit(store, account("a", "x@y", number=1), account("b", "b@y"), account("c", "c@y"))
        for second in (
            account("d", "x@y"),
            account("d", "d@y", number=1),
            write("create", ACCOUNT, Account(id="d", email="x@y")),
            write("insert", ACCOUNT, Account(id="d", email="x@y")),
            update(ACCOUNT, "b", {"email": "x@y"}),
            account("b", "x@y"),
        ):
            with pytest.raises(IntegrityViolation) as taken:
                await commit(store, second)
            assert "x@y" not in str(taken.value), "an error must not carry a value"
        assert await self._gone(store, key_of(ACCOUNT, "d"))
        assert (await live(store, key_of(ACCOUNT, "b")))[1]["email"] == "b@y"
        await commit(store, account("a", "x@y", number=1), account("a", "x@y", number=1, tenant="acme"))
        await commit(store, account("e", "X@y"), account("f", "x@y "), update(ACCOUNT, "a", {"owner": "me"}))
        await commit(store, delete(ACCOUNT, "a"))
        await commit(store, account("g", "x@y", number=1))

    async def test_equal_decimals_are_one_unique_value_however_they_are_written(self) -> None:
        store: Home = await self.open(PRICED)
        await commit(store, priced("a", "1.0"), priced("zero", "0"))
        for text in ("1.00", "1", "10E-1", "-0.00"):
            with pytest.raises(IntegrityViolation):
                await commit(store, priced("b", text))
        with pytest.raises(IntegrityViolation):
            await commit(store, priced("c", "2.50"), priced("d", "2.5"))
        answers = await asyncio.gather(*(store.commit([Commit([priced(text, text)])]) for text in ("3", "3.0", "3.00")))
        assert [isinstance(one, IntegrityViolation) for (one,) in answers].count(True) == 2
        await commit(store, priced("a", "1.00"))
        assert repr((await live(store, key_of(PRICED, "a")))[1]["price"]) == repr(Decimal("1.00"))
        await commit(store, delete(PRICED, "a"), priced("b", "1"))

    async def test_a_unique_value_may_move_to_another_record_in_one_commit(self) -> None:
        store: Home = await self.open()
        await commit(store, account("a", "x@y"))
        await commit(store, delete(ACCOUNT, "a"), account("b", "x@y"))
        await commit(store, account("b", "other"), account("c", "x@y"))
        assert (await live(store, key_of(ACCOUNT, "c")))[1]["email"] == "x@y"
        with pytest.raises(IntegrityViolation):
            await commit(store, account("d", "twice"), account("e", "twice"))
        assert await self._gone(store, key_of(ACCOUNT, "d"))

    async def test_unique_values_that_change_places_do_so_wholly_or_not_at_all(self) -> None:
        """A store may check each write as it comes: then it refuses, and nothing has changed."""
        store: Home = await self.open()
        await commit(store, account("a", "x@y"), account("b", "y@x"))
        try:
            await commit(store, account("a", "y@x"), account("b", "x@y"))
            wanted = ["y@x", "x@y"]
        except IntegrityViolation:
            wanted = ["x@y", "y@x"]
        assert [(await live(store, key_of(ACCOUNT, id)))[1]["email"] for id in "ab"] == wanted

    async def test_of_many_that_want_one_unique_value_at_once_one_gets_it(self) -> None:
        stores: list[Home] = [await self.open(), await self.open()]
        answers = await asyncio.gather(
            *(commit(stores[i % 2], account(f"{i}", "wanted")) for i in range(8)), return_exceptions=True
        )
        refused = [a for a in answers if isinstance(a, IntegrityViolation)]
        assert len(refused) == 7, answers

    async def test_a_unique_value_of_a_commit_that_was_given_up_is_free_for_the_next_of_the_same_call(self) -> None:
        store: Home = await self.open()
        given_up = Commit([account("a", "x@y"), update(ACCOUNT, "absent", {"owner": "me"})])
        first, second = await store.commit([given_up, Commit([account("b", "x@y")])])
        assert isinstance(first, NotFound | IntegrityViolation)  # under layers the second may overtake it
        assert isinstance(second, Committed), second

    # -- all or nothing ---------------------------------------------------------------------------------------

    @pytest.mark.parametrize("error", [AlreadyExists, NotFound, VersionConflict, IntegrityViolation])
    async def test_a_commit_is_carried_out_wholly_or_not_at_all(self, error: type[Exception]) -> None:
        store: Home = await self.open()
        (old,) = await commit(store, put("old", word="old"))
        await commit(store, account("holder", "x@y"))
        failures: dict[type[Exception], Write] = {
            AlreadyExists: write("create", THING, Thing(id="old")),
            NotFound: update(THING, "absent", {"word": "x"}),
            VersionConflict: update(THING, "old", {"word": "x"}, expect_version=old.version - 1),
            IntegrityViolation: account("other", "x@y"),
        }
        failing = failures[error]
        good = [put("new"), write("put", NUMBERED, Numbered(1)), delete(ACCOUNT, "holder")]
        if error is IntegrityViolation:
            good.pop()
        for writes in ([*good, failing], [failing, *good], [*good[:1], failing, *good[1:]]):
            with pytest.raises(error):
                await commit(store, *writes)
            assert (await live(store, key_of(THING, "old")))[0] == old.version
            assert (await live(store, key_of(ACCOUNT, "holder")))[1]["email"] == "x@y"
            assert await store.get([key_of(THING, "new")]) == [None]
            assert await store.get([key_of(NUMBERED, 1)]) == [None]

    async def test_commits_of_one_call_are_apart(self) -> None:
        store: Home = await self.open()
        await commit(store, put("there"))
        answers = await store.commit(
            [
                Commit([put("a")]),
                Commit([put("b"), write("create", THING, Thing(id="there"))]),
                Commit([update(THING, "absent", {"word": "x"})]),
                Commit([put("c"), put("d")]),
            ]
        )
        assert [type(a) for a in answers] == [Committed, AlreadyExists, NotFound, Committed]
        for id, gone in (("a", False), ("b", True), ("c", False), ("d", False)):
            assert await self._gone(store, key_of(THING, id)) == gone
        assert await store.commit([]) == []

    async def test_writes_of_a_commit_happen_in_order_also_on_one_key(self) -> None:
        store: Home = await self.open()
        written = await commit(
            store,
            write("create", THING, Thing(id="a", word="created")),
            update(THING, "a", {"number": 2}),
            delete(THING, "b"),
            put("b", word="put"),
            delete(THING, "b"),
        )
        assert [(w.existed, w.changed) for w in written] == [
            *((False, True), (True, True), (False, False)),
            *((False, True), (True, True)),
        ]
        version, body = await live(store, KEY)
        assert (version, body["word"], body["number"]) == (written[1].version, "created", 2)
        assert written[0].version < written[1].version
        assert await self._gone(store, key_of(THING, "b"))

    async def test_a_large_commit_is_one_commit(self) -> None:
        store: Home = await self.open()
        many = [put(f"id-{i}") for i in range(1_500)]
        with pytest.raises(NotFound):
            await commit(store, *many, update(THING, "absent", {"word": "x"}))
        assert not any(await store.get([w.key for w in many]))
        written = await commit(store, *many)
        assert [r and r.version for r in await store.get([w.key for w in many])] == [w.version for w in written]

    # -- operation ids ----------------------------------------------------------------------------------------

    async def test_a_repeated_operation_id_is_answered_and_not_carried_out_again(self) -> None:
        store: Home = await self.open()
        op = OpId("", "op-1", b"content")
        first = await committed(store, Commit([put("a", number=1), put("b")], op=op))
        (moved,) = await commit(store, put("a", number=2))
        again = await committed(store, Commit([put("a", number=1), put("b")], op=op))
        assert (first.repeated, again.repeated) == (False, True)
        assert [w.version for w in again.written] == [w.version for w in first.written]
        assert (await live(store, KEY))[0] == moved.version

    async def test_an_operation_id_with_another_content_is_refused(self) -> None:
        store: Home = await self.open()
        await committed(store, Commit([put("a", number=1)], op=OpId("", "op-1", b"content")))
        with pytest.raises(InvalidData):
            await committed(store, Commit([put("a", number=2)], op=OpId("", "op-1", b"another")))
        assert (await live(store, KEY))[1]["number"] == 1
        other = await committed(store, Commit([put("b")], op=OpId("acme", "op-1", b"another")))
        assert not other.repeated

    async def test_a_failed_commit_leaves_its_operation_id_free(self) -> None:
        store: Home = await self.open()
        op = OpId("", "op-1", b"content")
        with pytest.raises(NotFound):
            await committed(store, Commit([update(THING, "a", {"word": "x"})], op=op))
        await commit(store, put("a"))
        done = await committed(store, Commit([update(THING, "a", {"word": "x"})], op=op))
        assert not done.repeated
        assert (await live(store, KEY))[1]["word"] == "x"

    async def test_one_operation_id_many_times_at_once_is_carried_out_once(self) -> None:
        stores: list[Home] = [await self.open(), await self.open()]
        one = Commit([put("a", number=1)], op=OpId("", "op-1", b"content"))
        answers = [
            a for part in await asyncio.gather(*(stores[i % 2].commit([one, one]) for i in range(4))) for a in part
        ]
        done = [a for a in answers if isinstance(a, Committed)]
        assert len(done) == 8, answers
        assert sum(not a.repeated for a in done) == 1
        assert {w.version for a in done for w in a.written} == {(await live(stores[0], KEY))[0]}

    # -- versions ---------------------------------------------------------------------------------------------

    async def test_versions_of_a_key_grow_whatever_runs_at_the_same_time(self) -> None:
        stores: list[Home] = [await self.open(), await self.open()]
        ids = ["a", "b"]
        done: list[tuple[Write, Written]] = []

        async def writer(number: int) -> None:
            r = random.Random(number)
            for turn in range(15):
                id = r.choice(ids)
                one = delete(THING, id) if r.random() < 0.4 else put(id, number=100 * number + turn)
                (written,) = await commit(stores[number % 2], one)
                if written.changed:
                    done.append((one, written))

        working = asyncio.gather(*(writer(i) for i in range(8)))
        watching = asyncio.gather(*(watch(store, [key_of(THING, id) for id in ids], working) for store in stores))
        await working
        await watching
        assert len({w.version for _, w in done}) == len(done)
        for id in ids:
            newest, written = max((pair for pair in done if pair[0].key.id == id), key=lambda pair: pair[1].version)
            for store in stores:
                record = await state(store, newest.key)
                assert record is not None
                assert (record.version, record.body) == (written.version, newest.body)

    async def test_a_cancelled_commit_happened_wholly_or_not_at_all(self) -> None:
        store: Home = await self.open()
        for turn in range(30):
            pair = (put(f"{turn}-x"), put(f"{turn}-y"))
            task = asyncio.create_task(commit(store, *pair))
            for _ in range(turn % 6):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await commit(store, put("after", number=turn))
            x, y = await store.get([w.key for w in pair])
            assert (x is None) == (y is None)
            assert (await live(store, key_of(THING, "after")))[1]["number"] == turn
