"""The nearest vectors: candidates by the server's index, scored again by what was written."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from urllib.parse import quote

from polystore.embedding import unpack
from polystore.errors import DimensionMismatch, StoreCorrupt
from polystore.filters import Checked, predicate
from polystore.model import Body, Match
from polystore.relational.scores import scorer
from polystore_adapters.chromadb.conditions import both, filtered
from polystore_adapters.chromadb.held import Held
from polystore_adapters.chromadb.items import key_of, vector_of
from polystore_adapters.chromadb.records import KEYS, is_over, newest_of, read, standing, version_of
from polystore_adapters.chromadb.server import COLUMNS, Document, Server

FIRST = 50
"""Candidates at least; twice the limit where that is more."""
MORE = 4
"""Times as many, when too few of them are what was asked for."""
TENANTS_S = 60.0
"""So long a process goes by the tenants that it has seen."""


async def similar(
    server: Server, held: Held, tenant: str, field: str, vector: bytes, where: Checked | None, limit: int
) -> list[Match]:
    """See `SupportsVectorSearch.similar`. All vectors are compared where there are few, and where the index finds fewer
    than it was asked for; else the candidates that it finds. Raises DimensionMismatch."""
    dimension = held.vectors[field].dimension
    if len(vector) != 4 * dimension:
        raise DimensionMismatch(
            f"{held.etype}.{field}: the vector has {len(vector) // 4} components, the field has {dimension}"
        )
    if limit <= 0:
        return []
    asked = _Asked(server, held, field, tenant, vector, where)
    total, wanted = await server.count(asked.id), max(FIRST, 2 * limit)
    find = asked.find if total <= server.options.exact_max or where is not None else await _filter(server, held, tenant)
    while total > server.options.exact_max and wanted < total:
        candidates = await server.nearest(asked.id, unpack(vector).tolist(), wanted, find)
        found = await asked.matches(candidates)
        if len(found) >= limit and len(candidates) == wanted:
            return _best(found, limit)
        if len(candidates) < wanted:
            break
        wanted *= MORE
    return await asked.everything(limit, total)


async def _filter(server: Server, held: Held, tenant: str) -> Document | None:
    """None where no other tenant was seen: by a filter the server looks at the metadata of all, which takes 14 times as
    long at 8,000. What others have there since is left out of the answer all the same."""
    now = server.env.monotonic()
    if held.tenants_seen is None or now - held.tenants_seen[0] >= TENANTS_S:
        noted = await server.items(held.tenants, "metadatas", where={"etype": held.etype})
        held.tenants_seen = now, frozenset(one["metadatas"]["tenant"] for one in noted)
    mine = quote(tenant, safe="")
    return None if held.tenants_seen[1] == frozenset((mine,)) else {"ps_tenant": mine}


def _best(found: Sequence[Match], limit: int) -> list[Match]:
    return sorted(found, key=lambda one: (-one.score, one.id))[:limit]


class _Asked:
    """One question."""

    def __init__(
        self,
        server: Server,
        held: Held,
        field: str,
        tenant: str,
        vector: bytes,
        where: Checked | None,
    ) -> None:
        self._server = server
        self._held = held
        self.id = held.ids[field]
        self._field = field
        self._vector = vector
        asked = filtered(where)
        self._tenant = quote(tenant, safe="")
        mine: Document = {"ps_tenant": self._tenant}
        self.find = mine if asked.find is None else both(mine, asked.find)
        self._meant: Callable[[Body], bool] | None = None if asked.exact or where is None else predicate(where)

    async def everything(self, limit: int, total: int) -> list[Match]:
        """By a look at every vector for which the filter holds."""
        server = self._server
        if total <= server.options.exact_max:
            items = await read(server, self.id, *COLUMNS, where=self.find)
            return _best(await self.matches(items), limit)
        ids = [one["id"] for one in await server.items(self.id, where=self.find)]
        best: list[Match] = []
        for start in range(0, len(ids), KEYS):
            items = await read(server, self.id, *COLUMNS, ids=ids[start : start + KEYS])
            best = _best([*best, *await self.matches(items)], limit)
        return best

    async def matches(self, items: Sequence[Document]) -> list[Match]:
        """Those of the items that are meant, with their scores, in no order."""
        now = self._server.env.now_us()
        known = (one for one in items if one["metadatas"] is not None)  # it was deleted while the server looked
        mine = (one for one in known if one["metadatas"].get("ps_tenant") == self._tenant)
        there = [one for one in mine if not is_over(one, now)]
        if self._meant is not None:
            meant = {one["id"] for one in await self._records(there) if self._meant(self._held.codec.decode(one))}
            there = [one for one in there if one["id"] in meant]
        if not there:
            return []
        vectors = [vector_of(one) for one in there]
        if any(len(one) != len(self._vector) for one in vectors):
            raise StoreCorrupt(
                f"{self._held.etype}: stored vectors have another dimension than the field; `polystore verify` names "
                "the records, a rebuild of this store's copy mends them"
            )
        metric = self._held.vectors[self._field].metric
        scores = await asyncio.to_thread(scorer(), metric, self._vector, vectors)
        return [
            Match(key_of(self._held.etype, one).id, score, version_of(one))
            for one, score in zip(there, scores, strict=True)
        ]

    async def _records(self, items: Sequence[Document]) -> Sequence[Document]:
        """The whole records, without those that are deleted."""
        if self._field == self._held.codec.main:
            return items
        ids = [one["id"] for one in items]
        there = newest_of(await standing(self._server, self._held, ids))
        return [one for one in there.values() if "ps_deleted_us" not in one["metadatas"]]
