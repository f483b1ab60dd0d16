"""A ChromaDB database as a repository."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from polystore.errors import UnsupportedOperation
from polystore.filters import Checked
from polystore.model import Change, HashSpan, Instance, Key, Limits, Match, Outcome, Page, Record
from polystore.protocols import Layout, SupportsRebuild, SupportsSchema, SupportsVectorSearch
from polystore.purging import Purges
from polystore_adapters.chromadb import records, scanning, vectors
from polystore_adapters.chromadb.held import AllHeld, Held
from polystore_adapters.chromadb.prepare import clear, meta_name, prepare
from polystore_adapters.chromadb.server import Server


class ChromadbRepository:
    """One process at a time writes to an entity type; any number may read. `client` is that of the server."""

    capabilities: frozenset[type] = frozenset({SupportsRebuild, SupportsSchema, SupportsVectorSearch})
    limits: Limits = Limits(guarded=False, serial=True)
    metrics: ClassVar[frozenset[str]] = frozenset({"cosine", "l2", "ip"})

    def __init__(self, server: Server) -> None:
        self._server = server
        self._types = AllHeld()
        self._purges = Purges(server.env, self._purge)
        self.client: Any = server.client

    # -- life -------------------------------------------------------------------------------------------------

    async def aclose(self) -> None:
        await self._server.aclose()

    async def ping(self) -> Instance:
        meta = await self._server.collection(meta_name(self._server))
        return await self._server.instance("" if meta is None else str(meta["id"]))

    async def prepare(self, layouts: Sequence[Layout], *, create: bool) -> None:
        others = [layout.entity.name for layout in layouts if layout.kind != "record"]
        if others:
            raise UnsupportedOperation(f"a chromadb: store holds records, and no facts or state of {', '.join(others)}")
        types = [Held(self._server, layout) for layout in layouts]
        await prepare(self._server, types, create=create)
        self._types.update({one.etype: one for one in types})

    async def clear(self, etype: str) -> None:
        await clear(self._server, etype)
        self._types.pop(etype, None)

    # -- records ----------------------------------------------------------------------------------------------

    async def get(self, keys: Sequence[Key]) -> list[Record | None]:
        return await records.get(self._server, self._types, keys)

    async def apply(self, changes: Sequence[Change]) -> list[Outcome]:
        outcomes = await records.apply(self._server, self._types, changes)
        await self._purges.behind(changes)
        return outcomes

    async def _purge(self, etype: str) -> bool:
        return await self.forget_tombstones(etype, int(self._server.options.tombstone_ttl_s * 1e6)) == records.KEYS

    async def forget_tombstones(self, etype: str, age_us: int) -> int:
        """Remove some of the tombstones that are older; returns how many."""
        before = self._server.env.now_us() - age_us
        return await records.purge(self._server, self._types[etype], before)

    async def scan(self, etype: str, tenant: str, span: HashSpan, cursor: str | None, limit: int) -> Page:
        return await scanning.scan(self._server, self._types[etype], tenant, span, cursor, limit)

    async def tenants(self, etype: str) -> list[str]:
        return await records.tenants(self._server, self._types[etype])

    async def newest(self, etype: str) -> int:
        return await records.newest(self._server, self._types[etype])

    # -- queries ----------------------------------------------------------------------------------------------

    async def similar(
        self, etype: str, tenant: str, field: str, vector: bytes, where: Checked | None, limit: int
    ) -> list[Match]:
        held = self._types[etype]
        if field not in held.vectors:
            raise UnsupportedOperation(f"{etype}: this store was not prepared for vectors of {field!r}")
        return await vectors.similar(self._server, held, tenant, field, vector, where, limit)
