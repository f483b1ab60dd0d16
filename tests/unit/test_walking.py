"""Paths between two nodes: in order, and never after more work than is allowed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polystore import walking
from polystore.errors import WorkLimitExceeded
from polystore.model import Direction, Link
from polystore.walking import Node, Step, paths


def node(name: str) -> Node:
    return ("n", name)


class Drawn:
    """A drawn graph, which counts what it is asked."""

    def __init__(self, edges: Mapping[str, str]) -> None:
        self.links = [Link("n", a, "TO", "n", b) for a, ends in edges.items() for b in ends]
        self.asked: list[tuple[str, Direction]] = []

    def around(self, nodes: Sequence[Node], direction: Direction) -> Iterator[Step]:
        for one in nodes:
            self.asked.append((one[1], direction))
            for link in self.links:
                if direction != "in" and link.id == one[1]:
                    yield Step(one, node(link.to_id), link)
                if direction != "out" and link.to_id == one[1]:
                    yield Step(one, node(link.id), link)

    def paths(
        self, start: str, end: str, direction: Direction = "out", depth_max: int = 9, limit: int = 10**9
    ) -> list[str]:
        """The nodes of each path."""
        found = paths(self.around, node(start), node(end), direction, depth_max, limit)
        return ["".join(nodes_of(path, start)) for path in found]


def nodes_of(path: Sequence[Link], start: str) -> list[str]:
    nodes = [start]
    for link in path:
        nodes.append(link.to_id if link.id == nodes[-1] else link.id)
    return nodes


def test_shorter_ones_come_first_then_those_over_smaller_nodes() -> None:
    drawn = Drawn({"a": "cbe", "b": "d", "c": "d", "d": "e"})
    assert drawn.paths("a", "e") == ["ae", "abde", "acde"]
    assert drawn.paths("a", "e", limit=2) == ["ae", "abde"]
    assert drawn.paths("a", "e", depth_max=2) == ["ae"]
    assert drawn.paths("e", "a", "in") == ["ea", "edba", "edca"]


def test_no_node_is_come_to_twice() -> None:
    drawn = Drawn({"a": "ab", "b": "acb", "c": "bad"})
    assert drawn.paths("a", "d") == ["abcd"]
    assert drawn.paths("a", "a") == []


def test_nobody_is_asked_for_the_same_edges_twice_nor_for_edges_behind_the_end() -> None:
    drawn = Drawn({"a": "b", "b": "c", "c": "d", "d": "e", "e": "f", "f": "g"})
    assert drawn.paths("a", "d", limit=1) == ["abcd"]
    assert len(drawn.asked) == len(set(drawn.asked)) == 3
    assert not {name for name, _ in drawn.asked} & set("efg")


def test_where_no_path_can_be_the_search_ends_with_the_smaller_side() -> None:
    crowd = {chr(200 + i): chr(201 + i) for i in range(500)}
    drawn = Drawn({**crowd, "x": "y"})
    assert drawn.paths(chr(200), "y", depth_max=30) == []
    assert len(drawn.asked) <= 4


def test_an_edge_that_is_drawn_from_both_ends_makes_one_path() -> None:
    assert Drawn({"a": "b", "b": "c"}).paths("a", "c", "both") == ["abc"]
    assert Drawn({"a": "b", "b": "a"}).paths("a", "b", "both") == ["ab", "ab"]


def test_more_work_than_is_allowed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    everyone = "abcdefghij"
    drawn = Drawn(dict.fromkeys(everyone, everyone))
    assert len(drawn.paths("a", "b", depth_max=4)) == 1 + 8 + 8 * 7 + 8 * 7 * 6
    monkeypatch.setattr(walking, "WORK_MAX", 500)
    assert len(drawn.paths("a", "b", depth_max=4, limit=9)) == 9
    with pytest.raises(WorkLimitExceeded, match=r"more than 500 edges.*depth_max="):
        drawn.paths("a", "b", depth_max=4)


def test_a_crowd_at_one_end_is_looked_at_no_further_than_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walking, "WORK_MAX", 50)
    taken = 0

    def around(nodes: Sequence[Node], direction: Direction) -> Iterator[Step]:
        nonlocal taken
        for i in range(10_000):
            taken += 1
            yield Step(nodes[0], node(str(i)), Link(*nodes[0], "TO", "n", str(i)))

    with pytest.raises(WorkLimitExceeded):
        paths(around, node("a"), node("b"), "out", 5, 1)
    assert taken == 51


edges = st.dictionaries(st.sampled_from("abcdef"), st.text("abcdef", max_size=4), max_size=6)


@settings(max_examples=150)
@given(edges, st.sampled_from(["out", "in", "both"]), st.integers(1, 6), st.integers(1, 20))
def test_all_paths_are_found_that_trying_everything_finds(
    drawn: dict[str, str], direction: Direction, depth_max: int, limit: int
) -> None:
    drawn = {a: "".join(sorted(set(ends))) for a, ends in drawn.items()}
    steps = sorted(
        (a, b, against)
        for source, ends in drawn.items()
        for end in ends
        for a, b, against in ((source, end, False), (end, source, True))
        if direction == "both" or against == (direction == "in")
    )
    found: list[tuple[int, list[tuple[str, bool]]]] = []

    def follow(nodes: list[str], ways: list[tuple[str, bool]]) -> None:
        if nodes[-1] == "b":
            found.append((len(ways), ways))
        elif len(ways) < depth_max:
            for a, b, against in steps:
                if a == nodes[-1] and b not in nodes:
                    follow([*nodes, b], [*ways, (b, against)])

    follow(["a"], [])
    wanted = ["a" + "".join(to for to, _ in ways) for _, ways in sorted(found)]
    assert Drawn(drawn).paths("a", "b", direction, depth_max, limit) == wanted[:limit]
