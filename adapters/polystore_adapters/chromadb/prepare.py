"""Making and changing what is held of entity types.

Every step looks first at what is there and can be repeated, and what the collection of records says of its type changes
last: after an end in the middle the next call goes on. Changes are those of `polystore.evolution`: carried out when
asked for, else told as a difference.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping, Sequence
from typing import cast

import msgspec

from polystore.embedding import pack
from polystore.errors import ConfigurationError, DecodeError, SchemaMismatch
from polystore.evolution import Migration, StoredSchema, describe, load, plan
from polystore.model import Change
from polystore.protocols import VectorSpec
from polystore.relational.serving import Served, differences, load_served, same
from polystore_adapters.chromadb.held import Held, index_name, records_name
from polystore_adapters.chromadb.items import (
    RECORDS,
    SPACES,
    h_of,
    kept_of,
    key_of,
    main_of,
    vector_of,
)
from polystore_adapters.chromadb.records import (
    KEYS,
    Draft,
    by_ids,
    columns_of,
    newest,
    newest_of,
    placed,
    version_of,
    write_items,
    write_whole,
)
from polystore_adapters.chromadb.server import COLUMNS, Document, Server

FORM = 2
"""Of what lies in the collections, as `items.py` says it; noted with the type."""


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
        held.ids = {} if there is None else {RECORDS: str(there["id"])}
        kept: Document = {} if there is None else there.get("metadata") or {}
        if "schema" in kept and kept.get("form") != FORM:
            raise SchemaMismatch(
                f"{held.etype}: what lies in {held.name!r} has the form of another version of polystore; remove the "
                "collections of this prefix, or choose another one, and the copy is filled anew"
            )
        self._schema: StoredSchema | None = load(kept["schema"]) if "schema" in kept else None
        self._served = load_served(kept["served"]) if "served" in kept else None
        self._migration: Migration | None = None if self._schema is None else plan(self._schema, held.entity)

    async def difference(self) -> str:
        """What is not as declared; empty when everything is."""
        held = self.held
        for field, spec in held.vectors.items():
            found = await self._server.collection(held.index_name(field, spec))
            if found is not None:
                held.ids[field] = str(found["id"])
        told = differences(self._migration, self._served, self._serves)
        missing = held.vectors.keys() - held.ids.keys()
        return told or (f"no collection of vectors of: {', '.join(sorted(missing))}" if missing else "")

    async def carry_out(self) -> None:
        held, server, migration = self.held, self._server, self._migration
        held.ids[RECORDS] = await server.create(held.name, "l2")
        for field, spec in held.vectors.items():
            held.ids[field] = await server.create(held.index_name(field, spec), SPACES[spec.metric])
        fresh = {field: spec for field, spec in held.vectors.items() if self._before.get(field) != spec}
        for field, spec in fresh.items():
            await self._begin(held.ids[field], spec)
        whole = await self._whole()
        top = await newest(server, held, whole)
        if migration is not None and (fresh or migration.changes_content or len(whole) > len(held.whole)):
            sources = await self._sources(migration)
            for part in await self._ids(whole):
                async with server.lane(held.name):
                    await self._carry(migration, whole, part, sources)
        schema = describe(held.entity) if migration is None else migration.schema
        kept: dict[str, str | int] = {
            "form": FORM,
            "schema": schema.json(),
            "served": msgspec.json.encode(self._serves).decode(),
            "newest": top,
        }
        await server.note(held.ids[RECORDS], kept)
        now = {held.index_name(field, spec) for field, spec in held.vectors.items()}
        for field, spec in self._before.items():
            if (name := held.index_name(field, spec)) not in now:
                await server.drop(name)

    async def _begin(self, id: str, spec: VectorSpec) -> None:
        """The server has no index before a first item, and fails reads of embeddings while that one is written."""
        about: Document = {"ps_version": 0}
        item = {"ids": ["-"], "embeddings": [bytes(4 * spec.dimension)], "metadatas": [about]}
        await self._server.write(id, "upsert", **item)
        await self._server.write(id, "delete", ids=["-"])

    @property
    def _before(self) -> Mapping[str, VectorSpec]:
        return {} if self._served is None else self._served.vectors

    async def _whole(self) -> list[str]:
        """Ids of the collections where whole records lie, and where they lay until now."""
        held, before = self.held, main_of(self._before)
        ids = [held.ids[place] for place in held.whole]
        if before != RECORDS:
            there = await self._server.collection(held.index_name(before, self._before[before]))
            ids += [] if there is None else [str(there["id"])]
        return list(dict.fromkeys(ids))

    async def _sources(self, migration: Migration) -> dict[str, str]:
        """Field -> id of the collection whose vectors are the same, perhaps compared in another way or under another
        name."""
        was = {new: old for old, new in migration.rename}
        found: dict[str, str] = {}
        for field, spec in self.held.vectors.items():
            old = was.get(field, field)
            before = self._before.get(old)
            if before is not None and same(before, spec):
                there = await self._server.collection(self.held.index_name(old, before))
                if there is not None:
                    found[field] = str(there["id"])
        return found

    async def _ids(self, whole: Sequence[str]) -> list[list[str]]:
        """Those of all records, some at a time."""
        ids = list(dict.fromkeys([one["id"] for id in whole for one in await self._server.items(id)]))
        return [ids[start : start + KEYS] for start in range(0, len(ids), KEYS)]

    async def _carry(
        self, migration: Migration, whole: Sequence[str], ids: Sequence[str], sources: Mapping[str, str]
    ) -> None:
        """Records and their vectors, as they stand. Where vectors are not known here, the record is older than any
        version: the next delivery of the same version counts."""
        held, server = self.held, self._server
        there: dict[str, dict[str, Document]] = {}
        for id in {*whole, *sources.values()}:
            columns = columns_of(RECORDS) if id == held.ids[RECORDS] else COLUMNS
            there[id] = placed(id, await by_ids(server, id, ids, *columns))
        known = {field: {id: vector_of(one) for id, one in there[source].items()} for field, source in sources.items()}
        records = {id: {n: one for n, one in there[id].items() if _is_whole(one)} for id in whole}
        drafts: list[Draft] = []
        for id, item in newest_of(records).items():
            vectors = {field: some[id] for field, some in known.items() if id in some}
            if "ps_at" in item["metadatas"]:
                with contextlib.suppress(DecodeError):  # what is damaged stays, and `polystore verify` names it
                    drafts.append(self._carried(item, migration, vectors, held.vectors.keys() - known.keys()))
        await write_whole(server, held, drafts)  # first: where vectors of another field lie now, they lay until now
        await write_items(server, held, drafts)

    def _carried(
        self, item: Document, migration: Migration, vectors: dict[str, bytes], unknown: Collection[str]
    ) -> Draft:
        """`Migration.carry_out`, on a body whose values are plain, and the items that are made of it."""
        held, out = self.held, self.held.codec.plain(item)
        for old, new in migration.rename:
            if old in out:
                out[new] = out.pop(old)
        for field, default in (*migration.add, *migration.fill):
            if out.get(field) is None:
                out[field] = default
        key, kept = key_of(held.etype, item), kept_of(item)
        body = held.codec.typed(key.id, out)
        lists = [field for field in unknown if isinstance(body.get(field), list)]
        vectors |= {field: pack(cast(list[float], body[field])) for field in lists}
        version, hash = 0 if unknown else version_of(item), held.entity.content_hash(body)
        change = Change(key, version, h_of(key), body, hash, kept.updated_us, {}, kept.expires_us)
        more = {name: value for name, value in out.items() if name in migration.schema.retired}
        return Draft(0, held.codec.encoded(change, vectors, more), held.whole)

    @property
    def retired(self) -> list[str]:
        """Fields of bodies that are read no more, and stay."""
        return [] if self._migration is None else list(self._migration.schema.retired)


def _is_whole(item: Document) -> bool:
    """A record or tombstone; where a field was not the main one, there are its vectors alone."""
    return not item["metadatas"].keys().isdisjoint(("ps_at", "ps_deleted_us"))
