"""The same servers by Docker Compose, where Docker answers."""

import shutil
import subprocess
from collections.abc import Sequence
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


def compose(*words: str, check: bool = True) -> str:
    command = ["docker", "compose", "--file", str(FILE), "--profile", "full", *words]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=check).stdout


def up(names: Sequence[str]) -> None:
    """Returns when all are healthy; raises StackError."""
    try:
        compose("up", "--detach", "--wait", *names)
    except subprocess.CalledProcessError as failed:
        raise StackError(f"docker compose up failed (exit {failed.returncode}); STACK=native does without") from None


def down(names: Sequence[str], *, volumes: bool) -> None:
    compose("rm", "--stop", "--force", *(["--volumes"] if volumes else []), *names)


def serving() -> list[str]:
    return compose("ps", "--services", "--status", "running", check=False).split()
