"""Making and changing what is held of entity types.

Every step looks first at what is there and can be repeated, and what the collection of records says of its type changes
last: after an end in the middle the next call goes on. Changes are those of `polystore.evolution`: carried out when
asked for, else told as a difference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast
from urllib.parse import unquote

import msgspec

from polystore.embedding import pack
from polystore.errors import ConfigurationError, SchemaMismatch
from polystore.evolution import Migration, StoredSchema, describe, load, plan
from polystore.model import Body, Change, Key
from polystore.protocols import VectorSpec
from polystore.relational.serving import Served, differences, load_served, same
from polystore_adapters.chromadb.held import Held, index_name, records_name
from polystore_adapters.chromadb.items import Item, packed, unpacked, vector_of
from polystore_adapters.chromadb.records import KEYS, by_ids, newest, write_records, write_vectors
from polystore_adapters.chromadb.server import Document, Server


async def prepare(server: Server, types: Sequence[Held], *, create: bool) -> None:
    """Make or change what is needed, else only compare. Raises SchemaMismatch; then nothing was changed."""
    for held in types:
        if held.layout.facets - {"vector"} or held.layout.home:
            raise ConfigurationError(f"{held.etype}: a chromadb: store holds copies that are found by their vectors")
    plans = [_Preparation(server, held, await server.collection(held.name)) for held in types]
    told = [(one, await one.difference()) for one in plans]
    for one, difference in told:
        if difference and not create:
            raise SchemaMismatch(
                f"not prepared for {one.held.etype!r} as it is declared: {difference}; run `polystore init`, or open "
                "it with the right to create"
            )
    about = await server.collection(meta_name(server))
    meta = str(about["id"]) if about is not None else ""
    if not meta and types:
        if not create:
            raise SchemaMismatch(f"there is no collection {meta_name(server)!r}; run `polystore init`")
        meta = await server.create(meta_name(server), "l2")
    for one, difference in told:
        one.held.tenants = meta
        if difference:
            await one.carry_out()
        one.held.retired = one.retired


def meta_name(server: Server) -> str:
    """Of the collection that tells which tenants there are, and whose id names the data."""
    return f"{server.options.prefix}meta"


async def clear(server: Server, etype: str) -> None:
    """See `SupportsRebuild.clear`. The vectors go first: the collection of records knows of theirs."""
    name = records_name(server, etype)
    there = await server.collection(name)
    if there is None:
        return
    about: Document = there.get("metadata") or {}
    served: str | None = about.get("served")
    for field, spec in load_served(served).vectors.items() if served else ():
        await server.drop(index_name(server, etype, field, spec))
    await server.drop(name)


class _Preparation:
    """One entity type."""

    def __init__(self, server: Server, held: Held, there: Document | None) -> None:
        self._server = server
        self.held = held
        self._serves = Served(held.layout.home, sorted(held.layout.facets), held.vectors)
        held.id = "" if there is None else str(there["id"])
        kept: Mapping[str, str] = {} if there is None else there.get("metadata") or {}
        self._schema: StoredSchema | None = load(kept["schema"]) if "schema" in kept else None
        self._served = load_served(kept["served"]) if "served" in kept else None
        self._migration: Migration | None = None if self._schema is None else plan(self._schema, held.entity)

    async def difference(self) -> str:
        """What is not as declared; empty when everything is."""
        held = self.held
        there: dict[str, str] = {}
        for field, spec in held.vectors.items():
            found = await self._server.collection(held.index_name(field, spec))
            if found is not None:
                there[field] = str(found["id"])
        held.indexes = there
        told = differences(self._migration, self._served, self._serves)
        missing = held.vectors.keys() - there.keys()
        return told or (f"no collection of vectors of: {', '.join(sorted(missing))}" if missing else "")

    async def carry_out(self) -> None:
        held, server, migration = self.held, self._server, self._migration
        held.id = await server.create(held.name, "l2")
        fresh = {field: spec for field, spec in held.vectors.items() if field not in held.indexes}
        made = {field: await server.create(held.index_name(field, spec), spec.metric) for field, spec in fresh.items()}
        held.indexes = {**held.indexes, **made}
        top = await newest(server, held)
        if migration is not None and (fresh or migration.changes_content):
            sources = await self._sources(migration, fresh)
            for part in await self._live():
                async with server.lane(held.name):
                    await self._carry(migration, part, fresh, sources)
        schema = describe(held.entity) if migration is None else migration.schema
        kept: dict[str, str | int] = {
            "schema": schema.json(),
            "served": msgspec.json.encode(self._serves).decode(),
            "newest": top,
        }
        await server.note(held.id, kept)
        now = {held.index_name(field, spec) for field, spec in held.vectors.items()}
        for field, spec in self._before.items():
            if (name := held.index_name(field, spec)) not in now:
                await server.drop(name)

    @property
    def _before(self) -> Mapping[str, VectorSpec]:
        return {} if self._served is None else self._served.vectors

    async def _sources(self, migration: Migration, fresh: Mapping[str, VectorSpec]) -> dict[str, str]:
        """Fresh field -> id of the collection whose vectors are the same, compared in another way or under another
        name."""
        was = {new: old for old, new in migration.rename}
        found: dict[str, str] = {}
        for field, spec in fresh.items():
            old = was.get(field, field)
            before = self._before.get(old)
            if before is not None and same(before, spec):
                there = await self._server.collection(self.held.index_name(old, before))
                if there is not None:
                    found[field] = str(there["id"])
        return found

    async def _live(self) -> list[list[str]]:
        """Ids of the live records, some at a time."""
        where = {"ps_bucket": {"$gte": 0}}
        ids = [one["id"] for one in await self._server.items(self.held.id, where=where)]
        return [ids[start : start + KEYS] for start in range(0, len(ids), KEYS)]

    async def _carry(
        self, migration: Migration, ids: Sequence[str], fresh: Mapping[str, VectorSpec], sources: Mapping[str, str]
    ) -> None:
        """Records and their vectors, as they stand. Where vectors are not known here, the record is older than any
        version: the next delivery of the same version counts."""
        held, server = self.held, self._server
        items = await by_ids(server, held.id, ids, "metadatas", "uris")
        carried = [self._carried(one, migration) for one in items if not one["metadatas"].get("ps_deleted")]
        known: dict[str, dict[str, bytes]] = {}
        for field in fresh:
            known[field] = await self._known(field, sources.get(field), carried)
        for field, id in held.indexes.items():
            if field in fresh:
                some = [(item, known[field][item.id]) for item, _ in carried if item.id in known[field]]
                if some:
                    about = [item.fields for item, _ in some]
                    await write_vectors(server, id, [item.id for item, _ in some], [one for _, one in some], about)
            elif carried:
                about = [item.fields for item, _ in carried]
                await server.write(id, "update", ids=[item.id for item, _ in carried], metadatas=about)
        unknown = [field for field in fresh if field not in sources]
        old = {"ps_version": 0} if unknown else {}
        if carried:
            await write_records(server, held, [_with(item, old) for item, _ in carried])

    async def _known(self, field: str, source: str | None, carried: Sequence[tuple[Item, Body]]) -> dict[str, bytes]:
        """Item -> its vector, of what is held here."""
        if source is not None:
            items = await by_ids(self._server, source, [item.id for item, _ in carried], "metadatas")
            return {one["id"]: vector_of(one["metadatas"]) for one in items}
        lists = {item.id: body.get(field) for item, body in carried}
        return {id: pack(cast(list[float], one)) for id, one in lists.items() if isinstance(one, list)}

    def _carried(self, item: Document, migration: Migration) -> tuple[Item, Body]:
        """`Migration.carry_out`, on a body whose values are plain, and the item that is made of it."""
        held, about, out = self.held, item["metadatas"], unpacked(item["uris"])
        for old, new in migration.rename:
            if old in out:
                out[new] = out.pop(old)
        for field, default in (*migration.add, *migration.fill):
            if out.get(field) is None:
                out[field] = default
        body = held.codec.decode(about["ps_id"], packed(out))
        key = Key(unquote(about["ps_tenant"]), held.etype, about["ps_id"])
        times = about["ps_updated_us"], about["ps_expires_us"]
        change = Change(
            key, about["ps_version"], about["ps_h"], body, held.entity.content_hash(body), times[0], {}, times[1]
        )
        return held.codec.encoded(change, {n: v for n, v in out.items() if n in migration.schema.retired}), body

    @property
    def retired(self) -> list[str]:
        """Fields of bodies that are read no more, and stay."""
        return [] if self._migration is None else list(self._migration.schema.retired)


def _with(item: Item, changed: Mapping[str, Any]) -> Item:
    return msgspec.structs.replace(item, fields={**item.fields, **changed})
