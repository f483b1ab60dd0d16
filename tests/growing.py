"""What the tests of growing systems share: trees, stores that hold them, and writes that go on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from polystore import Embedding, FullText, HybridDataArchitecture, entity
from polystore.architecture import Opening
from polystore.consistency import Settings
from polystore.consistency.verify import Verifier

SETTINGS = Settings(poll_s=0.05, backfill_chunk=20, call_timeout_s=0.2, batch_deadline_s=0.3, worker_dead_s=0.4)


@entity()
@dataclass(kw_only=True)
class Tree:
    id: str
    text: Annotated[str, FullText(), Embedding()]


def stores(tmp_path: Path, **roles: list[str]) -> dict[str, Any]:
    return {"stores": {name: {"url": f"sqlite:{tmp_path}/{name}.db", "roles": some} for name, some in roles.items()}}


async def until(true: Callable[[], bool], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110 -- what is waited for is in several processes
            await asyncio.sleep(0.01)


def opening(config: dict[str, Any], settings: Settings = SETTINGS) -> Opening:
    return HybridDataArchitecture.open(config, entities=[Tree], settings=settings)


async def found(hda: HybridDataArchitecture, text: str = "나무") -> tuple[set[str], str]:
    """What a search finds, and which store has answered: the last one that was asked."""
    with hda.trace() as trace:
        hits = await hda.collection(Tree).search(text, limit=500)
    asked = [step.store for step in trace.steps if step.verb == "search"]
    return {hit.value.id for hit in hits}, asked[-1]


async def gone_over(hda: HybridDataArchitecture, store: str) -> None:
    await until(lambda: hda.manager.placements["tree"].facets["full_text"] == store)


async def over(hda: HybridDataArchitecture) -> None:
    """The move has ended."""
    await until(lambda: not (p := hda.manager.placements["tree"]).upcoming and not p.leaving)


async def differences(hda: HybridDataArchitecture) -> list[Any]:
    await hda.settle(30)
    verifier = Verifier(hda.stores, hda.manager.placements, hda.manager.embedders)
    return [one async for one in verifier.differences("tree")]


@contextlib.asynccontextmanager
async def busy(hda: HybridDataArchitecture, name: str = "w") -> AsyncGenerator[dict[str, str]]:
    """Writes and deletes go on; what must be found at the end."""
    live: dict[str, str] = {}
    trees = hda.collection(Tree)
    ending = False

    async def write() -> None:
        n = 0
        while not ending:
            n += 1
            id = f"{name}{n % 30}"
            if n % 7 == 0:
                await trees.delete(id)
                live.pop(id, None)
            else:
                await trees.put(Tree(id=id, text=f"새 나무 {n}"))
                live[id] = f"새 나무 {n}"
            await asyncio.sleep(0.002)

    task = asyncio.create_task(write())
    try:
        yield live
    finally:
        ending = True  # a write that is cancelled may be committed later, behind what is looked at next
        await task
