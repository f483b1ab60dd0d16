"""Conditions and orders: a store finds what `polystore.filters.predicate` says, for every operator and value."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Protocol

import pytest

from polystore.filters import Checked, Condition, Expr, F, Field, Order, Sort, predicate
from polystore.kinds import INT_MAX, INT_MIN
from polystore.model import Body
from polystore.protocols import Repository, SupportsFilter
from polystore.testing.conformance.base import Conformance, change, key_of, removal, same
from polystore.testing.conformance.entities import (
    ADDRESSES,
    CODED,
    DECIMALS,
    INTEGERS,
    NFC,
    NFD,
    NUMBERED,
    RAWS,
    THING,
    TIMES,
    UUIDS,
    VALUES,
    Address,
    Coded,
    Numbered,
    Thing,
)
from polystore.testing.conformance.records import thing

MISSING = object()
LARGE = 1.2345678901234567e18
"""An integer whose digits a float's shortest text does not say: that ends in 700, the integer in 768."""
FREE: Sequence[Any] = (
    *(MISSING, None, "", "1", "x", "X", "가나", NFC, NFD, "👍x", "a%b", 0, 1, 2, -5, 2**53, 2**53 + 1, 0.5, 1.0, 2.5),
    *(-0.0, 2.0**53, 2.0**63, -(2.0**63), INT_MAX, INT_MAX - 1, INT_MIN, 1e22, 5e-324, 1.7976931348623157e308),
    *(LARGE, int(LARGE), int(LARGE) + 1, [LARGE, INT_MAX], [int(LARGE), 2.0**63], [NFD, -0.0, INT_MIN]),
    *(True, False, [], [1, "1", "가나", True], ["x", None, 0.5], [[1]], {}, {"x": 1}, {"y": "x"}, {"x": {"y": 2}}),
)
"""What may lie in a free-form field."""
CITIES = ("서울", "서울시", "Seoul", "seoul", NFC, NFD, "", "%", "a_b", "👍", "10", "9")
BEGINNINGS = ("", "a", "A", "가", NFC, "e", "\uffff", "👍", "%", "_")
"""Of ids, which end each order."""
RAW, FLAGS, LISTS = ("raw", "maybe_raw"), ("flag", "maybe_flag"), ("tags", "maybe_tags")
TEXTS = ("word", "maybe_word")
CHOICES = ("mood", "maybe_mood", "level", "side")
ORDERED = (*TEXTS, "number", "ratio", "at", "day", "price", "code")
ORDERED_MAYBE = tuple(f"maybe_{name}" for name in ("number", "ratio", "at", "day", "price", "code"))
SMALL: Mapping[str, Sequence[Any]] = {
    field: [v for v in values if not isinstance(v, (str, bytes)) or len(v) < 1_000] for field, values in VALUES.items()
}


class Filtered(Repository, SupportsFilter, Protocol):
    pass


def samples(seed: int, count: int = 80) -> list[Thing]:
    """Things whose fields are drawn from the values that get lost elsewhere; their ids do not sort as they came."""
    r = random.Random(seed)
    fields = [f for f in SMALL if f not in ("extra", "address", "prices", "rooms")]
    out: list[Thing] = []
    for i in range(count):
        number = (i * 37) % count
        extra = {name: r.choice(FREE) for name in ("a", "b", "c.d")}
        address = Address(r.choice(CITIES), r.choice((None, *CITIES)), [r.choice((1, 2, 3))] * r.randrange(3))
        address.rent, address.since, address.seal = r.choice(DECIMALS), r.choice((None, *TIMES)), r.choice(RAWS)
        drawn = {f: r.choice(SMALL[f]) for f in fields if r.random() < 0.7}
        out.append(
            Thing(
                id=f"{BEGINNINGS[number % len(BEGINNINGS)]}{number:03}",
                address=r.choice((None, address, *ADDRESSES)),
                extra={name: value for name, value in extra.items() if value is not MISSING},
                prices={f"{j}": DECIMALS[j] for j in r.sample(range(len(DECIMALS)), r.randrange(4))},
                rooms=[*ADDRESSES][: r.randrange(3)],
                **drawn,
            )
        )
    return out


class Conditions:
    """Random conditions that fit Thing, from one generator."""

    def __init__(self, r: random.Random) -> None:
        self._r = r
        self._leaves: Sequence[Callable[[], Condition]] = (
            *(self._ordered, self._ordered, self._text, self._choice, self._flag, self._list, self._null),
            *(self._address, self._free, self._free, self._among),
        )

    def any(self, depth: int = 3) -> Condition:
        kind = self._r.random()
        if depth == 0 or kind < 0.3:
            return self._r.choice(self._leaves)()
        if kind < 0.45:
            return ~self.any(depth - 1)
        left, right = self.any(depth - 1), self.any(depth - 1)
        return left & right if kind < 0.7 else left | right

    def _compared(self, field: Field, value: object) -> Expr:
        r = self._r
        tests: tuple[Callable[[], Expr], ...] = (
            *(lambda: field == value, lambda: field != value, lambda: field < value, lambda: field <= value),
            *(lambda: field > value, lambda: field >= value, lambda: field.between(value, value)),
        )
        return r.choice(tests)()

    def _value(self, name: str) -> Any:
        return self._r.choice([v for v in SMALL[name] if v is not None])

    def _ordered(self) -> Condition:
        name = self._r.choice(ORDERED + ORDERED_MAYBE)
        return self._compared(F[name], self._value(name))

    def _among(self) -> Condition:
        name = self._r.choice(ORDERED + ORDERED_MAYBE + CHOICES + RAW)
        return F[name].in_([self._value(name) for _ in range(self._r.randrange(4))])

    def _part(self, text: str) -> str:
        start = self._r.randrange(len(text) + 1)
        return text[start : start + self._r.randrange(3)]

    def _text(self) -> Condition:
        name = self._r.choice(TEXTS)
        value: str = self._value(name)
        return self._r.choice((F[name].contains(self._part(value)), F[name].startswith(value[: self._r.randrange(3)])))

    def _choice(self) -> Condition:
        name = self._r.choice(CHOICES + RAW)
        value = self._value(name)
        tests: tuple[Expr, ...] = (F[name] == value, F[name] != value)
        return self._r.choice(tests)

    def _flag(self) -> Condition:
        name = self._r.choice(FLAGS)
        flags: tuple[Condition, ...] = (F[name], F[name] == False, F[name] != True)  # noqa: E712
        return self._r.choice(flags)

    def _list(self) -> Condition:
        return F[self._r.choice(LISTS)].contains(self._r.choice(("", "a", "가", "%", NFC, NFD)))

    def _null(self) -> Condition:
        name = self._r.choice((*ORDERED_MAYBE, "maybe_raw", "maybe_tags", "maybe_mood", "address", "address.zip"))
        return F[name].is_null(self._r.random() < 0.5)

    def _address(self) -> Condition:
        r, name = self._r, self._r.choice(("city", "zip"))
        field, city = F.address[name], r.choice(CITIES)
        return r.choice(
            (
                self._compared(field, city),
                field.contains(self._part(city)),
                field.startswith(city[:1]),
                field.in_([city, r.choice(CITIES)]),
                F.address.floors.contains(r.choice((1, 2, 3, INT_MIN, INT_MAX, INT_MAX - 1))),
                F.address.rent.is_null(r.random() < 0.5),
                self._compared(F.address.since, r.choice(TIMES)),
                F.address.since.in_(r.sample(TIMES, r.randrange(4))),
                F.address.since.is_null(r.random() < 0.5),
                F.address.seal == r.choice(RAWS),
                F.address.seal.in_(r.sample(RAWS, r.randrange(3))),
                F.prices[f"{r.randrange(len(DECIMALS) + 2)}"].is_null(r.random() < 0.5),
                F.rooms.is_null(r.random() < 0.5),
            )
        )

    def _free(self) -> Condition:
        r = self._r
        field = r.choice((F.extra.a, F.extra.b, F.extra.a.x, F.extra.b.x.y, F.extra.nowhere))
        value: Any = r.choice([v for v in FREE if isinstance(v, (str, int, float))])
        kind = r.random()
        if kind < 0.2:
            return field.is_null(r.random() < 0.5)
        if kind < 0.4:
            return field.contains(value)
        if kind < 0.5 and isinstance(value, str):
            return field.startswith(value[:1])
        if kind < 0.6:
            return field.in_([value, r.choice((1, "x", True, -0.0, INT_MAX, NFD))])
        return r.choice((field == value, field != value)) if isinstance(value, bool) else self._compared(field, value)


class FilterConformance(Conformance):
    """`find` and `count`."""

    protocol = SupportsFilter
    types = (THING, NUMBERED, CODED)

    async def filled(self, seed: int = 1) -> tuple[Filtered, dict[str, Body]]:
        """A store with samples, and what it must hold: id -> body."""
        store: Filtered = await self.open()
        changes = [change(THING, value, i) for i, value in enumerate(samples(seed), 1)]
        await self.write(store, changes)
        return store, {c.key.id: c.body for c in changes if c.body is not None}

    async def found(self, store: Filtered, where: Checked | None, *, tenant: str = "") -> list[str]:
        records = await store.find(THING.name, tenant, where, BY_KEY, 1_000)
        return [r.key.id for r in records]

    async def check(
        self, store: Filtered, bodies: Mapping[str, Body], condition: Condition, *, count: bool = False
    ) -> int:
        """The store finds what the reference finds; returns how many."""
        where = THING.condition(condition)
        assert where is not None
        holds = predicate(where)
        wanted = sorted(id for id, body in bodies.items() if holds(body))
        assert await self.found(store, where) == wanted, f"{condition!r}"
        if count:
            assert await store.count(THING.name, "", where) == len(wanted), f"{condition!r}"
        return len(wanted)

    @pytest.mark.parametrize("seed", range(5))
    async def test_a_hundred_generated_conditions_mean_what_they_say(self, seed: int) -> None:
        store, bodies = await self.filled(seed)
        conditions = Conditions(random.Random(seed))
        sizes = [await self.check(store, bodies, conditions.any(), count=turn % 4 == 0) for turn in range(100)]
        assert len({size for size in sizes if 0 < size < len(bodies)}) > 10, "the conditions tell records apart"

    async def test_every_comparison_with_every_value(self) -> None:
        store, bodies = await self.filled()
        for field in (*ORDERED, *ORDERED_MAYBE):
            values = [v for v in SMALL[field] if v is not None]
            one = F[field]
            for value in values if len(values) < 20 else values[::3]:
                for condition in (one == value, one != value, one < value, one <= value, one > value, one >= value):
                    await self.check(store, bodies, condition)
            await self.check(store, bodies, one.in_(values))
            assert await self.check(store, bodies, one.in_([])) == 0

    async def test_parts_and_beginnings_of_texts_are_taken_literally(self) -> None:
        store, bodies = await self.filled()
        every = [str(v) for v in (*SMALL["word"], *CITIES)]
        parts = sorted({*every, *(word[:1] for word in every)})
        for field in ("word", "address.city", "extra.a"):
            for part in parts if field == "word" else parts[::3]:
                await self.check(store, bodies, F[field].contains(part))
                await self.check(store, bodies, F[field].startswith(part))

    async def test_missing_values_meet_only_null_and_unequal(self) -> None:
        store: Filtered = await self.open()
        await self.write(store, [thing("none", 1), thing("zero", 2, maybe_number=0), thing("one", 3, maybe_number=1)])
        number = F.maybe_number
        for condition, wanted in (
            (number == None, ["none"]),  # noqa: E711
            (number.is_null(False), ["one", "zero"]),
            (number != 0, ["none", "one"]),
            (~(number == 0), ["none", "one"]),
            (number <= 0, ["zero"]),
            (~(number <= 0), ["none", "one"]),
            (~(number > 0), ["none", "zero"]),
            (~number.in_([0]), ["none", "one"]),
            (number.in_([]), []),
            (~number.in_([]), ["none", "one", "zero"]),
            (F.maybe_flag, []),
            (~F.maybe_flag, ["none", "one", "zero"]),
            (F.address.city == "x", []),
            (F.address.city != "x", ["none", "one", "zero"]),
            (F.address.city == None, ["none", "one", "zero"]),  # noqa: E711
            (F.extra.a.b.c.is_null(), ["none", "one", "zero"]),
        ):
            assert await self.found(store, THING.condition(condition)) == wanted, repr(condition)

    async def test_large_integers_and_long_decimals_are_not_rounded(self) -> None:
        store: Filtered = await self.open()
        long, shorter = Decimal("9" * 34), Decimal("9" * 33 + "8")
        pairs = [(2**53, long), (2**53 + 1, shorter), (2**63 - 1, Decimal("1.10"))]
        await self.write(store, [thing(f"{i}", i + 1, number=n, price=p) for i, (n, p) in enumerate(pairs)])
        for i, (number, price) in enumerate(pairs):
            assert await self.found(store, THING.condition(F.number == number)) == [f"{i}"]
            assert await self.found(store, THING.condition(F.price == price)) == [f"{i}"]
        assert await self.found(store, THING.condition(F.price == Decimal("1.1"))) == ["2"]
        assert await self.found(store, THING.condition(F.price < long)) == ["1", "2"]

    async def test_large_integers_and_floats_in_free_form_compare_by_value(self) -> None:
        store: Filtered = await self.open()
        numbers = (2**53, 2**53 + 1, 2.0**53, LARGE, int(LARGE), int(LARGE) + 1, INT_MAX, 2.0**63, INT_MIN, -(2.0**63))
        free = {f"{i}": {"n": number, "all": [number]} for i, number in enumerate(numbers)}
        changes = [thing(id, i, extra=extra) for i, (id, extra) in enumerate(free.items(), 1)]
        await self.write(store, changes)
        bodies = {one.key.id: one.body for one in changes if one.body is not None}
        n = F.extra.n
        for number in numbers:
            for one in (n == number, n != number, n < number, n >= number, n.in_([0, number])):
                await self.check(store, bodies, one)
            assert await self.check(store, bodies, F.extra["all"].contains(number)) in (1, 2)

    async def test_without_a_condition_everything_is_found(self) -> None:
        store, bodies = await self.filled()
        records = await store.find(THING.name, "", None, BY_KEY, 1_000)
        assert [r.key.id for r in records] == sorted(bodies)
        assert await store.get([r.key for r in records]) == records
        for record in records:
            assert record.body is not None
            assert same(dict(record.body), dict(bodies[record.key.id]))
        assert await store.count(THING.name, "", None) == len(bodies)

    async def test_only_live_records_of_the_tenant_are_found_as_they_are_now(self) -> None:
        store: Filtered = await self.open()
        changes = [thing(id, i, tenant=t, word="x") for i, (id, t) in enumerate((*THREE, *THREE_OF_ACME), 1)]
        await self.write(store, changes)
        await self.write(store, [removal(key_of(THING, "a"), 10), thing("b", 11, word="y")])
        where = THING.condition(F.word == "x")
        assert await self.found(store, where) == ["c"]
        assert await self.found(store, where, tenant="acme") == ["a", "b", "c"]
        assert await self.found(store, None) == ["b", "c"]
        assert await self.found(store, where, tenant="nobody") == []
        counts = [await store.count(THING.name, tenant, where) for tenant in ("", "acme", "nobody")]
        assert counts == [1, 3, 0]
        assert await store.find(NUMBERED.name, "", None, (), 10) == []

    # -- order ------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("descending", [False, True])
    async def test_sorted_by_any_field_with_missing_values_last(self, descending: bool) -> None:
        store, bodies = await self.filled()
        for field in (*ORDERED, *ORDERED_MAYBE, *CHOICES, *FLAGS):
            wanted = in_order(bodies, (field, descending), ("id", False))
            by = F[field].desc() if descending else F[field].asc()
            for limit in (1_000, 7):
                records = await store.find(THING.name, "", None, order(by, F.id), limit)
                assert [r.key.id for r in records] == wanted[:limit], field

    async def test_sorted_by_several_fields_under_a_condition(self) -> None:
        store, bodies = await self.filled()
        where = THING.condition(~F.maybe_word.is_null() | (F.number > 0))
        assert where is not None
        holds = predicate(where)
        left = {id: body for id, body in bodies.items() if holds(body)}
        by = order(F.side.desc(), F.maybe_flag, F.mood, F.id.desc())
        records = await store.find(THING.name, "", where, by, 20)
        wanted = in_order(left, ("side", True), ("maybe_flag", False), ("mood", False), ("id", True))
        assert [r.key.id for r in records] == wanted[:20]

    async def test_keys_that_are_no_text_sort_as_what_they_are(self) -> None:
        store: Filtered = await self.open()
        numbers = [n for n in INTEGERS if abs(n) < 1 << 62]
        await self.write(store, [change(NUMBERED, Numbered(n), i) for i, n in enumerate(numbers, 1)])
        for by in (F.number, F.number.desc()):
            records = await store.find(NUMBERED.name, "", None, NUMBERED.sort([by]), 100)
            found = [int(r.key.id) for r in records]
            assert found == sorted(numbers, reverse=isinstance(by, Order))
        changes = [change(CODED, Coded(code, str(i)), i) for i, code in enumerate(UUIDS, 1)]
        await self.write(store, changes)
        by_code = await store.find(CODED.name, "", CODED.condition(F.code > UUIDS[0]), CODED.sort([F.code]), 10)
        assert [r.key.id for r in by_code] == sorted(str(code) for code in UUIDS[1:])
        where = NUMBERED.condition((F.number >= 9) & (F.number < 2**53 + 1))
        assert await store.count(NUMBERED.name, "", where) == sum(9 <= n < 2**53 + 1 for n in numbers)


THREE = tuple((id, "") for id in "abc")
THREE_OF_ACME = tuple((id, "acme") for id in "abc")


def order(*fields: Field | Order) -> Sequence[Sort]:
    return THING.sort(fields)


BY_KEY = order(F.id)


def in_order(bodies: Mapping[str, Body], *by: tuple[str, bool]) -> list[str]:
    """The ids as the fields order them: (field, descending), missing values last either way."""
    ids = list(bodies)
    for field, descending in reversed(by):
        present = [id for id in ids if bodies[id][field] is not None]
        missing = [id for id in ids if bodies[id][field] is None]
        ids = sorted(present, key=lambda id: bodies[id][field], reverse=descending) + missing
    return ids
