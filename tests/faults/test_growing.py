"""A system grows while it works: a store joins, and is then rebuilt, under writes and deletes; nothing is lost, and no
delivery stands still for a second.

python -m tests.faults.test_growing [RECORDS [WRITES_PER_S [COPY]]] does it at another size, with Elasticsearch or
another server of the tests, and prints what it saw.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from polystore import HybridDataArchitecture
from polystore.consistency import Settings
from polystore.consistency.verify import Verifier
from polystore.model import Key
from polystore.testing.places import places
from tests.children import run
from tests.faults.grower import ROLES
from tests.growing import Tree, found, opening, over, stores
from tests.growing import differences as wrong
from tests.stack import url_of

PROBE_S = 0.1
WRITERS = 9
"""At the same time."""
Say = Callable[[str], None]


@dataclass
class Seen:
    """What happened meanwhile. pauses_s: how long a probe took from its commit until the copy had it."""

    written: int = 0
    deleted: int = 0
    pauses_s: dict[str, float] = field(default_factory=dict[str, float])
    loop_s: float = 0.0


@contextlib.asynccontextmanager
async def work(hda: HybridDataArchitecture, records: int, per_s: float, seen: Seen) -> AsyncGenerator[None]:
    """Writes and deletes at this pace, and probes that are looked for in each copy as they are written."""
    trees = hda.collection(Tree)
    ending = asyncio.Event()  # a write that is cancelled may be committed behind what is looked at next

    async def write(first: int) -> None:
        begun, n = time.monotonic(), first
        while not ending.is_set():
            n += WRITERS
            id = f"t{n % records}"
            if n % 10 == 0:
                await trees.delete(id)
                seen.deleted += 1
            else:
                await trees.put(Tree(id=id, text=f"나무 {n}"))
                seen.written += 1
            await asyncio.sleep(max(0.0, begun + n / per_s - time.monotonic()))

    async def held(name: str, key: Key, version: int, since: float) -> None:
        while True:
            store = hda.stores.get(name)
            if store is None or name not in hda.manager.placements["tree"].targets():
                return
            (record,) = await store.get([key])
            if record is not None and record.version >= version:
                break
            await asyncio.sleep(0.01)
        seen.pauses_s[name] = max(seen.pauses_s.get(name, 0.0), time.monotonic() - since)

    async def probe() -> None:
        n = 0
        while not ending.is_set():
            n += 1
            result = await trees.put(Tree(id=f"probe{n % 5}", text=f"새 {n}"))
            names = sorted(hda.manager.placements["tree"].targets())
            key, since = Key("", "tree", f"probe{n % 5}"), time.monotonic()
            await asyncio.gather(*(held(name, key, result.version or 0, since) for name in names))
            await asyncio.sleep(PROBE_S)

    async def turns() -> None:
        """How long this process itself stood still: what a probe waited for besides."""
        while not ending.is_set():
            since = time.monotonic()
            await asyncio.sleep(0.01)
            seen.loop_s = max(seen.loop_s, time.monotonic() - since)

    tasks = [
        *(asyncio.create_task(write(first)) for first in range(WRITERS)),
        asyncio.create_task(probe()),
        asyncio.create_task(turns()),
    ]
    try:
        yield
    finally:
        ending.set()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, Exception):
                raise result


async def differences(hda: HybridDataArchitecture) -> int:
    await hda.settle(600)
    verifier = Verifier(hda.stores, hda.manager.placements, hda.manager.embedders)
    return len([one async for one in verifier.differences("tree")])


async def grow(
    home: dict[str, Any], copy: dict[str, Any], records: int, per_s: float, settings: Settings, say: Say
) -> tuple[Seen, int]:
    """Returns what was seen, and how many differences there are at the end."""
    seen, begun = Seen(), time.monotonic()

    def at(text: str) -> None:
        say(f"{time.monotonic() - begun:7.1f} s  {text}")

    def opening(**stores: dict[str, Any]) -> Any:
        return HybridDataArchitecture.open({"stores": stores}, entities=[Tree], settings=settings)

    async def gone_over(one: HybridDataArchitecture, name: str) -> None:
        async with asyncio.timeout(3600):
            while (now := one.manager.placements["tree"]).facets["full_text"] != name or now.leaving:
                assert len(await one.collection(Tree).search("나무", limit=3)) == 3  # by whoever serves: never refused
                await asyncio.sleep(0.05)

    async with opening(main=home) as hda:
        await hda.collection(Tree).import_many(Tree(id=f"t{i}", text=f"나무 {i}") for i in range(records))
        at(f"{records} records at home")
    async with opening(main=home, words=copy) as one, opening(main=home, words=copy) as two:
        async with work(one, records, per_s, seen):
            await gone_over(two, "words")
            at(f"words serves, {seen.written} written, {seen.deleted} deleted, slowest {seen.pauses_s}")
            await two.rebuild_copies("words")
            await gone_over(one, "words~2")
            at(f"words~2 serves, {seen.written} written, {seen.deleted} deleted, slowest {seen.pauses_s}")
        found = await differences(one)
        at(f"{found} differences; problems: {one.manager.problems} {two.manager.problems}")
    return seen, found


@pytest.mark.parametrize("home", ["sqlite"])
def test_a_store_joins_and_is_rebuilt_under_writes_and_deletes(home: str, tmp_path: Path) -> None:
    main: dict[str, Any] = {"url": f"{home}:{tmp_path}/main.db", "roles": ["home", "full_text", "vector"]}
    words: dict[str, Any] = {"url": f"sqlite:{tmp_path}/words.db", "roles": ["full_text"]}
    settings = Settings(poll_s=0.05, call_timeout_s=0.2, batch_deadline_s=0.3, worker_dead_s=0.4)
    seen, found = asyncio.run(grow(main, words, 500, 200.0, settings, print))
    assert found == 0
    assert {*seen.pauses_s} == {"words", "words~2"}
    assert seen.deleted


KILLS = [
    ("add", "backfill.step", 2),
    ("add", "move.compared", 1),
    ("add", "move.remembered", 1),
    ("add", "move.remembered", 2),
    ("rebuild", "rebuild.emptied", 1),
    ("rebuild", "move.remembered", 2),
    ("back", "move.compared", 1),
]


@pytest.mark.parametrize(("what", "point", "hit"), KILLS)
def test_a_move_whose_process_was_killed_is_gone_on_with(what: str, point: str, hit: int, tmp_path: Path) -> None:
    every = {f"t{i}" for i in range(100)}

    async def before() -> None:
        async with opening(stores(tmp_path, main=["home", "full_text", "vector"])) as hda:
            await hda.collection(Tree).put_many([Tree(id=id, text=f"나무 {id}") for id in every])

    async def between(hda: HybridDataArchitecture) -> None:
        """The application runs on: searches are answered, writes arrive."""
        assert (await found(hda))[0] == every
        await hda.collection(Tree).put(Tree(id="later", text="나중에 온 나무"))
        await hda.collection(Tree).delete("t7")

    async def after() -> None:
        async with opening(stores(tmp_path, **ROLES)) as one, opening(stores(tmp_path, **ROLES)) as two:
            await between(one)
            for hda in (one, two):
                await over(hda)
                assert (await found(hda))[0] >= every - {"t7"}
            assert await wrong(two) == []
            expected = "words~2" if what == "rebuild" and point != "rebuild.emptied" else "words"
            for hda in (one, two):
                assert await found(hda) == (every - {"t7"} | {"later"}, expected)

    asyncio.run(before())
    ready = {"add": (), "rebuild": ("add",), "back": ("add", "rebuild")}[what]
    for step in ready:
        assert run("tests.faults.grower", str(tmp_path), step).returncode == 0
    ended = run("tests.faults.grower", str(tmp_path), what, point, str(hit))
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    asyncio.run(after())


def main(records: int, per_s: float, copy: str) -> int:
    with tempfile.TemporaryDirectory() as folder, ExitStack() as exits:
        at = exits.enter_context(places(url_of("postgresql"))())
        to = exits.enter_context(places(f"sqlite:{folder}/{{}}.db" if copy == "sqlite" else url_of(copy))())
        home: dict[str, Any] = {
            "url": at.url,
            "options": {**at.options},
            "roles": ["home", "full_text", "vector"],
            "timeout_s": 60.0,
        }
        words: dict[str, Any] = {"url": to.url, "options": {**to.options}, "roles": ["full_text"], "timeout_s": 60.0}
        seen, found = asyncio.run(grow(home, words, records, per_s, Settings(), print))
    print(
        f"differences: {found}; slowest delivery of a live write: {seen.pauses_s}; "
        f"this process stood still for at most {seen.loop_s:.2f} s"
    )
    return 1 if found else 0


if __name__ == "__main__":
    given = sys.argv[1:]
    sys.exit(
        main(
            int(given[0]) if given else 10_000,
            float(given[1]) if given[1:] else 100.0,
            (given[2:] or ["elasticsearch"])[0],
        )
    )
