"""Counts by value and by time: made by the store where it can (`SupportsCounts`), else of what it is asked to read."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

import msgspec

from polystore.collection.paging import after as behind
from polystore.collection.paging import both, position, total_order
from polystore.collection.scope import Scope, check_limit
from polystore.collection.windows import moment, windows, zone_of
from polystore.entity import EntityType
from polystore.errors import InvalidData, InvalidFilter, UnsupportedOperation, did_you_mean
from polystore.filters import All, Checked, Compare, Sort
from polystore.kinds import encode_datetime
from polystore.model import COUNTABLE, Body, Tally, Windows
from polystore.protocols import SupportsCounts, SupportsFilter, SupportsLog
from polystore.results import Token
from polystore.store import Store
from polystore.text import Phrase, matches, query

BATCH = 1_000


class Counted(msgspec.Struct, frozen=True):
    """What is counted: values of a field, or, with windows, its times. `zone` is that of the answer."""

    field: str
    windows: Windows | None
    zone: tzinfo
    limit: int

    def answer(self, pairs: Sequence[tuple[Any, int]]) -> dict[Any, int]:
        if self.windows is None:
            return dict(pairs)
        return {moment(begin, self.zone): count for begin, count in pairs}


def counted(
    entity: EntityType[Any],
    by: str,
    every: timedelta | str | None,
    start: datetime | None,
    end: datetime | None,
    tz: tzinfo | str | None,
    limit: int,
) -> Counted:
    """Raises InvalidFilter for a field that is not there, or cannot be counted so."""
    check_limit(limit)
    name, zone = entity.cls.__name__, zone_of(tz)
    if by not in entity.fields:
        raise InvalidFilter(f"{name} has no field {by!r}{did_you_mean(by, entity.fields)}")
    kind = entity.fields[by].kind.name
    if every is None:
        if kind not in COUNTABLE:
            more = "; times are counted with every=" if kind == "datetime" else ""
            raise InvalidFilter(f"{name}.{by}: values of this type are not counted{more}")
        return Counted(by, None, zone, limit)
    if kind != "datetime":
        raise InvalidFilter(f"{name}.{by} is no datetime: every= counts by time")
    if start is None or end is None:
        raise InvalidFilter("every= needs start= and end=: the time that is cut into windows")
    try:
        start, end = encode_datetime(start), encode_datetime(end)
    except InvalidData as e:
        raise InvalidFilter(f"start= and end=: {e}") from None
    return Counted(by, windows(every, zone, start, end), zone, limit)


def within(by: str, every: object, start: datetime | None, end: datetime | None) -> Checked | None:
    """The condition that a time lies in the time that is cut. Raises InvalidFilter for a time that is not."""
    if every is None and (start or end) is not None:
        raise InvalidFilter("start= and end= say which time every= cuts; without it, use where=")
    if start is None or end is None:
        return None
    begun = Compare((by,), ">=", start.astimezone(UTC), "datetime")
    return All((begun, Compare((by,), "<", end.astimezone(UTC), "datetime")))


def words(entity: EntityType[Any], text: str) -> Sequence[Phrase] | None:
    """The phrases of a text; None: it has no letters, and nothing is found. Raises UnsupportedOperation."""
    if not text:
        return ()
    if not entity.full_text:
        raise UnsupportedOperation(f"{entity.cls.__name__}: text= needs FullText() on a str field")
    return query(text) or None


async def of_lines(
    store: Store,
    entity: EntityType[Any],
    tenant: str,
    phrases: Sequence[Phrase],
    where: Checked | None,
    asked: Counted,
) -> dict[Any, int]:
    """Of the lines of a log."""
    if store.supports(SupportsCounts):
        return asked.answer(await _by_store(store, entity, tenant, phrases, where, asked))
    order = total_order(entity, [Sort(("at",), "datetime")])

    async def read(rest: Checked | None) -> Sequence[Body | None]:
        lines = await store.call(SupportsLog.lines, entity.name, tenant, phrases, rest, BATCH, False)
        return [line.body for line in lines]

    return await _by_reading(entity, order, where, asked, (), read)


async def of_records(
    scope: Scope[Any], phrases: Sequence[Phrase], where: Checked | None, asked: Counted, after: Token | None
) -> dict[Any, int]:
    """Of live records: at the home, or at a copy that counts by itself."""
    entity, text = scope.entity, scope.placement.facets.get("full_text")
    stores = [scope.found_at, *([] if text is None else [scope.wiring.store(text)])]
    able = [store for store in stores if store.supports(SupportsCounts)]
    store = able[0] if able else scope.found_at
    if store is not scope.home:
        await scope.ready(store, after)
    if able:
        return asked.answer(await _by_store(store, entity, scope.tenant, phrases, where, asked))
    order = total_order(entity, ())

    async def read(rest: Checked | None) -> Sequence[Body | None]:
        records = await store.call(SupportsFilter.find, entity.name, scope.tenant, rest, order, BATCH)
        return [record.body for record in records]

    return await _by_reading(entity, order, where, asked, phrases, read)


async def _by_store(
    store: Store,
    entity: EntityType[Any],
    tenant: str,
    phrases: Sequence[Phrase],
    where: Checked | None,
    asked: Counted,
) -> Sequence[tuple[Any, int]]:
    method = SupportsCounts.counts
    return await store.call(method, entity.name, tenant, phrases, where, asked.field, asked.windows, asked.limit)


async def _by_reading(
    entity: EntityType[Any],
    order: Sequence[Sort],
    where: Checked | None,
    asked: Counted,
    phrases: Sequence[Phrase],
    read: Callable[[Checked | None], Awaitable[Sequence[Body | None]]],
) -> dict[Any, int]:
    """`read` gives the first `BATCH` in the order; memory grows with the values, not with what is read."""
    tally, rest = Tally(asked.field, asked.windows), where
    while True:
        bodies = [body for body in await read(rest) if body is not None]
        for body in bodies:
            said = "\n".join(body.get(name) or "" for name in entity.full_text) if phrases else ""
            if not phrases or matches(said, phrases):
                tally.take(body)
        if len(bodies) < BATCH:
            return asked.answer(tally.first(asked.limit))
        rest = both(where, behind(entity, order, position(order, bodies[-1])))
