"""Edges in a SQLite file: what is reached, by which path, and what is told about damage."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polystore_adapters.sqlite.facets.graph import Edges, GraphFacet, condition, traverse

from polystore.entity import EntityType, entity, entity_types
from polystore.facets import Edge, Relation
from polystore.model import Reached
from tests.integration.sqlite.facet_file import FacetFile, connect, facet_file


@dataclass
class Since:
    year: int = 0
    note: str | None = None


@entity()
@dataclass
class Person:
    id: str
    knows: Annotated[list[Edge[Since]], Relation("KNOWS", to="person")] = field(default_factory=list[Edge[Since]])
    likes: Annotated[list[str], Relation("LIKES", to="topic")] = field(default_factory=list[str])


@entity()
@dataclass
class Topic:
    id: int
    part_of: Annotated[str | None, Relation("PART_OF", to="topic")] = None
    fan: Annotated[str | None, Relation("FAN", to="person")] = None


TYPES = entity_types([Person, Topic])
Direction = Literal["out", "in", "both"]


class GraphFile:
    """People and topics in one file."""

    def __init__(self, people: FacetFile[GraphFacet], topics: EntityType[Any]) -> None:
        self.people = people
        self.topics = FacetFile(people.path, topics, GraphFacet(topics))
        self.db = people.db
        self.tables = [(one.entity.name, one.facet.table) for one in (self.people, self.topics)]

    def person(self, id: str, knows: Sequence[str] = (), likes: Sequence[int] = (), tenant: str = "") -> None:
        edges = [{"to": to, "properties": {"year": len(to), "note": f"{id}-{to}"}} for to in knows]
        self.people.put([{"id": id, "knows": edges, "likes": [str(one) for one in likes]}], tenant=tenant)

    def topic(self, id: int, part_of: int | None = None, fan: str | None = None, tenant: str = "") -> None:
        body = {"id": id, "part_of": None if part_of is None else str(part_of), "fan": fan}
        self.topics.put([body], tenant=tenant)

    def reach(
        self,
        etype: str,
        id: str,
        types: str = "KNOWS LIKES PART_OF FAN",
        direction: Direction = "out",
        depth: int = 1,
        limit: int = 10_000,
        tenant: str = "",
    ) -> list[Reached]:
        edges = Edges(self.tables, tenant, types.split(), condition(None))
        return traverse(self.db, edges, (etype, id), direction, depth, limit)


@pytest.fixture
def graph() -> Generator[GraphFile, None, None]:
    with facet_file(TYPES["person"], GraphFacet(TYPES["person"])) as people:
        file = GraphFile(people, TYPES["topic"])
        yield file
        file.topics.db.close()


def ids(reached: Sequence[Reached]) -> list[tuple[str, str, int]]:
    return [(one.etype, one.id, one.depth) for one in reached]


def test_neighbours_are_reached_over_the_given_types_in_the_given_direction(graph: GraphFile) -> None:
    graph.person("ann", ["bob", "cy"], [1])
    graph.person("cy", ["ann"])
    graph.topic(1, fan="ann")
    assert ids(graph.reach("person", "ann", "KNOWS")) == [("person", "bob", 1), ("person", "cy", 1)]
    assert ids(graph.reach("person", "ann", "KNOWS LIKES")) == [
        ("person", "bob", 1),
        ("person", "cy", 1),
        ("topic", "1", 1),
    ]
    assert ids(graph.reach("person", "ann", direction="in")) == [("person", "cy", 1), ("topic", "1", 1)]
    assert ids(graph.reach("person", "ann", "FAN", direction="both")) == [("topic", "1", 1)]
    assert ids(graph.reach("topic", "1", "LIKES", direction="in")) == [("person", "ann", 1)]
    assert graph.reach("person", "ann", "") == []
    assert graph.reach("person", "nobody") == []


def test_a_path_tells_the_edges_as_they_stand_and_the_last_ones_properties(graph: GraphFile) -> None:
    graph.person("ann", ["bob"])
    graph.person("cy", ["bob"], [7])
    bob, cy, seven = graph.reach("person", "ann", direction="both", depth=3)
    assert (bob.path, bob.properties) == ([("ann", "KNOWS", "bob")], {"year": 3, "note": "ann-bob"})
    assert (cy.path, cy.properties) == (
        [("ann", "KNOWS", "bob"), ("cy", "KNOWS", "bob")],
        {"year": 3, "note": "cy-bob"},
    )
    assert (seven.path[2:], seven.properties, seven.depth) == ([("cy", "LIKES", "7")], {}, 3)


def test_a_cycle_ends_and_the_start_is_never_reached(graph: GraphFile) -> None:
    graph.person("a", ["b", "a"])
    graph.person("b", ["c"])
    graph.person("c", ["a", "b"])
    assert ids(graph.reach("person", "a", depth=50)) == [("person", "b", 1), ("person", "c", 2)]
    assert ids(graph.reach("person", "a", depth=0)) == []


def test_edges_are_replaced_and_removed_with_their_record(graph: GraphFile) -> None:
    graph.person("a", ["b", "c"])
    graph.person("d", ["b"])
    graph.person("a", ["c"])
    assert ids(graph.reach("person", "a")) == [("person", "c", 1)]
    assert ids(graph.reach("person", "b", direction="in")) == [("person", "d", 1)]
    graph.people.remove(["d"])
    assert graph.reach("person", "b", direction="in") == []


def test_the_same_id_is_another_record_in_another_entity_or_tenant(graph: GraphFile) -> None:
    graph.person("1", ["2"], [1])
    graph.topic(1, part_of=2)
    graph.person("1", ["3"], tenant="b")
    assert ids(graph.reach("person", "1", depth=2)) == [("person", "2", 1), ("topic", "1", 1), ("topic", "2", 2)]
    assert ids(graph.reach("topic", "1", direction="out")) == [("topic", "2", 1)]
    assert ids(graph.reach("person", "1", tenant="b")) == [("person", "3", 1)]
    assert graph.reach("person", "3", direction="in") == []
    graph.person("4", [], [2])
    graph.topic(5, fan="2")
    assert ids(graph.reach("topic", "2", direction="in")) == [("person", "4", 1), ("topic", "1", 1)]
    assert ids(graph.reach("person", "2", direction="in")) == [("person", "1", 1), ("topic", "5", 1)]


def test_of_several_shortest_paths_the_one_over_the_smallest_nodes_is_told(graph: GraphFile) -> None:
    graph.person("a", ["z", "m", "q"])
    for id in "zmq":
        graph.person(id, ["end"])
    assert graph.reach("person", "a", depth=2)[-1].path == [("a", "KNOWS", "m"), ("m", "KNOWS", "end")]


def test_a_write_during_a_walk_is_not_seen_in_half(graph: GraphFile) -> None:
    graph.person("a", ["b"])
    graph.person("b", ["c"])
    steps: list[str] = []

    def interfere(sql: str) -> None:
        steps.append(sql)
        if sum("ps_edge_person" in one for one in steps) == 2:
            graph.person("b", ["d"])

    with closing(connect(graph.people.path)) as reader:
        reader.set_trace_callback(interfere)
        edges = Edges(graph.tables, "", ["KNOWS"], condition(None))
        walked = traverse(reader, edges, ("person", "a"), "out", 2, 10)
        assert ids(walked) == [("person", "b", 1), ("person", "c", 2)]
    assert ids(graph.reach("person", "a", depth=2)) == [("person", "b", 1), ("person", "d", 2)]


def test_of_a_crowd_only_the_first_by_id_are_kept_with_what_follows_from_them(graph: GraphFile) -> None:
    crowd = [f"{i:05}" for i in range(5000)]
    graph.person("hub", crowd[::-1])
    graph.person("00001", ["next"])
    assert [one.id for one in graph.reach("person", "hub", depth=2, limit=3)] == crowd[:3]
    assert [one.id for one in graph.reach("person", "hub", depth=2)] == [*crowd, "next"]


def test_damaged_edges_are_named(graph: GraphFile) -> None:
    for id in "abcd":
        graph.person(id, ["x", "y"], [1])
    assert graph.people.faults() == {}
    rids = {id: row.rid for (_, id), row in graph.people.rows.items()}
    graph.db.execute("DELETE FROM ps_edge_person WHERE rid = ? AND dst = 'x'", (rids["b"],))
    graph.db.execute("UPDATE ps_edge_person SET properties = '{\"year\":9}' WHERE rid = ? AND dst = 'y'", (rids["c"],))
    graph.db.execute("INSERT INTO ps_edge_person SELECT rid, tenant, src, 'NEW', to_etype, dst, properties "
                     "FROM ps_edge_person WHERE rid = ? AND dst = 'x'", (rids["d"],))  # fmt: skip
    faults = graph.people.faults()
    assert faults.keys() == {rids["b"], rids["c"], rids["d"]}
    assert "1 edges are missing, 0" in faults[rids["b"]]
    assert "1 edges are missing, 1" in faults[rids["c"]]
    assert "0 edges are missing, 1" in faults[rids["d"]]
    graph.people.facet.put(graph.db, list(graph.people.rows.values()))
    assert graph.people.faults() == {}


def test_another_declaration_makes_the_edges_anew(graph: GraphFile) -> None:
    assert graph.people.made
    assert not graph.people.facet.create(graph.db)

    @entity(name="person")
    @dataclass
    class Friend:
        id: str
        knows: Annotated[list[str], Relation("FRIEND", to="person")] = field(default_factory=list[str])

    graph.person("a", ["b"])
    assert GraphFacet(entity_types([Friend])["person"]).create(graph.db)
    assert graph.reach("person", "a") == []


# -- against a walk over lists ----------------------------------------------------------------------------------------

Node = tuple[str, str]
people = st.sampled_from("abcd01")
topics = st.integers(0, 4)


def walk(edges: Sequence[tuple[Node, str, Node]], start: Node, direction: Direction, depth: int) -> Mapping[Node, int]:
    depths = {start: 0}
    for distance in range(1, depth + 1):
        for source, _, end in edges:
            for one, other in ((source, end), (end, source)):
                if direction == ("in" if one == source else "out") and source != end:
                    continue
                if depths.get(one) == distance - 1:
                    depths.setdefault(other, distance)
    del depths[start]
    return depths


@settings(max_examples=80)
@given(
    st.dictionaries(people, st.tuples(st.lists(people, unique=True), st.lists(topics, unique=True)), max_size=6),
    st.dictionaries(topics, st.tuples(st.none() | topics, st.none() | people), max_size=5),
    st.sets(st.sampled_from(["KNOWS", "LIKES", "PART_OF", "FAN"]), min_size=1),
    st.sampled_from(["out", "in", "both"]),
    st.integers(1, 6),
    st.integers(0, 12),
)
def test_exactly_what_a_plain_walk_reaches_is_reached(
    persons: dict[str, tuple[list[str], list[int]]],
    subjects: dict[int, tuple[int | None, str | None]],
    types: set[str],
    direction: Direction,
    depth: int,
    limit: int,
) -> None:
    with facet_file(TYPES["person"], GraphFacet(TYPES["person"])) as file:
        graph = GraphFile(file, TYPES["topic"])
        edges: list[tuple[Node, str, Node]] = []
        for id, (knows, likes) in persons.items():
            graph.person(id, knows, likes)
            edges += [(("person", id), "KNOWS", ("person", to)) for to in knows]
            edges += [(("person", id), "LIKES", ("topic", str(to))) for to in likes]
        for number, (part_of, fan) in subjects.items():
            graph.topic(number, part_of, fan)
            edges += [] if part_of is None else [(("topic", str(number)), "PART_OF", ("topic", str(part_of)))]
            edges += [] if fan is None else [(("topic", str(number)), "FAN", ("person", fan))]
        edges = [edge for edge in edges if edge[1] in types]
        reached = graph.reach("person", "a", " ".join(types), direction, depth)
        expected = walk(edges, ("person", "a"), direction, depth)
        assert ids(reached) == sorted(
            ((etype, id, distance) for (etype, id), distance in expected.items()), key=lambda one: (one[2], one[:2])
        )
        assert graph.reach("person", "a", " ".join(types), direction, depth, limit) == reached[:limit]
        plain = {(source[1], relation, end[1]) for source, relation, end in edges}
        for one in reached:
            assert len(one.path) == one.depth
            assert set(one.path) <= plain
            assert all({a[0], a[2]} & {b[0], b[2]} for a, b in pairwise(one.path))
            assert "a" in (one.path[0][0], one.path[0][2])
            assert one.id in (one.path[-1][0], one.path[-1][2])
        graph.topics.db.close()
