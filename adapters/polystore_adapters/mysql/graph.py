"""Edges in MariaDB: one table per entity type, walked breadth first, a level in a query."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from heapq import nsmallest
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa

from polystore import walking
from polystore.filters import Checked
from polystore.model import Body, Direction, Key, Link, Reached, Stamp
from polystore.relational import Statements
from polystore.walking import Node
from polystore_adapters.mysql.dialect import MysqlDialect, decode_json, encode_json
from polystore_adapters.mysql.pool import Pool, Session
from polystore_adapters.mysql.schema import TABLE_OPTIONS
from polystore_adapters.mysql.table import RecordTable

SNAPSHOT = "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"


def create_sql(table: RecordTable) -> str:
    """`slot` is a hash of the whole place, which an index has no room for."""
    return (
        f"CREATE TABLE IF NOT EXISTS {table.edges} (slot BINARY(16) PRIMARY KEY, tenant VARCHAR(128) NOT NULL, "
        "src VARCHAR(512) NOT NULL, type VARCHAR(255) NOT NULL, to_etype VARCHAR(64) NOT NULL, "
        "dst VARCHAR(512) NOT NULL, "
        f"properties LONGTEXT NOT NULL, KEY (tenant, src), KEY (tenant, dst)) {TABLE_OPTIONS}"
    )


def slot_of(*parts: str) -> bytes:
    """A key of fixed size for texts that are too long together."""
    return blake2b("\0".join(parts).encode(), digest_size=16).digest()


async def replace(db: Session, table: RecordTable, bodies: Mapping[Key, Body | None]) -> None:
    """Give each record the edges of its body; None: none. Under the lock of the records' rows."""
    if not bodies:
        return
    keys = sorted(bodies, key=lambda key: (key.tenant, key.id))
    places = tuple((key.tenant, key.id) for key in keys)
    await db.run(f"DELETE FROM {table.edges} WHERE (tenant, src) IN %s", places)
    rows = [
        (
            slot_of(key.tenant, key.id, edge.type, edge.to_etype, edge.to_id),
            *(key.tenant, key.id, edge.type, edge.to_etype, edge.to_id, encode_json(edge.properties)),
        )
        for key in keys
        for edge in table.entity.edges(bodies[key] or {})
    ]
    await db.insert(f"INSERT INTO {table.edges}".replace("%%", "%"), rows)


async def compared(
    db: Session, table: RecordTable, tenant: str, stamps: Sequence[Stamp], bodies: Sequence[tuple[str, Body]]
) -> list[Stamp]:
    """The stamps, with a fault where the stored edges are not those of the body."""
    stored: dict[str, set[tuple[str, str, str, bytes]]] = {}
    sql = f"SELECT src, type, to_etype, dst, properties FROM {table.edges} WHERE tenant = %s AND src IN %s"
    for src, kind, to, dst, properties in await db.fetch(sql, tenant, tuple(id for id, _ in bodies)):
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
    where: tuple[str, Sequence[Any]]


_EDGE = sa.Table("edge", sa.MetaData(), sa.Column("properties", MysqlDialect.types["json"]))
_CONDITIONS = Statements(_EDGE.alias("t"), (), "", MysqlDialect())


def condition(where: Checked | None) -> tuple[str, Sequence[Any]]:
    """The condition of `SupportsTraversal` over the columns of any edge table under the alias `t`."""
    return ("1 = 1", ()) if where is None else _CONDITIONS.condition(where)


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
    condition, values = edges.where
    chosen = f"WHERE t.tenant = %s AND t.type IN %s AND ({condition})"
    given = (edges.tenant, tuple(edges.types) or ("",), *values)
    for etype, table in edges.tables:
        select = f"SELECT t.src, t.type, t.to_etype, t.dst, t.properties FROM {table} AS t {chosen}"
        at = tuple(id for one, id in frontier if one == etype)
        if direction != "in" and at:
            for src, kind, to_etype, dst, properties in await db.fetch(f"{select} AND t.src IN %s", *given, at):
                found.append(((to_etype, dst), _Step((etype, src), kind, False, properties)))
        if direction != "out" and frontier:
            sql = f"{select} AND (t.to_etype, t.dst) IN %s"
            for src, kind, to_etype, dst, properties in await db.fetch(sql, *given, tuple(frontier)):
                found.append(((etype, src), _Step((to_etype, dst), kind, True, properties)))
    return found
