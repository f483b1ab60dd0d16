"""Records: read by key, in the order of their hashes, and written if newer.

A node is locked before its version is compared (a property of it is set first), and the rows of one statement have a
key once: the server reads all of a statement's nodes before it writes the first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from polystore.errors import DecodeError, PolystoreError
from polystore.model import APPLIED, STALE, UNREADABLE, Change, HashSpan, Key, Outcome, Page, Record, Stamp
from polystore.relational import edges
from polystore_adapters.neo4j.held import AllHeld, Held
from polystore_adapters.neo4j.nodes import edge_properties, key_of, opened, unpacked
from polystore_adapters.neo4j.server import Row, Server, quoted, rows

KEYS = 500
_Edge = tuple[str, str, str, str, Row]
"""The end and the record by their keys, tenant and id of the end, properties."""
LIVE = "n.ps_live AND (n.ps_expires_us = 0 OR n.ps_expires_us > $now)"


async def get(server: Server, types: AllHeld, keys: Sequence[Key], now_us: int) -> list[Record | None]:
    """See `Repository.get`."""
    asked = {key_of(key.tenant, (key.etype, key.id)): key for key in keys}
    for key in asked.values():
        types[key.etype]  # prepared, or SchemaMismatch
    found: dict[Key, Record] = {}
    places = list(asked)
    for start in range(0, len(places), KEYS):
        query = (
            f"MATCH (n:{quoted(server.label)}) WHERE n.ps_key IN $keys AND n.ps_record IS NOT NULL "
            "RETURN n.ps_key AS key, n.ps_record AS record"
        )
        for row in await server.read(query, keys=places[start : start + KEYS]):
            key = asked[row["key"]]
            found[key] = types[key.etype].codec.record(key, row["record"], now_us)
    return [found.get(key) for key in keys]


async def scan(
    server: Server, held: Held, tenant: str, span: HashSpan, cursor: str | None, limit: int, now_us: int
) -> Page:
    """See `Repository.scan`. The relationships are compared with the fields, too."""
    h, id = (span.low, "") if cursor is None else msgspec.json.decode(cursor, type=tuple[int, str])
    behind = "" if cursor is None else "AND (n.ps_h > $h OR n.ps_id > $id) "
    query = (
        f"MATCH (n:{held.all}) WHERE n.ps_tenant = $tenant AND n.ps_etype = $etype AND n.ps_h >= $h AND n.ps_h < $high "
        f"AND {LIVE} {behind}WITH n ORDER BY n.ps_h, n.ps_id LIMIT $limit "
        f"RETURN n.ps_id AS id, n.ps_h AS h, n.ps_version AS version, n.ps_record AS record, [(n)-[e]->(m:{held.all}) "
        "WHERE e.ps_properties IS NOT NULL | [type(e), m.ps_etype, m.ps_id, e.ps_properties]] AS edges "
        "ORDER BY n.ps_h, n.ps_id"
    )
    high, now = span.high, now_us
    given: dict[str, Any] = {"tenant": tenant, "etype": held.etype, "h": max(span.low, h), "id": id, "high": high}
    nodes = await server.read(query, **given, now=now, limit=limit + 1)
    stamps = [stamp for row in nodes[:limit] if (stamp := _stamp(held, row)) is not None]
    more, last = len(nodes) > limit, nodes[limit - 1 : limit]
    return Page(stamps, msgspec.json.encode((last[0]["h"], last[0]["id"])).decode() if more else None)


def _stamp(held: Held, row: Row) -> Stamp | None:
    id: str = row["id"]
    if row["record"] is None:  # as `get` has it
        return None
    try:
        found = opened(row["record"], id)
        if found.body is None:  # deleted while the server looked
            return None
        body = held.codec.decode(id, found.body)
    except DecodeError:
        return Stamp(id, row["h"], row["version"], b"", fault=UNREADABLE)
    fault = ""
    if "graph" in held.layout.facets:
        fault = edges.fault(held.entity, body, [tuple(edge) for edge in row["edges"]])
    return Stamp(id, row["h"], found.version, held.entity.content_hash(body), fault=fault)


async def tenants(server: Server, held: Held, now_us: int) -> list[str]:
    """See `Repository.tenants`."""
    query = f"MATCH (n:{held.all}) WHERE n.ps_etype = $etype AND {LIVE} RETURN DISTINCT n.ps_tenant AS tenant"
    return sorted(row["tenant"] for row in await server.read(query, etype=held.etype, now=now_us))


async def newest(server: Server, held: Held) -> int:
    """See `Repository.newest`."""
    query = f"MATCH (n:{held.all}) WHERE n.ps_etype = $etype RETURN max(n.ps_version) AS version"
    (row,) = await server.read(query, etype=held.etype)
    return int(row["version"] or 0)


# -- writing ------------------------------------------------------------------------------------------------------


async def apply(server: Server, types: AllHeld, changes: Sequence[Change]) -> list[Outcome]:
    """See `Repository.apply`: of a key's changes only the newest is sent. One transaction for all."""
    outcomes: list[Outcome] = [STALE] * len(changes)
    kept = await _kept(server, types, changes)
    chosen: dict[Key, tuple[int, Row]] = {}
    for i, change in sorted(enumerate(changes), key=lambda pair: pair[1].version):
        try:
            node = types[change.key.etype].codec.encoded(change, kept.get(change.key, {}))
            chosen[change.key] = i, node
        except PolystoreError as error:
            outcomes[i] = Outcome("rejected", error)
    by_type: dict[str, list[tuple[int, Row]]] = {}
    for key in sorted(chosen, key=lambda key: (key.etype, key.tenant, key.id)):
        by_type.setdefault(key.etype, []).append(chosen[key])
    if by_type:
        async with server.writing() as tx:
            for etype, some in by_type.items():
                for i in await _write(tx, types[etype], some, changes):
                    outcomes[i] = APPLIED
    return outcomes


async def _write(tx: Any, held: Held, some: Sequence[tuple[int, Row]], changes: Sequence[Change]) -> list[int]:
    """Which of the changes were newer."""
    names = held.codec.names
    given = [[i, node["ps_version"] + changes[i].overwrites, *map(node.get, names)] for i, node in some]
    # Rows of values, and two lists of numbers back: to pack names, and to read a row for each record, took as long as
    # all that the server does. A node that is made here is locked by that.
    properties = ", ".join(f"{quoted(name)}: r[{i}]" for i, name in enumerate(names, 2))
    guard = (
        f"UNWIND $rows AS r MERGE (n:{held.all} {{ps_key: r[2]}}) ON MATCH SET n.ps_lock = true "
        "WITH n, r, n.ps_version IS NOT NULL AS stood WHERE coalesce(n.ps_version, -1) < r[1] "
        f"SET n = {{{properties}}}, n:{quoted(held.etype)} "
        "RETURN collect(r[0]) AS newer, collect(CASE WHEN stood THEN r[0] END) AS stood"
    )
    (found,) = await rows(tx, guard, rows=given)
    newer, stood = set[int](found["newer"]), set[int](found["stood"])
    locked = [node["ps_key"] for i, node in some if i not in newer]  # of the others the node is all that there is
    if locked:
        unlock = f"UNWIND $keys AS key MATCH (n:{held.all} {{ps_key: key}}) REMOVE n.ps_lock"
        await rows(tx, unlock, keys=locked)
    written = [changes[i] for i, _ in some if i in newer]
    await replace_edges(tx, held, written, [changes[i] for i, _ in some if i in stood])
    return list(newer)


async def replace_edges(tx: Any, held: Held, changes: Sequence[Change], stood: Sequence[Change]) -> None:
    """Give each record the relationships of its body, in the transaction that has written it. `stood`: those of them
    that may have some, of an older version."""
    if stood:
        keys = [key_of(one.key.tenant, (one.key.etype, one.key.id)) for one in stood]
        own = f"UNWIND $keys AS key MATCH (n:{held.all} {{ps_key: key}})"
        await rows(tx, f"{own}-[e]->() WHERE e.ps_properties IS NOT NULL DELETE e", keys=keys)
    if not changes or "graph" not in held.layout.facets:
        return
    for (kind, to), ends in _edges(held, changes).items():
        made = (
            f"UNWIND $rows AS r MATCH (n:{held.all} {{ps_key: r[1]}}) MERGE (m:{held.all} {{ps_key: r[0]}}) "
            f"ON CREATE SET m:{quoted(to)}, m.ps_tenant = r[2], m.ps_etype = $etype, m.ps_id = r[3] "
            f"CREATE (n)-[e:{quoted(kind)}]->(m) SET e = r[4]"
        )
        await rows(tx, made, rows=ends, etype=to)


def _edges(held: Held, changes: Sequence[Change]) -> dict[tuple[str, str], list[_Edge]]:
    """(relation, entity of the ends) -> the relationships to make, the same ends in the same order always."""
    found: dict[tuple[str, str], list[_Edge]] = {}
    for change in changes:
        tenant = change.key.tenant
        key = key_of(tenant, (change.key.etype, change.key.id))
        for edge in held.entity.edges(change.body or {}):
            to = key_of(tenant, (edge.to_etype, edge.to_id))
            row = (to, key, tenant, edge.to_id, edge_properties(edge))
            found.setdefault((edge.type, edge.to_etype), []).append(row)
    return {place: sorted(found[place], key=lambda row: row[:2]) for place in sorted(found)}


async def _kept(server: Server, types: AllHeld, changes: Sequence[Change]) -> Mapping[Key, Mapping[str, Any]]:
    """Values of fields that the classes have no more, by key."""
    asked = {
        key_of(change.key.tenant, (change.key.etype, change.key.id)): change.key
        for change in changes
        if types[change.key.etype].retired and not change.deleted
    }
    if not asked:
        return {}
    query = f"MATCH (n:{quoted(server.label)}) WHERE n.ps_key IN $keys AND n.ps_live "
    found = await server.read(f"{query} RETURN n.ps_key AS key, n.ps_record AS record", keys=list(asked))
    kept: dict[Key, dict[str, Any]] = {}
    for row in found:
        key = asked[row["key"]]
        with suppress(DecodeError):  # what is damaged has nothing to keep, and is written again
            body = unpacked(row["record"], key.id)
            kept[key] = {name: value for name, value in body.items() if name in types[key.etype].retired}
    return kept


async def purge(server: Server, held: Held, before_us: int, limit: int) -> int:
    """Remove tombstones that are older; what edges still lead to is a stub again. The newest of all stays: what it was
    is asked for. Returns how many."""
    chosen = (
        f"MATCH (n:{held.all}) WHERE n.ps_etype = $etype AND n.ps_live IS NULL AND n.ps_updated_us < $before "
        "AND n.ps_version < $newest WITH n LIMIT $limit SET n.ps_lock = true WITH n "
        "WHERE n.ps_live IS NULL AND n.ps_updated_us < $before "
    )
    given = {"etype": held.etype, "before": before_us, "newest": await newest(server, held), "limit": limit}
    async with server.writing() as tx:
        fields = "n.ps_record, n.ps_version, n.ps_h, n.ps_updated_us, n.ps_lock"
        (row,) = await rows(tx, f"{chosen} REMOVE {fields} RETURN count(n) AS n", **given)
        # Locked, too, before it is looked at again: somebody may be making a record of it, or the end of an edge.
        alone = "n.ps_version IS NULL AND NOT (n)--()"
        stubs = f"MATCH (n:{held.all}) WHERE n.ps_etype = $etype AND {alone} SET n.ps_lock = true REMOVE n.ps_lock "
        await rows(tx, f"{stubs} WITH n WHERE {alone} DELETE n", etype=held.etype)
    return int(row["n"])
