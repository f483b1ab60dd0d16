"""A child process that writes shared records with vectors, until it is told to end. Run by test_one_writer.py.

usage: vector_worker.py HOME URL PREFIX   prints its worker, then a line for each acknowledged write; ends when its
standard input does, once everything is delivered.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from polystore import Embedding, HybridDataArchitecture, entity

PLACES = 3


@entity()
@dataclass(kw_only=True)
class Place:
    id: str
    n: int
    at: Annotated[list[float], Embedding(dimension=2)]


def stores(home: str, url: str, prefix: str) -> Mapping[str, Any]:
    return {
        "stores": {
            "home": {"url": home, "roles": ["home", "journal"]},
            "near": {"url": url, "roles": ["vector"], "options": {"prefix": prefix}, "timeout_s": 60},
        }
    }


async def main(home: str, url: str, prefix: str) -> None:
    async with HybridDataArchitecture.open(stores(home, url, prefix), entities=[Place]) as hda:
        ended = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        places, n = hda.collection(Place), 0
        say(hda.manager.worker)
        while not ended.done():
            await places.put(Place(id=f"p{n % PLACES}", n=n, at=[1.0, float(n)]))
            n += 1
            say("put")
            await asyncio.sleep(0.03)
        await hda.settle(60)


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
