"""`Log[T]`: lines that are appended and found, never changed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Generic, TypeVar

from polystore.collection import counting
from polystore.collection.paging import after as behind
from polystore.collection.paging import both, fingerprint, position, position_types, read_cursor, write_cursor
from polystore.collection.scope import Wiring, check_limit
from polystore.collection.searching import check_text
from polystore.entity import EntityType
from polystore.errors import InvalidData, InvalidFilter, UnsupportedOperation
from polystore.filters import Checked, Compare, Condition, Sort
from polystore.kinds import encode_datetime
from polystore.model import Line
from polystore.protocols import FACTS_MAX, SupportsLog
from polystore.results import Found, Token, WriteResult
from polystore.text import Phrase, query

T = TypeVar("T")


class Log(Generic[T]):
    """The lines of one class under `@entity(data_type="log")` and one tenant. Made by `hda.log`.

    A line has its key, its time (the field `at`) and its other fields, all fixed by the application before it is sent.
    It is appended and never changed: a line whose key is there already is left as it is, so any append may be repeated.
    With `ttl_s` on the class, lines older than that are gone.

    While the store of the log is down or full, lines are kept by the journal, and delivered later, in no order: the
    result says "pending". Reads of one that is down raise Unavailable.
    """

    def __init__(self, wiring: Wiring, entity: EntityType[T], tenant: str) -> None:
        placement = wiring.alone.get(entity.name)
        if placement is None or entity.data_type is None or "at" not in entity.fields:
            raise UnsupportedOperation(
                f'{entity.cls.__name__} is no log: its lines would be declared by @entity(data_type="log"), with a '
                "field `at: datetime`"
            )
        self._wiring = wiring
        self._entity = entity
        self._tenant = tenant
        self._home = placement.home
        key = entity.fields[entity.key].kind.name
        self._newest = (Sort(("at",), "datetime", True), Sort((entity.key,), key, True))
        self._oldest = (Sort(("at",), "datetime"), Sort((entity.key,), key))

    def __repr__(self) -> str:
        return f"Log({self._entity.cls.__name__} of tenant {self._tenant!r} in {self._home})"

    # -- append -----------------------------------------------------------------------------------------------

    async def append(self, value: T) -> WriteResult:
        """Append a line: "committed" when it is durable in its store, "pending" when the journal keeps it for the
        store. Raises InvalidData before any I/O, Backpressure when the journal keeps as much as it may, and what the
        store raises where there is no journal beside it."""
        line = self._line(value)
        status = await self._wiring.facts.append_lines(self._entity.name, self._tenant, [line])
        return WriteResult(line.id, None, False, Token(""), {self._home: status})

    async def append_many(self, values: Iterable[T]) -> int:
        """Append any number of lines, 10,000 at a time; returns how many. A bad value raises InvalidData: its batch is
        not appended, those before it are, and a repeat of the whole call harms nothing."""
        lines: list[Line] = []
        count = 0
        for value in values:
            lines.append(self._line(value))
            if len(lines) == FACTS_MAX:
                await self._wiring.facts.append_lines(self._entity.name, self._tenant, lines)
                count, lines = count + len(lines), []
        if lines:
            await self._wiring.facts.append_lines(self._entity.name, self._tenant, lines)
        return count + len(lines)

    def _line(self, value: T) -> Line:
        body = self._entity.encode(value)
        self._entity.content_hash(body, bounded=True)
        return Line(self._entity.key_id(body[self._entity.key]), body)

    # -- read -------------------------------------------------------------------------------------------------

    async def search(
        self,
        text: str,
        *,
        where: Condition | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Found[T]:
        """Lines whose full-text fields hold all words of the text, newest first; Korean by every pair of syllables.
        `start` and `end` (not included) bound their times. `cursor` of the page before continues behind its last
        line."""
        check_text(text)
        if not self._entity.full_text:
            raise UnsupportedOperation(f"{self._entity.cls.__name__}: search needs FullText() on a str field")
        phrases = query(text)
        return await self._page("search", text, phrases, where, start, end, limit, cursor, newest_first=True)

    async def range(
        self,
        start: datetime | None = None,
        end: datetime | None = None,
        *,
        where: Condition | None = None,
        newest_first: bool = True,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Found[T]:
        """Lines from `start` up to, not including, `end`; None is no bound. Ordered by time and then by key."""
        return await self._page("range", "", (), where, start, end, limit, cursor, newest_first=newest_first)

    async def stream(
        self,
        start: datetime | None = None,
        end: datetime | None = None,
        *,
        where: Condition | None = None,
        batch: int = 500,
    ) -> AsyncIterator[T]:
        """All lines of a time, oldest first, read `batch` at a time: memory does not grow with them."""
        cursor: str | None = None
        while True:
            page = await self.range(start, end, where=where, newest_first=False, limit=batch, cursor=cursor)
            for value in page:
                yield value
            if page.cursor is None:
                return
            cursor = page.cursor

    async def count(
        self, where: Condition | None = None, *, start: datetime | None = None, end: datetime | None = None
    ) -> int:
        """How many lines of a time satisfy the condition."""
        checked = self._where(where, start, end)
        store = self._wiring.store(self._home)
        return await store.call(SupportsLog.count_lines, self._entity.name, self._tenant, checked)

    async def counts(
        self,
        by: str,
        *,
        text: str = "",
        where: Condition | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
        every: timedelta | str | None = None,
        tz: tzinfo | str | None = None,
        limit: int = 100,
    ) -> dict[Any, int]:
        """How many lines have each value of the field `by`, most frequent first; or, with `every`, how many of the
        times `by` fall into each window of that width that has any, oldest first: `counts("at", every="1h", start=..,
        end=..)`. Widths and `tz` are those of `Collection.series`. `text` and the condition choose among the lines,
        `start` and `end` bound their time `at`. Texts, whole numbers, truths, UUIDs and dates can be counted; others
        raise InvalidFilter. The store counts where it can, else its lines are read."""
        check_text(text)
        asked = counting.counted(self._entity, by, every, start, end, tz, limit)
        checked, phrases = self._where(where, start, end), counting.words(self._entity, text)
        if phrases is None:
            return {}
        store = self._wiring.store(self._home)
        return await counting.of_lines(store, self._entity, self._tenant, phrases, checked, asked)

    async def _page(
        self,
        verb: str,
        text: str,
        phrases: Sequence[Phrase],
        where: Condition | None,
        start: datetime | None,
        end: datetime | None,
        limit: int,
        cursor: str | None,
        *,
        newest_first: bool,
    ) -> Found[T]:
        check_limit(limit)
        checked = self._where(where, start, end)
        if verb == "search" and not phrases:
            return Found(())
        entity, order = self._entity, self._newest if newest_first else self._oldest
        of = fingerprint(verb, entity.name, self._tenant, text, checked, order)
        rest = checked
        if cursor is not None:
            at: list[Any] = read_cursor(cursor, of, position_types(entity, order))
            near = Compare(("at",), "<=" if newest_first else ">=", at[0], "datetime")  # a bound that an index knows
            rest = both(both(checked, near), behind(entity, order, at))
        store = self._wiring.store(self._home)
        lines = await store.call(SupportsLog.lines, entity.name, self._tenant, phrases, rest, limit + 1, newest_first)
        bodies = [line.body for line in lines[:limit]]
        more = len(lines) > limit
        return Found(
            [entity.decode(body) for body in bodies], write_cursor(of, position(order, bodies[-1])) if more else None
        )

    def _where(self, where: Condition | None, start: datetime | None, end: datetime | None) -> Checked | None:
        checked = self._entity.condition(where)
        for name, op, bound in (("start", ">=", start), ("end", "<", end)):
            if bound is not None:
                try:
                    at = encode_datetime(bound).astimezone(UTC)
                except InvalidData as e:
                    raise InvalidFilter(f"{name}=: {e}") from None
                checked = both(checked, Compare(("at",), ">=" if op == ">=" else "<", at, "datetime"))
        return checked
