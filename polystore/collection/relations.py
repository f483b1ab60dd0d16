"""Walks along relations: the store that holds the edges is asked, the answer is made of the homes' current records.

Edges are as that store has them, which may be a moment behind. What they lead to is looked up at its home: a record
that is not there, or does not satisfy the condition, is left out, and so is a path that leads over one, or over an edge
that its record has no more. The store is asked for more until there are enough.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from polystore.collection import stale
from polystore.collection.scope import Scope, check_limit
from polystore.collection.searching import enough, live
from polystore.entity import EntityType
from polystore.errors import InvalidFilter, UnsupportedOperation, WorkLimitExceeded
from polystore.filters import Checked, Condition, predicate
from polystore.model import Body, Direction, Key, Link, Placement, Reached, Record
from polystore.protocols import SupportsTraversal
from polystore.results import Path, Related, Token
from polystore.store import Store

DEPTH_MAX = 10
"""Most steps of `related`."""
PATH_MAX = 30
"""Most edges of a path."""
NODES_MAX = 100_000
"""Most nodes, and most paths, that one call looks at to find `limit` that satisfy its conditions."""
_CHUNK = 1_000
"""Records that are in memory at the same time while nodes are looked up."""


class Edges(msgspec.Struct, frozen=True):
    """Which edges are followed."""

    types: Sequence[str]
    direction: Direction
    where: Checked | None


class Walk(msgspec.Struct, frozen=True):
    """A question about relations, from whichever record, checked before any I/O."""

    edges: Edges
    into: EntityType[Any] | None
    depth: int
    where: Checked | None
    limit: int


class Way(msgspec.Struct, frozen=True):
    """A question about paths, checked before any I/O."""

    start: Key
    end: Key
    edges: Edges
    depth_max: int
    where: Checked | None
    limit: int


# -- questions ----------------------------------------------------------------------------------------------------


def walk(
    scope: Scope[Any],
    types: str | Sequence[str],
    into: type[Any] | None,
    direction: Direction,
    depth: int,
    where: Condition | None,
    edges: Condition | None,
    limit: int,
) -> Walk:
    """Raises InvalidFilter, InvalidData, ConfigurationError (an unknown class)."""
    check_limit(limit)
    _check_depth("depth", depth, DEPTH_MAX)
    followed = _edges(scope, types, direction, edges)
    target: EntityType[Any] | None = None
    if into is not None:
        target = scope.wiring.entity(into)
    elif where is not None:
        target = _only_end(scope, followed, "where= is a condition on the related records")
    condition = None if target is None else target.condition(where)
    return Walk(followed, target, depth, condition, limit)


def way(
    scope: Scope[Any],
    key: object,
    to: object,
    types: str | Sequence[str],
    into: type[Any] | None,
    direction: Direction,
    depth_max: int,
    where: Condition | None,
    edges: Condition | None,
    limit: int,
) -> Way:
    """Raises InvalidFilter, InvalidData, ConfigurationError (an unknown class)."""
    check_limit(limit)
    _check_depth("depth_max", depth_max, PATH_MAX)
    followed = _edges(scope, types, direction, edges)
    end = _only_end(scope, followed, "the path's end is one of") if into is None else scope.wiring.entity(into)
    target = Key(scope.tenant, end.name, end.key_id(to))
    return Way(scope.key(key), target, followed, depth_max, end.condition(where), limit)


def _check_depth(name: str, depth: int, most: int) -> None:
    if type(depth) is not int or not 1 <= depth <= most:
        raise InvalidFilter(f"{name}={depth!r}: an int from 1 to {most}")


def _edges(scope: Scope[Any], types: str | Sequence[str], direction: Direction, where: Condition | None) -> Edges:
    """Raises InvalidFilter, UnsupportedOperation (a relation that no entity declares). A condition must mean the same
    on all these edges."""
    if direction not in ("out", "in", "both"):
        raise InvalidFilter(f"direction={direction!r}: 'out', 'in' or 'both'")
    names = (types,) if isinstance(types, str) else tuple(types)
    if not names:
        raise InvalidFilter("the relations to follow: one type, or a list that is not empty")
    for name in names:
        if not _declared(scope, (name,)):
            known = sorted({r.type for one in scope.wiring.types.values() for r in one.relations.values()})
            raise UnsupportedOperation(
                f"no entity declares a relation {name!r}; known: {', '.join(known) or 'none'}. Put "
                f"Relation({name!r}, to=...) on a field"
            )
    checked = [one.edge_condition(field, where) for one, field, _ in _declared(scope, names)]
    if any(one != checked[0] for one in checked):
        raise InvalidFilter(f"edges= means different things on the edges of {', '.join(names)}; ask for them apart")
    return Edges(names, direction, checked[0] if checked else None)


def _declared(scope: Scope[Any], types: Iterable[str]) -> list[tuple[EntityType[Any], str, str]]:
    """(entity that has the edges, its field, entity of the other ends) of the relations of these types."""
    return [
        (one, field, str(relation.to))
        for one in scope.wiring.types.values()
        for field, relation in one.relations.items()
        if relation.type in types
    ]


def _only_end(scope: Scope[Any], edges: Edges, what: str) -> EntityType[Any]:
    """The one entity that can be reached: what is meant without `into`."""
    ends: set[str] = set()
    for one, _, to in _declared(scope, edges.types):
        ends.update([to] if edges.direction != "in" else [], [one.name] if edges.direction != "out" else [])
    if len(ends) != 1:
        raise InvalidFilter(f"{what}, which can be {', '.join(sorted(ends)) or 'none'}: say into=")
    return scope.wiring.types[ends.pop()]


# -- who answers --------------------------------------------------------------------------------------------------


def graph_of(scope: Scope[Any], types: str | Sequence[str]) -> tuple[Store, list[str]]:
    """The store that holds the edges of these relations, and the entity types that have them: the edges into a record
    belong to other types. While they move to another store, one type after the other, all go on to be in the one that
    they come from. Raises UnsupportedOperation when several stores hold them."""
    wiring = scope.wiring
    names = (types,) if isinstance(types, str) else types
    owners = _owners(scope, names)
    serving = {wiring.placements[name].facets["graph"] for name in owners}
    holding = [{one.facets["graph"], *_left(one)} for one in map(wiring.placements.__getitem__, owners)]
    stores = serving if len(serving) == 1 else holding[0].intersection(*holding[1:])
    if not stores:
        raise UnsupportedOperation(
            f"the edges of {', '.join(map(repr, names))} lie in several stores ({', '.join(sorted(serving))}); pin the "
            f"graph of {', '.join(owners)} to one of them"
        )
    return wiring.store(min(stores)), owners


def _owners(scope: Scope[Any], types: Sequence[str]) -> list[str]:
    """The entity types that have these edges."""
    return list(dict.fromkeys(one.name for one, _, _ in _declared(scope, types)))


def _left(placement: Placement) -> set[str]:
    """The store that served the edges until a moment ago, and is still delivered to."""
    return {placement.leaving["graph"]} if "graph" in placement.leaving else set()


async def _ready(scope: Scope[Any], edges: Edges, after: Token | None, stale_ok: bool) -> Store:
    store, owners = graph_of(scope, edges.types)
    for owner in owners:
        await Scope(scope.wiring, scope.wiring.types[owner], scope.tenant).ready(store, after, stale_ok)
    return store


async def _records(scope: Scope[Any], keys: Iterable[Key], stale_ok: bool) -> Mapping[Key, Record | None]:
    """Each type is looked up at its own home."""
    wiring = scope.wiring
    by_type: dict[str, list[Key]] = {}
    for key in keys:
        if key.etype in wiring.types:  # a store may be shared with another application
            by_type.setdefault(key.etype, []).append(key)
    scopes = [Scope(wiring, wiring.types[etype], scope.tenant) for etype in by_type]
    answers = await asyncio.gather(
        *(
            stale.records(one, group, one.home.get, stale_ok)
            for one, group in zip(scopes, by_type.values(), strict=True)
        )
    )
    return {
        key: record
        for group, found in zip(by_type.values(), answers, strict=True)
        for key, record in zip(group, found, strict=True)
    }


def _check_work(n: int, limit: int, what: str) -> None:
    if n > NODES_MAX:
        raise WorkLimitExceeded(
            f"fewer than {limit} of the first {n // 2} {what} satisfy the conditions, and one call looks at no more "
            "than that; follow fewer edges (edges=, direction=, the types), take fewer steps, or ask for fewer"
        )


# -- related records ----------------------------------------------------------------------------------------------


async def related(
    scope: Scope[Any], key: Key, asked: Walk, after: Token | None, stale_ok: bool
) -> Sequence[tuple[Key, Related[Any]]]:
    """The records that are reached, with their identities."""
    owners = _owners(scope, asked.edges.types)
    return await scope.manager.following.where_it_is(owners, lambda: _related(scope, key, asked, after, stale_ok))


async def _related(
    scope: Scope[Any], key: Key, asked: Walk, after: Token | None, stale_ok: bool
) -> Sequence[tuple[Key, Related[Any]]]:
    store = await _ready(scope, asked.edges, after, stale_ok)
    edges = asked.edges

    async def ask(n: int) -> tuple[Sequence[tuple[Key, Related[Any]]], bool]:
        _check_work(n, asked.limit, "nodes")
        nodes = await store.call(
            SupportsTraversal.traverse,
            key.etype,
            key.tenant,
            key.id,
            edges.types,
            edges.direction,
            asked.depth,
            edges.where,
            n,
        )
        return await _hydrated(scope, asked, nodes, stale_ok), len(nodes) < n

    return await enough(asked.limit, ask)


async def _hydrated(
    scope: Scope[Any], asked: Walk, found: Sequence[Reached], stale_ok: bool
) -> list[tuple[Key, Related[Any]]]:
    """The nodes with their current records, in the order of the walk, as many as are asked for."""
    wanted = scope.wiring.types if asked.into is None else {asked.into.name: asked.into}
    holds = None if asked.where is None else predicate(asked.where)
    nodes = [node for node in found if node.etype in wanted]
    out: list[tuple[Key, Related[Any]]] = []
    for start in range(0, len(nodes), _CHUNK):
        chunk = {Key(scope.tenant, node.etype, node.id): node for node in nodes[start : start + _CHUNK]}
        records = await _records(scope, chunk, stale_ok)
        for key, node in chunk.items():
            body = live(records[key], holds)
            if body is not None:
                out.append((key, Related(wanted[key.etype].decode(body), node.depth, node.path, node.properties)))
        if len(out) >= asked.limit:
            break
    return out


# -- paths --------------------------------------------------------------------------------------------------------


async def paths(scope: Scope[Any], asked: Way, after: Token | None) -> list[Path]:
    owners = _owners(scope, asked.edges.types)
    return await scope.manager.following.where_it_is(owners, lambda: _paths(scope, asked, after))


async def _paths(scope: Scope[Any], asked: Way, after: Token | None) -> list[Path]:
    store = await _ready(scope, asked.edges, after, False)
    edges = asked.edges

    async def ask(n: int) -> tuple[Sequence[Path], bool]:
        _check_work(n, asked.limit, "paths")
        found = await store.call(
            SupportsTraversal.paths,
            asked.start,
            asked.end,
            edges.types,
            edges.direction,
            asked.depth_max,
            edges.where,
            n,
        )
        return await _standing(scope, asked, found), len(found) < n

    return list(await enough(asked.limit, ask))


async def _standing(scope: Scope[Any], asked: Way, found: Sequence[Sequence[Link]]) -> list[Path]:
    """The paths of which all records are there, all edges belong to them, and the condition holds between the ends."""
    holds = None if asked.edges.where is None else predicate(asked.edges.where)
    wanted = None if asked.where is None else predicate(asked.where)
    ends = (asked.start, asked.end)
    links = {link for path in found for link in path}
    keys = sorted({key for link in links for key in _ends(scope.tenant, link)}, key=str)
    there: set[Key] = set()
    standing: set[Link] = set()
    for start in range(0, len(keys), _CHUNK):
        for key, record in (await _records(scope, keys[start : start + _CHUNK], False)).items():
            judged = wanted if key.etype == asked.end.etype and key not in ends else None
            body = live(record, judged)
            if body is not None:
                there.add(key)
                standing.update(links & _links(scope.wiring.types[key.etype], key, body, holds))
    standing = {link for link in standing if there.issuperset(_ends(scope.tenant, link))}
    return [[(link.id, link.type, link.to_id) for link in path] for path in found if standing.issuperset(path)]


def _ends(tenant: str, link: Link) -> tuple[Key, Key]:
    return Key(tenant, link.etype, link.id), Key(tenant, link.to_etype, link.to_id)


def _links(entity: EntityType[Any], key: Key, body: Body, holds: Callable[[Body], bool] | None) -> set[Link]:
    """The edges of a record that a walk may follow."""
    return {
        Link(key.etype, key.id, edge.type, edge.to_etype, edge.to_id)
        for edge in entity.edges(body)
        if holds is None or holds({"properties": edge.properties})
    }
