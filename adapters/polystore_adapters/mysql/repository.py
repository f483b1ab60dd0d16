"""A MariaDB or MySQL database as a repository."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from polystore.env import Env
from polystore.errors import ConfigurationError, PermissionDenied, SchemaMismatch, UnsupportedOperation
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
    SupportsCommit,
    SupportsEpoch,
    SupportsFileClaims,
    SupportsFilter,
    SupportsJournal,
    SupportsKeptBodies,
    SupportsLog,
    SupportsRebuild,
    SupportsSchema,
    SupportsSpill,
    SupportsTextSearch,
    SupportsTimeRange,
    SupportsTraversal,
    SupportsVectorSearch,
)
from polystore.relational import edges
from polystore.relational.client import Client
from polystore.text import Phrase
from polystore_adapters.mysql import graph, records
from polystore_adapters.mysql.dialect import ident
from polystore_adapters.mysql.fact_calls import FactCalls
from polystore_adapters.mysql.full_text import Search, refused
from polystore_adapters.mysql.journal_calls import JournalCalls
from polystore_adapters.mysql.log import LogTable, LogTables
from polystore_adapters.mysql.options import Options, address
from polystore_adapters.mysql.pool import Clock, Pool, Session
from polystore_adapters.mysql.prepare import clear, compare, prepare
from polystore_adapters.mysql.records import Tables
from polystore_adapters.mysql.schema import check_database, lock, run_id_of, unlock
from polystore_adapters.mysql.table import RecordTable
from polystore_adapters.mysql.vector import similar as nearest

VALUE_BYTES_MAX = 7 << 20
"""Half of the server's own max_allowed_packet, since each byte may be escaped, less the rest of a statement."""


class MysqlRepository(JournalCalls, FactCalls):
    """Records, facets and journal in one database. Used from one event loop; any number of processes may share it."""

    capabilities: frozenset[type] = frozenset(
        {
            SupportsRebuild,
            SupportsSchema,
            SupportsCommit,
            SupportsJournal,
            SupportsEpoch,
            SupportsFilter,
            SupportsTextSearch,
            SupportsVectorSearch,
            SupportsTraversal,
            SupportsTimeRange,
            SupportsLog,
            SupportsSpill,
            SupportsKeptBodies,
            SupportsFileClaims,
        }
    )
    limits: Limits = Limits(value_bytes_max=VALUE_BYTES_MAX)
    metrics: ClassVar[frozenset[str]] = frozenset({"cosine", "l2", "ip"})

    def __init__(self, url: str, options: Options, env: Env) -> None:
        self._options = options
        self._env = env
        self._url = url
        self._pool = Pool(address(url, options.place), options, env)
        self._tables = Tables()
        self._logs = LogTables()

    @property
    def place(self) -> str:
        return self._pool.place

    @property
    def checked_out(self) -> int:
        """Connections that are in use now."""
        return self._pool.checked_out

    @property
    def clock(self) -> Clock:
        """The server's clock, known from the first connection on."""
        return self._pool.clock

    @property
    def client(self) -> Client[Any]:
        """Connections of asyncmy, for statements of the application's own."""
        return self._pool.client

    # -- life -------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Make the database of place 2 where it is missing. Raises PermissionDenied, Unavailable."""
        if self._options.place == 2:
            first = Pool(address(self._url), self._options, self._env)
            try:
                name = str(address(self._url, 2).arguments["database"])
                await first.run(f"CREATE DATABASE IF NOT EXISTS {ident(name)}")
            finally:
                await first.aclose()

    async def aclose(self) -> None:
        await self._pool.aclose()

    async def ping(self) -> Instance:
        async with self._pool.session() as db:
            version = str(await db.value("SELECT VERSION()"))
            if not await check_database(db, self.place):
                return Instance(db.flavour.name, version, "")
            data_id = str(await db.value("SELECT v FROM ps_meta WHERE k = 'data_id'"))
            return Instance(db.flavour.name, version, await run_id_of(db), data_id)

    async def prepare(self, layouts: Sequence[Layout], *, create: bool) -> None:
        tables = [RecordTable(layout) for layout in layouts if layout.kind == "record"]
        logs = [LogTable(layout) for layout in layouts if layout.kind == "fact"]
        all_of_them = [*tables, *(log.table for log in logs)]
        async with self._pool.session() as db:
            await self._check_writable(db, home=any(layout.home for layout in layouts))
            if any(table.full_text is not None for table in all_of_them):
                await self._check_words(db)
            difference = await compare(db, self.place, all_of_them)
            if difference and not create:
                raise SchemaMismatch(
                    f"{self.place}: {difference}; run `polystore init`, or open it with the right to create"
                )
            if difference:
                await lock(db, self.place)
                try:
                    await prepare(db, self.place, all_of_them)
                finally:
                    if db.connection.connected:
                        await unlock(db)
        self._tables.update({table.etype: table for table in tables})
        self._logs.update({log.table.etype: log for log in logs})

    async def clear(self, etype: str) -> None:
        async with self._pool.session(sent=True) as db:
            await lock(db, self.place)
            try:
                await clear(db, self.place, etype)
            finally:
                if db.connection.connected:
                    await unlock(db)
        self._tables.pop(etype, None)

    async def _check_writable(self, db: Session, *, home: bool) -> None:
        if home and await db.value("SELECT @@read_only"):
            raise PermissionDenied(
                f"{self.place}: this server is read-only (a replica, or by its configuration) and cannot be a home; "
                "name the primary"
            )

    async def _check_words(self, db: Session) -> None:
        sizes = await db.fetch("SELECT @@innodb_ft_min_token_size, @@innodb_ft_max_token_size")
        if told := refused(*sizes[0]):
            raise ConfigurationError(f"{self.place}: {told}")

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
        async with self._pool.session() as db:
            sql, parameters = table.statements.find(tenant, where, order, limit, self._pool.clock.now_us())
            rows = await db.fetch(sql, *parameters)
        return [table.record(Key(tenant, etype, table.id_of(row)), row) for row in rows]

    async def count(self, etype: str, tenant: str, where: Checked | None) -> int:
        async with self._pool.session() as db:
            sql, parameters = self._tables[etype].statements.count(tenant, where, self._pool.clock.now_us())
            return int(await db.value(sql, *parameters))

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
        async with self._pool.session() as db:
            found = Search(table.source, ident(table.key), tenant, phrases)
            statistics, args = found.statistics()
            counted = await db.fetch(statistics, *args)
            sql, args = found.matches(counted[0], self._where(table, where), limit, after)
            return [Match(id, score, version) for id, score, version in await db.fetch(sql, *args)]

    async def similar(
        self, etype: str, tenant: str, field: str, vector: bytes, where: Checked | None, limit: int
    ) -> list[Match]:
        table = self._tables[etype]
        if field not in table.vectors:
            raise _not_served(etype, f"vectors of {field!r}")
        return await nearest(self._pool, table, tenant, field, vector, where, limit, self._options.exact_vectors_max)

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
        chosen = self._edges(etype, tenant, types, where)
        async with self._pool.snapshot() as db:
            return await edges.traverse(graph.around(db, chosen), (etype, id), direction, depth, limit)

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
        chosen = self._edges(start.etype, start.tenant, types, where)
        ends = ((start.etype, start.id), (end.etype, end.id))
        async with self._pool.snapshot() as db:
            return await edges.paths(graph.around(db, chosen), *ends, direction, depth_max, limit)

    def _edges(self, etype: str, tenant: str, types: Sequence[str], where: Checked | None) -> edges.Edges:
        tables = [(name, table.edges) for name, table in self._tables.items() if table.edges is not None]
        if not tables:
            raise _not_served(etype, "relations")
        return edges.Edges(tables, tenant, types, graph.condition(where))

    def _where(self, table: RecordTable, where: Checked | None) -> tuple[str, Sequence[object]]:
        """The condition, and that the record's time is not over, by the clock of a connection."""
        return table.statements.condition(where, self._pool.clock.now_us())


def _not_served(etype: str, what: str) -> UnsupportedOperation:
    return UnsupportedOperation(f"{etype}: this store was not prepared for {what}")
