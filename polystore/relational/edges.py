"""Walks along edges that lie in SQL tables, and what is wrong with those of a record.

A store says which edges are at given nodes, in one query per table and direction; the walk is here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from heapq import nsmallest
from typing import Any, NamedTuple

import msgspec

from polystore import walking
from polystore.entity import EntityType
from polystore.model import Body, Direction, Link, Reached, Stamp
from polystore.walking import Node

_decode = msgspec.json.Decoder().decode
Stored = tuple[str, str, str, str]
"""Relation, entity and id of the end, and the properties as JSON."""


class Edges(NamedTuple):
    """Which edges a walk follows: the entity types of the database with their edge tables, the tenant, the relations,
    and a condition over alias `t` with its parameters."""

    tables: Sequence[tuple[str, str]]
    tenant: str
    types: Sequence[str]
    where: tuple[str, Sequence[Any]]


class Step(NamedTuple):
    """The last edge of a path to a node, as it stands in the store, and the node before. Properties are JSON."""

    before: Node
    type: str
    inward: bool
    properties: str

    def edge(self, node: Node) -> tuple[str, str, str]:
        ids = (node[1], self.before[1]) if self.inward else (self.before[1], node[1])
        return (ids[0], self.type, ids[1])


Around = Callable[[Sequence[Node], Direction], Awaitable[Iterable[tuple[Node, Step]]]]
"""Every edge at the nodes in a direction, with the node at its other end."""


async def traverse(around: Around, start: Node, direction: Direction, depth: int, limit: int) -> list[Reached]:
    """See `SupportsTraversal.traverse`.

    Of several shortest paths the one over the smallest nodes is told, so that every run tells the same. Never more
    nodes of one depth are kept than can be part of the answer.
    """
    steps: dict[Node, Step] = {}
    levels: list[dict[Node, Step]] = []
    frontier = [start]
    while len(levels) < depth and frontier and len(steps) < limit:
        level: dict[Node, Step] = {}
        for node, step in await around(frontier, direction):
            if node != start and node not in steps and (node not in level or step < level[node]):
                level[node] = step
        frontier = nsmallest(limit - len(steps), level)
        levels.append({node: level[node] for node in frontier})
        steps |= levels[-1]
    return reached(levels)


def reached(levels: Sequence[Mapping[Node, Step]]) -> list[Reached]:
    """The nodes of each level with the steps that lead to them, in order, with their paths from the start."""
    steps: dict[Node, Step] = {}
    nearest: list[Reached] = []
    for distance, level in enumerate(levels, 1):
        for node in sorted(level):
            steps[node] = step = level[node]
            nearest.append(Reached(*node, distance, _path(steps, node), _decode(step.properties)))
    return nearest


def _path(steps: Mapping[Node, Step], node: Node) -> list[tuple[str, str, str]]:
    path: list[tuple[str, str, str]] = []
    while node in steps:
        path.append(steps[node].edge(node))
        node = steps[node].before
    return path[::-1]


async def paths(
    around: Around, start: Node, end: Node, direction: Direction, depth_max: int, limit: int
) -> list[list[Link]]:
    """See `SupportsTraversal.paths`. The walk runs in a thread, which asks for edges through the loop; when this
    returns or raises, it asks no more."""
    loop = asyncio.get_running_loop()
    given_up = False

    async def steps(nodes: Sequence[Node], direction: Direction) -> list[walking.Step]:
        if given_up:
            raise asyncio.CancelledError
        found: list[walking.Step] = []
        for node, step in await around(nodes, direction):
            source, to = (node, step.before) if step.inward else (step.before, node)
            found.append(walking.Step(step.before, node, Link(*source, step.type, *to)))
        return found

    def asked(nodes: Sequence[Node], direction: Direction) -> list[walking.Step]:
        return asyncio.run_coroutine_threadsafe(steps(nodes, direction), loop).result()

    walk = loop.run_in_executor(None, walking.paths, asked, start, end, direction, depth_max, limit)
    try:
        return await asyncio.shield(walk)
    except asyncio.CancelledError:
        given_up = True
        await asyncio.gather(walk, return_exceptions=True)
        raise


def compared(
    entity: EntityType[Any],
    stamps: Sequence[Stamp],
    bodies: Mapping[str, Body],
    stored: Mapping[str, Sequence[Stored]],
) -> list[Stamp]:
    """The stamps, with a fault where the stored edges of a record are not those of its body, if that can be read."""
    out: list[Stamp] = []
    for stamp in stamps:
        body = bodies.get(stamp.id)
        wrong = "" if body is None else fault(entity, body, stored.get(stamp.id, ()))
        faults = [one for one in (stamp.fault, wrong) if one]
        out.append(msgspec.structs.replace(stamp, fault="; ".join(faults)))
    return out


def fault(entity: EntityType[Any], body: Body, stored: Iterable[Stored]) -> str:
    """What is wrong with the edges of a record; "" where they are those of its body."""
    wanted = {(one.type, one.to_etype, one.to_id, _sorted(one.properties)) for one in entity.edges(body)}
    found = {(kind, to, id, _sorted(_decode(properties))) for kind, to, id, properties in stored}
    if wanted == found:
        return ""
    return f"graph: {len(wanted - found)} edges are missing, {len(found - wanted)} are not its own"


def _sorted(properties: Mapping[str, Any]) -> bytes:
    return msgspec.json.encode(properties, order="sorted")
