"""`Collection[T]`: what an application does with one entity type."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta, tzinfo
from typing import Any, Generic, Literal, TypeVar
from uuid import UUID

from polystore.collection import counting, importing, searching, stale, writing
from polystore.collection.measures import Measures
from polystore.collection.paging import after as behind
from polystore.collection.paging import (
    both,
    fingerprint,
    position,
    position_types,
    read_cursor,
    total_order,
    write_cursor,
)
from polystore.collection.scope import KeyValue, Scope, check_limit, check_token
from polystore.collection.walks import Walks
from polystore.errors import InvalidData, Unavailable
from polystore.filters import Condition, Field, Order
from polystore.model import Key, Record
from polystore.protocols import SupportsFilter, SupportsInlineGet
from polystore.results import Ack, Found, Hit, ImportReport, Stored, Token, WriteResult
from polystore.store import Store

T = TypeVar("T")


class Collection(Measures[T], Walks[T], Generic[T]):
    """The records of one entity type and tenant, as values of its class.

    All that can be known before any I/O is raised before any I/O: InvalidData for values and keys, InvalidFilter for
    conditions and amounts, UnsupportedOperation for what the declaration does not ask for. Stores raise `StoreError`s;
    an outage is never an empty answer.

    Writes return when they are durable at the home together with the duty to deliver them (`ack="committed"`), or when
    the copies named by `ack` hold them: "applied" (all copies), "visible" (and searches there see them), or store
    names. After `ack_timeout_s` seconds a copy that is not there yet is reported as pending: nothing raises after the
    commit. With an `op_id` a call may be repeated for 24 h, after any error too, and is carried out once.

    `after=` takes the token of a write: the read sees that write or something newer, or raises StalenessTimeout.
    `stale_ok=True` takes an old answer rather than none: where the home does not answer, a complete copy gives the
    record as it has it; searches and walks ask copies that are still being filled, too.
    """

    def __init__(self, scope: Scope[T]) -> None:
        self._scope = scope
        # get() is the one call that is worth every microsecond
        self._tenant = scope.tenant
        self._etype = scope.etype
        self._home = scope.home
        self._key_id = scope.entity.key_id
        self._decode = scope.entity.decode
        self._inline = scope.home.supports(SupportsInlineGet) and not scope.placement.lent
        self._cached = scope.cached

    def __repr__(self) -> str:
        return f"Collection({self._scope})"

    # -- writes -------------------------------------------------------------------------------------------------

    async def create(
        self,
        value: T,
        *,
        ttl_s: float | None = None,
        op_id: UUID | None = None,
        ack: Ack = "committed",
        ack_timeout_s: float = 10.0,
    ) -> WriteResult:
        """Insert. Raises AlreadyExists when a live record has the key, IntegrityViolation for a unique value. `ttl_s`:
        the record is absent everywhere that many seconds from now (default: as the entity declares)."""
        write = self._scope.whole("create", value, ttl_s=ttl_s)
        return await writing.send_one(self._scope, write, op_id, ack, ack_timeout_s)

    async def put(
        self,
        value: T,
        *,
        expect_version: int | None = None,
        ttl_s: float | None = None,
        vectors: Mapping[str, Sequence[float]] | None = None,
        op_id: UUID | None = None,
        ack: Ack = "committed",
        ack_timeout_s: float = 10.0,
    ) -> WriteResult:
        """Insert or replace. With `expect_version` it only replaces: NotFound, or VersionConflict with the actual
        version. `ttl_s` as in `create`: what a record had of it before is forgotten. `vectors` maps text fields to
        vectors that stand in for the embedder's until the record is written again."""
        write = self._scope.whole("put", value, expect_version=expect_version, vectors=vectors, ttl_s=ttl_s)
        return await writing.send_one(self._scope, write, op_id, ack, ack_timeout_s)

    async def put_many(
        self,
        values: Sequence[T],
        *,
        skip_unchanged: bool = False,
        op_id: UUID | None = None,
        ack: Ack = "committed",
        ack_timeout_s: float = 10.0,
    ) -> Sequence[WriteResult]:
        """Put all values in one commit, or none. `skip_unchanged`: a record with the same content is left as it is
        (`WriteResult.changed` says so).

        Raises ValueTooLarge above the home's `limits.batch_max` (use `import_many`), InvalidData when two values have
        the same key: which of them should stand was not said.
        """
        return await writing.put_many(self._scope, values, skip_unchanged, op_id, ack, ack_timeout_s)

    async def update(
        self,
        key: KeyValue,
        change: Mapping[str, object] | Callable[[T], T],
        *,
        expect_version: int | None = None,
        op_id: UUID | None = None,
        ack: Ack = "committed",
        ack_timeout_s: float = 10.0,
    ) -> WriteResult:
        """Change a standing record; never inserts: NotFound.

        A mapping of field to new value is one statement at the home. A function gets the current value and returns the
        changed one; it runs again, at most 5 times in all, when another write came between, then VersionConflict is
        raised. With `expect_version` it is tried once.
        """
        return await writing.update(self._scope, key, change, expect_version, op_id, ack, ack_timeout_s)

    async def touch(
        self,
        key: KeyValue,
        *,
        ttl_s: float,
        op_id: UUID | None = None,
        ack: Ack = "committed",
        ack_timeout_s: float = 10.0,
    ) -> WriteResult:
        """Let a standing record live `ttl_s` seconds from now, whatever was said before. Raises NotFound when there is
        none, or none any more: what has expired is not called back."""
        write = self._scope.extension(self._scope.key(key), ttl_s)
        return await writing.send_one(self._scope, write, op_id, ack, ack_timeout_s)

    async def delete(
        self,
        key: KeyValue,
        *,
        expect_version: int | None = None,
        op_id: UUID | None = None,
        ack: Ack = "committed",
        ack_timeout_s: float = 10.0,
    ) -> WriteResult:
        """Delete. An absent key is no error: the result says `existed=False`, `version=None`; with `expect_version` it
        is NotFound."""
        write = self._scope.removal(self._scope.key(key), expect_version=expect_version)
        return await writing.send_one(self._scope, write, op_id, ack, ack_timeout_s)

    async def import_many(
        self,
        source: Iterable[T | InvalidData] | AsyncIterable[T | InvalidData],
        *,
        on_conflict: Literal["overwrite", "skip", "error"] = "overwrite",
        on_error: Literal["stop", "collect"] = "stop",
        resume: str | None = None,
        progress: Callable[[ImportReport], None] | None = None,
    ) -> ImportReport:
        """Write any amount of values, in commits of up to 2,000, as fast as home and copies take them.

        on_conflict: what happens to a value whose key is there already: "overwrite" (unless the content is the same),
        "skip", or "error". on_error: "stop" raises at the first bad value (with a note that says which), everything
        before it is written; "collect" goes on and counts it in the report. resume: a name under which the position is
        kept in the same commits: a call with the same name and the same source goes on where the last one ended, be it
        by an error, a cancellation or a crash. progress: called after each commit. A source that reads its values from
        somewhere gives an InvalidData in the place of one that it cannot make: it counts as a bad value.

        Cancelled, it leaves whole commits. Memory does not grow with the source.
        """
        job = importing.Import(self._scope, on_conflict, on_error, resume, progress)
        return await job.run(source)

    # -- reads of records ---------------------------------------------------------------------------------------

    async def get(self, key: KeyValue, *, after: Token | None = None, stale_ok: bool = False) -> T | None:
        """The value, or None when no live record has the key. Raises DecodeError when what is stored is damaged."""
        if stale_ok:
            return (await self.get_many((key,), after=after, stale_ok=True))[0]
        if after is not None:
            check_token(after)
        elif self._cached is not None:
            return await self._cached.value(self._key_id(key))
        wanted = Key(self._tenant, self._etype, self._key_id(key))
        record = await self._at_home(wanted) if self._inline else (await self._home.get((wanted,)))[0]
        if record is None or record.body is None:
            return None
        return self._decode(record.body)

    async def get_many(
        self, keys: Sequence[KeyValue], *, after: Token | None = None, stale_ok: bool = False
    ) -> Sequence[T | None]:
        """The values in the order of the keys, None where there is none."""
        check_token(after)
        stale.check(stale_ok, after)
        if isinstance(keys, (str, bytes)) or not isinstance(keys, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidData(f"get_many takes a list of keys, not one {type(keys).__name__}; get takes one key")
        wanted = [self._scope.key(key) for key in keys]
        ask = self._home.get if self._cached is None or after is not None else self._cached.records
        records = await stale.records(self._scope, wanted, ask, stale_ok) if wanted else []
        return [None if r is None or r.body is None else self._decode(r.body) for r in records]

    async def load(self, key: KeyValue, *, after: Token | None = None, stale_ok: bool = False) -> Stored[T]:
        """The value with its version and the time of its last write. Raises NotFound."""
        wanted = self._scope.key(key)
        record = await self._record(wanted, after, stale_ok)
        if record is None or record.body is None:
            raise self._scope.not_found(wanted)
        return self._scope.stored(record)

    async def exists(self, key: KeyValue, *, after: Token | None = None, stale_ok: bool = False) -> bool:
        """Whether a live record has the key."""
        record = await self._record(self._scope.key(key), after, stale_ok)
        return record is not None and record.body is not None

    async def _record(self, key: Key, after: Token | None, stale_ok: bool) -> Record | None:
        check_token(after)
        stale.check(stale_ok, after)
        if stale_ok or (self._cached is not None and after is None):
            ask = self._home.get if self._cached is None else self._cached.records
            return (await stale.records(self._scope, (key,), ask, stale_ok))[0]
        return await self._at_home(key)

    async def _at_home(self, key: Key) -> Record | None:
        if self._inline:
            try:
                return self._home.get_now(key)
            except Unavailable:  # it would have to wait
                pass
        return (await self._home.get((key,)))[0]

    async def _found_at(self, after: Token | None) -> Store:
        """Who answers conditions, once it holds what `after` names. Raises StalenessTimeout, Unavailable."""
        store = self._scope.found_at
        if store is self._home:
            check_token(after)
        else:
            await self._scope.ready(store, after)
        return store

    async def count(self, where: Condition | None = None, *, after: Token | None = None) -> int:
        """How many live records satisfy the condition; of all, without one."""
        checked = self._scope.entity.condition(where)
        home = await self._found_at(after)
        return await home.call(SupportsFilter.count, self._etype, self._tenant, checked)

    async def find(
        self,
        where: Condition | None = None,
        *,
        order_by: Sequence[Field | Order] | Field | Order = (),
        limit: int = 100,
        cursor: str | None = None,
        after: Token | None = None,
    ) -> Found[T]:
        """Records that satisfy the condition, sorted by `order_by` and then by key; missing values last, in both
        directions. `cursor` of the page before continues behind its last record, whatever was written since; with
        another condition or order it is InvalidFilter."""
        check_limit(limit)
        entity = self._scope.entity
        checked = entity.condition(where)
        order = total_order(entity, entity.sort(order_by))
        of = fingerprint("find", self._etype, self._tenant, checked, order)
        rest = checked
        if cursor is not None:
            rest = both(checked, behind(entity, order, read_cursor(cursor, of, position_types(entity, order))))
        home = await self._found_at(after)
        records = await home.call(SupportsFilter.find, self._etype, self._tenant, rest, order, limit + 1)
        bodies = [record.body for record in records[:limit] if record.body is not None]
        values = [self._decode(body) for body in bodies]
        more = len(records) > limit
        return Found(values, write_cursor(of, position(order, bodies[-1])) if more else None)

    async def stream(
        self, where: Condition | None = None, *, batch: int = 500, after: Token | None = None
    ) -> AsyncIterator[T]:
        """All records that satisfy the condition, by key, read `batch` at a time: memory does not grow with them."""
        cursor: str | None = None
        while True:
            page = await self.find(where, limit=batch, cursor=cursor, after=after)
            for value in page:
                yield value
            if page.cursor is None:
                return
            cursor = page.cursor

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
        after: Token | None = None,
    ) -> dict[Any, int]:
        """How many live records have each value of the field `by`, most frequent first; or, with `every`, how many of
        the times `by` from `start` up to, not including, `end` fall into each window of that width, oldest first. See
        `Log.counts`. A copy that counts by itself is asked where the home does not, and may be a moment behind."""
        searching.check_text(text)
        entity = self._scope.entity
        asked = counting.counted(entity, by, every, start, end, tz, limit)
        bounds = counting.within(by, every, start, end)
        phrases = counting.words(entity, text)
        if phrases is None:
            return {}
        return await counting.of_records(self._scope, phrases, both(entity.condition(where), bounds), asked, after)

    # -- searches -----------------------------------------------------------------------------------------------

    async def search(
        self,
        text: str,
        *,
        where: Condition | None = None,
        limit: int = 10,
        cursor: str | None = None,
        hydrate: bool = True,
        after: Token | None = None,
        stale_ok: bool = False,
    ) -> Found[Hit[T]]:
        """Records whose full-text fields hold all words of the text, best first (BM25). Highlights are pieces of the
        original text. Values are the home's current ones; `hydrate=False` takes what the index's own store holds."""
        searching.check_text(text)
        stale.check(stale_ok, after)
        question = searching.Question(self._scope, where, limit, hydrate=hydrate, stale_ok=stale_ok)
        return await searching.search(question, text, cursor, after)

    async def similar(
        self,
        to: str | Sequence[float],
        *,
        field: str | None = None,
        where: Condition | None = None,
        limit: int = 10,
        hydrate: bool = True,
        after: Token | None = None,
        stale_ok: bool = False,
    ) -> Found[Hit[T]]:
        """The records nearest to a text or a vector by the field's metric, best first. `field` names the field where
        there are several. Raises DimensionMismatch, and InvalidData for NaN."""
        stale.check(stale_ok, after)
        question = searching.Question(self._scope, where, limit, hydrate=hydrate, stale_ok=stale_ok)
        return await searching.similar(question, to, field, after)

    async def hybrid(
        self,
        text: str,
        *,
        where: Condition | None = None,
        limit: int = 10,
        hydrate: bool = True,
        after: Token | None = None,
        stale_ok: bool = False,
    ) -> Found[Hit[T]]:
        """`search` and `similar` fused by reciprocal rank: what is good in both comes first."""
        searching.check_text(text)
        stale.check(stale_ok, after)
        question = searching.Question(self._scope, where, limit, hydrate=hydrate, stale_ok=stale_ok)
        return await searching.hybrid(question, text, after)
