"""A child process that writes to PostgreSQL, with a copy in another schema, and says what was acknowledged.

usage: postgresql_child.py CONFIG(json) NAME COUNT
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass
from typing import Annotated, Any

from polystore import FullText, HybridDataArchitecture, entity
from polystore.consistency import Settings

RECORDS = 40
SETTINGS = Settings(poll_s=0.1, sweep_s=0.5, retry_base_s=0.01)


@entity(name="kit_line")
@dataclass(kw_only=True)
class Line:
    id: str
    text: Annotated[str, FullText()]


async def work(config: Any, name: str, count: int) -> None:
    async with HybridDataArchitecture.open(config, entities=[Line], settings=SETTINGS) as hda:
        lines = hda.collection(Line)
        for turn in range(count):
            id = f"l{(turn * 7 + len(name)) % RECORDS}"
            result = await (lines.delete(id) if turn % 9 == 8 else lines.put(Line(id=id, text=f"말 {name} {turn}")))
            sys.stdout.write(json.dumps([id, result.version]) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(work(json.loads(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
