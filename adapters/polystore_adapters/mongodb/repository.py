"""A MongoDB database as a repository."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import NamedTuple

from polystore.env import Env
from polystore.errors import UnsupportedOperation
from polystore.filters import Checked, Sort, predicate
from polystore.model import Change, HashSpan, Instance, Key, Limits, Match, Outcome, Page, Record
from polystore.protocols import Layout, SupportsFilter, SupportsRebuild, SupportsSchema, SupportsTextSearch
from polystore.text import Phrase
from polystore_adapters.mongodb import records
from polystore_adapters.mongodb.conditions import Query, query, sorting
from polystore_adapters.mongodb.documents import DOCUMENT_BYTES_MAX, version_of
from polystore_adapters.mongodb.driver import Client, Document, each, listed
from polystore_adapters.mongodb.full_text import holds, score
from polystore_adapters.mongodb.held import META, AllHeld, Held
from polystore_adapters.mongodb.prepare import DATA, clear, prepare
from polystore_adapters.mongodb.server import Server

SAMPLE = 1_000
"""Documents whose mean length stands for that of all."""
COUNTING = 50
"""How many times as long as it takes to count records the number is taken for true: counting is 2 % of the work."""
SIZES_MAX = 10_000
"""Tenants of which a number is kept."""


class _Size(NamedTuple):
    records: int
    mean: float
    until: float


class MongoRepository:
    """Any number of processes may share a database. `client` is the driver's own object."""

    capabilities: frozenset[type] = frozenset({SupportsRebuild, SupportsSchema, SupportsFilter, SupportsTextSearch})
    limits: Limits = Limits(value_bytes_max=DOCUMENT_BYTES_MAX - (1 << 10))

    def __init__(self, server: Server, env: Env) -> None:
        self._server = server
        self._env = env
        self._types = AllHeld()
        self._sizes: dict[tuple[str, str], _Size] = {}

    @property
    def client(self) -> Client:
        return self._server.client

    # -- life -------------------------------------------------------------------------------------------------

    async def aclose(self) -> None:
        await self._server.aclose()

    async def ping(self) -> Instance:
        hello = await self._server.hello()
        with self._server.speaking():
            build: Document = await self.client.admin.command("buildInfo")
            data: Document | None = await self._server.collection(META).find_one({"_id": DATA})
            run = str(hello.get("topologyVersion", {}).get("processId", "")) or await self._process()
        name = "ferretdb" if "ferretdb" in build else "mongodb"
        version = build["ferretdb"]["version"].removeprefix("v") if name == "ferretdb" else build["version"]
        return Instance(name, version, run, "" if data is None else data["data_id"])

    async def _process(self) -> str:
        """Of a server that does not say in `hello` which process it is."""
        status: Document = await self.client.admin.command("serverStatus")
        return f"{status['host']} {status['pid']}"

    async def prepare(self, layouts: Sequence[Layout], *, create: bool) -> None:
        others = [layout.entity.name for layout in layouts if layout.kind != "record"]
        if others:
            raise UnsupportedOperation(f"a mongodb: store holds records, and no facts or state of {', '.join(others)}")
        await self._server.hello()
        types = [Held(self._server, layout) for layout in layouts]
        with self._server.speaking():
            await prepare(self._server, types, create=create)
        self._types.update({one.etype: one for one in types})

    async def clear(self, etype: str) -> None:
        with self._server.speaking(sent=True):
            await clear(self._server, etype)
        self._types.pop(etype, None)

    # -- records ----------------------------------------------------------------------------------------------

    async def get(self, keys: Sequence[Key]) -> list[Record | None]:
        return await records.get(self._server, self._types, keys)

    async def apply(self, changes: Sequence[Change]) -> list[Outcome]:
        return await records.apply(self._server, self._types, changes)

    async def scan(self, etype: str, tenant: str, span: HashSpan, cursor: str | None, limit: int) -> Page:
        return await records.scan(self._server, self._types[etype], tenant, span, cursor, limit)

    async def tenants(self, etype: str) -> list[str]:
        held = self._types[etype]
        each_once: list[Document] = [
            {"$match": {"ps_tenant": {"$exists": True}}},  # `distinct` ends at 16 MiB of names
            {"$group": {"_id": "$ps_tenant"}},
        ]
        with self._server.speaking():
            return sorted([one["_id"] for one in await listed(held.documents.aggregate(each_once))])

    async def newest(self, etype: str) -> int:
        return await records.newest(self._server, self._types[etype])

    # -- queries ----------------------------------------------------------------------------------------------

    async def find(
        self, etype: str, tenant: str, where: Checked | None, order: Sequence[Sort], limit: int
    ) -> list[Record]:
        held, now_us = self._types[etype], self._server.clock.now_us()
        asked = query(where, held.entity)
        steps = [{"$match": self._match(tenant, asked)}, *sorting(order, held.entity)]
        found = self._found(held, steps, asked, where, limit)
        return [held.codec.record(etype, document, now_us) async for document in found]

    async def count(self, etype: str, tenant: str, where: Checked | None) -> int:
        held = self._types[etype]
        asked = query(where, held.entity)
        if asked.exact:
            with self._server.speaking():
                return int(await held.documents.count_documents(self._match(tenant, asked)))
        steps: list[Document] = [{"$match": self._match(tenant, asked)}]
        return len([None async for _ in self._found(held, steps, asked, where, None)])

    def _match(self, tenant: str, asked: Query, *more: Document) -> Document:
        conditions = [one for one in (asked.find, *more) if one]
        return records.live(tenant, self._server.clock.now_us()) | ({"$and": conditions} if conditions else {})

    async def _found(
        self, held: Held, steps: list[Document], asked: Query, where: Checked | None, limit: int | None
    ) -> AsyncGenerator[Document]:
        """The first documents of a pipeline, judged once more where the query finds more than was meant."""
        if limit is not None and limit <= 0:
            return
        meant = None if asked.exact or where is None else predicate(where)
        bound = [{"$limit": limit}] if limit is not None and meant is None else []
        left = limit
        with self._server.speaking():
            async with aclosing(each(held.documents.aggregate([*steps, *bound], allowDiskUse=True))) as documents:
                async for document in documents:
                    if meant is None or meant(held.codec.decode(document)):
                        yield document
                        left = left and left - 1
                    if left == 0:
                        return

    async def search(
        self,
        etype: str,
        tenant: str,
        phrases: Sequence[Phrase],
        where: Checked | None,
        limit: int,
        after: tuple[float, str] | None,
    ) -> list[Match]:
        held = self._types[etype]
        if held.full_text is None:
            raise UnsupportedOperation(f"{etype}: this store was not prepared for full text")
        if not phrases:
            return []
        scored = await self._score(held, tenant, phrases)
        asked = query(where, held.entity)
        steps: list[Document] = [
            {"$match": self._match(tenant, asked, *map(holds, phrases))},
            {"$set": {"ps_score": scored}},
            {"$sort": {"ps_score": -1, "_id.id": 1}},
        ]
        if after is not None:
            worse, equal = {"ps_score": {"$lt": after[0]}}, {"ps_score": after[0], "_id.id": {"$gt": after[1]}}
            steps.insert(2, {"$match": {"$or": [worse, equal]}})
        found = self._found(held, steps, asked, where, limit)
        return [Match(one["_id"]["id"], one["ps_score"], version_of(one)) async for one in found]

    async def _score(self, held: Held, tenant: str, phrases: Sequence[Phrase]) -> Document:
        """How a hit is rated, by how often the phrases occur among the tenant's records."""
        everyone = records.live(tenant, self._server.clock.now_us())

        async def counted(phrase: Phrase) -> int:
            return int(await held.documents.count_documents(everyone | {"$and": [holds(phrase)]}))

        with self._server.speaking():
            count, mean = await self._size(held, tenant, everyone)
            often = await asyncio.gather(*map(counted, phrases))
        return score(phrases, often, count, mean)

    async def _size(self, held: Held, tenant: str, everyone: Document) -> tuple[int, float]:
        """How many records there are, and their mean length; as it was a moment ago, where counting takes long."""
        known = self._sizes.get((held.etype, tenant))
        began = self._env.monotonic()
        if known is not None and began < known.until:
            return known.records, known.mean
        count = int(await held.documents.count_documents(everyone))
        mean: Document = {"$group": {"_id": None, "mean": {"$avg": "$ps_length"}}}
        found = await listed(held.documents.aggregate([{"$match": everyone}, {"$limit": SAMPLE}, mean]))
        now = self._env.monotonic()
        size = _Size(count, float(found[0]["mean"] or 0) if found else 0.0, now + COUNTING * (now - began))
        if len(self._sizes) >= SIZES_MAX:
            self._sizes.clear()
        self._sizes[held.etype, tenant] = size
        return size.records, size.mean
