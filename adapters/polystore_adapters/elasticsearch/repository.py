"""The indexes under one prefix of an Elasticsearch server as a repository."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from polystore.errors import Unavailable, UnsupportedOperation
from polystore.filters import Checked
from polystore.model import Change, HashSpan, Instance, Key, Limits, Line, Match, Outcome, Page, Record, Windows
from polystore.protocols import (
    Layout,
    SupportsAlias,
    SupportsCounts,
    SupportsLog,
    SupportsRebuild,
    SupportsRefresh,
    SupportsSchema,
    SupportsTextSearch,
)
from polystore.purging import Purges
from polystore.text import Phrase
from polystore_adapters.elasticsearch import alias, counts, full_text, logs, records
from polystore_adapters.elasticsearch.held import AllHeld, Held
from polystore_adapters.elasticsearch.options import BESIDE
from polystore_adapters.elasticsearch.prepare import data_id_of, prepare
from polystore_adapters.elasticsearch.purge import purge
from polystore_adapters.elasticsearch.server import Server


class ElasticsearchRepository:
    """Any number of processes may share the indexes. `client` is the driver's own object."""

    capabilities: frozenset[type] = frozenset(
        {
            SupportsAlias,
            SupportsCounts,
            SupportsLog,
            SupportsRebuild,
            SupportsRefresh,
            SupportsSchema,
            SupportsTextSearch,
        }
    )
    limits: Limits = Limits()

    def __init__(self, server: Server) -> None:
        self._server = server
        self._types = AllHeld()
        self._purges = Purges(server.env, lambda etype: purge(server, self._types[etype]))
        self.client: Any = server.client

    # -- life -------------------------------------------------------------------------------------------------

    async def aclose(self) -> None:
        await self._server.aclose()

    async def ping(self) -> Instance:
        """A server without all of its modules has no `GET /`."""
        prefix = self._server.options.prefix  # not those of the other place, which a rebuild may be filling
        mine = f"/_cluster/health/{prefix}*,-{prefix}{BESIDE}*"
        health = await self._server.ask("GET", mine, wait_for_status="yellow", timeout="2s")
        if health["status"] == "red":
            raise Unavailable(f"shards of the indexes {self._server.options.prefix}* are missing")
        nodes = (await self._server.ask("GET", "/_nodes/_local/none"))["nodes"]
        ((id, node),) = nodes.items()
        return Instance("elasticsearch", node["version"], id, await data_id_of(self._server))

    async def prepare(self, layouts: Sequence[Layout], *, create: bool) -> None:
        others = [layout.entity.name for layout in layouts if layout.kind == "state"]
        if others:
            raise UnsupportedOperation(f"an elasticsearch: store holds records and logs, and no state of {others}")
        types = [Held(self._server, layout) for layout in layouts]
        await prepare(self._server, types, create=create)
        self._types.update({one.etype: one for one in types})

    async def clear(self, etype: str) -> None:
        await self._server.ask("DELETE", f"/{self._server.index(etype)}", ignore_unavailable="true")
        self._types.pop(etype, None)

    async def take_alias(self, etypes: Sequence[str], create: bool) -> None:
        await alias.take(self._server, etypes, create=create)

    # -- records ----------------------------------------------------------------------------------------------

    async def get(self, keys: Sequence[Key]) -> list[Record | None]:
        return await records.get(self._server, self._types, keys)

    async def apply(self, changes: Sequence[Change]) -> list[Outcome]:
        outcomes = await records.apply(self._server, self._types, changes)
        await self._purges.behind(changes)
        return outcomes

    async def scan(self, etype: str, tenant: str, span: HashSpan, cursor: str | None, limit: int) -> Page:
        return await records.scan(self._server, self._types[etype], tenant, span, cursor, limit)

    async def tenants(self, etype: str) -> list[str]:
        return await records.tenants(self._server, self._types[etype])

    async def newest(self, etype: str) -> int:
        return await records.newest(self._server, self._types[etype])

    async def refresh(self, etype: str) -> None:
        await self._server.refresh(self._types[etype].index)

    # -- lines ------------------------------------------------------------------------------------------------

    async def append_lines(self, etype: str, tenant: str, lines: Sequence[Line]) -> None:
        await logs.append(self._server, self._types[etype], tenant, lines)

    async def lines(
        self,
        etype: str,
        tenant: str,
        phrases: Sequence[Phrase],
        where: Checked | None,
        limit: int,
        newest_first: bool,
    ) -> list[Line]:
        return await logs.lines(self._server, self._types[etype], tenant, phrases, where, limit, newest_first)

    async def count_lines(self, etype: str, tenant: str, where: Checked | None) -> int:
        return await logs.count(self._server, self._types[etype], tenant, where)

    async def expire_lines(self, etype: str, limit: int) -> int:
        return await logs.expire(self._server, self._types[etype], limit)

    # -- queries ----------------------------------------------------------------------------------------------

    async def search(
        self,
        etype: str,
        tenant: str,
        phrases: Sequence[Phrase],
        where: Checked | None,
        limit: int,
        after: tuple[float, str] | None,
    ) -> list[Match]:
        held: Held = self._types[etype]
        if not held.full_text:
            raise UnsupportedOperation(f"{etype}: this store was not prepared for full text")
        return await full_text.search(self._server, held, tenant, phrases, where, limit, after)

    async def counts(
        self,
        etype: str,
        tenant: str,
        phrases: Sequence[Phrase],
        where: Checked | None,
        field: str,
        windows: Windows | None,
        limit: int,
    ) -> list[tuple[Any, int]]:
        held = self._types[etype]
        return list(await counts.counts(self._server, held, tenant, phrases, where, field, windows, limit))
