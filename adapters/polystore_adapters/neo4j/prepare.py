"""Making and changing what is held of entity types.

Every step looks first at what is there and can be repeated, and what the meta nodes say of a type changes last: after
an end in the middle the next call goes on. Changes are those of `polystore.evolution`: carried out when asked for, else
told as a difference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

import msgspec

from polystore.errors import ConfigurationError, SchemaMismatch
from polystore.evolution import Migration, StoredSchema, describe, load, plan
from polystore.model import Change, Key
from polystore.relational.serving import Served, differences, load_served
from polystore_adapters.neo4j.held import Held
from polystore_adapters.neo4j.nodes import opened, unpacked
from polystore_adapters.neo4j.records import replace_edges
from polystore_adapters.neo4j.server import Row, Server, quoted, rows

DATA = "data"
PAGE = 500


async def prepare(server: Server, types: Sequence[Held], *, create: bool) -> None:
    """Make or change what is needed, else only compare. Raises SchemaMismatch; then nothing was changed."""
    for held in types:
        if {"vector", "full_text"} & held.layout.facets or held.layout.home:
            raise ConfigurationError(f"{held.etype}: a neo4j: store holds copies whose relations are walked")
    missing = await _missing_indexes(server)
    kept = await meta(server)
    plans = [_Preparation(server, held, kept.get(f"schema {held.etype}")) for held in types]
    told = [(one, one.difference() or (f"not there: {', '.join(missing)}" if missing else "")) for one in plans]
    for one, difference in told:
        if difference and not create:
            raise SchemaMismatch(
                f"not prepared for {one.held.etype!r} as it is declared: {difference}; run `polystore init`, or open "
                "it with the right to create"
            )
    if create:
        for statement in missing.values():
            await server.run(statement)
        await _keep_first(server, DATA, str(uuid4()))
    for one, difference in told:
        if difference:
            await one.carry_out()
        one.held.retired = one.retired


def _indexes(server: Server) -> Mapping[str, str]:
    """Name -> the statement that makes it. Without the unique key several nodes are made for one record."""
    label = server.label
    unique = f"FOR (n:{quoted(label)}) REQUIRE n.ps_key IS UNIQUE"
    scanned = f"FOR (n:{quoted(label)}) ON (n.ps_tenant, n.ps_etype, n.ps_h)"
    newest = f"FOR (n:{quoted(label)}) ON (n.ps_etype, n.ps_version)"
    names = (f"ps_meta_{label}", f"ps_key_{label}", f"ps_scan_{label}", f"ps_newest_{label}")
    return {
        names[0]: f"CREATE CONSTRAINT {names[0]} IF NOT EXISTS FOR (n:{_meta(server)}) REQUIRE n.name IS UNIQUE",
        names[1]: f"CREATE CONSTRAINT {names[1]} IF NOT EXISTS {unique}",
        names[2]: f"CREATE INDEX {names[2]} IF NOT EXISTS {scanned}",
        names[3]: f"CREATE INDEX {names[3]} IF NOT EXISTS {newest}",
    }


def _meta(server: Server) -> str:
    return quoted(f"{server.label}Meta")


async def _missing_indexes(server: Server) -> dict[str, str]:
    there = {row["name"] for row in await server.read("SHOW INDEXES YIELD name RETURN name")}
    return {name: statement for name, statement in _indexes(server).items() if name not in there}


async def meta(server: Server) -> dict[str, str]:
    """What is kept, by name."""
    found = await server.read(f"MATCH (n:{_meta(server)}) RETURN n.name AS name, n.value AS value")
    return {row["name"]: row["value"] for row in found}


async def _keep(server: Server, name: str, value: str) -> None:
    async with server.writing() as tx:
        await rows(tx, f"MERGE (n:{_meta(server)} {{name: $name}}) SET n.value = $value", name=name, value=value)


async def _keep_first(server: Server, name: str, value: str) -> None:
    async with server.writing() as tx:
        merge = f"MERGE (n:{_meta(server)} {{name: $name}}) ON CREATE SET n.value = $value"
        await rows(tx, merge, name=name, value=value)


async def clear(server: Server, etype: str) -> None:
    """See `SupportsRebuild.clear`. Nodes that other relationships lead to or from stay, as the bare ends of these."""
    label = quoted(server.label)
    bare = (
        f"MATCH (n:{label}) WHERE n.ps_etype = $etype AND n.ps_version IS NOT NULL WITH n LIMIT $page "
        "OPTIONAL MATCH (n)-[e]->() WHERE e.ps_properties IS NOT NULL DELETE e WITH DISTINCT n "
        "SET n = {ps_key: n.ps_key, ps_tenant: n.ps_tenant, ps_etype: n.ps_etype, ps_id: n.ps_id} RETURN count(n) AS n"
    )
    gone = 1
    while gone:
        async with server.writing() as tx:
            (row,) = await rows(tx, bare, etype=etype, page=PAGE)
            gone = row["n"]
    gone = 1
    while gone:
        async with server.writing() as tx:
            stubs = f"MATCH (n:{label}) WHERE n.ps_etype = $etype AND NOT (n)--() WITH n LIMIT $page DELETE n"
            (row,) = await rows(tx, f"{stubs} RETURN count(*) AS n", etype=etype, page=PAGE)
            gone = row["n"]
    async with server.writing() as tx:
        await rows(tx, f"MATCH (n:{_meta(server)} {{name: $name}}) DELETE n", name=f"schema {etype}")


class _Preparation:
    """One entity type."""

    def __init__(self, server: Server, held: Held, kept: str | None) -> None:
        self._server = server
        self.held = held
        self._serves = Served(held.layout.home, sorted(held.layout.facets), {})
        schema, served = (None, None) if kept is None else msgspec.json.decode(kept, type=tuple[str, str])
        self._schema: StoredSchema | None = None if schema is None else load(schema)
        self._served = None if served is None else load_served(served)
        self._migration: Migration | None = None if self._schema is None else plan(self._schema, held.entity)

    def difference(self) -> str:
        """What is not as declared; empty when everything is."""
        return differences(self._migration, self._served, self._serves)

    async def carry_out(self) -> None:
        held, migration = self.held, self._migration
        if migration is not None and self._made_of_other(migration):
            await self._nodes(migration)
        schema = describe(held.entity) if migration is None else migration.schema
        kept = (schema.json(), msgspec.json.encode(self._serves).decode())
        await _keep(self._server, f"schema {held.etype}", msgspec.json.encode(kept).decode())

    def _made_of_other(self, migration: Migration) -> bool:
        """Whether what is in the nodes, or made of their fields, was made of something else."""
        before = frozenset[str]() if self._served is None else frozenset(self._served.facets)
        graph = any(one.facet == "graph" for one in (*migration.facets_added, *migration.facets_removed))
        return migration.changes_content or graph or before != self.held.layout.facets

    async def _nodes(self, migration: Migration) -> None:
        """Carry the live nodes along. One that somebody writes meanwhile is as declared by that."""
        held, last = self.held, ""
        while True:
            query = (
                f"MATCH (n:{held.all}) WHERE n.ps_etype = $etype AND n.ps_live AND n.ps_key > $last "
                "RETURN n {.ps_key, .ps_tenant, .ps_id, .ps_h, .ps_record} AS node ORDER BY n.ps_key LIMIT $page"
            )
            nodes = [row["node"] for row in await self._server.read(query, etype=held.etype, last=last, page=PAGE)]
            if not nodes:
                return
            last = nodes[-1]["ps_key"]
            carried = [one for node in nodes if (one := self._carried(node, migration)) is not None]
            async with self._server.writing() as tx:
                await self._replace(tx, carried)

    async def _replace(self, tx: Any, carried: Sequence[tuple[Change, Row]]) -> None:
        held = self.held
        given = [{"key": node["ps_key"], "v": change.version, "node": node} for change, node in carried]
        same = (
            f"UNWIND $rows AS r MATCH (n:{held.all} {{ps_key: r.key}}) SET n.ps_lock = true "
            "WITH n, r WHERE n.ps_version = r.v SET n = r.node RETURN r.key AS key"
        )
        done = {row["key"] for row in await rows(tx, same, rows=given)}
        written = [change for change, node in carried if node["ps_key"] in done]
        await replace_edges(tx, held, written, written)

    def _carried(self, node: Row, migration: Migration) -> tuple[Change, Row] | None:
        """`Migration.carry_out`, on a body whose values are plain, and the node that is made of it; None when it was
        deleted at this moment."""
        held, id = self.held, node["ps_id"]
        packed = opened(node["ps_record"], id)
        if packed.body is None:
            return None
        out = unpacked(node["ps_record"], id)
        for old, new in migration.rename:
            if old in out:
                out[new] = out.pop(old)
        for field, default in (*migration.add, *migration.fill):
            if out.get(field) is None:
                out[field] = default
        body = held.codec.decode(id, msgspec.msgpack.encode(out))
        key = Key(node["ps_tenant"], held.etype, id)
        hash = held.entity.content_hash(body)
        change = Change(key, packed.version, node["ps_h"], body, hash, packed.updated_us, {}, packed.expires_us)
        return change, held.codec.encoded(change, {n: v for n, v in out.items() if n in migration.schema.retired})

    @property
    def retired(self) -> list[str]:
        """Fields of bodies that are read no more, and stay."""
        return [] if self._migration is None else list(self._migration.schema.retired)
