"""A worker process that writes to PostgreSQL at a steady rate, with a copy in another schema, and says what was
acknowledged: a line [id, version, text] for each write.

usage: postgresql_child.py CONFIG(json) NAME RATE     it prints "[]" and stops writing when it reads a line; it goes on
as a worker until its input ends.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from dataclasses import dataclass
from typing import Annotated, Any

from polystore import Collection, FullText, HybridDataArchitecture, OutcomeUnknown, entity

RECORDS = 400
UNDER_WAY_MAX = 100


@entity(name="kit_line")
@dataclass(kw_only=True)
class Line:
    id: str
    text: Annotated[str, FullText()]


def say(*what: object) -> None:
    sys.stdout.write(json.dumps(what, ensure_ascii=False) + "\n")
    sys.stdout.flush()


async def one_write(lines: Collection[Line], id: str, text: str | None) -> None:
    try:
        result = await (lines.delete(id) if text is None else lines.put(Line(id=id, text=text)))
    except OutcomeUnknown:  # on a machine that is busy with other things: written or not, and nobody was told
        return
    if result.version is not None:  # a delete of what is not there has none
        say(id, result.version, text)


async def write(lines: Collection[Line], name: str, rate: float, enough: asyncio.Event) -> None:
    """`rate` writes a second, late ones made up for, until it is `enough`; a ninth are deletes."""
    r = random.Random(name)
    began, turn = time.monotonic(), 0
    async with asyncio.TaskGroup() as group:
        under_way: set[asyncio.Task[None]] = set()
        while not enough.is_set():
            due = (time.monotonic() - began) * rate
            while turn < due and len(under_way) < UNDER_WAY_MAX:
                text = None if r.random() < 1 / 9 else f"말 {name} {turn}"
                task = group.create_task(one_write(lines, f"l{r.randrange(RECORDS)}", text))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
                turn += 1
            await asyncio.sleep(0.005)


async def work(config: Any, name: str, rate: float) -> None:
    enough = asyncio.Event()
    async with HybridDataArchitecture.open(config, entities=[Line]) as hda:
        writing = asyncio.create_task(write(hda.collection(Line), name, rate, enough))
        await asyncio.to_thread(sys.stdin.readline)
        enough.set()
        await writing
        say()
        await asyncio.to_thread(sys.stdin.readline)


if __name__ == "__main__":
    asyncio.run(work(json.loads(sys.argv[1]), sys.argv[2], float(sys.argv[3])))
