"""A child process that rebuilds the vectors of an application until it is done or killed. Run by the test beside it.

usage: rebuilder.py STORE_URL EMBEDDER_URL [CRASHPOINT HIT]
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass
from typing import Annotated, Any

from polystore import Embedding, FullText, HybridDataArchitecture, entity
from polystore.architecture import Opening
from polystore.consistency import Settings, renewing
from polystore.env import Env
from tests.faults.worker import KillAt

BATCH = 4


@entity()
@dataclass(kw_only=True)
class Leaf:
    id: str
    text: Annotated[str, FullText(), Embedding()]


def opening(store: str, server: str, model: str, env: Env | None = None) -> Opening:
    dimension = 12 if model == "m-2" else 8
    embedder: dict[str, Any] = {"url": server, "model": model, "dimension": dimension, "batch_max": BATCH}
    return HybridDataArchitecture.open(
        {"url": store, "embedders": {"default": embedder}},
        entities=[Leaf],
        env=env,
        settings=Settings(poll_s=0.05, backfill_chunk=5, call_timeout_s=0.5, batch_deadline_s=0.7, worker_dead_s=0.8),
    )


async def rebuild(store: str, server: str, env: KillAt) -> None:
    renewing.TURN_S = 1.0  # the next one waits as long for one that was killed while it had its turn
    async with opening(store, server, "m-2", env) as hda:
        texts = await hda.rebuild()
    print(json.dumps({"texts": texts, "passed": dict(env.passed)}), flush=True)


if __name__ == "__main__":
    point, hit = sys.argv[3:] or (None, 0)
    asyncio.run(rebuild(sys.argv[1], sys.argv[2], KillAt(point, int(hit))))
