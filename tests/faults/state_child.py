"""A child process that counts and takes from a limit that others share. Run by test_state_processes.py.

usage: state_child.py DIRECTORY COUNT LIMIT   prints the sum after each increment, and the times of what was allowed.
"""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import dataclass

from polystore import HybridDataArchitecture, entity

PER_S = 0.2


@entity(data_type="counter")
@dataclass
class Hits:
    id: str
    number: int = 0


async def main(directory: str, count: int, limit: int) -> None:
    async with HybridDataArchitecture.open(f"embedded:{directory}", entities=[Hits]) as hda:
        for _ in range(count):
            print("sum", await hda.state(Hits).incr("shared", "number"), flush=True)
            before_us = time.time_ns() // 1000
            if (await hda.limiter("shared", limit=limit, per_s=PER_S).take("key")).allowed:
                print("allowed", before_us, time.time_ns() // 1000, flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
