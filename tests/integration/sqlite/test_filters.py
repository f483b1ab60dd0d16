"""Conditions as SQL find exactly the records that `filters.predicate`, their reference meaning, accepts."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polystore_adapters.sqlite.dialect import compare_decimals
from polystore_adapters.sqlite.repository import SqliteRepository

from polystore.entity import EntityType, entity, entity_types
from polystore.errors import InvalidFilter
from polystore.facets import Index, Unique
from polystore.filters import Checked, Compare, Expr, F, Field, predicate
from polystore.model import Commit, Key, Write, key_hash
from tests.integration.sqlite.files import opened


@dataclass
class Inner:
    word: str | None = None
    number: int = 0
    more: dict[str, Any] = field(default_factory=dict[str, Any])


@entity()
@dataclass(kw_only=True)
class Everything:
    id: str
    word: Annotated[str | None, Index()] = None
    number: Annotated[int | None, Unique()] = None
    ratio: float | None = None
    yes: bool | None = None
    raw: bytes | None = None
    at: datetime | None = None
    day: date | None = None
    price: Annotated[Decimal | None, Index()] = None
    token: UUID | None = None
    tags: list[str] = field(default_factory=list[str])
    inner: Inner | None = None
    free: Any = None


EVERYTHING: EntityType[Any] = entity_types([Everything])["everything"]


def encoded(id: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    return EVERYTHING.encode(Everything(id=id, **fields))


def make(id: str, fields: Mapping[str, Any], tenant: str = "") -> Commit:
    """The commit of a record with these fields."""
    whole, h = encoded(id, fields), key_hash(tenant, "everything", id)
    return Commit([Write("put", Key(tenant, "everything", id), h, whole, EVERYTHING.content_hash(whole))])


def moment(us: int, zone: tzinfo) -> datetime:
    return (datetime(2024, 1, 1, tzinfo=UTC) + timedelta(microseconds=us)).astimezone(zone)


def below(*names: str) -> Field:
    """A field inside the free-form one."""
    field = F.free
    for name in names:
        field = field[name or "a"]
    return field


# Few values, so that equal ones meet; with what two languages could see differently.
texts = st.sampled_from(
    ["", "a", "A", "ab", "b", "ä", "학교에서", "학교", "%", "_", "a'b", '"', "\\", "z\u0301", "𝄞", "￿"]
)
ints = st.sampled_from([0, 1, -1, 2, 10, 1 << 53, (1 << 53) + 1, (1 << 63) - 1, -(1 << 63)])
floats = st.sampled_from([0.0, 1.0, -1.5, 0.1, 1e300, 5e-324, 0.30000000000000004, float(1 << 53)])
decimals = st.sampled_from(
    [Decimal(d) for d in ("0", "1", "1.0", "1.00", "-1", "10", "9", "0.1", "1E+3", "1000", "1E-30")]
)
zones = st.sampled_from([UTC, timezone(timedelta(hours=9))])
times = st.builds(moment, st.sampled_from([0, 1, 10, 1_000_000, 86_400_000_000, -60_000_000_000_000]), zones)
days = st.sampled_from([date(2024, 1, 1), date(2024, 1, 2), date(999, 12, 31)])
tokens = st.sampled_from([UUID(int=0), UUID(int=1), UUID(int=1 << 127)])
raws = st.sampled_from([b"", b"\0", b"a", b"\xff"])
scalars = st.one_of(texts, ints, floats, st.booleans())
names = st.sampled_from(["a", "b", "x y", "a'b", "학교", ""])
free = st.recursive(
    st.one_of(st.none(), scalars),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(names, inner, max_size=3)),
    max_leaves=5,
)

VALUES: Mapping[str, st.SearchStrategy[Any]] = {
    "word": texts,
    "number": ints,
    "ratio": floats,
    "yes": st.booleans(),
    "raw": raws,
    "at": times,
    "day": days,
    "price": decimals,
    "token": tokens,
}
fields = st.fixed_dictionaries(
    {},
    optional={
        **{name: st.none() | values for name, values in VALUES.items() if name != "number"},
        "tags": st.lists(texts, max_size=3),
        "inner": st.builds(Inner, st.none() | texts, ints, st.dictionaries(names, free, max_size=2)),
        "free": free,
    },
)
ORDERED = ("word", "number", "ratio", "at", "day", "price", "token")


def comparisons(name: str) -> st.SearchStrategy[Expr]:
    one, values = F[name], VALUES[name]
    ways = [
        values.map(lambda value: one == value),
        values.map(lambda value: one != value),
        st.lists(values, max_size=3).map(one.in_),
        st.booleans().map(one.is_null),
    ]
    if name in ORDERED:
        ways += [values.map(lambda v: one < v), values.map(lambda v: one <= v)]
        ways += [values.map(lambda v: one > v), values.map(lambda v: one >= v)]
    if name == "word":
        ways += [values.map(one.contains), values.map(one.startswith)]
    return st.one_of(ways)


def free_comparisons(one: Field) -> st.SearchStrategy[Expr]:
    return st.one_of(
        scalars.map(lambda value: one == value),
        scalars.map(lambda value: one != value),
        scalars.map(lambda value: one < value),
        scalars.map(lambda value: one >= value),
        st.lists(scalars, max_size=3).map(one.in_),
        scalars.map(one.contains),
        texts.map(one.startswith),
        st.booleans().map(one.is_null),
    )


leaves = st.one_of(
    *map(comparisons, VALUES),
    scalars.map(F.free.contains),
    st.booleans().map(F.free.is_null),
    st.builds(below, names).flatmap(free_comparisons),
    st.builds(below, names, names).flatmap(free_comparisons),
    free_comparisons(F.inner.more.a),
    texts.map(F.tags.contains),
    texts.map(lambda v: F.inner.word == v),
    ints.map(lambda v: F.inner.number <= v),
    st.booleans().map(F.inner.is_null),
    st.just(F.yes == True),  # noqa: E712
)


def combined(inner: st.SearchStrategy[Expr]) -> st.SearchStrategy[Expr]:
    return st.one_of(
        st.builds(Expr.__and__, inner, inner), st.builds(Expr.__or__, inner, inner), st.builds(Expr.__invert__, inner)
    )


conditions = st.recursive(leaves, combined, max_leaves=4)


async def found(
    store: SqliteRepository, tenant: str, bodies: Sequence[Mapping[str, Any]], wheres: Sequence[Checked]
) -> list[tuple[set[str], int]]:
    answers = await store.commit([make(str(i), one, tenant) for i, one in enumerate(bodies)])
    assert not [answer for answer in answers if isinstance(answer, Exception)]
    return [
        (
            {record.key.id for record in await store.find("everything", tenant, where, (), 100)},
            await store.count("everything", tenant, where),
        )
        for where in wheres
    ]


def test_a_condition_finds_what_its_predicate_accepts(tmp_path: Path) -> None:
    tenants = itertools.count()

    @settings(max_examples=60)
    @given(bodies=st.lists(fields, min_size=1, max_size=12), exprs=st.lists(conditions, min_size=10, max_size=30))
    def check(bodies: list[dict[str, Any]], exprs: list[Expr]) -> None:
        numbered = [{**one, "number": None if i % 3 == 0 else i - 5} for i, one in enumerate(bodies)]
        wheres = [where for expr in exprs if (where := EVERYTHING.condition(expr)) is not None]
        stored = {str(i): encoded(str(i), one) for i, one in enumerate(numbered)}
        answers = runner.run(found(store, str(next(tenants)), numbered, wheres))
        for expr, where, (ids, count) in zip(exprs, wheres, answers, strict=True):
            expected = {id for id, one in stored.items() if predicate(where)(one)}
            assert (ids, count) == (expected, len(expected)), expr

    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        store = runner.run(stack.enter_async_context(opened(tmp_path / "app.db", types=[EVERYTHING])))
        try:
            check()
        finally:
            runner.run(stack.aclose())


@given(st.lists(decimals, min_size=1))
def test_the_decimal_collation_is_the_order_of_values(values: list[Decimal]) -> None:
    for a in values:
        for b in values:
            assert compare_decimals(str(a), str(b)) == (a > b) - (a < b)


def test_a_thousand_conditions_of_one_shape_are_compiled_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path / "app.db", types=[EVERYTHING]) as store:
            statements = store._tables["everything"].statements  # pyright: ignore[reportPrivateUsage]
            for i in range(1000):
                await store.count("everything", "", EVERYTHING.condition((F.number > i) & (F.word == str(i))))
            assert len(statements._cache) == 1  # pyright: ignore[reportPrivateUsage]

    asyncio.run(main())


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\nb"])
def test_names_that_sqlite_cannot_look_under_are_refused(tmp_path: Path, name: str) -> None:
    async def main() -> None:
        async with opened(tmp_path / "app.db", types=[EVERYTHING]) as store:
            with pytest.raises(InvalidFilter, match="quotes or control"):
                await store.count("everything", "", EVERYTHING.condition(F.free[name] == 1))

    asyncio.run(main())


def test_more_values_than_a_statement_takes_are_refused(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path / "app.db", types=[EVERYTHING]) as store:
            await store.commit([make("1", {"number": 7})])
            assert await store.count("everything", "", Compare(("number",), "in", tuple(range(100_000)), "int")) == 1
            few = [float(i) for i in range(500)]
            assert await store.count("everything", "", EVERYTHING.condition(~F.ratio.in_(few))) == 1
            many = tuple(float(i) for i in range(30_001))
            with pytest.raises(InvalidFilter, match="ask in parts"):
                await store.count("everything", "", Compare(("ratio",), "in", many, "float"))

    asyncio.run(main())


def test_an_indexed_field_is_answered_from_its_index(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path / "app.db", types=[EVERYTHING]) as store:
            table = store._tables["everything"]  # pyright: ignore[reportPrivateUsage]
            for expr, index in (
                (F.word == "a", "ps_index_everything_word"),
                (F.word.in_(["a", "b"]), "ps_index_everything_word"),
                (F.price >= Decimal(3), "ps_index_everything_price"),
                (F.number == 1, "ps_unique_everything_number"),
                ((F.id == "a") & (F.word == "b"), "ps_key_everything"),
            ):
                sql, parameters = table.statements.find("", EVERYTHING.condition(expr), (), 5)
                plan = str(store._db.inline.execute(f"EXPLAIN QUERY PLAN {sql}", parameters).fetchall())  # pyright: ignore[reportPrivateUsage]
                assert index in plan, (expr, plan)

    asyncio.run(main())
