"""`Relation(on_delete="detach")`: references to a deleted record are taken out of the records that have them.

A stage behind the commit, as embedding is: every type that such a relation leads to has the pseudo-target `DETACH`. The
delivery of a delete to it is a retry row of the delete's own journal, which stays until the work is done, so that a
kill, an outage or a source that refuses delays it and loses nothing. The work are ordinary writes of the sources: read,
change, write if nobody else did meanwhile. What counts is how things stand when it is done: a record that is written
again under the same id by then keeps its references.

Which records have references is asked of the store that holds their edges. One that is a copy may be behind, so it is
believed only once it is owed nothing that was committed before the delete.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, cast

from polystore.consistency.targets import DETACH
from polystore.entity import EntityType
from polystore.env import Env
from polystore.errors import NotFound, PolystoreError, Unavailable, UnsupportedOperation, VersionConflict
from polystore.model import Body, Change, Key, Placement, Write, key_hash
from polystore.protocols import SupportsJournal, SupportsTraversal
from polystore.results import Ack, WriteResult
from polystore.store import Store

RECORDS_MAX = 32
"""Deleted records that are worked on at the same time."""
WINDOW = 5_000
"""Sources that are asked for at once: to find the first of them a store looks at all."""
BATCH = 100
"""Sources that are read and written at the same time for one of them."""
COPY_S = 1.0
"""How long a batch waits for the copy with the edges, so that the next question finds others."""
CLOCKS_US = 5_000_000
"""How far the clocks of two homes may be apart."""


class Commit(Protocol):
    """`DataConsistencyManager.write`."""

    def __call__(
        self, etype: str, writes: Sequence[Write], *, ack: Ack, ack_timeout_s: float
    ) -> Coroutine[Any, Any, list[WriteResult]]: ...


class _Source(NamedTuple):
    """An entity with relations that let go, to one other entity: its fields, and the types of their edges."""

    entity: EntityType[Any]
    fields: tuple[str, ...]
    types: tuple[str, ...]


class _WrittenAgain(Exception):
    """The deleted record is there again."""


class Detach:
    """The stage of one process. `readable` raises Unavailable for a copy that is not complete."""

    def __init__(
        self,
        env: Env,
        types: Mapping[str, EntityType[Any]],
        stores: Mapping[str, Store],
        placements: Mapping[str, Placement],
        commit: Commit,
        readable: Callable[[str, str], None],
    ) -> None:
        self._env = env
        self._stores = stores
        self._placements = placements
        self.commit = commit
        self._readable = readable
        self._sources: dict[str, list[_Source]] = {}
        for one in types.values():
            fields: dict[str, list[str]] = {}
            for field, relation in one.relations.items():
                if relation.on_delete == "detach":
                    fields.setdefault(str(relation.to), []).append(field)
            for to, some in fields.items():
                kinds = dict.fromkeys(one.relations[field].type for field in some)
                self._sources.setdefault(to, []).append(_Source(one, tuple(some), tuple(kinds)))

    def pseudo_targets(self, etype: str) -> set[str]:
        """`DETACH` for a type whose deleted records are let go of."""
        return {DETACH} if etype in self._sources else set()

    async def work(self, changes: Sequence[Change]) -> dict[Key, Exception]:
        """Take the references to the deleted ones of these records away. Returns those that it is to be tried again
        for, each with its reason."""
        ends = [change for change in changes if change.deleted]
        results = await asyncio.gather(*(self._let_go(end) for end in ends))
        return {end.key: error for end, error in zip(ends, results, strict=True) if error is not None}

    async def _let_go(self, end: Change) -> PolystoreError | None:
        try:
            sources = self._sources.get(end.key.etype, ())
            # Before the first question, since what a copy lacks now it may lack then; and before the first write, which
            # the copy lacks for a while.
            behind = [await self._behind(end, source.entity.name) for source in sources]
            for source, late in zip(sources, behind, strict=True):
                await self._of_source(end, source, late)
        except _WrittenAgain:
            pass
        except PolystoreError as e:
            return e
        return None

    async def _of_source(self, end: Change, source: _Source, behind: bool) -> None:
        etype = source.entity.name
        graph = self._graph(etype)
        n = WINDOW
        while True:
            reached = await graph.call(
                SupportsTraversal.traverse,
                end.key.etype,
                end.key.tenant,
                end.key.id,
                source.types,
                "in",
                1,
                None,
                n,
            )
            keys = [Key(end.key.tenant, etype, one.id) for one in reached if one.etype == etype]
            written = 0
            for start in range(0, len(keys), BATCH):
                written += await self._batch(end.key, source, graph, keys[start : start + BATCH])
            if not written:
                if len(reached) < n:
                    break
                n *= 2  # these have nothing to let go of, or are known to the copy as they were
        if behind:
            raise Unavailable(
                f"it may not hold all of {etype} yet that was written before the delete of {end.key.etype}; it is "
                "asked again",
                store=graph.name,
                operation="traverse",
                key=end.key.id,
            )

    def _graph(self, etype: str) -> Store:
        name = self._placements[etype].facets.get("graph")
        if name is None:
            raise UnsupportedOperation(f"{etype}: no store holds its relations, so nobody knows who refers to what")
        self._readable(etype, name)
        store = self._stores.get(name)
        if store is None:
            raise Unavailable("it did not answer when this process was started", store=name)
        return store

    async def _behind(self, end: Change, etype: str) -> bool:
        """Whether the store of the edges may lack what was written before the delete."""
        name, graph = self._placements[etype].authority, self._graph(etype)
        if graph.name == name:
            return False
        apart_us = 0 if name == self._placements[end.key.etype].authority else CLOCKS_US
        backlog = await self._stores[name].call(SupportsJournal.backlog)
        oldest_us = backlog.oldest_us
        return bool(backlog.retry.get(graph.name)) or (oldest_us is not None and oldest_us <= end.updated_us + apart_us)

    async def _batch(self, end: Key, source: _Source, graph: Store, keys: Sequence[Key]) -> int:
        """Write those of the records that refer to the end without it; how many did. Who was faster at one of them
        makes it count too: it is read again."""
        home = self._stores[self._placements[source.entity.name].authority]
        records = await home.get(keys)
        # After the sources: whoever writes the end again, and then refers to it, is seen here or has changed a source.
        (standing,) = await self._stores[self._placements[end.etype].authority].get((end,))
        if standing is not None and standing.body is not None:
            raise _WrittenAgain
        writes = [
            Write("update", key, key_hash(key.tenant, key.etype, key.id), changes, expect_version=record.version)
            for key, record in zip(keys, records, strict=True)
            if record is not None
            and record.body is not None
            and (changes := without(end.id, source.fields, record.body))
        ]
        ack: Ack = "committed" if graph is home else (graph.name,)
        results = await asyncio.gather(
            *(self.commit(one.key.etype, (one,), ack=ack, ack_timeout_s=COPY_S) for one in writes),
            return_exceptions=True,
        )
        self._env.crashpoint("detach.batch")
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, (VersionConflict, NotFound)):
                raise result
        return len(writes)


def without(id: str, fields: Sequence[str], body: Body) -> dict[str, Any]:
    """What changes in these fields of relations when nothing refers to the id any more."""
    changes: dict[str, Any] = {}
    for field in fields:
        value = body.get(field)
        if isinstance(value, list):
            ends = cast(list[Any], value)
            left = [one for one in ends if _end(one) != id]
            if len(left) < len(ends):
                changes[field] = left
        elif value == id:
            changes[field] = None
    return changes


def _end(edge: Any) -> Any:
    return cast(dict[str, Any], edge)["to"] if isinstance(edge, dict) else edge
