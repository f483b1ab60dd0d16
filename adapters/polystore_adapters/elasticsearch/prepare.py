"""Making and changing what is held of entity types.

What an index holds of a type, and in which form, stands in the `_meta` of its mapping: index and note are made at once,
and of a change the note comes last: after an end in the middle the next call goes on. Changes are those of
`polystore.evolution`: carried out when asked for, else told as a difference. Documents are carried along in place, each
at the version that it has: what somebody writes meanwhile is newer, and stays.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Iterable, Sequence
from typing import Any
from uuid import uuid4

import msgspec

from polystore.errors import ConfigurationError, InvalidData, SchemaMismatch
from polystore.evolution import Migration, StoredSchema, describe, load, plan
from polystore.relational.serving import Served, differences, load_served
from polystore_adapters.elasticsearch import nori
from polystore_adapters.elasticsearch.held import Held
from polystore_adapters.elasticsearch.records import PAGE, bulk_action, outcome
from polystore_adapters.elasticsearch.server import Document, Server


async def prepare(server: Server, types: Sequence[Held], *, create: bool) -> None:
    """Make or change what is needed, else only compare. Raises SchemaMismatch; then nothing was changed."""
    for held in types:
        if "vector" in held.layout.facets or "graph" in held.layout.facets or held.layout.home != held.fact:
            raise ConfigurationError(
                f"{held.etype}: an elasticsearch: store holds logs, and copies of records that are found by words"
            )
    plans = [_Preparation(server, held) for held in types]
    by_nori = create and any(held.full_text for held in types) and await nori.installed(server)
    told = await at_once(one.difference(by_nori) for one in plans)
    for one, difference in zip(plans, told, strict=True):
        if difference and not create:
            raise SchemaMismatch(
                f"not prepared for {one.held.etype!r} as it is declared: {difference}; run `polystore init`, or open "
                "it with the right to create"
            )
    differing = [one for one, difference in zip(plans, told, strict=True) if difference]
    if differing:
        data_id = await data_id_of(server) or str(uuid4())
        await at_once(one.make(data_id) for one in differing)  # the server makes several as fast as one
        for one in differing:
            await one.carry_out(data_id)
    for one in plans:
        one.held.retired = one.retired


async def at_once(asked: Iterable[Coroutine[Any, Any, Any]]) -> list[Any]:
    """The answers to requests that do not depend on one another. When one fails, the others are waited for."""
    answers = await asyncio.gather(*asked, return_exceptions=True)
    for one in answers:
        if isinstance(one, BaseException):
            raise one
    return answers


async def data_id_of(server: Server) -> str:
    """The identity of all data under the prefix, which its first index was given; empty when there is none."""
    prefix = server.options.prefix
    answer = await server.ask("GET", f"/{prefix}*/_mapping", filter_path="*.mappings._meta")
    notes: list[Document] = [one["mappings"]["_meta"] for one in answer.values()]
    return min((one["data_id"] for one in notes if one.get("prefix") == prefix), default="")


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


class _Preparation:
    """One entity type."""

    def __init__(self, server: Server, held: Held) -> None:
        self._server = server
        self.held = held
        self._serves = Served(held.layout.home, sorted(held.layout.facets), {})
        self._there: Document | None = None
        """The mapping of the index; None when there is no index."""
        self._named = False
        """Whether the index has the alias that it is asked by."""
        self._schema: StoredSchema | None = None
        self._served: Served | None = None
        self._migration: Migration | None = None
        self._new_to_nori = False

    async def difference(self, by_nori: bool) -> str:
        """What is not as declared; empty when everything is. With `by_nori` the texts are wanted by this analyzer, too;
        without, they are where the index has them."""
        await self._look()
        texts = self.held.codec.texts
        there: Document = (self._there or {}).get("properties", {})
        self._new_to_nori = by_nori and bool(texts) and not nori.mapped(there, texts)
        self.held.by_nori = self._new_to_nori or nori.mapped(there, texts)
        kept: Document | None = (self._there or {}).get("_meta")
        if kept is not None:
            self._schema, self._served = load(kept["schema"]), load_served(kept["served"])
            self._migration = plan(self._schema, self.held.entity)
        told = differences(self._migration, self._served, self._serves)
        missing = self.held.codec.mapping().keys() - there.keys()
        if self._there is not None and not self._named:
            return told or f"no alias {self.held.index}"
        if missing or self._new_to_nori:
            return told or f"not mapped: {', '.join(sorted(missing)) or 'texts by nori'}"
        return told

    async def _look(self) -> None:
        """What there is of the index."""
        try:
            answer = await self._server.ask("GET", f"/{self._server.index(self.held.etype)}")
        except SchemaMismatch:
            return
        (one,) = answer.values()
        self._there, self._named = one["mappings"], self.held.index in one["aliases"]

    def _note(self, data_id: str) -> Document:
        schema = describe(self.held.entity) if self._migration is None else self._migration.schema
        served = msgspec.json.encode(self._serves).decode()
        about = {"prefix": self._server.options.prefix, "data_id": data_id}
        return about | {"schema": schema.json(), "served": served}

    async def make(self, data_id: str) -> None:
        """The index, where there is none."""
        if self._there is None:
            held, options = self.held, self._server.options
            body: Document = {
                "settings": {"number_of_shards": options.shards, "number_of_replicas": options.replicas},
                "mappings": {
                    "dynamic": False,
                    "_meta": self._note(data_id),
                    "properties": held.codec.mapping(held.by_nori),
                },
                "aliases": {held.index: {}},
            }
            await _create(self._server, self._server.index(held.etype), body)

    async def carry_out(self, data_id: str) -> None:
        """The changes of an index that was there."""
        held, migration, there = self.held, self._migration, self._there
        if there is None:
            return
        if not self._named:
            await self._server.ask("PUT", f"/{self._server.index(held.etype)}/_alias/{held.index}")
        mapped = there.get("properties", {})
        new = {name: one for name, one in held.codec.mapping(held.by_nori).items() if name not in mapped}
        if self._new_to_nori:
            new |= {name: nori.mapping(mapped[name]) for name in held.codec.texts if name in mapped}
        await self._server.ask("PUT", f"/{held.index}/_mapping", {"properties": new})
        if migration is not None and (self._new_to_nori or self._made_of_other(migration)):
            await self._documents(migration)
        await self._server.ask("PUT", f"/{held.index}/_mapping", {"_meta": self._note(data_id)})

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
            for item in (await self._server.bulk(lines, held.index))["items"]:
                refused = outcome(next(iter(item.values()))).error  # not one that somebody has written anew
                if refused is not None:
                    raise refused

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
