"""Making and changing what is held of entity types.

A server changes one thing after the other. So every step looks first at what is there and can be repeated, and what
`ps_meta` says of a type changes last: after an end in the middle the next call goes on.

Changes are those of `polystore.evolution`: carried out when asked for, else told as a difference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

import msgspec
from bson.raw_bson import RawBSONDocument
from pymongo import ReplaceOne
from pymongo.errors import OperationFailure

from polystore.errors import ConfigurationError, SchemaMismatch
from polystore.evolution import Migration, StoredKind, StoredSchema, describe, load, plan
from polystore.relational.serving import Served, differences, load_served
from polystore_adapters.mongodb.documents import micros_field
from polystore_adapters.mongodb.driver import RAW, Document, each, listed, packed
from polystore_adapters.mongodb.errors import COLLECTION_EXISTS, NO_SUCH_COMMAND
from polystore_adapters.mongodb.held import META, Held, differs, newest_id
from polystore_adapters.mongodb.server import Server

PAGE = 200
"""Documents in memory while they are made anew."""
DATA = "data"


async def prepare(server: Server, types: Sequence[Held], *, create: bool) -> None:
    """Make or change what is needed, else only compare. Raises SchemaMismatch; then nothing was changed."""
    plans = [await _Preparation.of(server, held) for held in types]
    told = [(one, one.difference()) for one in plans]
    for one, difference in told:
        if difference and not create:
            raise SchemaMismatch(
                f"{server.place}: not prepared for {one.held.etype!r} as it is declared: {difference}; run "
                "`polystore init`, or open it with the right to create"
            )
    if create:
        first = {"$setOnInsert": {"data_id": str(uuid4())}}
        await server.collection(META).update_one({"_id": DATA}, first, upsert=True)
    for one, difference in told:
        if difference:
            await one.carry_out()
        one.held.retired = one.retired


async def clear(server: Server, etype: str) -> None:
    """See `SupportsRebuild.clear`. What is known of it goes last."""
    await server.database.drop_collection(etype)
    for name in (newest_id(etype), schema_id(etype)):
        await server.collection(META).delete_one({"_id": name})


class _Preparation:
    """One entity type in one database."""

    def __init__(self, server: Server, held: Held, kept: Document | None, there: Mapping[str, Document] | None) -> None:
        self._server = server
        self.held = held
        self._there = there
        layout = held.layout
        self._serves = Served(layout.home, sorted(layout.facets), {})
        self._schema: StoredSchema | None = None if kept is None else load(kept["schema"])
        self._served = None if kept is None else load_served(kept["served"])
        self._migration: Migration | None = None if self._schema is None else plan(self._schema, held.entity)

    @classmethod
    async def of(cls, server: Server, held: Held) -> _Preparation:
        kept: Document | None = await server.collection(META).find_one({"_id": schema_id(held.etype)})
        names: list[str] = await server.database.list_collection_names(filter={"name": held.etype})
        there: dict[str, Document] | None = None
        if names:
            there = {index["name"]: index for index in await listed(held.documents.list_indexes())}
        return cls(server, held, kept, there)

    def difference(self) -> str:
        """What is not as declared; empty when everything is. Raises SchemaMismatch for an index that is another one."""
        told = differences(self._migration, self._served, self._serves)
        there = self._there or {}
        for name, wanted in self.held.indexes.items():
            if name in there and differs(wanted, there[name]):
                raise SchemaMismatch(
                    f"{self._server.place}: the index {name!r} of {self.held.etype!r} is another one than declared; "
                    "drop it, or declare it as it is"
                )
        missing = sorted(self.held.indexes.keys() - there.keys())
        return "; ".join(filter(None, (told, f"indexes are missing: {', '.join(missing)}" if missing else "")))

    async def carry_out(self) -> None:
        held, migration = self.held, self._migration
        if self._there is None or self._schema is None:  # without a schema, making it may have ended in the middle
            await self._make()
        await self._indexes(self._there or {})
        if migration is not None and self._made_of_other(migration):
            await self._documents(migration)
        schema = describe(held.entity) if migration is None else migration.schema
        kept = {"schema": schema.json(), "served": msgspec.json.encode(self._serves).decode()}
        await self._server.collection(META).replace_one({"_id": schema_id(held.etype)}, kept, upsert=True)

    def _made_of_other(self, migration: Migration) -> bool:
        """Whether what is in the documents, or made of their fields, was made of something else."""
        before = frozenset[str]() if self._served is None else frozenset(self._served.facets)
        texts = any(one.facet == "full_text" for one in (*migration.facets_added, *migration.facets_removed))
        return migration.changes_content or texts or ("full_text" in self.held.layout.facets) != ("full_text" in before)

    async def _make(self) -> None:
        held, database = self.held, self._server.database
        options = held.options
        capped: Document = {"capped": True, "size": options.capped_bytes} if options.capped_bytes else {}
        if options.capped_documents:
            capped["max"] = options.capped_documents
        try:
            await database.command({"create": held.etype, **capped})
        except OperationFailure as error:
            if error.code != COLLECTION_EXISTS:
                raise
        if options.shard_key is None:
            return
        try:
            where = f"{database.name}.{held.etype}"
            await self._server.client.admin.command({"shardCollection": where, "key": options.shard_key})
        except OperationFailure as error:
            if error.code != NO_SUCH_COMMAND:
                raise
            raise ConfigurationError(
                f"{self._server.place}: collections.{held.etype}.shard_key: the server is no router (mongos) of a "
                "sharded cluster; name one in the URL, or leave the option out"
            ) from None

    async def _indexes(self, there: Mapping[str, Document]) -> None:
        """Drop ours that are not declared any more, make what is new."""
        held = self.held
        for name in sorted(there.keys() - held.indexes.keys()):
            if name.startswith("ps_"):
                await held.documents.drop_index(name)
        new = [one for name, one in held.indexes.items() if name not in there]
        if new:
            await self._server.database.command({"createIndexes": held.etype, "indexes": new})

    async def _documents(self, migration: Migration) -> None:
        """Carry the live documents along. One that somebody writes meanwhile is as declared by that."""
        held = self.held
        page: dict[tuple[str, str], ReplaceOne[RawBSONDocument]] = {}
        async for raw in each(held.documents.find({"ps_tenant": {"$exists": True}}), RAW):
            new = held.codec.made_anew(self._carried(raw, migration))
            if new != raw:
                same = {"_id": raw["_id"], "ps_version": raw["ps_version"]}
                page[raw["_id"]["tenant"], raw["_id"]["id"]] = ReplaceOne(same, packed(new))
            if len(page) == PAGE:
                await self._replace(page)
                page = {}
        await self._replace(page)

    async def _replace(self, page: Mapping[tuple[str, str], ReplaceOne[RawBSONDocument]]) -> None:
        """In the order in which all writers take documents: FerretDB locks them."""
        if page:
            await self.held.documents.bulk_write([page[key] for key in sorted(page)], ordered=False)

    def _carried(self, raw: Document, migration: Migration) -> Document:
        """`Migration.carry_out`, on the fields of a document."""
        out = dict(raw)
        for old, new in migration.rename:
            for before, after in ((old, new), (micros_field(old), micros_field(new))):
                if before in out:
                    out[after] = out.pop(before)
        for field, default in (*migration.add, *migration.fill):
            if out.get(field) is None:
                out |= self.held.codec.field(field, default)
        for field in migration.widened:
            value: Any = out.get(field)
            if isinstance(value, int) and not isinstance(value, bool) and self._kind(field) == "float":
                out[field] = float(value)
        return out

    def _kind(self, field: str) -> str:
        return self.held.entity.fields[field].kind.name

    @property
    def retired(self) -> list[str]:
        """Fields of documents that are read no more, and stay."""
        fields: Mapping[str, StoredKind] = {} if self._migration is None else self._migration.schema.retired
        times = [micros_field(field) for field, kind in fields.items() if kind.name == "datetime"]
        return [*fields, *times]


def schema_id(etype: str) -> str:
    return f"schema {etype}"
