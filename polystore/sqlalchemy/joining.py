"""Writes in a transaction that the application has begun itself and ends itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, cast
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import event, orm
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from polystore.collection.scope import KeyValue, Scope, Wiring
from polystore.collection.transaction import Transaction
from polystore.collection.writing import op_of
from polystore.entity import EntityType
from polystore.errors import AlreadyExists, ConfigurationError, NotFound, UnsupportedOperation
from polystore.model import Commit, Key, Write, Written, key_hash
from polystore.protocols import SupportsApplicationTables
from polystore.results import StoreStatus, Token, WriteResult
from polystore.sqlalchemy.capturing import followed

Join = AsyncSession | orm.Session | AsyncConnection | sa.Connection
"""What a transaction can join: anything that has one of SQLAlchemy's transactions under way, or begins one."""
_WAITING = "polystore.joined"


class _Row(NamedTuple):
    """A write of an object of a mapped class, for its session to carry out."""

    kind: Literal["create", "put", "update", "delete"]
    entity: EntityType[Any]
    value: Any
    change: Mapping[str, Any] = {}


class JoinedTransaction(Transaction):
    """As `Transaction`, in a transaction of the caller: written when the block ends, durable when the caller commits,
    gone when he rolls back.

    Objects of mapped classes are added to, merged into or deleted from a joined session, which flushes them; so an
    object gets the key that the database draws. What was written is owed to the copies at once, but to be delivered
    only after the commit. A rollback needs nothing: until then `result` says "pending" of the home.
    """

    def __init__(self, wiring: Wiring, tenant: str, op_id: UUID | None, join: Join) -> None:
        super().__init__(wiring, tenant, op_id, "committed", 0.0)
        if not isinstance(join, (AsyncSession, orm.Session, AsyncConnection, sa.Connection)):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(
                "join= takes a Session, AsyncSession, Connection or AsyncConnection of SQLAlchemy, not "
                f"{type(join).__name__}"
            )
        self._join = join
        self._by_session = isinstance(join, (AsyncSession, orm.Session))
        self._order: list[_Row | Write] = []
        self._state: Literal["pending", "committed", "rolled back"] = "pending"

    @property
    def result(self) -> Sequence[WriteResult]:
        """What each write did, in the order of the calls. Raises UnsupportedOperation before the end of the block, and
        after a rollback."""
        results = super().result
        if self._state == "rolled back":
            raise UnsupportedOperation("the joined transaction was rolled back: nothing was written")
        if self._state == "pending" or self._home is None:
            return results
        home = self._home.placement.authority
        return [_with_status(one, home, "committed") for one in results]

    # -- collecting -----------------------------------------------------------------------------------------------

    def create(self, value: object, *, ttl_s: float | None = None) -> None:
        if not self._take("create", type(value), value, ttl_s):
            super().create(value, ttl_s=ttl_s)

    def put(self, value: object, *, expect_version: int | None = None, ttl_s: float | None = None) -> None:
        if not self._take("put", type(value), value, expect_version, ttl_s):
            super().put(value, expect_version=expect_version, ttl_s=ttl_s)

    def update(
        self, cls: type[Any], key: KeyValue, change: Mapping[str, object], *, expect_version: int | None = None
    ) -> None:
        if not self._take("update", cls, key, expect_version, change=change):
            super().update(cls, key, change, expect_version=expect_version)

    def delete(self, cls: type[Any], key: KeyValue, *, expect_version: int | None = None) -> None:
        if not self._take("delete", cls, key, expect_version):
            super().delete(cls, key, expect_version=expect_version)

    def _take(
        self,
        kind: Literal["create", "put", "update", "delete"],
        cls: type[Any],
        value: object,
        *unsupported: object,
        change: Mapping[str, object] = {},
    ) -> bool:
        """Whether it is the session's to write."""
        scope = self._scope(cls)
        if scope.placement.cache and scope.entity.cache == "strict":
            raise UnsupportedOperation(f"{cls.__name__}: a strict cache cannot follow a transaction of the caller")
        if scope.entity.mapped is None or not self._by_session:
            return False
        if any(one is not None for one in (*unsupported, self._op_id)):
            raise UnsupportedOperation(
                f"{cls.__name__}: expect_version=, ttl_s= and op_id= are not for objects that a session writes; write "
                "them with the collection, or join a connection"
            )
        if kind == "update":
            scope.entity.encode_patch(change)  # raises what can be known before
        self._home = self._home or scope
        self._order.append(_Row(kind, scope.entity, value, change))
        return True

    def _add(self, scope: Scope[Any], write: Write) -> None:
        super()._add(scope, write)
        self._order.append(write)

    # -- writing --------------------------------------------------------------------------------------------------

    async def _write(self, home: Scope[Any]) -> None:
        if home.placement.journal or not home.home.supports(SupportsApplicationTables):
            raise UnsupportedOperation(f"{home.home.name}: this store's transactions cannot be joined")
        manager = self._wiring.manager
        if manager.before_commit is not None:
            await manager.before_commit(self._writes)
        loop = asyncio.get_running_loop()
        line = manager.line(home.etype)

        def wake() -> None:
            loop.call_soon_threadsafe(line.wake)

        join = self._join
        if isinstance(join, AsyncSession):
            await join.run_sync(lambda session: self._with_session(session, wake))
        elif isinstance(join, AsyncConnection):
            await join.run_sync(self._with_connection)
        elif isinstance(join, orm.Session):
            self._with_session(join, wake)
        else:
            self._with_connection(join)

    def _with_session(self, session: orm.Session, wake: Callable[[], None]) -> None:
        with followed():
            rows = [(one, self._carry_out(session, one)) for one in self._order if isinstance(one, _Row)]
            session.flush()
        ids: dict[str, list[str]] = {}
        known: dict[int, tuple[Key, bool]] = {}
        for row, (found, existed) in rows:
            key = Key("", row.entity.name, _id(row.entity, found))
            ids.setdefault(key.etype, []).append(key.id)
            known[id(row)] = key, existed
        mappers = [row.entity.cls for row, _ in rows]
        self._commit(session.connection(bind_arguments={"mapper": mappers[0]} if mappers else None), ids, known)
        waiting: _Waiting = session.info.get(_WAITING) or _Waiting(session)
        session.info[_WAITING] = waiting
        waiting.add(lambda committed: self._over(committed, wake), session)

    def _with_connection(self, connection: sa.Connection) -> None:
        self._commit(connection, {}, {})

    def _carry_out(self, session: orm.Session, row: _Row) -> tuple[Any, bool]:
        """The object in the session, and whether it stood before."""
        cls, value = row.entity.cls, row.value
        if row.kind in ("update", "delete"):
            standing = session.get(cls, value)
            if row.kind == "delete":
                if standing is not None:
                    session.delete(standing)
                return value if standing is None else standing, standing is not None
            if standing is None:
                raise NotFound(f"{row.entity.name} {value!r} does not exist")
            for name, new in row.change.items():
                setattr(standing, name, new)
            return standing, True
        key = getattr(value, row.entity.key)
        if value in session or key is None:
            session.add(value)
            return value, bool(sa.inspect(value).persistent)
        if row.kind == "create":
            if session.get(cls, key) is not None:
                raise AlreadyExists(f"{row.entity.name} {key!r} exists already")
            session.add(value)
            return value, False
        merged = session.merge(value)
        return merged, bool(sa.inspect(merged).persistent)

    def _commit(
        self, connection: sa.Connection, ids: Mapping[str, Sequence[str]], known: Mapping[int, tuple[Key, bool]]
    ) -> None:
        """Write beside what the session wrote, and draw the results up."""
        assert self._home is not None
        repository = cast(SupportsApplicationTables, self._home.home.repository)
        op = op_of(self._tenant, self._op_id, self._wiring.types, self._writes)
        spills = self._wiring.manager.erasures.of(self._writes)
        committed, rows = repository.commit_on(connection, Commit(self._writes, None, op, spills=spills), ids)
        written = iter(committed.written)
        results: list[WriteResult] = []
        for one in self._order:
            if isinstance(one, Write):
                results.append(self._one(one.key, one.h, next(written)))
            else:
                key, existed = known[id(one)]
                row = rows.get(key, Written(0, existed, changed=False))
                h = key_hash("", key.etype, key.id)
                results.append(self._one(key, h, Written(row.version, existed, row.changed or existed)))
        self._result = results

    def _one(self, key: Key, h: int, written: Written) -> WriteResult:
        placement = self._wiring.placements[key.etype]
        stores: dict[str, StoreStatus] = dict.fromkeys((placement.authority, *placement.copies()), "pending")
        version = written.version or None
        token = Token.of(placement.authority, [(h, written.version)]) if version else Token("")
        return WriteResult(key.id, version, written.existed, token, stores, written.changed)

    def _over(self, committed: bool, wake: Callable[[], None]) -> None:
        self._state = "committed" if committed else "rolled back"
        if committed:
            wake()


def _id(entity: EntityType[Any], found: Any) -> str:
    return entity.key_id(getattr(found, entity.key) if isinstance(found, entity.cls) else found)


def _with_status(result: WriteResult, store: str, status: StoreStatus) -> WriteResult:
    stores: dict[str, StoreStatus] = {**result.stores, store: status}
    return WriteResult(result.key, result.version, result.existed, result.token, stores, result.changed)


class _Waiting:
    """Who is to be told how a session's transaction ends."""

    def __init__(self, session: orm.Session) -> None:
        self._told: list[tuple[Callable[[bool], None], orm.SessionTransaction | None]] = []
        event.listen(session, "after_commit", self._committed)
        event.listen(session, "after_rollback", self._rolled_back)

    def add(self, tell: Callable[[bool], None], session: orm.Session) -> None:
        self._told.append((tell, session.get_nested_transaction()))

    def _committed(self, session: orm.Session) -> None:
        nested = session.get_nested_transaction()
        if nested is None:
            told, self._told = self._told, []
            for tell, _ in told:
                tell(True)
        else:  # a savepoint is over: it shares the fate of what is around it
            around = nested.parent if nested.parent is not None and nested.parent.nested else None
            self._told = [(tell, around if within is nested else within) for tell, within in self._told]

    def _rolled_back(self, session: orm.Session) -> None:
        nested = session.get_nested_transaction()
        for tell, within in self._told:
            if nested is None or within is nested:
                tell(False)
        self._told = [one for one in self._told if nested is not None and one[1] is not nested]
