"""A child process whose records live in a store that cannot commit, with a SQLite file as its journal. Run by the tests
beside it.

usage: journaled_worker.py work|recover|check DIRECTORY [CRASHPOINT HIT]

work: carries out a fixed list of operations, printing a line when one is acknowledged; at the HIT-th pass of CRASHPOINT
it ends itself with SIGKILL. recover: delivers what a killed process left behind, and may be killed at that. check:
opens, settles, verifies, prints what is there and which bodies the journal still keeps.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
import sys
from collections import Counter
from dataclasses import dataclass
from typing import Annotated, Any

from polystore import HybridDataArchitecture, NotFound, Unique, entity
from polystore.consistency import Settings
from polystore.consistency.verify import Verifier
from polystore.env import Env
from polystore.model import JOURNAL_BODY, Key
from polystore.testing.documents import documents_by_url

WRITES = 48
IDS = 5


@entity(data_type="conversation")
@dataclass(kw_only=True)
class Talk:
    id: str
    text: str
    slug: Annotated[str | None, Unique()] = None
    turns: int = 0


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


State = dict[str, Talk]


def after(i: int, state: State) -> State:
    """The records after operation number i."""
    id, standing = f"t{(i * 3) % IDS}", state.get(f"t{(i * 3) % IDS}")
    left = {one: talk for one, talk in state.items() if one != id}
    if i % 7 == 6:
        return left
    if i % 3 == 0 or standing is None:
        return {**left, id: Talk(id=id, text=f"글 {i}", slug=f"{id}-{i}")}
    if i % 3 == 1:
        return {**left, id: dataclasses.replace(standing, text=f"나중 {i}")}
    return {**left, id: dataclasses.replace(standing, turns=standing.turns + 1)}


async def carry_out(hda: HybridDataArchitecture, i: int) -> None:
    talks, id = hda.collection(Talk), f"t{(i * 3) % IDS}"
    if i % 7 == 6:
        await talks.delete(id)
    elif i % 3 == 0:
        await talks.put(Talk(id=id, text=f"글 {i}", slug=f"{id}-{i}"))
    else:
        try:
            if i % 3 == 1:
                await talks.update(id, {"text": f"나중 {i}"})
            else:
                await talks.update(id, lambda one: dataclasses.replace(one, turns=one.turns + 1))
        except NotFound:
            await talks.put(Talk(id=id, text=f"글 {i}", slug=f"{id}-{i}"))


def opened(directory: str, env: Env) -> Any:
    stores = {
        "main": {"url": f"sqlite:{directory}/main.db"},
        "docs": {"url": f"documents:sqlite:{directory}/docs.db"},
    }
    config = {"stores": stores, "pins": {"talk": {"home": "docs"}}}
    settings = Settings(poll_s=0.05, sweep_s=0.2, retry_base_s=0.01)
    return HybridDataArchitecture.open(config, entities=[Talk], env=env, settings=settings)


async def work(directory: str, env: KillAt) -> None:
    async with opened(directory, env) as hda:
        for i in range(WRITES):
            await carry_out(hda, i)
            say({"acked": i})
        await hda.settle(30)
    say({"passed": dict(env.passed)})


async def recover(directory: str, env: KillAt) -> None:
    async with opened(directory, env) as hda:
        await hda.settle(30)


async def check(directory: str, env: KillAt) -> None:
    async with opened(directory, env) as hda:
        await hda.settle(30)
        verifier = Verifier(hda.stores, hda.manager.placements, hda.manager.embedders)
        differences = [str(one) async for one in verifier.differences("talk")]
        keys = [Key("", "talk", f"t{i}") for i in range(IDS)]
        raw = await hda.stores["main"].repository.get(keys)
        kept = [one.key.id for one in raw if one is not None and one.body and one.body[JOURNAL_BODY] is not None]
        talks = [dataclasses.asdict(one) for one in await hda.collection(Talk).find()]
        read = [dataclasses.asdict(one) for one in await hda.collection(Talk).get_many([k.id for k in keys]) if one]
        say({"differences": differences, "kept": kept, "talks": talks, "read": read})


def say(what: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    mode, directory, *rest = sys.argv[1:]
    env = KillAt(rest[0], int(rest[1])) if rest else KillAt(None, 0)
    with documents_by_url():
        asyncio.run({"work": work, "recover": recover, "check": check}[mode](directory, env))
