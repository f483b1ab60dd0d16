"""A child process that works on an embedded directory until it is done or killed. Run by the tests beside it.

usage: worker.py work|recover|check DIRECTORY [CRASHPOINT HIT]

work: carries out a fixed list of operations, printing a line when one is acknowledged; at the HIT-th pass of CRASHPOINT
it ends itself with SIGKILL. recover: delivers what a killed process left behind. check: opens, settles, verifies,
prints what every store holds. Every crashpoint that was passed is printed at the end of a run that is not killed.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from polystore import Embedding, FullText, HybridDataArchitecture, Relation, entity
from polystore.consistency import Settings
from polystore.consistency.verify import Verifier
from polystore.env import Env
from polystore.errors import InvalidData, Unavailable
from polystore.model import Change, Outcome

WRITES = 60
POISON = "n7"


@entity()
@dataclass(kw_only=True)
class Note:
    id: str
    text: Annotated[str, FullText(), Embedding("slow")]
    links: Annotated[list[str], Relation("LINKS", to="Note")] = field(default_factory=list[str])


class KillAt(Env):
    """Counts crashpoints and ends the process at one of them, as a power cut would end it."""

    def __init__(self, name: str | None, hit: int) -> None:
        super().__init__()
        self.name = name
        self.hit = hit
        self.passed: Counter[str] = Counter()

    def crashpoint(self, name: str) -> None:
        self.passed[name] += 1
        if name == self.name and self.passed[name] == self.hit:
            os.kill(os.getpid(), signal.SIGKILL)


class SlowEmbedder:
    """Not inline, so that the embedding stage is part of the game."""

    name, dimension, batch_max, chars_max = "slow-1", 4, 8, 1000

    async def embed(self, texts: Sequence[str], *, purpose: str) -> list[list[float]]:
        await asyncio.sleep(0.001)
        return [[float(len(text)), float(sum(map(ord, text)) % 97), 1.0, 0.5] for text in texts]


def troubled(hda: HybridDataArchitecture) -> None:
    """The search copy refuses one record for good, and is away for a moment."""
    copy: Any = hda.stores["full_text"].repository
    inner, calls = copy.apply, Counter[str]()

    async def apply(changes: Sequence[Change]) -> list[Outcome]:
        calls["all"] += 1
        if calls["all"] in (3, 4):
            raise Unavailable("away for a moment")
        bad = [change.key.id == POISON for change in changes]
        outcomes = iter(await inner([c for c, refused in zip(changes, bad, strict=True) if not refused]))
        return [Outcome("rejected", InvalidData("poison")) if refused else next(outcomes) for refused in bad]

    copy.apply = apply


def operation(i: int) -> tuple[str, str, str]:
    """(verb, id, text) of operation number i: puts and deletes over a few records."""
    id = f"n{(i * 5) % 11}"
    return ("delete" if i % 6 == 5 else "put", id, f"글 {i} 이야기")


async def work(directory: str, env: KillAt) -> None:
    settings = Settings(poll_s=0.05, sweep_s=0.2, retry_base_s=0.01)
    opening = HybridDataArchitecture.open(
        f"embedded:{directory}", entities=[Note], embedders={"slow": SlowEmbedder()}, env=env, settings=settings
    )
    async with opening as hda:
        troubled(hda)
        notes = hda.collection(Note)
        for i in range(WRITES):
            verb, id, text = operation(i)
            if verb == "delete":
                result = await notes.delete(id)
            else:
                result = await notes.put(Note(id=id, text=text, links=[f"n{i % 11}"]))
            say({"acked": i, "version": result.version})
        await hda.settle(30)
        home: Any = hda.stores["home"].repository
        say({"redriven": await home.redrive(None, None)})
        await asyncio.sleep(0.05)
        await hda.settle(30)
    say({"passed": dict(env.passed)})


async def recover(directory: str, env: KillAt) -> None:
    opening = HybridDataArchitecture.open(
        f"embedded:{directory}",
        entities=[Note],
        embedders={"slow": SlowEmbedder()},
        env=env,
        settings=Settings(poll_s=0.05),
    )
    async with opening as hda:
        await hda.settle(30)
    say({"passed": dict(env.passed)})


async def check(directory: str) -> None:
    opening = HybridDataArchitecture.open(
        f"embedded:{directory}", entities=[Note], embedders={"slow": SlowEmbedder()}, settings=Settings(poll_s=0.05)
    )
    async with opening as hda:
        await hda.settle(30)
        home: Any = hda.stores["home"].repository
        await home.redrive(None, None)
        await hda.settle(30)
        verifier = Verifier(hda.stores, hda.manager.placements, hda.manager.embedders)
        differences = [repr(one) async for one in verifier.differences("note")]
        notes = [{"id": note.id, "text": note.text} async for note in hda.collection(Note).stream()]
        found = [hit.value.id for hit in await hda.collection(Note).search("이야기", limit=100)]
        say({"differences": differences, "notes": notes, "found": sorted(found)})


def say(message: object) -> None:
    sys.stdout.write(json.dumps(message, ensure_ascii=False) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    mode, place, *crash = sys.argv[1:]
    env = KillAt(crash[0] if crash else None, int(crash[1]) if crash else 0)
    if mode == "work":
        asyncio.run(work(place, env))
    elif mode == "recover":
        asyncio.run(recover(place, env))
    else:
        asyncio.run(check(place))
