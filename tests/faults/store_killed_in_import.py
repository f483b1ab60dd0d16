"""The agent imports into all eight servers; one of them is ended by SIGKILL on the way, and brought back: in the end
nothing tells of it, and meanwhile the others were not held up.

By hand, once for each server (or "none", for comparison), PAIRS of a file of one's own (0: all) or of a made one:
`PYTHONPATH=examples python -m tests.faults.store_killed_in_import SERVER [DOWN_S [PAIRS [FILE]]]`.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec
from agent.reading import read

from compose.native.own import OwnServer
from polystore.testing.places.postgresql import statements
from tests import agent_child
from tests.agent_stores import AgentStores, every_kind
from tests.faults.test_import_killed import content
from tests.stack import own_server

STORE_OF = {
    "postgresql": "main",
    "redis": "live",
    "mongodb": "documents",
    "elasticsearch": "search",
    "neo4j": "graph",
    "chromadb": "vectors",
    "influxdb": "series",
    "minio": "files",
}
"""Server -> the agent's store on it."""
LOOK_S = 0.09
_OWED = """
SELECT json_build_object(
    'newest', (SELECT last_value FROM {0}.ps_version),
    'parked', (SELECT count(*) FROM {0}.ps_retry WHERE state = 'p'),
    'owed', (SELECT json_object_agg(name, version) FROM (SELECT name, min(version) AS version FROM (
        SELECT target AS name, min(min_version) AS version FROM {0}.ps_retry WHERE state <> 'p' GROUP BY 1
        UNION ALL SELECT t.name, min(o.version) FROM {0}.ps_outbox o JOIN {0}.ps_target t
            ON t.etype = o.etype AND t.status <> 'off' AND (o.targets >> t.bit) & 1 = 1 GROUP BY 1) AS every
        GROUP BY name) AS oldest))"""


class Owed(msgspec.Struct):
    """What the journal says: the newest version, how many dead letters, the oldest version that each store is owed."""

    newest: int
    parked: int
    owed: dict[str, int] | None


class Lags(threading.Thread):
    """How late each store is, as the journal tells an observer: the age of the oldest version that it is owed. That is
    never less than how late it is, since what a batch has brought is noted when its slowest store has ended."""

    def __init__(self, stores: AgentStores) -> None:
        super().__init__(daemon=True)
        main = stores.stores["main"]
        self._journal = statements(main["url"])
        self._sql = _OWED.format(main["options"]["schema"].partition(",")[0])
        self._seen: list[tuple[int, float]] = []
        """Newest version, and when it was first seen."""
        self._ended = threading.Event()
        self.worst_s: dict[str, float] = {}
        self.last: dict[str, float] = {}
        """When each store was owed something for the last time."""
        self.parked = 0

    def run(self) -> None:
        while not self._ended.wait(LOOK_S):
            try:
                found = msgspec.json.decode(self._journal.value(self._sql), type=Owed)
            except Exception:  # noqa: BLE001 -- it is down, or has no tables yet
                continue
            self._note(found, time.monotonic())

    def _note(self, found: Owed, now: float) -> None:
        self.parked = max(self.parked, found.parked)
        if not self._seen or found.newest > self._seen[-1][0]:
            self._seen.append((found.newest, now))
        for name, version in (found.owed or {}).items():
            self.last[name] = now
            committed = next((at for newest, at in self._seen if newest >= version), now)
            self.worst_s[name] = max(self.worst_s.get(name, 0.0), now - committed)

    def end(self) -> None:
        self._ended.set()
        self.join()


class Told(msgspec.Struct):
    """How an import went: how often it was started, its seconds, dead letters, how late each store was at worst; until
    when the killed one was owed something after it served again."""

    starts: int
    took_s: float
    parked: int
    worst_s: dict[str, float]
    caught_up_s: float


@contextmanager
def stores_with(server: str, folder: Path) -> Generator[tuple[AgentStores, OwnServer | None]]:
    """The agent's stores, `server` being one that may be killed."""
    with ExitStack() as all_of_them:
        own = None if server == "none" else all_of_them.enter_context(own_server(server))
        instead = {} if own is None else {server: own.url}
        yield all_of_them.enter_context(every_kind(folder, instead)), own


def imported(
    source: Path, data: Path, stores: AgentStores, server: str, own: OwnServer | None, down_s: float, at: int
) -> Told:
    """Import; when `at` messages are committed, kill the server and bring it back. An import that ends meanwhile is
    started again once the server serves."""
    lags, began, starts = Lags(stores), time.monotonic(), 1
    lags.start()
    child = _started(source, data)
    try:
        if own is not None:
            agent_child.wait_until_imported(child, data, at, stores.committed)
            assert child.poll() is None, "it is to be killed on the way"
            own.kill()
            time.sleep(down_s)
            own.start()
        serves = time.monotonic()
        while _ended(child) != 0:
            starts += 1
            assert starts < 5
            child = _started(source, data)
        took_s = time.monotonic() - began
    finally:
        child.kill()
        lags.end()
    killed = max([serves, *(at for name, at in lags.last.items() if own is not None and name == STORE_OF[server])])
    return Told(starts, took_s, lags.parked, lags.worst_s, killed - serves)


def _started(source: Path, data: Path) -> subprocess.Popen[str]:
    return agent_child.start("--input", source, "--data", data)


def _ended(child: subprocess.Popen[str]) -> int:
    said, _ = child.communicate()
    if child.returncode:
        print(said[-600:], flush=True)
    return child.returncode


def killed_on_the_way(server: str, source: Path, folder: Path, messages: int, down_s: float) -> Told:
    with stores_with(server, folder) as (stores, own):
        data = folder / "agent"
        stores.configure(data)
        told = imported(source, data, stores, server, own, down_s, messages // 4)
        print(agent_child.verify(data).strip(), flush=True)
        held = asyncio.run(content(data))
    assert len(held["message", stores.home]) == messages
    assert sum(len(points) for points in held["points", "valence"].values()) == messages
    assert told.parked == 0
    return told


def main(server: str, down_s: float, pairs: int, path: str = "") -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = Path(path)
        if not path:
            source = agent_child.write_csv(folder / "talk.csv", agent_child.pairs(pairs, seed=5))
        elif pairs:
            source = folder / "talk.csv"
            source.write_bytes(b"".join(Path(path).read_bytes().splitlines(keepends=True)[: pairs + 1]))
        told = killed_on_the_way(server, source, folder, len(read(source).lines), down_s)
    worst = ", ".join(f"{name} {s:.1f}" for name, s in sorted(told.worst_s.items()))
    print(
        f"{server}: {told.took_s:.1f} s, {told.starts} starts, {told.parked} dead letters; late by at most (s): {worst}"
    )


if __name__ == "__main__":
    given = [*sys.argv[1:], *["none", "20", "3000", ""][len(sys.argv) - 1 :]]
    main(given[0], float(given[1]), int(given[2]), given[3])
