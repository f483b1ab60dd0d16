"""Edges in SQLite: one table per entity type, walked breadth first."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from heapq import nsmallest
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa

from polystore import walking
from polystore.entity import EntityType
from polystore.filters import Checked
from polystore.model import Direction, Link, Reached
from polystore.relational import Statements
from polystore.walking import Node
from polystore_adapters.sqlite.dialect import SqliteDialect

from . import FacetRow
from .tables import follow, json_list, snapshot


class GraphFacet:
    """The edges that records of one entity type have to others; replaced with the record."""

    def __init__(self, entity: EntityType[Any]) -> None:
        self._entity = entity
        self._name = name = f"ps_edge_{entity.name}"
        declared = ", ".join(f"{field} {one.type} {one.to}" for field, one in entity.relations.items())
        self._create = [
            f'CREATE TABLE "{name}" (rid INTEGER NOT NULL, tenant TEXT NOT NULL, src TEXT NOT NULL, '
            "type TEXT NOT NULL, to_etype TEXT NOT NULL, dst TEXT NOT NULL, properties TEXT NOT NULL, "
            f"PRIMARY KEY (rid, type, to_etype, dst) /* {declared} */) WITHOUT ROWID",
            f'CREATE INDEX "{name}_out" ON "{name}" (tenant, src, type)',
            f'CREATE INDEX "{name}_in" ON "{name}" (tenant, dst, to_etype, type)',
        ]

    @property
    def table(self) -> str:
        """What `traverse` takes for this entity type."""
        return self._name

    def create(self, db: sqlite3.Connection) -> bool:
        return follow(db, self._name, self._create)

    def remove(self, db: sqlite3.Connection, rids: Sequence[int]) -> None:
        db.executemany(f'DELETE FROM "{self._name}" WHERE rid = ?', [(rid,) for rid in rids])

    def put(self, db: sqlite3.Connection, rows: Sequence[FacetRow]) -> None:
        self.remove(db, [row.rid for row in rows])
        edges = [(row.rid, *edge) for row in rows for edge in self._edges(row)]
        db.executemany(f'INSERT INTO "{self._name}" VALUES (?, ?, ?, ?, ?, ?, ?)', edges)

    def faults(self, db: sqlite3.Connection, rows: Sequence[FacetRow]) -> Mapping[int, str]:
        stored: dict[int, set[tuple[str, ...]]] = {}
        sql = (
            f'SELECT rid, tenant, src, type, to_etype, dst, properties FROM "{self._name}" '
            "WHERE rid IN (SELECT value FROM json_each(?))"
        )
        for rid, *edge in db.execute(sql, (json_list(row.rid for row in rows),)):
            stored.setdefault(rid, set()).add(tuple(edge))
        faults: dict[int, str] = {}
        for row in rows:
            wanted, found = set(self._edges(row)), stored.get(row.rid, set())
            if wanted != found:
                faults[row.rid] = (
                    f"graph: {len(wanted - found)} edges are missing, {len(found - wanted)} are not its own"
                )
        return faults

    def _edges(self, row: FacetRow) -> list[tuple[str, ...]]:
        return [
            (row.tenant, row.id, edge.type, edge.to_etype, edge.to_id, _encode(edge.properties))
            for edge in self._entity.edges(row.body)
        ]


def _encode(properties: Mapping[str, Any]) -> str:
    """Equal properties, equal text."""
    return msgspec.json.encode(properties, order="sorted").decode() if properties else "{}"


class Edges(NamedTuple):
    """Which edges a walk follows: the entity types of the file with their edge tables, the tenant, the relations, and
    a condition over alias `t` with its parameters."""

    tables: Sequence[tuple[str, str]]
    tenant: str
    types: Sequence[str]
    where: tuple[str, Sequence[object]]


_EDGE = sa.Table("edge", sa.MetaData(), sa.Column("properties", sa.Text()))
_CONDITIONS = Statements(_EDGE.alias("t"), (), "", SqliteDialect())


def condition(where: Checked | None) -> tuple[str, Sequence[object]]:
    """The condition of `SupportsTraversal` over the columns of any edge table under the alias `t`."""
    return ("1", ()) if where is None else _CONDITIONS.condition(where)


class _Step(NamedTuple):
    """The last edge of a path to a node, as it stands in the store, and the node before."""

    before: Node
    type: str
    inward: bool
    properties: str

    def edge(self, node: Node) -> tuple[str, str, str]:
        ids = (node[1], self.before[1]) if self.inward else (self.before[1], node[1])
        return (ids[0], self.type, ids[1])


def traverse(
    db: sqlite3.Connection, edges: Edges, start: Node, direction: Direction, depth: int, limit: int
) -> list[Reached]:
    """See `SupportsTraversal.traverse`.

    Of several shortest paths the one over the smallest nodes is told, so that every run tells the same. An edge of a
    path reads from its record to the other one, also where it was walked against its direction. Never more than a few
    times `limit` nodes are in memory: of one depth only the smallest can be part of the answer.
    """
    steps: dict[Node, _Step] = {}
    nearest: list[Reached] = []
    frontier = [start]
    with snapshot(db):
        for distance in range(1, depth + 1):
            room = limit - len(nearest)
            if room <= 0 or not frontier:
                break
            level: dict[Node, _Step] = {}
            for node, step in _around(db, edges, frontier, direction):
                if node == start or node in steps or (node in level and level[node] <= step):
                    continue
                level[node] = step
                if len(level) > 2 * room + 1000:
                    level = {kept: level[kept] for kept in nsmallest(room, level)}
            frontier = nsmallest(room, level)
            for node in frontier:
                steps[node] = step = level[node]
                properties = msgspec.json.decode(step.properties)
                nearest.append(Reached(*node, distance, _path(steps, node), properties))
    return nearest


def _path(steps: Mapping[Node, _Step], node: Node) -> list[tuple[str, str, str]]:
    path: list[tuple[str, str, str]] = []
    while node in steps:
        path.append(steps[node].edge(node))
        node = steps[node].before
    return path[::-1]


def paths(
    db: sqlite3.Connection, edges: Edges, start: Node, end: Node, direction: Direction, depth_max: int, limit: int
) -> list[list[Link]]:
    """See `SupportsTraversal.paths`."""

    def around(nodes: Sequence[Node], direction: Direction) -> Iterator[walking.Step]:
        for node, step in _around(db, edges, nodes, direction):
            source, end = (node, step.before) if step.inward else (step.before, node)
            yield walking.Step(step.before, node, Link(*source, step.type, *end))

    with snapshot(db):
        return walking.paths(around, start, end, direction, depth_max, limit)


def _around(
    db: sqlite3.Connection, edges: Edges, frontier: Sequence[Node], direction: Direction
) -> Iterator[tuple[Node, _Step]]:
    """Every edge at the nodes of the frontier, in one query per table and entity type."""
    ids: dict[str, list[str]] = {}
    for etype, id in frontier:
        ids.setdefault(etype, []).append(id)
    tenant, kinds, (condition, values) = edges.tenant, json_list(edges.types), edges.where
    for etype, table in edges.tables:
        # CROSS JOIN: the nodes are walked and the edges looked up, never the other way round.
        join = f'FROM json_each(?) AS node CROSS JOIN "{table}" AS t ON t.tenant = ?'
        chosen = f"t.type IN (SELECT value FROM json_each(?)) AND ({condition})"
        if direction != "in" and etype in ids:
            sql = f"SELECT t.src, t.type, t.to_etype, t.dst, t.properties {join} AND t.src = node.value AND {chosen}"
            given = (json_list(ids[etype]), tenant, kinds, *values)
            for src, kind, to_etype, dst, properties in db.execute(sql, given):
                yield (to_etype, dst), _Step((etype, src), kind, False, properties)
        if direction != "out":
            sql = (
                f"SELECT t.src, t.type, t.dst, t.properties {join} AND t.to_etype = ? AND t.dst = node.value "
                f"AND {chosen}"
            )
            for to_etype, at in ids.items():
                for src, kind, dst, properties in db.execute(sql, (json_list(at), tenant, to_etype, kinds, *values)):
                    yield (etype, src), _Step((to_etype, dst), kind, True, properties)
