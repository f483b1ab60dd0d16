"""A server of one's own for a while, at a free port, with data of its own: one that a test may stop, kill and restart
while others use the servers of `make up`.
"""

import contextlib
import itertools
import os
import random
import shutil
import signal
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from compose.native import cache, place, processes, server
from compose.native.place import StackError
from compose.native.server import Recipe, Site

PORTS = range(20_000, 22_000)  # below those that the kernel gives away, also with the 10,000 that Redis Cluster adds
NUMBERS = itertools.count()


class NotBuilt(StackError):
    """The programs were never downloaded and built here."""


class OwnServer:
    """It serves at `url`, the same after a restart."""

    def __init__(self, recipe: Recipe, site: Site) -> None:
        self._recipe, self._site = recipe, site
        self.url = recipe.url(site.port)

    def start(self) -> None:
        """Returns when it serves; nothing happens when it does."""
        server.up(self._recipe, self._site, lambda _: None)

    def stop(self) -> None:
        """Returns when it has ended in good order."""
        server.down(self._recipe, self._site)

    def kill(self, process: str | None = None) -> None:
        """SIGKILL to its processes, or to the one of that name; returns when they are gone."""
        self._signal(signal.SIGKILL, process)

    def freeze(self, process: str | None = None) -> None:
        """It answers nothing until `thaw`."""
        self._signal(signal.SIGSTOP, process)

    def thaw(self, process: str | None = None) -> None:
        self._signal(signal.SIGCONT, process)

    def _signal(self, number: signal.Signals, process: str | None) -> None:
        everyone = server.noted(self._site)
        for one in everyone.values() if process is None else [everyone[process]]:
            if number is signal.SIGKILL:
                processes.stop(one, number)
            elif processes.is_alive(one):
                for pid in [one.pid, *processes.descendants(one.pid)]:
                    with contextlib.suppress(ProcessLookupError):  # a descendant that has just ended
                        os.kill(pid, number)


@contextmanager
def own(recipe: Recipe) -> Generator[OwnServer]:
    """A server that ends with the block, and its data with it. Raises NotBuilt before anything is started."""
    if missing := [artifact.name for artifact in recipe.artifacts if cache.found(artifact) is None]:
        raise NotBuilt(f"{', '.join(missing)} not built: make up STACK=native S={recipe.name}")
    home = place.root() / "own"
    with cache.locked(home / "lock"):  # the port is free until it is taken
        site = Site(home / f"{recipe.name}-{os.getpid()}-{next(NUMBERS)}", free_ports(recipe.ports), brief=True)
        mine = OwnServer(recipe, site)
        mine.start()
    try:
        yield mine
    finally:
        mine.thaw()
        mine.kill()
        forget(site.data)


def free_ports(count: int) -> int:
    """The first of `count` free ports in a row."""
    for _ in range(100):
        first = random.choice(PORTS)
        if all(place.is_free(port) for port in range(first, first + count)):
            return first
    raise StackError(f"no {count} free ports in a row between {PORTS.start} and {PORTS.stop}")


def forget(data: Path) -> None:
    shutil.rmtree(data, ignore_errors=True)
    data.with_name(f"{data.name}.lock").unlink(missing_ok=True)


def sweep() -> None:
    """Stop and remove what runs that were killed have left."""
    for data in (place.root() / "own").glob("*-*-*"):
        maker = data.name.removesuffix(".lock").rsplit("-", 2)[1]
        if data.is_dir() and processes.state_of(int(maker)) is None:
            for noted in data.rglob("running.json"):
                for one in server.noted(Site(noted.parent, 0)).values():
                    processes.stop(one, signal.SIGKILL)
            forget(data)
