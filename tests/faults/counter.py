"""A child process that counts up shared records: read, add one, write. Run by test_two_processes.py.

usage: counter.py DIRECTORY COUNT NAME   prints a line for each acknowledged increment.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from dataclasses import dataclass, replace
from typing import Annotated

from polystore import AlreadyExists, FullText, HybridDataArchitecture, NotFound, VersionConflict, entity
from polystore.consistency import Settings

COUNTERS = 4


@entity()
@dataclass(frozen=True, kw_only=True)
class Counter:
    id: str
    value: int = 0
    text: Annotated[str, FullText()] = "계수기"


def add_one(counter: Counter) -> Counter:
    return replace(counter, value=counter.value + 1, text=f"계수기 값{counter.value + 1}")


async def main(directory: str, count: int, name: str) -> None:
    async with HybridDataArchitecture.open(
        f"embedded:{directory}", entities=[Counter], settings=Settings(poll_s=0.2)
    ) as hda:
        counters = hda.collection(Counter)
        say(f"{name} ready")
        for i in range(count):
            id = f"c{i % COUNTERS}"
            while True:  # many writers on few records: the five tries of `update` may not be enough
                try:
                    await counters.update(id, add_one)
                    break
                except VersionConflict:
                    await asyncio.sleep(0)
                except NotFound:
                    with contextlib.suppress(AlreadyExists):
                        await counters.create(Counter(id=id))
            say(f"{name} {id}")


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
