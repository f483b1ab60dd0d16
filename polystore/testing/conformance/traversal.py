"""Edges: each node once, at its shortest depth, over the given relations in the given direction."""

from __future__ import annotations

import random
from collections.abc import Sequence, Set
from typing import Any, Protocol

from polystore.facets import Edge
from polystore.model import Change, Direction, Reached
from polystore.protocols import Repository, SupportsTraversal
from polystore.testing.conformance.base import Conformance, change, key_of, removal
from polystore.testing.conformance.entities import PERSON, TOPIC, Person, Since, Topic


class Linked(Repository, SupportsTraversal, Protocol):
    pass


def person(id: str, version: int, *, tenant: str = "", **fields: Any) -> Change:
    return change(PERSON, Person(id=id, **fields), version, tenant=tenant)


def knows(*ids: str, year: int = 2020) -> list[Edge[Since]]:
    return [Edge(id, Since(year, f"met {id}")) for id in ids]


class TraversalConformance(Conformance):
    """`traverse`."""

    protocol = SupportsTraversal
    types = (PERSON, TOPIC)

    async def reached(
        self,
        store: Linked,
        start: str,
        types: Sequence[str] = ("KNOWS",),
        direction: Direction = "out",
        depth: int = 1,
        *,
        tenant: str = "",
        limit: int = 1_000,
    ) -> list[Reached]:
        return list(await store.traverse(PERSON.name, tenant, start, types, direction, depth, limit))

    async def ids(self, store: Linked, start: str, *args: Any, **options: Any) -> list[str]:
        return [one.id for one in await self.reached(store, start, *args, **options)]

    async def test_neighbours_in_each_direction_with_their_properties(self) -> None:
        store: Linked = await self.open()
        await self.write(store, [person("a", 1, knows=knows("b", "c", year=1999)), person("b", 2, knows=knows("a"))])
        await self.write(store, [person("d", 3, knows=knows("a", year=2001))])
        out = await self.reached(store, "a")
        assert [(r.etype, r.id, r.depth, tuple(r.path), dict(r.properties)) for r in out] == [
            (PERSON.name, "b", 1, (("a", "KNOWS", "b"),), {"year": 1999, "why": "met b"}),
            (PERSON.name, "c", 1, (("a", "KNOWS", "c"),), {"year": 1999, "why": "met c"}),
        ]
        into = await self.reached(store, "a", ("KNOWS",), "in")
        assert [(r.id, tuple(r.path), r.properties["year"]) for r in into] == [
            ("b", (("b", "KNOWS", "a"),), 2020),
            ("d", (("d", "KNOWS", "a"),), 2001),
        ]
        assert await self.ids(store, "a", ("KNOWS",), "both") == ["b", "c", "d"]
        assert await self.ids(store, "c", ("KNOWS",), "out") == await self.ids(store, "nobody") == []

    async def test_only_the_given_relations_count_and_ends_may_be_of_another_entity(self) -> None:
        store: Linked = await self.open()
        await self.write(store, [person("a", 1, boss="b", likes=["b", "tea"], knows=knows("c")), person("b", 2)])
        topics = [change(TOPIC, Topic(id="tea", under="drinks"), 3), change(TOPIC, Topic(id="drinks"), 4)]
        await self.write(store, topics)
        assert await self.ids(store, "a", ("REPORTS_TO",)) == ["b"]
        assert [(r.etype, r.id) for r in await self.reached(store, "a", ("LIKES", "REPORTS_TO"))] == [
            (PERSON.name, "b"),
            (TOPIC.name, "b"),
            (TOPIC.name, "tea"),
        ]
        far = await self.reached(store, "a", ("LIKES", "UNDER"), "out", 2)
        assert [(r.etype, r.id, r.depth) for r in far] == [
            (TOPIC.name, "b", 1),
            (TOPIC.name, "tea", 1),
            (TOPIC.name, "drinks", 2),
        ]
        assert tuple(far[-1].path) == (("a", "LIKES", "tea"), ("tea", "UNDER", "drinks"))
        assert dict(far[-1].properties) == {}
        back = await store.traverse(TOPIC.name, "", "drinks", ("UNDER", "LIKES"), "in", 2, 10)
        assert [(r.etype, r.id) for r in back] == [(TOPIC.name, "tea"), (PERSON.name, "a")]
        assert await self.ids(store, "a", ("UNDER",)) == await self.ids(store, "a", ()) == []

    async def test_cycles_end_and_nobody_reaches_himself(self) -> None:
        store: Linked = await self.open()
        ring = "abcdef"
        changes = [person(x, i, knows=knows(ring[i % 6], x)) for i, x in enumerate(ring, 1)]
        await self.write(store, changes)
        assert await self.ids(store, "a", ("KNOWS",), "out", 100) == ["b", "c", "d", "e", "f"]
        assert await self.ids(store, "a", ("KNOWS",), "in", 100) == ["f", "e", "d", "c", "b"]
        both = await self.reached(store, "a", ("KNOWS",), "both", 100)
        assert [(r.id, r.depth) for r in both] == [("b", 1), ("f", 1), ("c", 2), ("e", 2), ("d", 3)]

    async def test_each_is_reached_once_by_a_shortest_path(self) -> None:
        store: Linked = await self.open()
        await self.write(
            store,
            [
                person("a", 1, knows=knows("b", "c")),
                person("b", 2, knows=knows("c", "d")),
                person("c", 3, knows=knows("e", year=1)),
                person("d", 4, knows=knows("e", "a", year=2)),
                person("e", 5, knows=knows("f")),
            ],
        )
        found = await self.reached(store, "a", ("KNOWS",), "out", 5)
        assert [(r.id, r.depth) for r in found] == [("b", 1), ("c", 1), ("d", 2), ("e", 2), ("f", 3)]
        assert tuple(found[3].path) == (("a", "KNOWS", "c"), ("c", "KNOWS", "e"))
        assert found[3].properties["year"] == 1
        assert tuple(found[4].path) == (*found[3].path, ("e", "KNOWS", "f"))

    async def test_random_graphs_are_walked_as_breadth_first_search_walks_them(self) -> None:
        store: Linked = await self.open()
        r = random.Random(11)
        ids = [f"n{i:02}" for i in range(30)]
        ends = {id: sorted(r.sample(ids, r.randrange(3))) for id in ids}
        await self.write(store, [person(id, i, knows=knows(*ends[id])) for i, id in enumerate(ids, 1)])
        edges = {(a, b) for a in ids for b in ends[a]}
        back = {(b, a) for a, b in edges}
        ways: dict[Direction, set[tuple[str, str]]] = {"out": edges, "in": back, "both": edges | back}
        for direction, steps in ways.items():
            for start in ids[::3]:
                wanted = breadth_first(start, steps)
                for depth in (1, 2, 50):
                    found = await self.reached(store, start, ("KNOWS",), direction, depth)
                    assert [(one.depth, one.id) for one in found] == [pair for pair in wanted if pair[0] <= depth]
                    for one in found:
                        assert len(one.path) == one.depth
                        assert all((a, b) in edges for a, _, b in one.path)
                        assert {start, one.id} <= {end for a, _, b in one.path for end in (a, b)}

    async def test_the_nearest_come_first_under_a_limit(self) -> None:
        store: Linked = await self.open()
        await self.write(store, [person("a", 1, knows=knows("z", "y")), person("z", 2, knows=knows("b", "c", "d"))])
        everything = await self.reached(store, "a", ("KNOWS",), "out", 2)
        assert [r.id for r in everything] == ["y", "z", "b", "c", "d"]
        for limit in (1, 2, 3, 5):
            assert await self.reached(store, "a", ("KNOWS",), "out", 2, limit=limit) == everything[:limit]

    async def test_edges_are_replaced_with_their_record_and_go_with_it(self) -> None:
        store: Linked = await self.open()
        await self.write(store, [person("a", 1, knows=knows("b", "c")), person("b", 2, knows=knows("d"))])
        await self.write(store, [person("a", 3, knows=knows("c", "e", year=7))])
        found = await self.reached(store, "a", ("KNOWS",), "out", 3)
        assert [(r.id, r.properties["year"]) for r in found] == [("c", 7), ("e", 7)]
        assert await self.ids(store, "b", ("KNOWS",), "in") == []
        await self.write(store, [removal(key_of(PERSON, "a"), 4)])
        assert await self.ids(store, "a") == await self.ids(store, "c", ("KNOWS",), "in") == []
        await self.write(store, [person("a", 5, knows=knows("d"))])
        assert await self.ids(store, "d", ("KNOWS",), "in") == ["a", "b"]

    async def test_an_edge_whose_end_is_gone_or_never_came_still_leads_there(self) -> None:
        """The end of an edge need not exist here: it may be stored later, or elsewhere."""
        store: Linked = await self.open()
        await self.write(store, [person("a", 1, knows=knows("b")), person("b", 2, knows=knows("c"))])
        await self.write(store, [removal(key_of(PERSON, "b"), 3)])
        assert await self.ids(store, "a", ("KNOWS",), "out", 3) == ["b"]
        await self.write(store, [person("b", 4, knows=knows("c"))])
        assert await self.ids(store, "a", ("KNOWS",), "out", 3) == ["b", "c"]

    async def test_tenants_do_not_see_each_others_edges(self) -> None:
        store: Linked = await self.open()
        await self.write(store, [person("a", 1, knows=knows("b")), person("b", 2, knows=knows("c"))])
        await self.write(store, [person("a", 3, tenant="acme", knows=knows("c"))])
        assert await self.ids(store, "a", ("KNOWS",), "out", 5) == ["b", "c"]
        assert await self.ids(store, "a", ("KNOWS",), "out", 5, tenant="acme") == ["c"]
        assert await self.ids(store, "c", ("KNOWS",), "both", 5, tenant="acme") == ["a"]
        assert await self.ids(store, "a", ("KNOWS",), "both", 5, tenant="nobody") == []


def breadth_first(start: str, steps: Set[tuple[str, str]]) -> list[tuple[int, str]]:
    """(depth, id) of all that is reached from the start, nearest first, then by id."""
    depths, ring = {start: 0}, {start}
    while ring:
        ring = {b for a, b in steps if a in ring} - depths.keys()
        depths.update(dict.fromkeys(ring, max(depths.values()) + 1))
    return sorted((depth, id) for id, depth in depths.items() if depth)
