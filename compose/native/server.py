"""A server out of its recipe: up, down, and what it is doing."""

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from compose.native import cache, place, processes
from compose.native.cache import Artifact, Say
from compose.native.place import StackError
from compose.native.processes import Process, Running

START_S = 180


@dataclass(frozen=True)
class Site:
    """One instance of a server: where its data are, and the first of its ports. brief: it will not run for long, so
    that what makes it fast in the long run is not worth its start."""

    data: Path
    port: int
    brief: bool = False

    @property
    def store(self) -> Path:
        """The folder that belongs to the server's user."""
        return self.data / "store"


def nothing(site: Site) -> None:
    """For a server with nothing to make."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to run a server. `create` fills an empty data folder, `configure` is called before every start, `settle`
    whenever all processes serve: it may find its work done. It listens at `ports` ports, from `port` on. `after` names
    the servers that have to serve before."""

    name: str
    port: int
    ports: int = 1
    artifacts: Sequence[Artifact]
    url: Callable[[int], str]
    processes: Callable[[Site], Sequence[Process]]
    create: Callable[[Site], None] = nothing
    configure: Callable[[Site], None] = nothing
    settle: Callable[[Site], None] = nothing
    after: Sequence[str] = ()

    def site(self) -> Site:
        """The instance that `make up` runs."""
        return Site(place.root() / "data" / self.name, place.port_of(self.name, self.port))


def up(recipe: Recipe, site: Site, say: Say) -> bool:
    """Returns when the server serves; False: it did before. Raises StackError with the mend."""
    for artifact in recipe.artifacts:
        cache.obtain(artifact, say)
    with cache.locked(site.data.with_name(f"{site.data.name}.lock")):
        if serves(recipe, site):
            return False
        halt(recipe, site)  # what is left of it
        for port in range(site.port, site.port + recipe.ports):
            if not place.is_free(port):
                raise StackError(
                    f"port {port} is taken by another program: stop it, or set {place.port_variable(recipe.name)}"
                )
        fill(recipe, site, say)
        say("starting")
        recipe.configure(site)
        begin(recipe, site)
        recipe.settle(site)
    return True


def fill(recipe: Recipe, site: Site, say: Say) -> None:
    made = site.data / "port"  # written last; clusters keep their own ports in their data
    if not made.exists() or made.read_text() != str(site.port):
        say("making the data folder")
        shutil.rmtree(site.data, ignore_errors=True)
        for folder in (site.store, site.store / "log"):
            folder.mkdir(parents=True)
        if (uid := place.unprivileged()) is not None:
            os.chown(site.store, uid, uid)
        site.store.chmod(0o700)
        recipe.create(site)
        made.write_text(str(site.port))


def begin(recipe: Recipe, site: Site) -> None:
    started: dict[str, Running] = {}
    for process in recipe.processes(site):
        started[process.name] = processes.start(process, site.store)
        note(site, started)
        await_ready(process, started[process.name], site)


def await_ready(process: Process, running: Running, site: Site) -> None:
    answered = processes.wait_until(lambda: process.ready() or not processes.is_alive(running), START_S)
    if not answered or not processes.is_alive(running):
        how = "ended" if answered else f"does not answer after {START_S} s"
        raise StackError(f"{process.name} {how}: {processes.last_words(site.store, process.name)}")


def note(site: Site, started: dict[str, Running]) -> None:
    fresh = site.data / "running.json.new"
    fresh.write_text(json.dumps({name: [one.pid, one.began] for name, one in started.items()}))
    fresh.rename(site.data / "running.json")


def noted(site: Site) -> dict[str, Running]:
    """The processes that were started, whether they still run or not."""
    try:
        text = (site.data / "running.json").read_text()
    except FileNotFoundError:
        return {}
    found: dict[str, list[int]] = json.loads(text)
    return {name: Running(*numbers) for name, numbers in found.items()}


def serves(recipe: Recipe, site: Site) -> bool:
    """Whether all its processes run and answer."""
    started = noted(site)
    return bool(started) and all(
        process.name in started and processes.is_alive(started[process.name]) and process.ready()
        for process in recipe.processes(site)
    )


def down(recipe: Recipe, site: Site) -> bool:
    """Returns when no process of it runs; False: none did."""
    with cache.locked(site.data.with_name(f"{site.data.name}.lock")):
        return halt(recipe, site)


def halt(recipe: Recipe, site: Site) -> bool:
    alive = {name: one for name, one in noted(site).items() if processes.is_alive(one)}
    for process in reversed(recipe.processes(site) if alive else []):
        if process.name in alive:
            processes.stop(alive[process.name], process.stop)
    (site.data / "running.json").unlink(missing_ok=True)
    return bool(alive)
