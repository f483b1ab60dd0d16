"""Walks, broken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from polystore_adapters.memory import MemoryServer

from polystore.filters import Checked
from polystore.model import Direction, Key, Link, Reached
from polystore.testing.conformance import TraversalConformance
from tests.contract.broken.registry import fails


@fails(TraversalConformance, "test_only_the_given_relations_count_and_ends_may_be_of_another_entity")
class EveryRelation(MemoryServer):
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
        every = ("KNOWS", "LIKES", "REPORTS_TO", "UNDER")
        return super().traverse(etype, tenant, id, every, direction, depth, where, limit)


@fails(TraversalConformance, "test_cycles_end_and_nobody_reaches_himself")
class StartReached(MemoryServer):
    """On a cycle the start is found again."""

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
        found = super().traverse(etype, tenant, id, types, direction, depth, where, limit)
        return [*found, Reached(etype, id, depth, (), {})] if depth > 5 else found


class _Paths:
    """Paths as they are, or as a fault makes them. To be mixed into a server."""

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
        return self.faulty(start, end, types, direction, depth_max, where, limit)

    def faulty(self, *asked: Any) -> list[list[Link]]:
        found: list[list[Link]] = cast(Any, super()).paths(*asked)
        return found


@fails(TraversalConformance, "test_an_edge_that_does_not_satisfy_the_condition_is_not_followed")
class EdgesFilteredAtTheEnd(MemoryServer):
    """The condition is tested on the last edge only, after the walk: what lies behind other edges is reached."""

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
        near = {one.id for one in super().traverse(etype, tenant, id, types, direction, 1, where, limit)}
        found = super().traverse(etype, tenant, id, types, direction, depth, None, limit)
        return [one for one in found if one.depth > 1 or one.id in near]


@fails(TraversalConformance, "test_a_condition_on_edges_comes_before_the_limit")
class EdgesFilteredAfterTheLimit(MemoryServer):
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
        allowed = {one.id for one in super().traverse(etype, tenant, id, types, direction, depth, where, 1_000_000)}
        found = super().traverse(etype, tenant, id, types, direction, depth, None, limit)
        return [one for one in found if one.id in allowed]


@fails(TraversalConformance, "test_paths_of_random_graphs_are_those_that_trying_everything_finds")
class ShortestOnly(_Paths, MemoryServer):
    def faulty(self, *asked: Any) -> list[list[Link]]:
        found = super().faulty(*asked)
        return [path for path in found if len(path) == len(found[0])]


@fails(TraversalConformance, "test_paths_of_random_graphs_are_those_that_trying_everything_finds")
class PathsUnordered(_Paths, MemoryServer):
    """The first that are found, not the first that there are."""

    def faulty(self, *asked: Any) -> list[list[Link]]:
        return sorted(super().faulty(*asked[:-1], 1_000_000), key=lambda path: [link.id for link in path])[: asked[-1]]


@fails(TraversalConformance, "test_edges_between_the_same_two_are_paths_of_their_own")
class OneEdgeBetweenTwo(_Paths, MemoryServer):
    def faulty(self, *asked: Any) -> list[list[Link]]:
        by_nodes = {tuple((link.id, link.to_id) for link in path): path for path in super().faulty(*asked)}
        return list(by_nodes.values())


@fails(TraversalConformance, "test_edges_between_the_same_two_are_paths_of_their_own")
class PathConditionIgnored(_Paths, MemoryServer):
    def faulty(self, *asked: Any) -> list[list[Link]]:
        return super().faulty(*asked[:5], None, asked[6])


@fails(TraversalConformance, "test_paths_lead_over_types_in_a_direction_and_read_as_the_edges_stand")
class PathsAsWalked(_Paths, MemoryServer):
    """Edges that were walked against their direction are turned round."""

    def faulty(self, *asked: Any) -> list[list[Link]]:
        def turned(path: list[Link], start: Key) -> list[Link]:
            out: list[Link] = []
            at = (start.etype, start.id)
            for one in path:
                own = (one.etype, one.id) == at
                at = (one.to_etype, one.to_id) if own else (one.etype, one.id)
                out.append(one if own else Link(one.to_etype, one.to_id, one.type, one.etype, one.id))
            return out

        return [turned(path, asked[0]) for path in super().faulty(*asked)]


@fails(TraversalConformance, "test_a_dense_graph_is_answered_or_refused_never_answered_in_part")
class CutShort(_Paths, MemoryServer):
    """What takes too long ends with what is there by then."""

    def faulty(self, *asked: Any) -> list[list[Link]]:
        return super().faulty(*asked[:6], min(asked[6], 50))


@fails(TraversalConformance, "test_no_path_leads_into_another_tenant_or_from_a_record_to_itself")
class PathsOfAllTenants(_Paths, MemoryServer):
    def faulty(self, *asked: Any) -> list[list[Link]]:
        start, end, *rest = asked
        other = "" if start.tenant else "acme"
        ends = (Key(other, start.etype, start.id), Key(other, end.etype, end.id))
        return [*super().faulty(*asked), *super().faulty(*ends, *rest)]
