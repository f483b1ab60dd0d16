"""What the tests of the alias share, and a child process that rebuilds a copy until it is done or killed.

usage: renaming.py DIRECTORY URL PREFIX [CRASHPOINT HIT]
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from polystore import HybridDataArchitecture
from polystore.consistency import Settings
from polystore.env import Env
from tests.faults.worker import KillAt
from tests.growing import Tree

SETTINGS = Settings(poll_s=0.05, call_timeout_s=0.4, batch_deadline_s=0.5, worker_dead_s=0.6)


def application(folder: str, url: str, prefix: str, env: Env | None = None) -> Any:
    stores = {
        "main": {"url": f"sqlite:{folder}/main.db", "roles": ["home", "vector"]},
        "search": {"url": url, "roles": ["full_text"], "options": {"prefix": prefix}},
    }
    return HybridDataArchitecture.open({"stores": stores}, entities=[Tree], settings=SETTINGS, env=env)


async def rebuild(folder: str, url: str, prefix: str, env: Env) -> None:
    async with application(folder, url, prefix, env) as hda:
        await hda.rebuild_copies("search")


if __name__ == "__main__":
    where, server, named, *kill = sys.argv[1:]
    point, hit = kill or (None, 0)
    asyncio.run(rebuild(where, server, named, KillAt(point, int(hit))))
