"""Edges in PostgreSQL: one table per entity type, walked breadth first, all levels in one statement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from polystore.filters import Checked
from polystore.model import Body, Direction, Key, Link, Reached, Stamp
from polystore.relational import Statements, edges
from polystore.relational.edges import Edges, Step
from polystore.walking import Node
from polystore_adapters.postgresql.dialect import PostgresDialect, encode_json, ident
from polystore_adapters.postgresql.placeholders import shifted
from polystore_adapters.postgresql.pool import Pool, Session
from polystore_adapters.postgresql.table import RecordTable

CHAIN_MAX = 24
"""Tables times levels in one statement: beyond it takes longer to plan than to walk."""
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
    pool: Pool, table: RecordTable, tenant: str, stamps: Sequence[Stamp], bodies: Mapping[str, Body]
) -> list[Stamp]:
    """The stamps, with a fault where the stored edges are not those of the body, if it can be read."""
    stored: dict[str, list[edges.Stored]] = {}
    sql = f"SELECT src, type, to_etype, dst, properties FROM {table.edges} WHERE tenant = $1 AND src = ANY($2::text[])"
    for src, kind, to, dst, properties in await pool.fetch(sql, tenant, list(bodies)):
        stored.setdefault(src, []).append((kind, to, dst, properties))
    return edges.compared(table.entity, stamps, bodies, stored)


_EDGE = sa.Table("edge", sa.MetaData(), sa.Column("properties", PostgresDialect.types["json"]))
_CONDITIONS = Statements(_EDGE.alias("t"), (), "", PostgresDialect())


def condition(where: Checked | None) -> tuple[str, Sequence[object]]:
    """The condition of `SupportsTraversal` over the columns of any edge table under the alias `t`."""
    return ("TRUE", ()) if where is None else _CONDITIONS.condition(where)


async def traverse(
    pool: Pool, chosen: Edges, start: Node, direction: Direction, depth: int, limit: int
) -> list[Reached]:
    """See `SupportsTraversal.traverse`: by one statement, or a level at a time where that would be too long a one."""
    if depth * len(chosen.tables) > CHAIN_MAX:
        async with pool.transaction(begin=SNAPSHOT) as db:
            return await edges.traverse(around(db, chosen), start, direction, depth, limit)
    if depth <= 0 or limit <= 0:
        return []
    given = (chosen.tenant, list(chosen.types), *start, limit, *chosen.where[1])
    levels: list[dict[Node, Step]] = [{} for _ in range(depth)]
    for distance, etype, id, before_etype, before, *edge in await pool.fetch(_chain(chosen, direction, depth), *given):
        levels[distance - 1][etype, id] = Step((before_etype, before), *edge)
    return edges.reached(levels)


def _chain(chosen: Edges, direction: Direction, depth: int) -> str:
    """$1 tenant, $2 types, $3 and $4 the start, $5 limit, then those of the condition.

    A level is a query over the one before: the nodes that no level had yet, each by its smallest step, and no more of
    them than can be part of the answer. (WITH RECURSIVE can neither leave out what an earlier level had nor stop at so
    many; it walks all ways there are.)
    """
    condition = f"t.tenant = $1 AND t.type = ANY($2::text[]) AND ({shifted(chosen.where[0], 5)})"
    edge = "p.etype AS before_etype, p.id AS before, t.type, t.properties::text AS properties"
    levels = ['l0 AS (SELECT $3::text COLLATE "C" AS etype, $4::text COLLATE "C" AS id)']
    for level in range(1, depth + 1):
        ways: list[str] = []
        for etype, table in chosen.tables:
            name, source = _text(etype), f"FROM l{level - 1} p JOIN {table} t"
            if direction != "in":
                out = f"SELECT t.to_etype AS etype, t.dst AS id, {edge}, FALSE AS inward"
                ways.append(f"{out} {source} ON t.src = p.id WHERE p.etype = {name} AND {condition}")
            if direction != "out":
                back = f"SELECT {name} AS etype, t.src AS id, {edge}, TRUE AS inward"
                ways.append(f"{back} {source} ON t.to_etype = p.etype AND t.dst = p.id WHERE {condition}")
        known = range(level)
        new = " AND ".join(f"NOT EXISTS (SELECT FROM l{i} s WHERE s.etype = w.etype AND s.id = w.id)" for i in known)
        room = " - ".join(["$5::bigint", *(f"(SELECT count(*) FROM l{i})" for i in known if i)])
        levels.append(
            f"l{level} AS MATERIALIZED (SELECT DISTINCT ON (w.etype, w.id) {level} AS depth, w.etype, w.id, "
            "w.before_etype, w.before, w.type, w.inward, w.properties FROM "
            f"({' UNION ALL '.join(ways)}) AS w WHERE {new} ORDER BY w.etype, w.id, w.before_etype, w.before, w.type, "
            f'w.inward, w.properties COLLATE "C" LIMIT greatest({room}, 0))'
        )
    every = " UNION ALL ".join(f"SELECT * FROM l{level}" for level in range(1, depth + 1))
    return f"WITH {', '.join(levels)} {every}"


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + '\'::text COLLATE "C"'


async def paths(
    pool: Pool, chosen: Edges, start: Node, end: Node, direction: Direction, depth_max: int, limit: int
) -> list[list[Link]]:
    """See `SupportsTraversal.paths`."""
    async with pool.transaction(begin=SNAPSHOT) as db:
        return await edges.paths(around(db, chosen), start, end, direction, depth_max, limit)


def around(db: Session, chosen: Edges) -> edges.Around:
    """Asks for edges in the transaction of the session."""

    async def found(nodes: Sequence[Node], direction: Direction) -> list[tuple[Node, Step]]:
        return await _around(db, chosen, nodes, direction)

    return found


async def _around(
    db: Session, chosen: Edges, frontier: Sequence[Node], direction: Direction
) -> list[tuple[Node, Step]]:
    """Every edge at the nodes of the frontier, in one query per table and direction."""
    found: list[tuple[Node, Step]] = []
    sources = [etype for etype, _ in frontier], [id for _, id in frontier]
    tenant, kinds, (condition, values) = chosen.tenant, list(chosen.types), chosen.where
    among = f"t.tenant = $1 AND t.type = ANY($2::text[]) AND ({shifted(condition, 4)})"
    nodes = "FROM unnest($3::text[], $4::text[]) AS n (etype, id)"
    for etype, table in chosen.tables:
        at = [id for one, id in frontier if one == etype]
        if direction != "in" and at:
            sql = (
                f"SELECT t.src, t.type, t.to_etype, t.dst, t.properties {nodes} JOIN {table} t ON t.src = n.id WHERE "
                f"{among}"
            )
            given = (tenant, kinds, [etype] * len(at), at, *values)
            for src, kind, to_etype, dst, properties in await db.fetch(sql, *given):
                found.append(((to_etype, dst), Step((etype, src), kind, False, properties)))
        if direction != "out":
            sql = (
                f"SELECT t.src, t.type, t.to_etype, t.dst, t.properties {nodes} JOIN {table} t ON t.to_etype = n.etype "
                f"AND t.dst = n.id WHERE {among}"
            )
            for src, kind, to_etype, dst, properties in await db.fetch(sql, tenant, kinds, *sources, *values):
                found.append(((etype, src), Step((to_etype, dst), kind, True, properties)))
    return found
