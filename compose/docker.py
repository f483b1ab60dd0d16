"""The same servers by Docker Compose, where Docker answers."""

import json
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from compose.native.place import StackError

FILE = Path(__file__).with_name("compose.yaml")
ANSWER_S = 10


def answers() -> bool:
    """Whether there is a daemon to ask, and Compose to ask it with."""
    if shutil.which("docker") is None:
        return False
    for question in (["docker", "version", "--format", "{{.Server.Version}}"], ["docker", "compose", "version"]):
        try:
            asked = subprocess.run(question, capture_output=True, timeout=ANSWER_S, check=False)
        except subprocess.TimeoutExpired:
            return False
        if asked.returncode:
            return False
    return True


def compose(*words: str) -> str:
    """Run it, with what it says of its progress on the terminal; raises StackError."""
    return docker("compose", "--file", str(FILE), "--profile", "full", *words)


def docker(*words: str) -> str:
    try:
        return subprocess.run(["docker", *words], stdout=subprocess.PIPE, text=True, check=True).stdout
    except FileNotFoundError:
        raise StackError("docker is not installed: STACK=native does without") from None
    except subprocess.CalledProcessError as failed:
        said = shlex.join(["docker", *words])
        raise StackError(f"{said} failed (exit {failed.returncode}); STACK=native does without") from None


def up(names: Sequence[str]) -> None:
    """Returns when all are healthy; raises StackError."""
    compose("up", "--detach", "--wait", *names)


def down(names: Sequence[str], *, data: bool) -> None:
    """Returns when none of them is there, nor, if `data`, what they kept; raises StackError."""
    kept = volumes(names) if data else []
    compose("rm", "--stop", "--force", "--volumes", *names)  # these volumes are those without a name
    if kept:
        docker("volume", "rm", "--force", *kept)
    if not compose("ps", "--all", "--quiet"):
        compose("down")  # the network


def volumes(names: Sequence[str]) -> list[str]:
    """The names that Docker knows the servers' volumes by: `down --volumes` would take those of what a server
    depends on too."""
    model = json.loads(compose("config", "--format", "json"))
    mounted = [one for name in names for one in model["services"][name].get("volumes", [])]
    return [model["volumes"][one["source"]]["name"] for one in mounted if one["type"] == "volume"]


@dataclass(frozen=True)
class Service:
    """What Docker says of a server that is there."""

    state: str
    version: str
    memory: str


def services() -> dict[str, Service]:
    """All that are there, healthy or not."""
    shape = "{{.Service}}\t{{.Health}}\t{{.Image}}\t{{.ID}}"
    found = [line.split("\t") for line in compose("ps", "--format", shape).splitlines()]
    used: dict[str, str] = {}
    if ids := [words[3] for words in found]:  # without one, it is all of the machine
        lines = docker("stats", "--no-stream", "--format", "{{.ID}}\t{{.MemUsage}}", *ids).splitlines()
        used = {words[0]: words[1].partition(" / ")[0] for words in (line.split("\t") for line in lines)}
    return {name: Service(health, image.rpartition(":")[2], used.get(id_, "-")) for name, health, image, id_ in found}


def serving() -> list[str]:
    return compose("ps", "--services", "--status", "running").split()
