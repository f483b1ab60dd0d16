"""A PostgreSQL database as a repository."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from polystore.env import Env
from polystore.errors import PermissionDenied, SchemaMismatch, UnsupportedOperation
from polystore.filters import Checked, Sort
from polystore.model import (
    Change,
    Direction,
    HashSpan,
    Instance,
    Key,
    Limits,
    Link,
    Match,
    Outcome,
    Page,
    Reached,
    Record,
)
from polystore.protocols import (
    Layout,
    SupportsApplicationTables,
    SupportsCommit,
    SupportsEpoch,
    SupportsFileClaims,
    SupportsFilter,
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
from polystore.relational.client import Client
from polystore.relational.edges import Edges
from polystore.text import Phrase
from polystore_adapters.postgresql import epoch, graph, records, vector
from polystore_adapters.postgresql.application_calls import ApplicationCalls
from polystore_adapters.postgresql.dialect import ident
from polystore_adapters.postgresql.fact_calls import FactCalls
from polystore_adapters.postgresql.full_text import needle, search_sql, tsquery
from polystore_adapters.postgresql.journal_calls import JournalCalls
from polystore_adapters.postgresql.log import LogTable, LogTables
from polystore_adapters.postgresql.objects import PART_BYTES, ObjectCalls
from polystore_adapters.postgresql.options import Options
from polystore_adapters.postgresql.partitions import Partitions
from polystore_adapters.postgresql.placeholders import shifted
from polystore_adapters.postgresql.pool import Pool, Session
from polystore_adapters.postgresql.prepare import clear, compare, described, make_schema, prepare
from polystore_adapters.postgresql.quick import Quick
from polystore_adapters.postgresql.records import Tables
from polystore_adapters.postgresql.schema import PREPARE_LOCK
from polystore_adapters.postgresql.state import StateCalls, hub_of
from polystore_adapters.postgresql.table import RecordTable

_PING_SQL = """
SELECT current_setting('server_version'), (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint::text,
    to_regclass(quote_ident(current_schema()) || '.ps_meta') IS NOT NULL
"""
_DATA_ID_SQL = "SELECT v FROM ps_meta WHERE k = 'data_id'"


class PostgresRepository(ApplicationCalls, JournalCalls, FactCalls, ObjectCalls, StateCalls):
    """Records, facets and journal in one database. Used from one event loop; any number of processes may share it."""

    capabilities: frozenset[type] = frozenset(
        {
            SupportsRebuild,
            SupportsSchema,
            SupportsApplicationTables,
            SupportsCommit,
            SupportsEpoch,
            SupportsJournal,
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
    limits: Limits = Limits(part_bytes=PART_BYTES, import_max=2_000)
    metrics: ClassVar[frozenset[str]] = frozenset({"cosine", "l2", "ip"})

    def __init__(self, url: str, options: Options, env: Env) -> None:
        self._options = options
        self._env = env
        self._pool = Pool(url, options, env)
        self._tables = Tables()
        self._quick = Quick(self._pool, self._tables)
        self._logs = LogTables()
        self._partitions = Partitions()
        self._hub = hub_of(f"{url} {options.schema}")

    @property
    def place(self) -> str:
        return self._pool.place

    @property
    def checked_out(self) -> int:
        """Connections that are in use now."""
        return self._pool.checked_out

    @property
    def client(self) -> Client[Any]:
        """Connections of asyncpg, for statements of the application's own."""
        return self._pool.client

    # -- life -------------------------------------------------------------------------------------------------

    async def aclose(self) -> None:
        self._hub.end(self)
        await self._pool.aclose()

    async def ping(self) -> Instance:
        ((version, started, ready),) = await self._pool.fetch(_PING_SQL)
        return Instance("postgresql", version, started, await self._pool.value(_DATA_ID_SQL) if ready else "")

    async def prepare(self, layouts: Sequence[Layout], *, create: bool) -> None:
        wanted = [layout for layout in layouts if layout.kind == "record"]
        logs = [LogTable(layout) for layout in layouts if layout.kind == "fact"]
        if create and self._options.place == 2:
            await make_schema(self._pool, str(self._options.schema).partition(",")[0])
        async with self._pool.transaction() as db:
            await self._check_writable(db, home=any(layout.home for layout in layouts))
            tables = await described(db, self.place, self._options, wanted, make=create)
            for table in tables:
                await table.check(db, self.place)
            difference = await compare(db, self.place, [*tables, *(log.table for log in logs)])
        if difference and not create:
            raise SchemaMismatch(
                f"{self.place}: {difference}; run `polystore init`, or open it with the right to create"
            )
        if difference:
            async with self._pool.transaction() as db:
                await db.run(PREPARE_LOCK)
                tables = await described(db, self.place, self._options, wanted, make=True)
                await prepare(db, self.place, [*tables, *(log.table for log in logs)])
                for log in logs:
                    await log.prepare(db)
        if any(layout.home for layout in layouts):
            self._data_id = str(await self._pool.value(_DATA_ID_SQL))
            await epoch.note(self._pool)
        self._tables.update({table.etype: table for table in tables})
        self._logs.update({log.table.etype: log for log in logs})

    async def clear(self, etype: str) -> None:
        async with self._pool.transaction() as db:
            await db.run(PREPARE_LOCK)
            await clear(db, self.place, etype)
        self._tables.pop(etype, None)

    async def _check_writable(self, db: Session, *, home: bool) -> None:
        if home and await db.value("SELECT current_setting('transaction_read_only')") == "on":
            raise PermissionDenied(
                f"{self.place}: this server is read-only (a standby, or by its configuration) and cannot be a home; "
                "name the primary, for instance by several hosts and target_session_attrs=read-write in the URL"
            )

    # -- records ----------------------------------------------------------------------------------------------

    async def get(self, keys: Sequence[Key]) -> list[Record | None]:
        return await records.get(self._pool, self._tables, keys)

    async def apply(self, changes: Sequence[Change]) -> list[Outcome]:
        return await records.apply(self._pool, self._tables, changes)

    async def scan(self, etype: str, tenant: str, span: HashSpan, cursor: str | None, limit: int) -> Page:
        return await records.scan(self._pool, self._tables[etype], tenant, span, cursor, limit)

    async def tenants(self, etype: str) -> list[str]:
        return [tenant for (tenant,) in await self._pool.fetch(self._tables[etype].tenants_sql)]

    async def newest(self, etype: str) -> int:
        return await records.newest(self._pool, self._tables, etype)

    # -- queries ----------------------------------------------------------------------------------------------

    async def find(
        self, etype: str, tenant: str, where: Checked | None, order: Sequence[Sort], limit: int
    ) -> list[Record]:
        table = self._tables[etype]
        sql, parameters = table.statements.find(tenant, where, order, limit)
        rows = await self._pool.fetch(sql, *parameters)
        return [table.record(Key(tenant, etype, table.id_of(row)), row) for row in rows]

    async def count(self, etype: str, tenant: str, where: Checked | None) -> int:
        sql, parameters = self._tables[etype].statements.count(tenant, where)
        return int(await self._pool.value(sql, *parameters))

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
        if not phrases or limit <= 0:
            return []
        condition, values = self._where(table, where)
        sql = search_sql(table.source, ident(table.key), len(phrases), shifted(condition, 4 + 2 * len(phrases)))
        parts = [part for phrase in phrases for part in (tsquery([phrase]), needle(phrase))]
        rows = await self._pool.fetch(sql, tenant, limit, *(after or (None, None)), *parts, *values)
        return [Match(id, score, version) for id, score, version in rows]

    async def similar(
        self, etype: str, tenant: str, field: str, vector: bytes, where: Checked | None, limit: int
    ) -> list[Match]:
        table = self._tables[etype]
        if field not in table.vectors:
            raise _not_served(etype, f"vectors of {field!r}")
        return await nearest(
            *(self._pool, table, tenant, field, vector, self._where(table, where), limit), self._options
        )

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
        return await graph.traverse(self._pool, edges, (etype, id), direction, depth, limit)

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
        return await graph.paths(self._pool, edges, *ends, direction, depth_max, limit)

    def _edges(self, etype: str, tenant: str, types: Sequence[str], where: Checked | None) -> Edges:
        tables = [(name, table.edges) for name, table in self._tables.items() if table.edges is not None]
        if not tables:
            raise _not_served(etype, "relations")
        return Edges(tables, tenant, types, graph.condition(where))

    def _where(self, table: RecordTable, where: Checked | None) -> tuple[str, Sequence[object]]:
        return ("TRUE", ()) if where is None else table.statements.condition(where)


nearest = vector.similar


def _not_served(etype: str, what: str) -> UnsupportedOperation:
    return UnsupportedOperation(f"{etype}: this store was not prepared for {what}")
