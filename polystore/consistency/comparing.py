"""Does a copy hold what its home holds, while writes go on? What `verify` finds is looked at again where it may be a
change on its way: only what stays is a difference."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from polystore.consistency.embedding import Embedders
from polystore.consistency.line import Line
from polystore.consistency.loading import load
from polystore.consistency.verify import Difference, Verifier
from polystore.model import Change, Key, Placement, Record
from polystore.store import Store

MOVING = ("missing", "lost", "extra", "older", "newer")
"""Problems that a write may look like which came between the two sides."""
SUSPECTS_MAX = 10_000
PATIENCE_S = 20.0
POLL_S = 0.2


async def differences(
    line: Line, etype: str, facets: frozenset[str], copy: Store, stores: Mapping[str, Store], embedders: Embedders
) -> list[Difference]:
    """What the copy holds otherwise than the home, for these facets; at most about `SUSPECTS_MAX`. Reads both sides
    whole, and waits up to 20 s for what is on its way. Raises what the stores raise."""
    alone = Placement(etype, line.home.name, dict.fromkeys(facets, copy.name))
    found: list[Difference] = []
    async for one in Verifier(stores, {etype: alone}, embedders).differences(etype):
        if one.store == copy.name:
            found.append(one)
        if len(found) > SUSPECTS_MAX:
            return found
    suspects = {one.key: one for one in found if one.problem in MOVING}
    return [
        *(one for one in found if one.problem not in MOVING),
        *(suspects[key] for key in await _still_behind(line, copy, list(suspects))),
    ]


async def _still_behind(line: Line, copy: Store, keys: list[Key]) -> list[Key]:
    """Those of the records that the copy does not hold at the version which the home has now, or a newer one of it."""
    env = line.context.env
    deadline = env.monotonic() + PATIENCE_S
    wanted = await load(line.home, dict.fromkeys(keys, 0)) if keys else {}
    left = [key for key in keys if key in wanted]
    while left:
        records = dict(zip(left, await copy.get(left), strict=True))
        left = [key for key in left if not _holds(records[key], wanted[key])]
        ahead = [key for key, record in records.items() if record is not None and record.version > wanted[key].version]
        if ahead:  # the home is read after the copy: what the copy has then came from it, or it is not the home's
            wanted |= await load(line.home, dict.fromkeys(ahead, 0))
            left += [key for key in ahead if _version(records[key]) > wanted[key].version]
        if not left or env.monotonic() >= deadline:
            break
        await asyncio.sleep(POLL_S)
    return left


def _version(record: Record | None) -> int:
    return 0 if record is None else record.version


def _holds(record: Record | None, wanted: Change) -> bool:
    if record is None or record.body is None:
        return wanted.deleted or _version(record) > wanted.version
    return record.version > wanted.version or (record.version == wanted.version and not wanted.deleted)
