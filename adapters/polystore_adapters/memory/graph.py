"""The edges of a memory server, walked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from polystore import walking
from polystore.errors import UnsupportedOperation
from polystore.filters import Checked, predicate
from polystore.model import Direction, Key, Link, Reached
from polystore.walking import Node

from .tables import Tables, copied

_Edge = tuple[Key, str, Key, Mapping[str, Any]]
"""The record that has the edge, relation, its other end, properties."""
_Choice = Callable[[str, Mapping[str, Any]], bool]


class Graph(Tables):
    """Nothing here changes anything."""

    def traverse(
        self,
        etype: str,
        tenant: str,
        id: str,
        types: Sequence[str],
        direction: Direction,
        depth: int,
        where: Checked | None,
        limit: int,
    ) -> list[Reached]:
        chosen = self._choice(types, where)
        start = Key(tenant, etype, id)
        seen = {start}
        reached: list[Reached] = []
        paths: dict[Key, tuple[tuple[str, str, str], ...]] = {start: ()}
        for step in range(1, depth + 1):
            further: dict[Key, tuple[tuple[str, str, str], ...]] = {}
            ring: list[Reached] = []
            for node in sorted(paths, key=_order):  # of several shortest paths, always the same one
                for source, relation, end, properties in self._edges(node, direction, chosen):
                    other = end if source == node else source
                    if other in seen:
                        continue
                    seen.add(other)
                    further[other] = (*paths[node], (source.id, relation, end.id))
                    ring.append(Reached(other.etype, other.id, step, further[other], copied(properties)))
            reached += sorted(ring, key=lambda one: (one.etype, one.id))
            if not ring or len(reached) >= limit:
                break
            paths = further
        return reached[:limit]

    def paths(
        self,
        start: Key,
        end: Key,
        types: Sequence[str],
        direction: Direction,
        depth_max: int,
        where: Checked | None,
        limit: int,
    ) -> list[list[Link]]:
        chosen = self._choice(types, where)

        def around(nodes: Sequence[Node], direction: Direction) -> Iterator[walking.Step]:
            for etype, id in nodes:
                node = Key(start.tenant, etype, id)
                for source, relation, to, _ in self._edges(node, direction, chosen):
                    other = to if source == node else source
                    link = Link(*_order(source), relation, *_order(to))
                    yield walking.Step((etype, id), _order(other), link)

        return walking.paths(around, _order(start), _order(end), direction, depth_max, limit)

    def _choice(self, types: Sequence[str], where: Checked | None) -> _Choice:
        """Whether a walk follows an edge. Raises UnsupportedOperation where there are none."""
        # The start may be of a type that only others point to, and that this store knows nothing else of.
        if not any("graph" in layout.facets for layout in self.layouts.values()):
            raise UnsupportedOperation("no type was prepared with graph here")
        if where is None:
            return lambda relation, properties: relation in types
        holds = predicate(where)
        return lambda relation, properties: relation in types and holds({"properties": properties})

    def _edges(self, node: Key, direction: Direction, chosen: _Choice) -> list[_Edge]:
        """The chosen edges at a node."""
        row = self.part(node.etype, node.tenant).rows.get(node.id) if node.etype in self.layouts else None
        own = row.edges if row is not None and direction != "in" else ()
        others = self.incoming.get(node, {}) if direction != "out" else {}
        edges = [(node, edge.type, Key(node.tenant, edge.to_etype, edge.to_id), edge.properties) for edge in own]
        edges += [(source, relation, node, edge.properties) for (source, relation), edge in others.items()]
        return sorted((edge for edge in edges if chosen(edge[1], edge[3])), key=lambda edge: edge[1])


def _order(node: Key) -> Node:
    return node.etype, node.id
