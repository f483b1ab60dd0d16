"""What is kept of entity types: schemas, beside the records. A changed class carries its records along, one after the
other; each step can be repeated, and the schema changes last. Changes are those of `polystore.evolution`."""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator, Sequence
from typing import Any
from uuid import uuid4

import msgspec

from polystore.errors import ConfigurationError, SchemaMismatch
from polystore.evolution import Migration, StoredSchema, describe, load, plan
from polystore.model import EVERYTHING, Key
from polystore.protocols import Layout
from polystore.relational.serving import Served, differences, load_served
from polystore_adapters.redis.entries import Codec, opened
from polystore_adapters.redis.keys import SPAN
from polystore_adapters.redis.records import PAGE, Place, Records
from polystore_adapters.redis.server import Command, Script, Server

ORDERED = "ordered"
"""Of a type whose keys are kept in their order: those of an earlier polystore are not."""

# Ids by their hashes, keys in order; id and key, id and key, ... Who has gone meanwhile stays away.
ORDER = Script("""
for i = 1, #ARGV, 2 do
  if redis.call('ZSCORE', KEYS[1], ARGV[i]) then redis.call('ZADD', KEYS[2], 0, ARGV[i + 1]) end
end
return 1
""")

# The record; what stood there, and what is to.
EXCHANGE = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'KEEPTTL')
return 1
""")


async def prepare(records: Records, layouts: Sequence[Layout], *, create: bool) -> None:
    """See `SupportsSchema.prepare`. Raises ConfigurationError too, for a server that would lose records."""
    server = records.server
    if layouts:
        await _check_keeping(server)
    plans = [await _Preparation.of(server, layout) for layout in layouts]
    told = [(one, one.difference()) for one in plans]
    for one, difference in told:
        if difference and not create:
            raise SchemaMismatch(
                f"redis: not prepared for {one.etype!r} as it is declared: {difference}; run `polystore init`, or open "
                "it with the right to create"
            )
    if create and layouts:
        await server.one(("SET", server.keys.data, str(uuid4()), "NX"))
    for one, difference in told:
        records.types[one.etype] = Codec(one.entity)
        if difference:
            await one.carry_out(records)


async def _check_keeping(server: Server) -> None:
    for said in await server.info("memory"):
        policy = said.get("maxmemory_policy", "noeviction")
        if int(said.get("maxmemory", 0)) and policy != "noeviction":
            raise ConfigurationError(
                f"the server removes keys when its memory is full (maxmemory-policy {policy}), records and what "
                "guards them too: give records a server with noeviction"
            )
    for said in await server.info("persistence"):
        if said.get("aof_enabled", "1") == "0":
            raise ConfigurationError(
                "the server keeps no append-only file, so records would be gone with it: turn appendonly on, or give "
                "records another home"
            )


class _Preparation:
    """One entity type on one server."""

    def __init__(
        self, server: Server, layout: Layout, schema: StoredSchema | None, served: Served | None, *, ordered: bool
    ) -> None:
        self._server = server
        self.entity = layout.entity
        self.etype = layout.entity.name
        self._serves = Served(layout.home, sorted(layout.facets), {})
        self._served = served
        self._ordered = ordered
        self._migration: Migration | None = None if schema is None else plan(schema, layout.entity)

    @classmethod
    async def of(cls, server: Server, layout: Layout) -> _Preparation:
        about, _ = server.keys.about(layout.entity.name)
        schema, served, ordered = await server.one(("HMGET", about, "schema", "served", ORDERED), writes=False)
        return cls(
            server,
            layout,
            None if schema is None else load(schema.decode()),
            None if served is None else load_served(served.decode()),
            ordered=ordered is not None,
        )

    def difference(self) -> str:
        """What is not as declared; empty when everything is."""
        told = differences(self._migration, self._served, self._serves)
        return told or ("" if self._ordered else "its keys are not kept in their order")

    async def carry_out(self, records: Records) -> None:
        schema = describe(self.entity)
        if self._migration is not None:
            schema = self._migration.schema
            for tenant in await records.tenants(self.etype):
                if not self._ordered:
                    await self._order(records, tenant)
                if self._migration.changes_content:
                    await self._records(records, tenant, self._migration)
        about, _ = self._server.keys.about(self.etype)
        kept = schema.json(), msgspec.json.encode(self._serves)
        await self._server.one(("HSET", about, "schema", kept[0], "served", kept[1], ORDERED, 1))

    async def _order(self, records: Records, tenant: str) -> None:
        codec, keys = Codec(self.entity), self._server.keys
        async for places in _pages(records, self.etype, tenant):
            calls: list[Command] = []
            for bucket, some in itertools.groupby(places, lambda place: place.h // SPAN):
                index, _, ordered = keys.index(self.etype, tenant, bucket)
                pairs = [(place.id, codec.ordered(place.id)) for place in some]
                calls.append(ORDER.call([index, ordered], *itertools.chain.from_iterable(pairs)))
            await self._server.script(ORDER, calls)

    async def _records(self, records: Records, tenant: str, migration: Migration) -> None:
        """Carry the live records along. One that somebody writes meanwhile is as declared by that."""
        async for places in _pages(records, self.etype, tenant):
            keys = [Key(tenant, self.etype, place.id) for place in places]
            names = [self._server.keys.record(key, place.h)[0] for key, place in zip(keys, places, strict=True)]
            calls = [
                EXCHANGE.call([name], stored, new)
                for key, name, stored in zip(keys, names, await self._server.get_all(names), strict=True)
                if stored is not None and (new := self._carried(key, stored, migration)) != stored
            ]
            await self._server.script(EXCHANGE, calls)

    def _carried(self, key: Key, stored: bytes, migration: Migration) -> bytes:
        version, entry, body = opened(stored, self.etype, key.id)
        if body is None:
            return stored
        plain: dict[str, Any] = migration.carry_out(body)
        codec = Codec(self.entity)
        packed = codec.entry(plain, bytes.fromhex(entry.hash), entry.updated_us, entry.expires_us)
        read = codec.record(key, version + packed, 0)
        assert read.body is not None
        return version + codec.entry(plain, self.entity.content_hash(read.body), entry.updated_us, entry.expires_us)


async def _pages(records: Records, etype: str, tenant: str) -> AsyncGenerator[list[Place]]:
    """All that stand in the index, some at a time."""
    after: Place | None = None
    while places := await records.places(etype, tenant, EVERYTHING, after, PAGE):
        yield places
        after = places[-1]
