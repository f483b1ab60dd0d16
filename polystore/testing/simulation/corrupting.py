"""Copies made wrong behind everybody's back, as by hand, by a restore, or by a failing disk."""

from __future__ import annotations

import asyncio
import random
from array import array
from collections.abc import Collection, Sequence

import msgspec
from polystore_adapters.memory.tables import Row

from polystore.model import Key, key_hash
from polystore.testing.simulation.history import History, State
from polystore.testing.simulation.servers import SimServer

KINDS = ("missing", "extra", "older", "content", "vector")
RECONCILE_S, ROUND_S = 2.0, 4.0
"""How often a corrupted seed compares, and how long a round takes."""
_PAUSE_S = 2.0


async def corruptions(servers: Sequence[SimServer], r: random.Random, seen: History) -> None:
    """Until it is cancelled."""
    while True:
        await asyncio.sleep(r.expovariate(1 / _PAUSE_S))
        corrupt_one(r.choice(servers), r, seen)


def corrupt_one(
    server: SimServer,
    r: random.Random,
    seen: History,
    kinds: Sequence[str] = KINDS,
    only: Collection[str] | None = None,
) -> bool:
    """Make one record (of those with these ids) wrong, in one of these ways; False when there is none."""
    rows = [
        (Key(tenant, etype, id), row)
        for etype in sorted(server.layouts)
        for tenant, part in server.parts(etype)
        for id, row in sorted(part.rows.items())
        if only is None or id in only
    ]
    if rows:
        kind = r.choice(kinds)
        key = _corrupt(server, *r.choice(rows), kind)
        seen.corrupted.add((server.name, key))
        seen.covered[f"corrupted {kind}"] += 1
        seen.note(f"{server.name} {key.tenant}/{key.etype}/{key.id} is corrupted: {kind}")
    return bool(rows)


def _corrupt(server: SimServer, key: Key, row: Row, kind: str) -> Key:
    """Which record it is about then."""
    match kind:
        case "missing":
            server.remove(key)
        case "older":
            server.install(key, msgspec.structs.replace(row, version=row.version - 1))
        case "content":
            body = {**row.body, "text": "corrupted", "n": -1}
            server.install(key, msgspec.structs.replace(row, body=body, hash=b"corrupted"))
        case "vector" if row.vectors:
            vectors = {field: array("f", [9.0] * len(one)) for field, one in row.vectors.items()}
            server.install(key, msgspec.structs.replace(row, vectors=vectors))
        case _:
            key = msgspec.structs.replace(key, id="extra")
            extra = msgspec.structs.replace(row, h=key_hash(key.tenant, key.etype, key.id), expires_us=0)
            server.install(key, extra)
    return key


def still_wrong(home: SimServer, servers: Sequence[SimServer], seen: History) -> list[str]:
    """What was corrupted and is not as the home has it, nor refused there, in a copy that serves or is to: a rebuild
    that was taken back leaves its place as it is. What vectors should be, the checker looks at."""
    wrong: list[str] = []
    parked = {(row.target, row.key) for row in home.parked(None, None, 1_000_000)[0]}
    off = {(row.etype, row.name) for row in home.targets() if row.status == "off"}
    standing = home.contents()
    for server in servers:
        states = server.contents()
        for name, key in sorted(seen.corrupted - parked, key=str):
            if name == server.name and (key.etype, name) not in off and differs(standing.get(key), states.get(key)):
                wrong.append(f"{name} {key.id}")
    return wrong


def differs(here: State | None, there: State | None) -> bool:
    """Whether a copy has a record otherwise than its home. Of vectors, only those that were corrupted are known."""
    if here is None or here.deleted:
        return there is not None and not there.deleted
    if there is None or there.deleted or (here.version, here.hash) != (there.version, there.hash):
        return True
    return there.vector is not None and set(array("f", there.vector)) == {9.0}
