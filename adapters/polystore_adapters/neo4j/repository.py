"""A Neo4j database as a repository."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from polystore.env import Env
from polystore.errors import UnsupportedOperation
from polystore.filters import Checked
from polystore.model import Change, Direction, HashSpan, Instance, Key, Limits, Link, Outcome, Page, Reached, Record
from polystore.protocols import Layout, SupportsRebuild, SupportsSchema, SupportsTraversal
from polystore.purging import Purges
from polystore.relational import edges
from polystore_adapters.neo4j import records
from polystore_adapters.neo4j.graph import around
from polystore_adapters.neo4j.held import AllHeld, Held
from polystore_adapters.neo4j.prepare import DATA, clear, meta, prepare
from polystore_adapters.neo4j.server import Server

TOMBSTONE_US: Final = 7 * 86_400_000_000


class Neo4jRepository:
    """Any number of processes may share a database. `client` is the driver's own object."""

    capabilities: frozenset[type] = frozenset({SupportsRebuild, SupportsSchema, SupportsTraversal})
    limits: Limits = Limits(serial=True)

    def __init__(self, server: Server, env: Env) -> None:
        self._server = server
        self._env = env
        self._types = AllHeld()
        self._purges = Purges(env, self._purge)
        self.client: Any = server.client

    # -- life -------------------------------------------------------------------------------------------------

    async def aclose(self) -> None:
        await self._server.aclose()

    async def ping(self) -> Instance:
        asked = "CALL dbms.components() YIELD name, versions, edition RETURN versions[0] AS version, edition"
        row = (await self._server.read(asked))[0]
        (database,) = await self._server.read("CALL db.info() YIELD id RETURN id")
        data = (await meta(self._server)).get(DATA, "")
        return Instance(f"neo4j {row['edition']}", row["version"], database["id"], data)

    async def prepare(self, layouts: Sequence[Layout], *, create: bool) -> None:
        others = [layout.entity.name for layout in layouts if layout.kind != "record"]
        if others:
            raise UnsupportedOperation(f"a neo4j: store holds records, and no facts or state of {', '.join(others)}")
        types = [Held(self._server, layout) for layout in layouts]
        await prepare(self._server, types, create=create)
        self._types.update({one.etype: one for one in types})

    async def clear(self, etype: str) -> None:
        await clear(self._server, etype)
        self._types.pop(etype, None)

    # -- records ----------------------------------------------------------------------------------------------

    async def get(self, keys: Sequence[Key]) -> list[Record | None]:
        return await records.get(self._server, self._types, keys, self._env.now_us())

    async def apply(self, changes: Sequence[Change]) -> list[Outcome]:
        outcomes = await records.apply(self._server, self._types, changes)
        await self._purges.behind(changes)
        return outcomes

    async def _purge(self, etype: str) -> bool:
        return await self.forget_tombstones(etype, TOMBSTONE_US) >= records.KEYS

    async def forget_tombstones(self, etype: str, age_us: int) -> int:
        """Remove some of the tombstones that are older; returns how many."""
        return await records.purge(self._server, self._types[etype], self._env.now_us() - age_us, records.KEYS)

    async def scan(self, etype: str, tenant: str, span: HashSpan, cursor: str | None, limit: int) -> Page:
        held = self._types[etype]
        return await records.scan(self._server, held, tenant, span, cursor, limit, self._env.now_us())

    async def tenants(self, etype: str) -> list[str]:
        return await records.tenants(self._server, self._types[etype], self._env.now_us())

    async def newest(self, etype: str) -> int:
        return await records.newest(self._server, self._types[etype])

    # -- walks ------------------------------------------------------------------------------------------------

    def _check(self) -> None:
        if not any("graph" in held.layout.facets for held in self._types.values()):
            raise UnsupportedOperation("no type was prepared with graph here")

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
        self._check()
        asked = around(self._server, tenant, types, where)
        return await edges.traverse(asked, (etype, id), direction, depth, limit)

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
        self._check()
        asked = around(self._server, start.tenant, types, where)
        ends = (start.etype, start.id), (end.etype, end.id)
        return await edges.paths(asked, *ends, direction, depth_max, limit)
