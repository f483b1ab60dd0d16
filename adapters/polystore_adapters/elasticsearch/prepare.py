"""Making and changing what is held of entity types.

Every step looks first at what is there and can be repeated, and what the meta index says of a type changes last: after
an end in the middle the next call goes on. Changes are those of `polystore.evolution`: carried out when asked for, else
told as a difference. Documents are carried along in place, each at the version that it has: what somebody writes
meanwhile is newer, and stays.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Sequence
from uuid import uuid4

import msgspec

from polystore.errors import ConfigurationError, InvalidData, SchemaMismatch
from polystore.evolution import Migration, StoredSchema, describe, load, plan
from polystore.relational.serving import Served, differences, load_served
from polystore_adapters.elasticsearch.held import Held
from polystore_adapters.elasticsearch.records import PAGE, STALE_STATUS, bulk_action
from polystore_adapters.elasticsearch.server import Document, Server, by_status

DATA = "data"


async def prepare(server: Server, types: Sequence[Held], *, create: bool) -> None:
    """Make or change what is needed, else only compare. Raises SchemaMismatch; then nothing was changed."""
    for held in types:
        if "vector" in held.layout.facets or "graph" in held.layout.facets or held.layout.home:
            raise ConfigurationError(f"{held.etype}: an elasticsearch: store holds copies that are found by words")
    with contextlib.suppress(SchemaMismatch):  # nothing was ever prepared
        await _begun(server, server.meta)
    kept = await meta(server, [f"schema {held.etype}" for held in types])
    plans = [_Preparation(server, held, kept.get(f"schema {held.etype}")) for held in types]
    told = [(one, await one.difference()) for one in plans]
    for one, difference in told:
        if difference and not create:
            raise SchemaMismatch(
                f"not prepared for {one.held.etype!r} as it is declared: {difference}; run `polystore init`, or open "
                "it with the right to create"
            )
    if create:
        await _create(server, server.meta, {"settings": _settings(server), "mappings": {"dynamic": False}})
        if DATA not in await meta(server, [DATA]):
            await _keep_first(server, DATA, {"data_id": str(uuid4())})
    for one, difference in told:
        if difference:
            await one.carry_out()
        one.held.retired = one.retired


async def meta(server: Server, ids: Sequence[str]) -> dict[str, Document]:
    """What is kept under these names."""
    if not ids:
        return {}
    try:
        found = await server.mget(server.meta, ids)
    except SchemaMismatch:  # nothing was ever prepared
        return {}
    return {one["_id"]: one["_source"] for one in found if one.get("found")}


async def _keep_first(server: Server, name: str, document: Document) -> None:
    line = msgspec.json.encode({"create": {"_index": server.meta, "_id": name}})
    await server.bulk([line, msgspec.json.encode(document)])  # another process may have been faster


async def _create(server: Server, name: str, body: Document) -> None:
    try:
        await server.ask("PUT", f"/{name}", body)
    except InvalidData:  # it is there, or cannot be made: this tells
        await _begun(server, name)


async def _begun(server: Server, name: str) -> None:
    """Wait for an index that somebody else is making: what is in it cannot be read for a moment. Raises
    SchemaMismatch when there is none."""
    await server.ask("GET", f"/{name}/_mapping")
    ready = {"wait_for_active_shards": 1, "wait_for_no_initializing_shards": "true"}  # a new one is yellow before
    await server.ask("GET", f"/_cluster/health/{name}", **ready, timeout="5s")


def _settings(server: Server) -> Document:
    return {"number_of_shards": server.options.shards, "number_of_replicas": server.options.replicas}


class _Preparation:
    """One entity type."""

    def __init__(self, server: Server, held: Held, kept: Document | None) -> None:
        self._server = server
        self.held = held
        self._serves = Served(held.layout.home, sorted(held.layout.facets), {})
        self._schema: StoredSchema | None = None if kept is None else load(kept["schema"])
        self._served = None if kept is None else load_served(kept["served"])
        self._migration: Migration | None = None if self._schema is None else plan(self._schema, held.entity)

    async def difference(self) -> str:
        """What is not as declared; empty when everything is."""
        told = differences(self._migration, self._served, self._serves)
        missing = self.held.codec.mapping.keys() - (await self._mapping() or {}).keys()
        return told or (f"not mapped: {', '.join(sorted(missing))}" if missing else "")

    async def _mapping(self) -> Document | None:
        """The properties that the index has; None when there is none."""
        try:
            answer = await self._server.ask("GET", f"/{self.held.index}/_mapping")
        except SchemaMismatch:
            return None
        (one,) = answer.values()
        found: Document = one["mappings"].get("properties", {})
        return found

    async def carry_out(self) -> None:
        held, migration = self.held, self._migration
        there = await self._mapping()
        if there is None:
            about = {"dynamic": False, "properties": held.codec.mapping}
            body: Document = {"settings": _settings(self._server), "mappings": about, "aliases": {held.index: {}}}
            await _create(self._server, f"{held.index}.1", body)
        else:
            new = {name: one for name, one in held.codec.mapping.items() if name not in there}
            await self._server.ask("PUT", f"/{held.index}/_mapping", {"properties": new})
        if migration is not None and self._made_of_other(migration):
            await self._documents(migration)
        schema = describe(held.entity) if migration is None else migration.schema
        kept = {"schema": schema.json(), "served": msgspec.json.encode(self._serves).decode()}
        await self._server.ask("PUT", f"/{self._server.meta}/_doc/schema%20{held.etype}", kept)

    def _made_of_other(self, migration: Migration) -> bool:
        """Whether what is in the documents, or made of their fields, was made of something else."""
        before = frozenset[str]() if self._served is None else frozenset(self._served.facets)
        texts = any(one.facet == "full_text" for one in (*migration.facets_added, *migration.facets_removed))
        return migration.changes_content or texts or before != self.held.layout.facets

    async def _documents(self, migration: Migration) -> None:
        held = self.held
        await self._server.refresh(held.index)
        async for hits in self._pages():
            lines: list[bytes] = []
            for hit in hits:
                source = self._carried(hit["_source"], migration)
                action = bulk_action("index", held.index, hit["_id"], source["ps_version"], "external_gte")
                lines += [action, msgspec.json.encode(source)]
            for item in (await self._server.bulk(lines))["items"]:
                one: Document = next(iter(item.values()))
                if one["status"] >= 300 and one["status"] != STALE_STATUS:  # which somebody has written anew
                    raise by_status(one["status"], str(one.get("error", {}).get("type", "")))

    async def _pages(self) -> AsyncGenerator[list[Document]]:
        """The live documents, in the order of their keys, which no change of a document moves."""
        query = {"exists": {"field": "ps_tenant"}}
        body: Document = {"query": query, "sort": [{"ps_tenant": "asc"}, {"ps_id": "asc"}], "size": PAGE}
        while True:
            hits = (await self._server.ask("POST", f"/{self.held.index}/_search", body))["hits"]["hits"]
            if not hits:
                return
            yield hits
            body["search_after"] = hits[-1]["sort"]

    def _carried(self, source: Document, migration: Migration) -> Document:
        """`Migration.carry_out`, on the fields of a document, and what is made of them."""
        held, out = self.held, dict(source)
        for old, new in migration.rename:
            if old in out:
                out[new] = out.pop(old)
        for field, default in (*migration.add, *migration.fill):
            if out.get(field) is None:
                out[field] = held.codec.json(field, default)
        body = held.codec.decode(out)
        out["ps_hash"] = held.entity.content_hash(body).hex()
        out.pop("ps_terms", None)
        return out | held.codec.made(out, body)

    @property
    def retired(self) -> list[str]:
        """Fields of documents that are read no more, and stay."""
        return [] if self._migration is None else list(self._migration.schema.retired)
