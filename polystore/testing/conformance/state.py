"""State: values that change in place, that expire, and that are counted in."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import msgspec
import pytest

from polystore.entity import EntityType, entity, entity_type
from polystore.errors import DecodeError, InvalidData, Unavailable, ValueTooLarge
from polystore.kinds import INT_MAX, INT_MIN
from polystore.model import VALUE_BYTES_MAX, Key
from polystore.protocols import Fields, Layout, Repository, StateRow, SupportsSchema, SupportsState
from polystore.testing.conformance.base import Conformance
from polystore.testing.conformance.entities import FLOATS, INTEGERS, TREES, WORDS


@entity(name="kit_session", data_type="session")
@dataclass
class Session:
    """What a store is told it holds; the fields of its values are the tests' own."""

    id: str
    number: int = 0


SESSION: EntityType[Session] = entity_type(Session)
FIELDS: Fields = {"id": b'"a"', "number": b"1"}


def key_of(id: str = "a", tenant: str = "", etype: str = "kit_session") -> Key:
    return Key(tenant, etype, id)


def texts(values: Mapping[str, object]) -> Fields:
    return {name: msgspec.json.encode(value) for name, value in values.items()}


class LiveConformance(Conformance):
    """What the classes for state, limits and channels share. Time is that of the store: where it is not the clock of
    `Env`, a subclass overrides `time_passes` with a real wait, and gives a `unit_s` that can be waited for."""

    protocol = SupportsState
    unit_s: ClassVar[float] = 600.0

    async def time_passes(self, units: float) -> None:
        self.env.forward(units * self.unit_s)

    def unit_us(self, units: float = 1.0) -> int:
        return int(units * self.unit_s * 1e6)

    async def open(self, *more: EntityType[Any]) -> SupportsState:
        repository = await self.connection()
        assert SupportsState in repository.capabilities, "the repository does not claim SupportsState"
        if SupportsSchema in repository.capabilities:
            types: list[EntityType[Any]] = [SESSION, *more]
            layouts = [Layout(one, True, frozenset(), kind="state") for one in types]
            await cast(SupportsSchema, repository).prepare(layouts, create=True)
        return cast(SupportsState, repository)


async def row(store: SupportsState, key: Key) -> StateRow | None:
    (found,) = await store.get_state([key])
    return found


async def fields(store: SupportsState, key: Key) -> Fields | None:
    found = await row(store, key)
    return None if found is None else found.fields


async def tag(store: SupportsState, key: Key) -> int:
    found = await row(store, key)
    assert found is not None
    return found.tag


class StateConformance(LiveConformance):
    # -- values -----------------------------------------------------------------------------------------------

    async def test_a_value_comes_back_as_it_was_put(self) -> None:
        store, other = await self.open(), await self.open()
        assert await store.get_state([key_of()]) == [None]
        given = [texts({"words": word, word or "empty": word}) for word in WORDS]
        given += [texts({"tree": tree, "n": number}) for tree, number in zip(TREES, FLOATS, strict=False)]
        given += [texts({f"n{i}": n for i, n in enumerate(INTEGERS)}), {}, texts({"long": "가" * 300_000})]
        for i, one in enumerate(given):
            await store.put_state(key_of(str(i)), one, None)
        for i, one in enumerate(given):
            assert await fields(other, key_of(str(i))) == one

    async def test_every_word_can_be_a_key(self) -> None:
        store = await self.open()
        ids = [word for word in WORDS if word]
        for number, id in enumerate(ids):
            await store.put_state(key_of(id), texts({"n": number}), None)
        found = await store.get_state([key_of(id) for id in ids])
        assert [one and one.fields for one in found] == [texts({"n": number}) for number in range(len(ids))]
        assert sorted((await store.state_keys("kit_session", "", None, 10_000))[0]) == sorted(ids)

    async def test_values_are_answered_in_the_order_asked(self) -> None:
        store = await self.open()
        for n in range(0, 60, 2):
            await store.put_state(key_of(str(n)), texts({"n": n}), None)
        asked = [*range(60), 2, 2, 3]
        found = await store.get_state([key_of(str(n)) for n in asked])
        assert [one and one.fields for one in found] == [None if n % 2 else texts({"n": n}) for n in asked]

    async def test_values_are_neither_kept_nor_shared(self) -> None:
        store = await self.open()
        mine = dict(FIELDS)
        await store.put_state(key_of(), mine, None)
        mine["number"] = b"9"
        cast(dict[str, bytes], await fields(store, key_of()))["number"] = b"8"
        assert await fields(store, key_of()) == FIELDS

    async def test_add_puts_only_what_is_not_there(self) -> None:
        stores = [await self.open(), await self.open()]
        done = await asyncio.gather(*(stores[n % 2].add_state(key_of(), texts({"n": n}), None) for n in range(8)))
        assert done.count(True) == 1
        assert await fields(stores[0], key_of()) == texts({"n": done.index(True)})

    async def test_a_delete_says_whether_there_was_something(self) -> None:
        store = await self.open()
        await store.put_state(key_of(), FIELDS, None)
        assert [await store.delete_state(key_of()), await store.delete_state(key_of())] == [True, False]
        assert await row(store, key_of()) is None

    async def test_two_tenants_and_two_types_never_meet(self) -> None:
        store = await self.open()
        places = [key_of(tenant="a"), key_of(tenant="b"), key_of(), key_of(etype="kit_other", tenant="a")]
        for n, place in enumerate(places):
            assert await store.add_state(place, texts({"n": n}), None)
            assert await store.increment(place, "n", 10, 0, None, None) == n + 10
        assert await store.delete_state(places[0])
        assert not await store.touch_state(places[0], self.unit_us())
        assert (await store.change_state(places[0], FIELDS, None, None)).row is None
        for n, place in enumerate(places[1:], 1):
            assert await fields(store, place) == texts({"n": n + 10})
        assert await store.state_keys("kit_session", "a", None, 10) == ([], None)

    async def test_a_value_over_the_limit_of_size_is_refused_and_so_is_one_that_grew(self) -> None:
        store = await self.open()
        half = b'"' + b"x" * (VALUE_BYTES_MAX // 2) + b'"'
        with pytest.raises(ValueTooLarge):
            await store.put_state(key_of(), {"a": half, "b": half}, None)
        await store.put_state(key_of(), {"a": half}, None)
        with pytest.raises(ValueTooLarge):
            await store.change_state(key_of(), {"b": half}, None, None)
        assert await fields(store, key_of()) == {"a": half}

    # -- changing ---------------------------------------------------------------------------------------------

    async def test_a_change_sets_what_it_names_and_answers_the_whole(self) -> None:
        store = await self.open()
        nothing = await store.change_state(key_of(), FIELDS, None, None)
        assert (nothing.done, nothing.row) == (False, None)
        assert await row(store, key_of()) is None
        await store.put_state(key_of(), FIELDS, None)
        changed = await store.change_state(key_of(), {"number": b"2", "more": b"null"}, None, None)
        assert changed.done
        assert changed.row == await row(store, key_of())
        assert changed.row is not None
        assert changed.row.fields == {**FIELDS, "number": b"2", "more": b"null"}

    async def test_a_change_with_a_tag_fails_after_any_write_of_the_value(self) -> None:
        store = await self.open()
        key = key_of()
        await store.put_state(key, FIELDS, None)
        seen = await tag(store, key)
        await store.touch_state(key, self.unit_us())
        assert await tag(store, key) == seen
        await store.put_state(key, FIELDS, None)
        tags = {seen, await tag(store, key)}
        await store.delete_state(key)
        await store.add_state(key, FIELDS, None)
        tags.add(await tag(store, key))
        await store.increment(key, "number", 0, 0, None, None)
        tags.add(await tag(store, key))
        assert len(tags) == 4
        for old in tags - {await tag(store, key)}:
            refused = await store.change_state(key, {"number": b"9"}, old, None)
            assert (refused.done, refused.row) == (False, await row(store, key))
        assert (await store.change_state(key, {"number": b"9"}, await tag(store, key), None)).done
        assert await fields(store, key) == {**FIELDS, "number": b"9"}

    async def test_eight_who_read_and_change_at_once_lose_nothing(self) -> None:
        stores = [await self.open(), await self.open()]
        await stores[0].put_state(key_of(), texts({"n": 0}), None)

        async def add(store: SupportsState) -> None:
            done = 0
            while done < 10:
                standing = await row(store, key_of())
                assert standing is not None
                one_more = texts({"n": int(standing.fields["n"]) + 1})
                done += (await store.change_state(key_of(), one_more, standing.tag, None)).done

        await asyncio.gather(*(add(stores[n % 2]) for n in range(8)))
        assert await fields(stores[0], key_of()) == texts({"n": 80})

    async def test_changes_of_other_fields_at_once_all_stand(self) -> None:
        stores = [await self.open(), await self.open()]
        await stores[0].put_state(key_of(), texts({f"f{n}": "" for n in range(16)}), None)
        named = [texts({f"f{n}": n}) for n in range(16)]
        await asyncio.gather(*(stores[n % 2].change_state(key_of(), one, None, None) for n, one in enumerate(named)))
        assert await fields(stores[0], key_of()) == texts({f"f{n}": n for n in range(16)})

    async def test_a_cancelled_call_is_done_or_not_and_harms_no_other(self) -> None:
        store = await self.open()
        for turns in range(6):
            before = await store.increment(key_of(), "n", 0, 0, {}, None)
            task = asyncio.create_task(store.increment(key_of(), "n", 1, 0, {}, None))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            others = asyncio.gather(*(store.increment(key_of(), "n", 10, 0, {}, None) for _ in range(3)))
            await asyncio.wait([task])
            await others
            after = await store.increment(key_of(), "n", 0, 0, {}, None)
            assert before is not None
            assert after in (before + 30, before + 31)

    async def test_a_closed_connection_says_so(self) -> None:
        store = await self.open()
        await store.put_state(key_of(), FIELDS, None)
        await cast(Repository, store).aclose()
        for call in (
            store.get_state([key_of()]),
            store.put_state(key_of(), FIELDS, None),
            store.increment(key_of(), "number", 1, 0, None, None),
            store.publish("", "channel", b"1"),
        ):
            with pytest.raises(Unavailable):
                await call
        assert await fields(await self.open(), key_of()) == FIELDS

    # -- counting ---------------------------------------------------------------------------------------------

    async def test_sums_are_exact_however_many_count_at_once(self) -> None:
        stores = [await self.open(), await self.open()]

        async def count(number: int) -> list[int | float | None]:
            store = stores[number % 2]
            sums: list[int | float | None] = []
            for _ in range(25):
                sums.append(await store.increment(key_of(), "n", number, 0, FIELDS, None))
                await store.increment(key_of(), "level", 0.25, 0.5, FIELDS, None)
            return sums

        sums = await asyncio.gather(*(count(number) for number in range(8)))
        assert await fields(stores[0], key_of()) == {**FIELDS, "n": b"700", "level": b"50.5"}
        assert max(max(one or 0 for one in mine) for mine in sums) == 700
        assert len({one for mine in sums[1:] for one in mine}) == 175, "each sum is one that nobody else got"

    async def test_counting_begins_at_the_base(self) -> None:
        store = await self.open()
        assert await store.increment(key_of(), "n", 5, 10, None, None) is None
        assert await row(store, key_of()) is None
        assert await store.increment(key_of(), "n", 5, 10, {"id": b'"a"'}, None) == 15
        assert await fields(store, key_of()) == {"id": b'"a"', "n": b"15"}
        level = await store.increment(key_of(), "level", 0.5, 1.0, None, None)
        assert (level, type(level)) == (1.5, float)
        number = await store.increment(key_of(), "n", -20, 0, None, None)
        assert (number, type(number)) == (-5, int)

    async def test_numbers_to_the_last_bit(self) -> None:
        store = await self.open()
        for start, by in ((2**53, 1), (INT_MAX - 1, 1), (INT_MIN, 1), (-1, INT_MIN + 1), (0.1, 0.2), (1e308, 7e307)):
            await store.put_state(key_of(), texts({"n": start}), None)
            total = await store.increment(key_of(), "n", by, 0, None, None)
            assert (total, type(total)) == (start + by, type(by))
            (found,) = await store.get_state([key_of()])
            assert found is not None
            assert msgspec.json.decode(found.fields["n"], type=type(by)) == start + by

    async def test_what_cannot_be_summed_changes_nothing(self) -> None:
        store = await self.open()
        for start, by in ((INT_MAX, 1), (INT_MIN, -1), (1.7e308, 1e308)):
            await store.put_state(key_of(), texts({"n": start}), None)
            with pytest.raises(InvalidData):
                await store.increment(key_of(), "n", by, 0, None, None)
            assert await fields(store, key_of()) == texts({"n": start})
        for held in ("5", None, [1], 1.5):
            await store.put_state(key_of(), texts({"n": held}), None)
            with pytest.raises(DecodeError):
                await store.increment(key_of(), "n", 1, 0, None, None)
            assert await fields(store, key_of()) == texts({"n": held})

    # -- expiring ---------------------------------------------------------------------------------------------

    async def test_what_has_expired_is_absent_to_every_call(self) -> None:
        store = await self.open()
        for id in ("put", "add", "change", "increment"):
            await store.put_state(key_of(id), FIELDS, self.unit_us())
        await store.put_state(key_of("stays"), FIELDS, None)
        await self.time_passes(0.5)
        found = await row(store, key_of("put"))
        assert found is not None
        assert 0 < (found.ttl_us or 0) <= self.unit_us(0.5)
        await self.time_passes(0.6)
        assert await row(store, key_of("put")) is None
        assert await store.state_keys("kit_session", "", None, 100) == (["stays"], None)
        assert not await store.delete_state(key_of("put"))
        assert (await store.change_state(key_of("change"), {"n": b"1"}, None, None)).row is None
        assert await store.increment(key_of("increment"), "number", 1, 0, None, None) is None
        assert await store.increment(key_of("increment"), "number", 5, 0, {}, None) == 5
        assert await store.add_state(key_of("add"), {}, None)
        assert await fields(store, key_of("add")) == {}

    async def test_a_touch_counts_from_now_and_calls_nothing_back(self) -> None:
        store = await self.open()
        for id in ("touched", "over"):
            await store.put_state(key_of(id), FIELDS, self.unit_us())
        await self.time_passes(0.6)
        assert await store.touch_state(key_of("touched"), self.unit_us())
        await self.time_passes(0.6)
        assert await fields(store, key_of("touched")) == FIELDS
        assert not await store.touch_state(key_of("over"), self.unit_us())
        assert await row(store, key_of("over")) is None
        assert await store.touch_state(key_of("touched"), None)
        await self.time_passes(2)
        assert (await row(store, key_of("touched")) or StateRow({}, 0, 1)).ttl_us is None

    async def test_a_put_sets_the_time_to_live_and_a_change_or_a_count_leaves_it(self) -> None:
        store = await self.open()
        for id in ("put", "change", "count", "longer"):
            await store.put_state(key_of(id), FIELDS, self.unit_us())
        await self.time_passes(0.5)
        await store.put_state(key_of("put"), FIELDS, None)
        await store.change_state(key_of("change"), {"number": b"2"}, None, None)
        await store.change_state(key_of("longer"), {"number": b"2"}, None, self.unit_us(3))
        await store.increment(key_of("count"), "number", 1, 0, {}, self.unit_us(3))
        await store.increment(key_of("new"), "number", 1, 0, {}, self.unit_us(3))
        await self.time_passes(0.6)
        found = await store.get_state([key_of(id) for id in ("put", "change", "count", "longer", "new")])
        assert [one is not None for one in found] == [True, False, False, True, True]
        await self.time_passes(3)
        found = await store.get_state([key_of(id) for id in ("put", "longer", "new")])
        assert [one is not None for one in found] == [True, False, False]

    # -- listing ----------------------------------------------------------------------------------------------

    async def test_pages_of_keys_hold_all_that_lives_all_the_while(self) -> None:
        store = await self.open()
        comes_and_goes = [f"{before}{n}" for before in ("!", "x") for n in range(9)]
        for id in (*(f"{n:02}" for n in range(50)), *comes_and_goes):
            await store.put_state(key_of(id), {}, None)
            await store.put_state(key_of(id, "other"), {}, None)
        seen: list[str] = []
        cursor: str | None = None
        for n in range(1_000):
            ids, cursor = await store.state_keys("kit_session", "", cursor, 7)
            seen += ids
            if cursor is None:
                break
            await store.put_state(key_of(f"y{n}"), {}, None)
            for before in ("!", "x"):
                await store.delete_state(key_of(f"{before}{n}"))
        assert {id for id in seen if id.isdigit()} == {f"{n:02}" for n in range(50)}
