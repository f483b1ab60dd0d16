"""A child process that deletes what many records refer to, and is killed on the way. Run by `test_detach_killed.py`.

usage: letting_go.py delete DIRECTORY CRASHPOINT HIT | letting_go.py check DIRECTORY
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass, field
from typing import Annotated

from polystore import HybridDataArchitecture, Relation, entity
from polystore.consistency import Settings, detach
from polystore.consistency.verify import Verifier
from tests.faults.worker import KillAt

SOURCES = 60


@entity()
@dataclass(kw_only=True)
class City:
    id: str


@entity()
@dataclass(kw_only=True)
class Trip:
    id: str
    over: Annotated[list[str], Relation("OVER", to=City, on_delete="detach")] = field(default_factory=list[str])


async def main(verb: str, directory: str, crashpoint: str | None = None, hit: str = "0") -> None:
    detach.BATCH = 10
    opening = HybridDataArchitecture.open(
        f"embedded:{directory}",
        entities=[City, Trip],
        env=KillAt(crashpoint, int(hit)),
        settings=Settings(poll_s=0.05, sweep_s=0.2, retry_base_s=0.01, retry_max_s=0.1),
    )
    async with opening as hda:
        cities, trips = hda.collection(City), hda.collection(Trip)
        if verb == "delete":
            await trips.put_many([Trip(id=f"t{i:02}", over=["gone", "stays"]) for i in range(SOURCES)])
            await cities.put_many([City(id="gone"), City(id="stays")])
            await cities.delete("gone")
        await hda.settle(30)
        verifier = Verifier(hda.stores, hda.manager.placements, hda.manager.embedders)
        differences = [repr(one) for name in ("city", "trip") async for one in verifier.differences(name)]
        over = [trip.over async for trip in trips.stream()]
        print(json.dumps({"differences": differences, "over": over}), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
