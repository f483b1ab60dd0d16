"""Paths between two nodes of a graph, for stores that can say which edges are at given nodes.

From both ends at once: so many steps ahead, and the rest from behind, whichever side is smaller, are all the edges that
paths of that length can have (bidirectional search, Pohl 1971). Among these the paths are then followed one by one,
never to a node that is too far from the end, by the length that is left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from polystore.errors import WorkLimitExceeded
from polystore.model import Direction, Link

Node = tuple[str, str]
"""Entity name and id."""

WORK_MAX = 200_000
"""Edges that one call looks at, each as often as it does: some 100 MB and a second of work."""

REVERSED: Mapping[Direction, Direction] = {"out": "in", "in": "out", "both": "both"}


class Step(NamedTuple):
    """From one node over an edge to the other."""

    at: Node
    to: Node
    link: Link


Around = Callable[[Sequence[Node], Direction], Iterable[Step]]
"""Every step from these nodes in a direction. A node is asked about once in each direction."""


def step_order(step: Step) -> tuple[str, str, str, bool]:
    """Of two paths of one length comes first whose first differing step is the smaller one: by the node that it comes
    to (entity, then id), by the relation, and over an own edge of the node before rather than over one that leads to
    it."""
    return (*step.to, step.link.type, (step.link.etype, step.link.id) != step.at)


class _Work:
    """What one call may still look at."""

    def __init__(self) -> None:
        self._left = WORK_MAX

    def spend(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise WorkLimitExceeded(
                f"finding all these paths takes a look at more than {WORK_MAX} edges; ask for fewer or shorter ones "
                "(limit=, depth_max=), or follow fewer edges (the types, direction=, edges=)"
            )


class _Side:
    """What is known from one end."""

    def __init__(self, end: Node) -> None:
        self.seen = {end}
        self.rim = [end]
        """The nodes that were come to by the last level, not yet asked about."""

    def grow(self, steps: Iterable[Step], work: _Work) -> Iterator[Step]:
        """Take in the next level. Yields its steps."""
        rim: set[Node] = set()
        for step in steps:
            work.spend()
            if step.to not in self.seen:
                rim.add(step.to)
            yield step
        self.seen |= rim
        self.rim = sorted(rim)


def paths(around: Around, start: Node, end: Node, direction: Direction, depth_max: int, limit: int) -> list[list[Link]]:
    """See `SupportsTraversal.paths`."""
    found: list[list[Link]] = []
    if start == end:
        return found
    work, ahead, behind = _Work(), _Side(start), _Side(end)
    ways: dict[Node, set[Step]] = {}
    for length in range(1, depth_max + 1):
        # A side with an empty rim stays the smaller one: every edge that can be part of a path is there already.
        if (len(ahead.rim), len(ahead.seen)) <= (len(behind.rim), len(behind.seen)):
            for step in ahead.grow(around(ahead.rim, direction), work):
                ways.setdefault(step.at, set()).add(step)
        else:
            for step in behind.grow(around(behind.rim, REVERSED[direction]), work):
                ways.setdefault(step.to, set()).add(Step(step.to, step.at, step.link))
        if ahead.seen.isdisjoint(behind.seen):
            if not (ahead.rim and behind.rim):
                break
            continue
        for path in _of_length(length, ways, start, end, work):
            found.append(path)
            if len(found) == limit:
                return found
    return found


def _of_length(
    length: int, ways: Mapping[Node, Iterable[Step]], start: Node, end: Node, work: _Work
) -> Iterator[list[Link]]:
    """The paths of exactly this length, in order."""
    left = _distances(ways, end, length)
    path: list[Link] = []
    on_path = {start}

    def follow(node: Node, room: int) -> Iterator[list[Link]]:
        for step in sorted(ways.get(node, ()), key=step_order):
            work.spend()
            if step.to == end:
                if room == 1:
                    yield [*path, step.link]
            elif step.to not in on_path and left.get(step.to, room) < room:
                path.append(step.link)
                on_path.add(step.to)
                yield from follow(step.to, room - 1)
                on_path.remove(step.to)
                path.pop()

    if left.get(start, length + 1) <= length:
        yield from follow(start, length)


def _distances(ways: Mapping[Node, Iterable[Step]], end: Node, most: int) -> Mapping[Node, int]:
    """How many steps each node is from the end, as far as `most`."""
    back: dict[Node, list[Node]] = {}
    for node, steps in ways.items():
        for step in steps:
            back.setdefault(step.to, []).append(node)
    distances, rim = {end: 0}, [end]
    for distance in range(1, most + 1):
        rim = list(dict.fromkeys(before for node in rim for before in back.get(node, ()) if before not in distances))
        distances.update(dict.fromkeys(rim, distance))
    return distances
