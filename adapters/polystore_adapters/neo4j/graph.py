"""Walks: a level in a query, by what all SQL stores walk with (`polystore.relational.edges`)."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from polystore.filters import Checked, predicate
from polystore.model import Direction
from polystore.relational.edges import Around, Step
from polystore.walking import Node
from polystore_adapters.neo4j.nodes import key_of
from polystore_adapters.neo4j.server import Row, Server, names, quoted

NODES = 1_000
"""Nodes whose relationships one query asks for."""


def around(server: Server, tenant: str, types: Sequence[str], where: Checked | None) -> Around:
    """Every edge of these types at given nodes, for which the condition holds."""
    holds = None if where is None else predicate(where)
    kinds = "|".join(names(types).split(", "))

    async def found(nodes: Sequence[Node], direction: Direction) -> list[tuple[Node, Step]]:
        steps: list[tuple[Node, Step]] = []
        for start in range(0, len(nodes) if types else 0, NODES):
            keys = [key_of(tenant, node) for node in nodes[start : start + NODES]]
            for inward in (False, True):
                if direction != ("out" if inward else "in"):
                    steps += [
                        _step(row, inward)
                        for row in await server.read(_query(server, kinds, inward), keys=keys)
                        if holds is None or holds({"properties": msgspec.json.decode(row["properties"])})
                    ]
        return steps

    return found


def _query(server: Server, kinds: str, inward: bool) -> str:
    label = quoted(server.label)
    arrow = f"<-[e:{kinds}]-" if inward else f"-[e:{kinds}]->"
    return (
        f"MATCH (n:{label}){arrow}(m:{label}) WHERE n.ps_key IN $keys AND e.ps_properties IS NOT NULL "
        "RETURN n.ps_etype AS etype, n.ps_id AS id, m.ps_etype AS to_etype, m.ps_id AS to_id, type(e) AS type, "
        "e.ps_properties AS properties"
    )


def _step(row: Row, inward: bool) -> tuple[Node, Step]:
    return (row["to_etype"], row["to_id"]), Step((row["etype"], row["id"]), row["type"], inward, row["properties"])
