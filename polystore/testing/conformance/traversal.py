"""Edges: each node once, at its shortest depth, over the given relations in the given direction; and all paths."""

from __future__ import annotations

import random
from collections.abc import Sequence, Set
from typing import Any, Protocol

from polystore.errors import WorkLimitExceeded
from polystore.facets import Edge
from polystore.filters import Condition, F
from polystore.model import Change, Direction, Key, Link, Reached
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
    """`traverse` and `paths`."""

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
        edges: Condition | None = None,
    ) -> list[Reached]:
        where = PERSON.edge_condition("knows", edges)
        return list(await store.traverse(PERSON.name, tenant, start, types, direction, depth, where, limit))

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
        back = await store.traverse(TOPIC.name, "", "drinks", ("UNDER", "LIKES"), "in", 2, None, 10)
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

    # -- conditions on edges ----------------------------------------------------------------------------------

    async def test_an_edge_that_does_not_satisfy_the_condition_is_not_followed(self) -> None:
        store: Linked = await self.open()
        await self.write(
            store,
            [
                person("a", 1, knows=[*knows("b", year=1990), *knows("c", year=2010)]),
                person("b", 2, knows=knows("d", year=2010)),
                person("c", 3, knows=[*knows("e", year=2010), *knows("f", year=1990)]),
                person("g", 4, knows=knows("a", year=2010)),
                person("h", 5, knows=knows("a", year=1990)),
            ],
        )
        for edges, out in (
            (F.year > 2000, ["c", "e"]),
            (F.year <= 2000, ["b"]),
            (F.year.in_([1990, 2010]) & (F.why != "met c"), ["b", "d"]),
            (F.why.startswith("met"), ["b", "c", "d", "e", "f"]),
            (~(F.year == 1990), ["c", "e"]),
            (F.why.is_null(), []),
        ):
            assert await self.ids(store, "a", ("KNOWS",), "out", 5, edges=edges) == out, edges
        assert await self.ids(store, "a", ("KNOWS",), "in", 5, edges=F.year > 2000) == ["g"]
        assert await self.ids(store, "f", ("KNOWS",), "both", 5, edges=F.year < 2000) == ["c"]

    async def test_an_edge_without_properties_satisfies_what_holds_of_missing_values(self) -> None:
        store: Linked = await self.open()
        await self.write(store, [person("a", 1, knows=knows("b"), boss="c")])
        types = ("KNOWS", "REPORTS_TO")
        assert await self.ids(store, "a", types, edges=F.year == 2020) == ["b"]
        assert await self.ids(store, "a", types, edges=F.year != 2020) == ["c"]
        assert await self.ids(store, "a", types, edges=F.year.is_null()) == ["c"]

    async def test_a_condition_on_edges_comes_before_the_limit(self) -> None:
        store: Linked = await self.open()
        met = [Edge(f"n{i:02}", Since(2000 + i)) for i in range(20)]
        await self.write(store, [person("a", 1, knows=met)])
        for limit in (1, 3, 10):
            found = await self.ids(store, "a", ("KNOWS",), "out", 3, limit=limit, edges=F.year >= 2010)
            assert found == [f"n{i}" for i in range(10, 10 + min(limit, 10))]

    # -- paths ------------------------------------------------------------------------------------------------

    async def paths(
        self,
        store: Linked,
        start: Key,
        end: Key,
        types: Sequence[str] = ("KNOWS",),
        direction: Direction = "out",
        depth_max: int = 5,
        *,
        limit: int = 1_000,
        edges: Condition | None = None,
    ) -> list[list[Link]]:
        where = PERSON.edge_condition("knows", edges)
        return [list(p) for p in await store.paths(start, end, types, direction, depth_max, where, limit)]

    async def test_paths_lead_over_types_in_a_direction_and_read_as_the_edges_stand(self) -> None:
        store: Linked = await self.open()
        await self.write(store, [person("a", 1, likes=["tea"], knows=knows("b")), person("b", 2, likes=["tea"])])
        await self.write(store, [change(TOPIC, Topic(id="tea", under="drinks"), 3)])
        a, b, drinks = key_of(PERSON, "a"), key_of(PERSON, "b"), key_of(TOPIC, "drinks")
        a_tea, b_tea = (Link(PERSON.name, id, "LIKES", TOPIC.name, "tea") for id in "ab")
        a_b = Link(PERSON.name, "a", "KNOWS", PERSON.name, "b")
        under = Link(TOPIC.name, "tea", "UNDER", TOPIC.name, "drinks")
        every = ("KNOWS", "LIKES", "UNDER")
        assert await self.paths(store, a, b, ("LIKES",), "both") == [[a_tea, b_tea]]
        assert await self.paths(store, a, b, every, "both") == [[a_b], [a_tea, b_tea]]
        assert await self.paths(store, a, b, every) == [[a_b]]
        assert await self.paths(store, b, a, every, "in") == [[a_b]]
        assert await self.paths(store, b, a, every) == []
        assert await self.paths(store, a, drinks, every) == [[a_tea, under], [a_b, b_tea, under]]
        assert await self.paths(store, drinks, a, every, "in") == [[under, a_tea], [under, b_tea, a_b]]
        assert await self.paths(store, a, drinks, every, "out", 2) == [[a_tea, under]]
        assert await self.paths(store, a, drinks, every, "out", 1) == []
        assert await self.paths(store, a, drinks, ("LIKES",)) == await self.paths(store, a, b, ()) == []

    async def test_edges_between_the_same_two_are_paths_of_their_own(self) -> None:
        store: Linked = await self.open()
        mutual = [person("a", 1, knows=knows("b", year=1990), boss="b"), person("b", 2, knows=knows("a", year=2010))]
        await self.write(store, mutual)
        a, b = key_of(PERSON, "a"), key_of(PERSON, "b")
        ways = ("KNOWS", "REPORTS_TO")
        found = await self.paths(store, a, b, ways, "both")
        assert [(link.id, link.type, link.to_id) for (link,) in found] == [
            ("a", "KNOWS", "b"),
            ("b", "KNOWS", "a"),
            ("a", "REPORTS_TO", "b"),
        ]
        assert await self.paths(store, a, b, ways, "both", limit=2) == found[:2]
        assert await self.paths(store, a, b, ways, "both", edges=F.year > 2000) == found[1:2]
        assert await self.paths(store, a, b, ways, "both", edges=F.year.is_null()) == found[2:]

    async def test_no_path_leads_into_another_tenant_or_from_a_record_to_itself(self) -> None:
        store: Linked = await self.open()
        await self.write(store, [person("a", 1, knows=knows("a", "b")), person("b", 2, knows=knows("a"))])
        await self.write(store, [person("b", 3, tenant="acme", knows=knows("c"))])
        a, b, c = (key_of(PERSON, id) for id in "abc")
        assert await self.paths(store, a, a) == await self.paths(store, a, c) == await self.paths(store, b, c) == []
        acme = (key_of(PERSON, "b", "acme"), key_of(PERSON, "c", "acme"))
        assert len(await self.paths(store, *acme)) == 1

    async def test_paths_of_random_graphs_are_those_that_trying_everything_finds(self) -> None:
        store: Linked = await self.open()
        r = random.Random(5)
        ids = [f"n{i:02}" for i in range(12)]
        ends = {id: sorted(r.sample(ids, r.randrange(4))) for id in ids}
        bosses = {id: r.choice([*ids, None]) for id in ids}
        people = [person(id, i, knows=knows(*ends[id]), boss=bosses[id]) for i, id in enumerate(ids, 1)]
        await self.write(store, people)
        links = [Link(PERSON.name, a, "KNOWS", PERSON.name, b) for a in ids for b in ends[a]]
        links += [Link(PERSON.name, a, "REPORTS_TO", PERSON.name, b) for a in ids if (b := bosses[a])]
        directions: Sequence[Direction] = ("out", "in", "both")
        for direction in directions:
            for start, end in [r.sample(ids, 2) for _ in range(8)]:
                for depth in (1, 3, 5):
                    wanted = every_path(links, start, end, direction, depth)
                    for limit in (1, 5, 10_000):
                        found = await self.paths(
                            store,
                            key_of(PERSON, start),
                            key_of(PERSON, end),
                            ("KNOWS", "REPORTS_TO"),
                            direction,
                            depth,
                            limit=limit,
                        )
                        assert found == wanted[:limit]

    async def test_a_dense_graph_is_answered_or_refused_never_answered_in_part(self) -> None:
        """Forty who all know one another are connected by more paths than can be looked at."""
        store: Linked = await self.open()
        ids = [f"n{i:02}" for i in range(40)]
        await self.write(store, [person(id, i, knows=knows(*(o for o in ids if o != id))) for i, id in enumerate(ids)])
        a, b = key_of(PERSON, ids[0]), key_of(PERSON, ids[1])
        (nearest,) = await self.paths(store, a, b, ("KNOWS",), "both", 30, limit=1)
        assert nearest == [Link(PERSON.name, ids[0], "KNOWS", PERSON.name, ids[1])]
        assert [len(path) for path in await self.paths(store, a, b, depth_max=2)] == [1] + [2] * 38
        assert len(await self.paths(store, a, b, depth_max=30, limit=500)) == 500
        try:
            found = await self.paths(store, a, b, depth_max=5, limit=10_000_000)
        except WorkLimitExceeded:
            return
        assert len(found) == 1 + 38 + 38 * 37 + 38 * 37 * 36 + 38 * 37 * 36 * 35

    async def test_paths_end_where_the_edges_go_with_their_record(self) -> None:
        store: Linked = await self.open()
        await self.write(store, [person("a", 1, knows=knows("b")), person("b", 2, knows=knows("c")), person("c", 3)])
        a, c = key_of(PERSON, "a"), key_of(PERSON, "c")
        assert len(await self.paths(store, a, c)) == 1
        await self.write(store, [removal(c, 4)])
        assert len(await self.paths(store, a, c)) == 1, "an end of an edge is a node, whether or not it is known"
        await self.write(store, [removal(key_of(PERSON, "b"), 5)])
        assert await self.paths(store, a, c) == []
        await self.write(store, [person("b", 6, knows=knows("c"))])
        assert len(await self.paths(store, a, c)) == 1


def every_path(links: Sequence[Link], start: str, end: str, direction: Direction, depth_max: int) -> list[list[Link]]:
    """All paths without a node twice between two people, by trying every edge at every node, in the kit's order."""
    found: list[tuple[int, list[tuple[str, str, bool]], list[Link]]] = []

    def follow(path: list[Link], steps: list[tuple[str, str, bool]], nodes: list[str]) -> None:
        if nodes[-1] == end:
            found.append((len(path), steps, path))
        elif len(path) < depth_max:
            for link in links:
                for source, to, against in ((link.id, link.to_id, False), (link.to_id, link.id, True)):
                    allowed = direction == "both" or against == (direction == "in")
                    if allowed and source == nodes[-1] and to not in nodes:
                        follow([*path, link], [*steps, (to, link.type, against)], [*nodes, to])

    follow([], [], [start])
    return [path for _, _, path in sorted(found, key=lambda one: one[:2])]


def breadth_first(start: str, steps: Set[tuple[str, str]]) -> list[tuple[int, str]]:
    """(depth, id) of all that is reached from the start, nearest first, then by id."""
    depths, ring = {start: 0}, {start}
    while ring:
        ring = {b for a, b in steps if a in ring} - depths.keys()
        depths.update(dict.fromkeys(ring, max(depths.values()) + 1))
    return sorted((depth, id) for id, depth in depths.items() if depth)
