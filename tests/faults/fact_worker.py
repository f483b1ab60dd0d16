"""A child process that appends facts, some while their store is down, until it is done or killed. Run by the test
beside it.

usage: fact_worker.py work|check DIRECTORY [CRASHPOINT HIT]
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

from polystore import HybridDataArchitecture, Measure, entity
from polystore.consistency import Settings
from polystore.env import Env
from polystore.errors import Unavailable
from tests.faults.worker import KillAt, say

POINTS = 30
DOWN = range(8, 22)
"""The points during which the store of the facts does not answer."""
LIVES = {4: 0, 10: 1, 16: 2, 26: 3}
"""Before this point, the life of the record begins that is deleted five points later."""
START = datetime(2026, 1, 1, tzinfo=UTC)


@entity()
@dataclass
class Cat:
    id: str
    weight: ClassVar[Measure[int]] = Measure(int)
    secret: ClassVar[Measure[int]] = Measure(int, on_delete="erase")


def opened(directory: str, env: Env) -> Any:
    stores = {
        "home": {"url": f"sqlite:{directory}/home.db", "roles": ["home", "journal"]},
        "facts": {"url": f"sqlite:{directory}/facts.db", "roles": ["time_series"], "timeout_s": 2.0},
    }
    settings = Settings(poll_s=0.02, retry_base_s=0.01, retry_max_s=0.05)
    return HybridDataArchitecture.open({"stores": stores}, entities=[Cat], env=env, settings=settings)


async def work(directory: str, env: KillAt) -> None:
    async with opened(directory, env) as hda:
        cats = hda.collection(Cat)
        facts: Any = hda.stores["facts"].repository
        verbs = ("append_points", "erase_points", "ping")

        async def refuse(*args: object) -> None:
            raise Unavailable("away")

        for i in range(POINTS):
            if i == DOWN.start:
                for verb in verbs:
                    setattr(facts, verb, refuse)
            elif i == DOWN.stop:
                for verb in verbs:
                    delattr(facts, verb)
            if i in LIVES:
                await cats.put(Cat("tom"))
                await cats.append(Cat.secret, "tom", LIVES[i], at=START + timedelta(seconds=i))
                say({"born": LIVES[i]})
            if i - 5 in LIVES:
                say({"dying": LIVES[i - 5]})
                await cats.delete("tom")
                say({"dead": LIVES[i - 5]})
            await cats.append(Cat.weight, "tom", i, at=START + timedelta(seconds=i))
            say({"acked": i})
        await hda.settle(30)
    say({"passed": dict(env.passed)})


async def check(directory: str) -> None:
    async with opened(directory, Env()) as hda:
        await hda.settle(30)
        cats = hda.collection(Cat)
        weights = [point.value for point in await cats.series(Cat.weight, "tom", start=START)]
        secrets = [point.value for point in await cats.series(Cat.secret, "tom", start=START)]
        say({"weights": weights, "secrets": secrets})


if __name__ == "__main__":
    mode, place, *crash = sys.argv[1:]
    if mode == "work":
        asyncio.run(work(place, KillAt(crash[0] if crash else None, int(crash[1]) if crash else 0)))
    else:
        asyncio.run(check(place))
