"""A child process that has a database of ChromaDB in itself. Run by test_in_process.py, with the library in its path.

usage: in_process.py write|hold|read FOLDER   write: writes records, deletes one, prints what is nearest. hold: writes
one more, prints a line, and waits for its end. read: opens again, prints what is nearest, and what `verify` finds.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from polystore import Embedding, HybridDataArchitecture, Unavailable, entity
from polystore.consistency.verify import Verifier


@entity()
@dataclass(kw_only=True)
class Place:
    id: str
    at: Annotated[list[float], Embedding(dimension=2)]
    name: str = ""


async def main(what: str, folder: Path) -> None:
    stores = {
        "home": {"url": f"sqlite:{folder}/home.db", "roles": ["home", "journal"]},
        "near": {"url": f"chromadb:{folder}/near", "roles": ["vector"]},
    }
    async with HybridDataArchitecture.open({"stores": stores}, entities=[Place]) as hda:
        places = hda.collection(Place)
        if what == "write":
            await places.put_many([Place(id=f"p{i}", at=[1.0, float(i)], name="가") for i in range(4)])
            await places.delete("p0", ack="applied")
        if what == "hold":
            await places.put(Place(id="p9", at=[1.0, 0.0]), ack="applied")
            say("held")
            sys.stdin.read()
        await hda.settle(30)
        near = [hit.value.id for hit in await places.similar([1.0, 0.0])]
        verifier = Verifier(hda.stores, hda.manager.placements, hda.manager.embedders)
        say({"near": near, "differences": [repr(one) async for one in verifier.differences("place")]})


def say(message: object) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    try:
        asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
    except Unavailable as error:
        say({"unavailable": str(error)})
