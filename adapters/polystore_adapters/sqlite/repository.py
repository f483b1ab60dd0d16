"""A SQLite file as a repository."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from polystore.env import Env
from polystore.errors import PolystoreError, SchemaMismatch, StoreError, Unavailable, UnsupportedOperation
from polystore.filters import Checked, Sort
from polystore.model import (
    Backlog,
    Change,
    Commit,
    Committed,
    Direction,
    HashSpan,
    Instance,
    Key,
    Limits,
    Link,
    Match,
    OutboxRow,
    Outcome,
    Page,
    Reached,
    Record,
    RetryRow,
    StoredVector,
    TargetRow,
)
from polystore.protocols import (
    Layout,
    SupportsApplicationTables,
    SupportsCommit,
    SupportsEpoch,
    SupportsFileClaims,
    SupportsFilter,
    SupportsInlineGet,
    SupportsJournal,
    SupportsKeptBodies,
    SupportsLog,
    SupportsObjects,
    SupportsRebuild,
    SupportsSchema,
    SupportsSpill,
    SupportsState,
    SupportsTextSearch,
    SupportsTimeRange,
    SupportsTraversal,
    SupportsVectorSearch,
)
from polystore.text import Phrase
from polystore_adapters.sqlite import journal, objects, records
from polystore_adapters.sqlite.application import table_of
from polystore_adapters.sqlite.application_calls import ApplicationCalls
from polystore_adapters.sqlite.bodies import BodyCalls
from polystore_adapters.sqlite.commit import Commits
from polystore_adapters.sqlite.database import Database
from polystore_adapters.sqlite.epoch import EpochCalls
from polystore_adapters.sqlite.errors import translate, translating
from polystore_adapters.sqlite.facets import graph
from polystore_adapters.sqlite.fact_calls import FactCalls
from polystore_adapters.sqlite.liveness import Liveness
from polystore_adapters.sqlite.log import LogTables
from polystore_adapters.sqlite.object_calls import ObjectCalls
from polystore_adapters.sqlite.options import Options
from polystore_adapters.sqlite.prepare import clear, compare, prepare
from polystore_adapters.sqlite.records import Tables
from polystore_adapters.sqlite.schema import data_id_of
from polystore_adapters.sqlite.serving import check_serves
from polystore_adapters.sqlite.state import StateCalls, hub_of
from polystore_adapters.sqlite.table import RecordTable
from polystore_adapters.sqlite.workers import WorkerCalls

INLINE_MAX = 16
"""Keys that `get` reads on the event loop's own thread: about 100 us, what a change of threads costs."""


class SqliteRepository(EpochCalls, ApplicationCalls, BodyCalls, FactCalls, ObjectCalls, StateCalls, WorkerCalls):
    """Records, facets and journal in one file. Used from one event loop; any number of processes may share the file."""

    capabilities: frozenset[type] = frozenset(
        {
            SupportsRebuild,
            SupportsSchema,
            SupportsApplicationTables,
            SupportsCommit,
            SupportsEpoch,
            SupportsJournal,
            SupportsInlineGet,
            SupportsFilter,
            SupportsTextSearch,
            SupportsVectorSearch,
            SupportsTraversal,
            SupportsState,
            SupportsObjects,
            SupportsFileClaims,
            SupportsTimeRange,
            SupportsLog,
            SupportsSpill,
            SupportsKeptBodies,
        }
    )
    limits: Limits = Limits(part_bytes=objects.PART_BYTES, import_max=2_000)
    metrics: ClassVar[frozenset[str]] = frozenset({"cosine", "l2", "ip"})

    def __init__(self, path: str, options: Options, env: Env) -> None:
        self.path = path
        self._options = options
        self._env = env
        self._db = Database(path, options, env)
        self._hub = hub_of(path)
        self._liveness = Liveness(path)
        self._tables = Tables()
        self._logs = LogTables()
        self._closed = False

    # -- life -------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Open the file if it exists; a missing one is made by `prepare`. Raises StoreCorrupt, SchemaMismatch,
        PermissionDenied."""
        if await asyncio.to_thread(Path(self.path).exists):
            await self._db.open(create=False)

    async def aclose(self) -> None:
        self._closed = True
        self._hub.end(self)
        await self._db.aclose()
        self._liveness.close()

    async def ping(self) -> Instance:
        data_id = ""  # of a file that is not there yet
        if self._db.is_open or self._closed:
            data_id = await self._db.read(data_id_of, self.path)
        # A file does not restart: what it acknowledged is on the disk. But it can be deleted and made anew.
        return Instance("sqlite", sqlite3.sqlite_version, "file", data_id)

    async def prepare(self, layouts: Sequence[Layout], *, create: bool) -> None:
        if self._closed:
            self._db.check()
        if not self._db.is_open:
            if not create:
                names = ", ".join(repr(layout.entity.name) for layout in layouts)
                raise SchemaMismatch(
                    f"{self.path}: does not exist, so nothing is stored of {names}; run `polystore init`"
                )
            await self._db.open(create=True)
        tables = [table_of(layout, self._options.vector_cache_bytes) for layout in layouts if layout.kind == "record"]
        if create and await self._db.read(self._differs, tables):
            await self._db.write_one(lambda db, new: prepare(db, self.path, new), tables)
            if any(table.shared for table in tables):
                await self._db.use_log()
        elif not create:
            await self._db.read(compare, self.path, tables)
        if not await self._db.read(objects.ready):
            if not create and any(layout.entity.files for layout in layouts):
                raise SchemaMismatch(f"{self.path}: not prepared for files; run `polystore init`")
            if create:
                await self._db.write_one(objects.create, self.path)
        await self._prepare_facts(layouts, create=create)
        for table in tables:
            self._tables[table.etype] = table

    async def clear(self, etype: str) -> None:
        if self._db.is_open or self._closed:
            await self._db.write_one(lambda db, name: clear(db, self.path, name), etype)
            self._tables.pop(etype, None)

    def _differs(self, db: sqlite3.Connection, tables: Sequence[RecordTable]) -> bool:
        try:
            compare(db, self.path, tables)
        except SchemaMismatch:
            return True
        return False

    # -- records ----------------------------------------------------------------------------------------------

    def get_now(self, key: Key) -> Record | None:
        db = self._db.inline
        try:
            return records.get_one(db, self._tables[key.etype], key, self._env.now_us)
        except sqlite3.Error as error:
            raise translate(error, self.path) from error

    async def get(self, keys: Sequence[Key]) -> list[Record | None]:
        if len(keys) <= INLINE_MAX:
            try:
                with translating(self.path):
                    return records.get_many(self._db.inline, self._tables, keys, self._env.now_us)
            except Unavailable:
                pass  # it would have to wait: a thread may
        return await self._db.read(records.get_many, self._tables, keys, self._env.now_us)

    async def apply(self, changes: Sequence[Change]) -> list[Outcome]:
        answers = await self._db.write(self._apply, changes, "apply")
        return [Outcome("rejected", _blame(one)) if isinstance(one, Exception) else one for one in answers]

    def _apply(self, db: sqlite3.Connection, changes: Sequence[Change]) -> list[Outcome | Exception]:
        return records.apply(db, self._tables, changes)

    async def scan(self, etype: str, tenant: str, span: HashSpan, cursor: str | None, limit: int) -> Page:
        return await self._db.read(records.scan, self._tables[etype], tenant, span, cursor, limit, self._env.now_us())

    async def tenants(self, etype: str) -> list[str]:
        sql = self._tables[etype].tenants_sql
        return await self._db.read(lambda db: [tenant for (tenant,) in db.execute(sql)])

    async def newest(self, etype: str) -> int:
        return await self._db.read(records.newest, self._tables, etype)

    async def commit(self, commits: Sequence[Commit]) -> list[Committed | Exception]:
        answers = await self._db.write(self._commit, commits, "commit")
        for one in answers:
            if isinstance(one, Exception) and not isinstance(one, PolystoreError):
                raise one
        return list(answers)

    def _commit(self, db: sqlite3.Connection, commits: Sequence[Commit]) -> list[Committed | Exception]:
        return Commits(db, self._tables, self._env).run(commits)

    # -- queries ----------------------------------------------------------------------------------------------

    async def find(
        self, etype: str, tenant: str, where: Checked | None, order: Sequence[Sort], limit: int
    ) -> list[Record]:
        table = self._tables[etype]
        sql, parameters = table.statements.find(tenant, where, order, limit, self._expiry(table))
        return await self._db.read(table.found, tenant, sql, parameters)

    async def count(self, etype: str, tenant: str, where: Checked | None) -> int:
        table = self._tables[etype]
        sql, parameters = table.statements.count(tenant, where, self._expiry(table))
        return await self._db.read(lambda db: int(db.execute(sql, parameters).fetchone()[0]))

    async def search(
        self,
        etype: str,
        tenant: str,
        phrases: Sequence[Phrase],
        where: Checked | None,
        limit: int,
        after: tuple[float, str] | None,
    ) -> list[Match]:
        table = self._tables[etype]
        if table.full_text is None:
            raise _not_served(etype, "full text")
        return await self._db.read(table.full_text.search, tenant, phrases, self._where(table, where), limit, after)

    async def similar(
        self, etype: str, tenant: str, field: str, vector: bytes, where: Checked | None, limit: int
    ) -> list[Match]:
        table = self._tables[etype]
        if table.vector is None or field not in table.layout.vectors:
            raise _not_served(etype, f"vectors of {field!r}")
        serving, condition = table.vector, self._where(table, where)

        def similar(db: sqlite3.Connection) -> list[Match]:
            check_serves(db, table)
            return serving.similar(db, tenant, field, vector, condition, limit)

        return await self._db.read(similar)

    async def traverse(
        self,
        etype: str,
        tenant: str,
        id: str,
        types: Sequence[str],
        direction: Direction,
        depth: int,
        where: Checked | None,
        limit: int,
    ) -> list[Reached]:
        edges = self._edges(etype, tenant, types, where)
        return await self._db.read(graph.traverse, edges, (etype, id), direction, depth, limit)

    async def paths(
        self,
        start: Key,
        end: Key,
        types: Sequence[str],
        direction: Direction,
        depth_max: int,
        where: Checked | None,
        limit: int,
    ) -> list[list[Link]]:
        edges = self._edges(start.etype, start.tenant, types, where)
        ends = ((start.etype, start.id), (end.etype, end.id))
        return await self._db.read(graph.paths, edges, *ends, direction, depth_max, limit)

    def _edges(self, etype: str, tenant: str, types: Sequence[str], where: Checked | None) -> graph.Edges:
        tables = [(name, table.graph.table) for name, table in self._tables.items() if table.graph is not None]
        if not tables:
            raise _not_served(etype, "relations")
        return graph.Edges(tables, tenant, types, graph.condition(where))

    def _where(self, table: RecordTable, where: Checked | None) -> tuple[str, Sequence[object]] | None:
        now_us = self._expiry(table)
        return None if where is None and now_us is None else table.statements.condition(where, now_us)

    def _expiry(self, table: RecordTable) -> int | None:
        """The time by which records of the table have to be judged; None where none ever expires."""
        try:
            with translating(self.path):
                if self._db.inline.execute(table.expiring_sql).fetchone() is None:
                    return None
        except Unavailable:
            pass  # it would have to wait: then every row is looked at
        return self._env.now_us()

    # -- journal ----------------------------------------------------------------------------------------------

    async def expired(self, etypes: Sequence[str], limit: int) -> list[Key]:
        return await self._db.read(records.expired, self._tables, etypes, self._env.now_us(), limit)

    async def claim(self, worker: str, live: frozenset[str], etypes: Sequence[str], limit: int) -> list[OutboxRow]:
        claim = journal.Claim(worker, live, etypes, limit)
        if not await self._db.read(journal.claimable, claim, self._env.now_us()):
            return []
        return await self._db.write_one(lambda db, one: journal.claim(db, one, self._env), claim, durable=False)

    async def claimed(self, worker: str, older_than_us: int, limit: int) -> list[OutboxRow]:
        return await self._db.read(journal.claimed, worker, older_than_us, limit)

    async def due(self, target: str, etypes: Sequence[str], now_us: int, limit: int) -> list[RetryRow]:
        due = journal.Due(target, etypes, now_us, limit)
        if not await self._db.read(journal.due, due, take=False):
            return []
        return await self._db.write_one(lambda db, one: journal.due(db, one, take=True), due, durable=False)

    async def awaken(self, target: str, keys: Sequence[Key] | None, within_us: int) -> int:
        return await self._db.write_one(lambda db, _: journal.awaken(db, target, keys, within_us, self._env), None)

    async def pending(self, etype: str, target: str, pairs: Sequence[tuple[int, int]]) -> bool:
        return await self._db.read(journal.pending, etype, target, pairs)

    async def parked(self, target: str | None, cursor: str | None, limit: int) -> tuple[list[RetryRow], str | None]:
        return await self._db.read(journal.parked, target, cursor, limit)

    async def redrive(self, target: str | None, keys: Sequence[Key] | None) -> int:
        now_us = self._env.now_us()
        return await self._db.write_one(lambda db, _: journal.redrive(db, target, keys, now_us), None)

    async def drop(self, target: str | None, keys: Sequence[Key] | None) -> int:
        return await self._db.write_one(lambda db, _: journal.drop(db, target, keys), None)

    async def backlog(self) -> Backlog:
        return await self._db.read(journal.backlog)

    async def placements(self) -> dict[str, str]:
        if not self._db.is_open and not self._closed:
            return {}  # there is no file yet: nothing was ever placed
        return await self._db.read(journal.placements, self.path)

    async def remember(self, etype: str, placement: str, was: str | None = None) -> bool:
        return await self._db.write_one(lambda db, _: journal.remember(db, etype, placement, was), None)

    async def targets(self) -> list[TargetRow]:
        return await self._db.read(journal.targets)

    async def set_target(self, row: TargetRow, was: TargetRow | None = None) -> None:
        await self._db.write_one(lambda db, _: journal.set_target(db, row, was), None)

    async def backfill(self, row: TargetRow, limit: int) -> TargetRow:
        now_us = self._env.now_us()
        return await self._db.write_one(lambda db, one: journal.backfill(db, self._tables, one, limit, now_us), row)

    async def written_since(self, etype: str, version: int, limit: int) -> list[OutboxRow]:
        return await self._db.read(journal.written_since, self._tables, etype, version, limit)

    async def mark(self, name: str) -> str | None:
        return await self._db.read(journal.mark, name)

    async def vectors(self, keys: Sequence[Key]) -> list[StoredVector]:
        return await self._db.read(journal.vectors, keys)

    async def put_vectors(self, vectors: Sequence[StoredVector]) -> None:
        await self._db.write_one(lambda db, given: journal.put_vectors(db, self._tables, given), vectors)

    async def forget_vectors(self, etype: str, but_of: Sequence[str], limit: int) -> int:
        return await self._db.write_one(lambda db, given: journal.forget_vectors(db, *given), (etype, but_of, limit))

    async def purge(self, now_us: int, tombstone_ttl_us: int) -> int:
        return await self._db.write_one(lambda db, _: journal.purge(db, now_us, tombstone_ttl_us), None)


def _not_served(etype: str, what: str) -> UnsupportedOperation:
    return UnsupportedOperation(f"{etype}: this store was not prepared for {what}")


def _blame(error: Exception) -> PolystoreError:
    """The error of one change; raises that of the store as a whole."""
    if isinstance(error, StoreError) or not isinstance(error, PolystoreError):
        raise error
    return error
