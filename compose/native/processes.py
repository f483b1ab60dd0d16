"""Starting, finding again and stopping processes that outlive the command that started them."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from compose.native.place import StackError, unprivileged

POLL_S = 0.05
Command = Sequence[str | Path]


@dataclass(frozen=True, kw_only=True)
class Process:
    """A program to run: `ready` says whether it serves; `stop` asks it to end."""

    name: str
    command: Command
    ready: Callable[[], bool]
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    stop: signal.Signals = signal.SIGTERM


@dataclass(frozen=True)
class Running:
    """A started process: `began` (ticks since the machine started) tells it from a later one with its id."""

    pid: int
    began: int


def environment(home: Path) -> dict[str, str]:
    return {"HOME": str(home), "LC_ALL": "C", "PATH": os.environ.get("PATH", os.defpath)}


def start(process: Process, data: Path) -> Running:
    """Start it in a session of its own, as the unprivileged user, writing to `data`/log/<name>.log."""
    uid = unprivileged()
    with log_of(data, process.name).open("ab") as log:
        started = subprocess.Popen(
            process.command,
            cwd=data,
            env=environment(data) | dict(process.environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            user=uid,
            group=uid,
            extra_groups=None if uid is None else [],
        )
    state = state_of(started.pid)
    started.returncode = 0  # it is not waited for: it goes on when this process ends
    if state is None:
        raise StackError(f"{process.name} ended at once: {last_words(data, process.name)}")
    return Running(started.pid, state.began)


def run(command: Command, data: Path, given: str | None = None, **more: str) -> str:
    """Run a program of a server to its end, as the unprivileged user; StackError says what it complained of."""
    uid = unprivileged()
    done = subprocess.run(
        command,
        cwd=data,
        env=environment(data) | more,
        input=given,
        capture_output=True,
        text=True,
        user=uid,
        group=uid,
        extra_groups=None if uid is None else [],
        check=False,
    )
    if done.returncode:
        raise StackError(f"{Path(command[0]).name} failed: {(done.stderr or done.stdout).strip()[-1000:]}")
    return done.stdout


@dataclass(frozen=True)
class State:
    """What the kernel says of a process: `ended` when only its entry is left, for its parent to see."""

    began: int
    ended: bool


def state_of(pid: int) -> State | None:
    """None: no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()  # the name before may hold anything
    letter, threads, began = fields[0], int(fields[17]), int(fields[19])
    return State(began, letter in "ZX" and threads <= 1)  # the first thread may end before the others


def is_alive(one: Running) -> bool:
    """Whether this very process still runs; one that ended and that nobody has waited for does not."""
    state = state_of(one.pid)
    if state is None or state.began != one.began:
        return False
    if state.ended:
        with contextlib.suppress(ChildProcessError):  # somebody else's to wait for
            os.waitpid(one.pid, os.WNOHANG)
    return not state.ended


def stop(one: Running, how: signal.Signals, patience_s: float = 20) -> None:
    """Returns when it has ended, and its descendants too: asked by `how`, killed after `patience_s`."""
    family = [Running(pid, state.began) for pid in descendants(one.pid) if (state := state_of(pid)) is not None]
    if is_alive(one):
        os.kill(one.pid, how)
        wait_until(lambda: not is_alive(one), patience_s)
    for left in filter(is_alive, [one, *family]):
        os.kill(left.pid, signal.SIGKILL)
    if not wait_until(lambda: not any(map(is_alive, [one, *family])), 5):
        raise StackError(f"process {one.pid} does not end")


def wait_until(true: Callable[[], bool], limit_s: float) -> bool:
    end = time.monotonic() + limit_s
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(POLL_S)
    return True


def memory_mb(one: Running) -> int:
    """Resident memory of the process and its descendants, shared pages counted once (Pss where the kernel tells)."""
    total_kb = 0
    for pid in [one.pid, *descendants(one.pid)]:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total_kb += next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
    return round(total_kb / 1024)


def descendants(pid: int) -> list[int]:
    try:
        found = [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in children(task)]
    except (FileNotFoundError, ProcessLookupError):  # it has ended, before it was looked at or in between
        return []
    return [*found, *(deeper for child in found for deeper in descendants(child))]


def children(task: Path) -> list[str]:
    try:
        return (task / "children").read_text().split()
    except OSError:
        return []


def log_of(data: Path, name: str) -> Path:
    return data / "log" / f"{name}.log"


def last_words(data: Path, name: str) -> str:
    log = log_of(data, name)
    text = log.read_text(errors="replace") if log.exists() else ""
    return f"{' | '.join(text.splitlines()[-5:])} (all of it: {log})"
