"""A child process that grows a system until it is done or killed. Run by the test beside it.

usage: grower.py DIRECTORY add|rebuild|back [CRASHPOINT HIT]
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from polystore import HybridDataArchitecture
from tests.faults.worker import KillAt
from tests.growing import SETTINGS, Tree, stores, until

ROLES = {"main": ["home", "vector"], "words": ["full_text"]}


async def grow(directory: str, what: str, env: KillAt) -> None:
    config = stores(Path(directory), **ROLES)
    async with HybridDataArchitecture.open(config, entities=[Tree], settings=SETTINGS, env=env) as hda:
        if what != "add":
            await hda.rebuild_copies("words", rollback=what == "back")
        placements = hda.manager.placements
        await until(lambda: not placements["tree"].upcoming and not placements["tree"].leaving)


if __name__ == "__main__":
    point, hit = sys.argv[3:] or (None, 0)
    asyncio.run(grow(sys.argv[1], sys.argv[2], KillAt(point, int(hit))))
