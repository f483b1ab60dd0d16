"""Unchanged ORM code keeps the copies in step: what a session flushes is taken over in its own transaction."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy import event, orm
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.sql.dml import UpdateBase

from polystore.entity import EntityType, entity_type
from polystore.errors import ConfigurationError, UnsupportedOperation
from polystore.protocols import CapturesTables
from polystore.registry import installed

ADAPTERS = "polystore.sqlalchemy"

Sessions = (
    type[orm.Session] | type[AsyncSession] | orm.sessionmaker[Any] | async_sessionmaker[Any] | orm.scoped_session[Any]
)
"""What makes the sessions of an application."""

_writing: ContextVar[bool] = ContextVar("polystore_writing", default=False)
"""Whether the statements under way are followed afterwards."""
_BEFORE = "polystore.before"
_guarded: dict[sa.Table[Any], EntityType[Any]] = {}


def capture(sessions: Sessions, entities: Iterable[type[Any]]) -> None:
    """From now on, follow what these sessions write to the tables of these mapped entity classes.

    `sessions` is the application's Session class, sessionmaker or scoped_session, or an async one. Whatever a session
    flushes, and what `session.execute(update(...))` and `delete(...)` of a class change, gets its version, its full
    text and edges at the home, and the duty to deliver it, within the session's own transaction: any process that has
    an architecture open delivers it, this one needs none. A database upon which none was ever opened is left alone.

    Other writes to these tables by SQLAlchemy (`connection.execute(insert(table))`, `session.execute(insert(...))`,
    `session.bulk_save_objects`) raise UnsupportedOperation before they are carried out, unless `install_trigger` has
    prepared the database for writers of any kind. Text that is SQL is not looked into.

    Raises ConfigurationError for a class that is no mapped entity, and for anything else than sessions.
    """
    captured: dict[type[Any], EntityType[Any]] = {}
    for cls in entities:
        one = entity_type(cls)
        captured[cls] = one
        _guarded[table_of(one)] = one
    target = _target(sessions)
    following = _Following(captured)
    event.listen(target, "before_flush", _begin)
    event.listen(target, "after_flush", following.flushed)
    event.listen(target, "after_soft_rollback", _end)
    event.listen(target, "do_orm_execute", following.executed)
    if not event.contains(sa.Engine, "before_execute", _guard):
        event.listen(sa.Engine, "before_execute", _guard)


def adapter_of(connection: sa.Connection) -> CapturesTables:
    """What follows tables in the connection's database. Raises ConfigurationError."""
    found = installed(ADAPTERS).get(connection.dialect.name)
    if found is None:
        raise ConfigurationError(
            f"no installed adapter follows tables of {connection.dialect.name}; known: {', '.join(installed(ADAPTERS))}"
        )
    return cast(CapturesTables, found.load())


def table_of(entity: EntityType[Any]) -> sa.Table[Any]:
    """Raises ConfigurationError for an entity that is not mapped."""
    if entity.mapped is None:
        raise ConfigurationError(f"{entity.cls.__name__} is not mapped to a table of the application")
    return entity.mapped.table


def _target(sessions: Any) -> Any:
    """What SQLAlchemy takes events of sessions on."""
    if isinstance(sessions, async_sessionmaker):
        maker = cast("async_sessionmaker[AsyncSession]", sessions)
        base: type[orm.Session] = maker.kw.get("sync_session_class") or maker.class_.sync_session_class
        own = type("CapturedSession", (base,), {})
        maker.configure(sync_session_class=own)
        return own
    if isinstance(sessions, type) and issubclass(sessions, AsyncSession):
        return sessions.sync_session_class
    made = isinstance(sessions, type) and issubclass(sessions, orm.Session)
    if made or isinstance(sessions, (orm.sessionmaker, orm.scoped_session)):
        return cast(Any, sessions)
    raise ConfigurationError(f"capture takes what makes sessions: a Session class or a sessionmaker, not {sessions!r}")


class _Following:
    """The events of one kind of sessions."""

    def __init__(self, entities: Mapping[type[Any], EntityType[Any]]) -> None:
        self._entities = entities

    def flushed(self, session: orm.Session, context: Any) -> None:
        _end(session)
        ids: dict[type[Any], dict[str, None]] = {}
        # Also the objects that only a relationship changed: rows of a deleted parent whose foreign key became NULL.
        states: Iterable[Any] = [*map(orm.attributes.instance_state, session.dirty), *context.states]
        for state in states:
            entity = self._entities.get(state.class_)
            if entity is not None:
                now = state.dict.get(entity.key)
                keys = [*(state.identity or ()), *(() if now is None else (now,))]  # a key may have changed
                ids.setdefault(entity.cls, {}).update((entity.key_id(key), None) for key in keys)
        for cls, found in ids.items():
            self._follow(session, self._entities[cls], list(found))

    def executed(self, state: orm.ORMExecuteState) -> sa.Result[Any] | None:
        """Statements of a class: the rows that they are about to change are looked up first."""
        mapper = state.bind_mapper
        entity = None if mapper is None else self._entities.get(mapper.class_)
        if entity is None or not (state.is_update or state.is_delete):
            return None
        keys, statement = self._chosen(state, entity)
        with followed():
            result: sa.Result[Any] = state.invoke_statement(statement)
        self._follow(state.session, entity, [entity.key_id(key) for key in keys])
        return result

    def _chosen(
        self, state: orm.ORMExecuteState, entity: EntityType[Any]
    ) -> tuple[Sequence[Any], sa.Update | sa.Delete | None]:
        """The keys of the rows, and the statement for these alone: it sees rows that came since they were looked up.
        None: as it is."""
        if isinstance(state.parameters, Sequence):  # by primary key, one set of parameters for each
            return [one[entity.key] for one in state.parameters], None
        statement = cast(sa.Update | sa.Delete, state.statement)
        mapped = entity.mapped
        assert mapped is not None
        column = mapped.columns[entity.key].column
        chosen = sa.select(column)
        if statement.whereclause is not None:
            chosen = chosen.where(statement.whereclause)
        found = state.session.execute(chosen, state.parameters or {}, bind_arguments=state.bind_arguments)
        keys = found.scalars().all()
        # In the text, since drivers take so many parameters only.
        among = sa.bindparam(None, keys, type_=column.type, expanding=True, literal_execute=True)
        return keys, statement.where(column.in_(among))

    def _follow(self, session: orm.Session, entity: EntityType[Any], ids: Sequence[str]) -> None:
        connection = session.connection(bind_arguments={"mapper": sa.inspect(entity.cls)})
        if ids:
            adapter_of(connection).follow(connection, entity, ids)


def _begin(session: orm.Session, context: Any, instances: Any) -> None:
    session.info[_BEFORE] = _writing.get()
    _writing.set(True)


def _end(session: orm.Session, previous: Any = None) -> None:
    """After a flush, and after the rollback that one which failed needs."""
    if _BEFORE in session.info:
        _writing.set(session.info.pop(_BEFORE))


@contextmanager
def followed() -> Generator[None]:
    """What is written inside is followed by whoever says so."""
    token = _writing.set(True)
    try:
        yield
    finally:
        _writing.reset(token)


def _guard(connection: sa.Connection, clause: Any, many: Any, parameters: Any, options: Any) -> None:
    """Refuse a write that nobody would follow."""
    if not isinstance(clause, UpdateBase) or _writing.get():
        return
    entity = _guarded.get(cast(Any, clause).table)
    if entity is None:
        return
    adapter = adapter_of(connection)
    if adapter.knows(connection, entity) and not adapter.has_trigger(connection, entity):
        raise UnsupportedOperation(
            f"{entity.cls.__name__} is captured, and nobody can tell which rows this statement changes: write objects "
            "through a captured session, or prepare the database for writers of any kind with "
            "polystore.sqlalchemy.install_trigger(engine, [...])"
        )
