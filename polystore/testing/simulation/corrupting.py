"""Copies made wrong behind everybody's back, as by hand, by a restore, or by a failing disk."""

from __future__ import annotations

import asyncio
import random
from array import array
from collections.abc import Sequence

import msgspec
from polystore_adapters.memory.tables import Row

from polystore.model import Key, key_hash
from polystore.testing.simulation.history import History
from polystore.testing.simulation.servers import SimServer

KINDS = ("missing", "extra", "older", "content", "vector")
PERIODS = {"reconcile_s": 2.0, "reconcile_full_s": 4.0}
"""How often a corrupted seed compares."""
_PAUSE_S = 2.0


async def corruptions(servers: Sequence[SimServer], r: random.Random, seen: History) -> None:
    """Until it is cancelled."""
    while True:
        await asyncio.sleep(r.expovariate(1 / _PAUSE_S))
        server = r.choice(servers)
        rows = [
            (Key(tenant, etype, id), row)
            for etype in sorted(server.layouts)
            for tenant, part in server.parts(etype)
            for id, row in sorted(part.rows.items())
        ]
        if rows:
            kind = r.choice(KINDS)
            key = _corrupt(server, *r.choice(rows), kind)
            seen.corrupted.add((server.name, key))
            seen.covered[f"corrupted {kind}"] += 1
            seen.note(f"{server.name} {key.tenant}/{key.etype}/{key.id} is corrupted: {kind}")


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
    """What was corrupted and is not as the home has it, nor refused there; what vectors should be, the checker looks
    at."""
    wrong: list[str] = []
    parked = {(row.target, row.key) for row in home.parked(None, None, 1_000_000)[0]}
    for server in servers:
        for name, key in sorted(seen.corrupted - parked, key=str):
            if name == server.name:
                here, there = home.standing(key), server.standing(key)
                gone = here is None or here.deleted
                if (there is not None and not there.deleted) if gone else there is None or _differs(server, key, home):
                    wrong.append(f"{name} {key.id}")
    return wrong


def _differs(server: SimServer, key: Key, home: SimServer) -> bool:
    here, there = home.standing(key), server.standing(key)
    assert here is not None
    assert there is not None
    spoiled = there.vector is not None and set(array("f", there.vector)) == {9.0}
    return there.deleted or (here.version, here.hash) != (there.version, there.hash) or spoiled
