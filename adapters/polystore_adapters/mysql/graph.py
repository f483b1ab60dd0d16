"""Edges in MariaDB: one table per entity type, walked breadth first, a level in a query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

import sqlalchemy as sa

from polystore.filters import Checked
from polystore.model import Body, Direction, Key, Stamp
from polystore.relational import Statements, edges
from polystore.relational.edges import Edges, Step
from polystore.walking import Node
from polystore_adapters.mysql.dialect import MysqlDialect, encode_json
from polystore_adapters.mysql.pool import Session
from polystore_adapters.mysql.table import RecordTable


def create_sql(table: RecordTable) -> str:
    """`slot` is a hash of the whole place, which an index has no room for."""
    return (
        f"CREATE TABLE IF NOT EXISTS {table.edges} (slot BINARY(16) PRIMARY KEY, tenant VARCHAR(128) NOT NULL, "
        "src VARCHAR(512) NOT NULL, type VARCHAR(255) NOT NULL, to_etype VARCHAR(64) NOT NULL, "
        "dst VARCHAR(512) NOT NULL, "
        "properties LONGTEXT NOT NULL, KEY (tenant, src), KEY (tenant, dst))"
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
    db.later(f"DELETE FROM {table.edges} WHERE (tenant, src) IN %s", places)
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
    db: Session, table: RecordTable, tenant: str, stamps: Sequence[Stamp], bodies: Mapping[str, Body]
) -> list[Stamp]:
    """The stamps, with a fault where the stored edges are not those of the body, if it can be read."""
    stored: dict[str, list[edges.Stored]] = {}
    sql = f"SELECT src, type, to_etype, dst, properties FROM {table.edges} WHERE tenant = %s AND src IN %s"
    for src, *one in await db.fetch(sql, tenant, tuple(bodies)):
        kind, to, dst, properties = one
        stored.setdefault(src, []).append((kind, to, dst, properties))
    return edges.compared(table.entity, stamps, bodies, stored)


_EDGE = sa.Table("edge", sa.MetaData(), sa.Column("properties", MysqlDialect.types["json"]))
_CONDITIONS = Statements(_EDGE.alias("t"), (), "", MysqlDialect())


def condition(where: Checked | None) -> tuple[str, Sequence[Any]]:
    """The condition of `SupportsTraversal` over the columns of any edge table under the alias `t`."""
    return ("1 = 1", ()) if where is None else _CONDITIONS.condition(where)


def around(db: Session, chosen: Edges) -> edges.Around:
    """Asks for edges in the transaction of the session."""

    async def found(nodes: Sequence[Node], direction: Direction) -> list[tuple[Node, Step]]:
        return await _around(db, chosen, nodes, direction)

    return found


async def _around(db: Session, edges: Edges, frontier: Sequence[Node], direction: Direction) -> list[tuple[Node, Step]]:
    found: list[tuple[Node, Step]] = []
    condition, values = edges.where
    chosen = f"WHERE t.tenant = %s AND t.type IN %s AND ({condition})"
    given = (edges.tenant, tuple(edges.types) or ("",), *values)
    for etype, table in edges.tables:
        select = f"SELECT t.src, t.type, t.to_etype, t.dst, t.properties FROM {table} AS t {chosen}"
        at = tuple(id for one, id in frontier if one == etype)
        if direction != "in" and at:
            for src, kind, to_etype, dst, properties in await db.fetch(f"{select} AND t.src IN %s", *given, at):
                found.append(((to_etype, dst), Step((etype, src), kind, False, properties)))
        if direction != "out" and frontier:
            sql = f"{select} AND t.dst IN %s AND (t.to_etype, t.dst) IN %s"  # the index is of the first
            ids = tuple({id for _, id in frontier})
            for src, kind, to_etype, dst, properties in await db.fetch(sql, *given, ids, tuple(frontier)):
                found.append(((etype, src), Step((to_etype, dst), kind, True, properties)))
    return found
