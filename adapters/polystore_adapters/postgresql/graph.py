"""Edges in PostgreSQL: one table per entity type, walked breadth first, a level in a query."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from heapq import nsmallest
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa

from polystore import walking
from polystore.filters import Checked
from polystore.model import Body, Direction, Key, Link, Reached, Stamp
from polystore.relational import Statements
from polystore.walking import Node
from polystore_adapters.postgresql.dialect import PostgresDialect, decode_json, encode_json, ident
from polystore_adapters.postgresql.placeholders import shifted
from polystore_adapters.postgresql.pool import Pool, Session
from polystore_adapters.postgresql.table import RecordTable

SNAPSHOT = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"


def create_sql(table: RecordTable) -> list[str]:
    etype, name = table.etype, table.edges
    return [
        f'CREATE TABLE {name} (tenant text COLLATE "C" NOT NULL, src text COLLATE "C" NOT NULL, '
        'type text COLLATE "C" NOT NULL, to_etype text COLLATE "C" NOT NULL, dst text COLLATE "C" NOT NULL, '
        "properties jsonb NOT NULL, PRIMARY KEY (tenant, src, type, to_etype, dst))",
        f"CREATE INDEX {ident('ps_edge_in', etype)} ON {name} (tenant, dst, to_etype, type)",
    ]


async def replace(db: Session, table: RecordTable, bodies: Mapping[Key, Body | None]) -> None:
    """Give each record the edges of its body; None: none. Under the lock of the records' rows."""
    keys = sorted(bodies, key=lambda key: (key.tenant, key.id))
    tenants, ids = [key.tenant for key in keys], [key.id for key in keys]
    await db.run(
        f"DELETE FROM {table.edges} WHERE (tenant, src) IN (SELECT * FROM unnest($1::text[], $2::text[]))", tenants, ids
    )
    rows = [
        (key.tenant, key.id, edge.type, edge.to_etype, edge.to_id, encode_json(edge.properties))
        for key in keys
        for edge in table.entity.edges(bodies[key] or {})
    ]
    if rows:
        await db.run(
            f"INSERT INTO {table.edges} SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], "
            "$5::text[], $6::jsonb[])",
            *map(list, zip(*rows, strict=True)),
        )


async def compared(
    pool: Pool, table: RecordTable, tenant: str, stamps: Sequence[Stamp], bodies: Sequence[tuple[str, Body]]
) -> list[Stamp]:
    """The stamps, with a fault where the stored edges are not those of the body."""
    stored: dict[str, set[tuple[str, str, str, bytes]]] = {}
    sql = f"SELECT src, type, to_etype, dst, properties FROM {table.edges} WHERE tenant = $1 AND src = ANY($2::text[])"
    for src, kind, to, dst, properties in await pool.fetch(sql, tenant, [id for id, _ in bodies]):
        stored.setdefault(src, set()).add((kind, to, dst, _sorted(decode_json(properties))))
    out: list[Stamp] = []
    for stamp, (id, body) in zip(stamps, bodies, strict=True):
        wanted = {(one.type, one.to_etype, one.to_id, _sorted(one.properties)) for one in table.entity.edges(body)}
        found = stored.get(id, set())
        if wanted != found:
            fault = f"graph: {len(wanted - found)} edges are missing, {len(found - wanted)} are not its own"
            stamp = msgspec.structs.replace(stamp, fault=f"{stamp.fault}; {fault}" if stamp.fault else fault)  # noqa: PLW2901
        out.append(stamp)
    return out


def _sorted(properties: Mapping[str, Any]) -> bytes:
    return msgspec.json.encode(properties, order="sorted")


class Edges(NamedTuple):
    """Which edges a walk follows: the entity types of the database with their edge tables, the tenant, the relations,
    and a condition over alias `t` with its parameters."""

    tables: Sequence[tuple[str, str]]
    tenant: str
    types: Sequence[str]
    where: tuple[str, Sequence[object]]


_EDGE = sa.Table("edge", sa.MetaData(), sa.Column("properties", PostgresDialect.types["json"]))
_CONDITIONS = Statements(_EDGE.alias("t"), (), "", PostgresDialect())


def condition(where: Checked | None) -> tuple[str, Sequence[object]]:
    """The condition of `SupportsTraversal` over the columns of any edge table under the alias `t`."""
    return ("TRUE", ()) if where is None else _CONDITIONS.condition(where)


class _Step(NamedTuple):
    """The last edge of a path to a node, as it stands in the store, and the node before."""

    before: Node
    type: str
    inward: bool
    properties: str

    def edge(self, node: Node) -> tuple[str, str, str]:
        ids = (node[1], self.before[1]) if self.inward else (self.before[1], node[1])
        return (ids[0], self.type, ids[1])


async def traverse(
    pool: Pool, edges: Edges, start: Node, direction: Direction, depth: int, limit: int
) -> list[Reached]:
    """See `SupportsTraversal.traverse`.

    Of several shortest paths the one over the smallest nodes is told, so that every run tells the same. Never more
    nodes of one depth are kept than can be part of the answer.
    """
    steps: dict[Node, _Step] = {}
    nearest: list[Reached] = []
    frontier = [start]
    async with pool.transaction(begin=SNAPSHOT) as db:
        for distance in range(1, depth + 1):
            room = limit - len(nearest)
            if room <= 0 or not frontier:
                break
            level: dict[Node, _Step] = {}
            for node, step in await _around(db, edges, frontier, direction):
                if node != start and node not in steps and (node not in level or step < level[node]):
                    level[node] = step
            frontier = nsmallest(room, level)
            for node in frontier:
                steps[node] = step = level[node]
                nearest.append(Reached(*node, distance, _path(steps, node), decode_json(step.properties)))
    return nearest


def _path(steps: Mapping[Node, _Step], node: Node) -> list[tuple[str, str, str]]:
    path: list[tuple[str, str, str]] = []
    while node in steps:
        path.append(steps[node].edge(node))
        node = steps[node].before
    return path[::-1]


async def paths(
    pool: Pool, edges: Edges, start: Node, end: Node, direction: Direction, depth_max: int, limit: int
) -> list[list[Link]]:
    """See `SupportsTraversal.paths`. The walk runs in a thread, which asks for edges through the loop."""
    loop = asyncio.get_running_loop()
    async with pool.transaction(begin=SNAPSHOT) as db:
        given_up = False

        async def steps(nodes: Sequence[Node], direction: Direction) -> list[walking.Step]:
            if given_up:
                raise asyncio.CancelledError
            found: list[walking.Step] = []
            for node, step in await _around(db, edges, nodes, direction):
                source, to = (node, step.before) if step.inward else (step.before, node)
                found.append(walking.Step(step.before, node, Link(*source, step.type, *to)))
            return found

        def around(nodes: Sequence[Node], direction: Direction) -> list[walking.Step]:
            return asyncio.run_coroutine_threadsafe(steps(nodes, direction), loop).result()

        walk = loop.run_in_executor(None, walking.paths, around, start, end, direction, depth_max, limit)
        try:
            return await asyncio.shield(walk)
        except asyncio.CancelledError:
            given_up = True
            await asyncio.gather(walk, return_exceptions=True)  # no thread goes on with a connection given back
            raise


async def _around(
    db: Session, edges: Edges, frontier: Sequence[Node], direction: Direction
) -> list[tuple[Node, _Step]]:
    """Every edge at the nodes of the frontier, in one query per table and direction."""
    found: list[tuple[Node, _Step]] = []
    sources = [etype for etype, _ in frontier], [id for _, id in frontier]
    tenant, kinds, (condition, values) = edges.tenant, list(edges.types), edges.where
    chosen = f"t.tenant = $1 AND t.type = ANY($2::text[]) AND ({shifted(condition, 4)})"
    nodes = "FROM unnest($3::text[], $4::text[]) AS n (etype, id)"
    for etype, table in edges.tables:
        at = [id for one, id in frontier if one == etype]
        if direction != "in" and at:
            sql = (
                f"SELECT t.src, t.type, t.to_etype, t.dst, t.properties {nodes} JOIN {table} t ON t.src = n.id WHERE "
                f"{chosen}"
            )
            given = (tenant, kinds, [etype] * len(at), at, *values)
            for src, kind, to_etype, dst, properties in await db.fetch(sql, *given):
                found.append(((to_etype, dst), _Step((etype, src), kind, False, properties)))
        if direction != "out":
            sql = (
                f"SELECT t.src, t.type, t.to_etype, t.dst, t.properties {nodes} JOIN {table} t ON t.to_etype = n.etype "
                f"AND t.dst = n.id WHERE {chosen}"
            )
            for src, kind, to_etype, dst, properties in await db.fetch(sql, tenant, kinds, *sources, *values):
                found.append(((etype, src), _Step((to_etype, dst), kind, True, properties)))
    return found
