"""What is downloaded and built once for each version: a folder that is complete when its marker is there."""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from compose.native import place

Say = Callable[[str], None]  # tells the progress, a line at a time
MARKER = "complete.json"
TELL_S = 2
MORTAL = ("setpriv", "--pdeathsig", "KILL")  # before a command: it ends with the process that called it


class Artifact(Protocol):
    """Something to have before a server can run."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...

    def build(self, folder: Path, say: Say) -> str:
        """Fill `folder`, and return the exact version of the server that is in it. A build that was killed is called
        again with what it left, which it uses or removes; StackError says what the machine lacks."""
        ...


def folder(artifact: Artifact) -> Path:
    return place.root() / f"{artifact.name}-{artifact.version}"


def found(artifact: Artifact) -> str | None:
    """The exact version of what is in the complete folder, or None while it is not complete."""
    try:
        version: str = json.loads((folder(artifact) / MARKER).read_text())["version"]
    except FileNotFoundError:
        return None
    return version


def obtain(artifact: Artifact, say: Say) -> Path:
    """The complete folder, built when it is not there. Killed at any moment, the next call goes on; two calls at once,
    of any processes, build once."""
    where = folder(artifact)
    if found(artifact) is not None:
        return where
    with locked(where.with_name(f"{where.name}.lock")):
        if found(artifact) is None:  # nobody built it while this call waited
            where.mkdir(parents=True, exist_ok=True)
            began = time.monotonic()
            version = artifact.build(where, say)
            took_s = round(time.monotonic() - began, 1)
            marker = where / f"{MARKER}.new"
            marker.write_text(json.dumps({"version": version, "took_s": took_s}))
            marker.rename(where / MARKER)
            say(f"{artifact.name} {version} complete: {megabytes(where)} MB in {took_s} s")
    return where


def digest(*parts: object) -> str:
    """A short name of a way to build: another way has another folder."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:8]


def megabytes(where: Path) -> int:
    """Also while others write there."""
    total = 0
    for folder, _, names in os.walk(where):
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # renamed meanwhile
                total += os.lstat(f"{folder}/{name}").st_size
    return round(total / 1_000_000)


@contextmanager
def told(say: Say, progress: Callable[[], str]) -> Generator[None]:
    """What `progress` returns is said every two seconds, until the block ends."""
    done = threading.Event()

    def tell() -> None:
        while not done.wait(TELL_S):
            say(progress())

    telling = threading.Thread(target=tell)
    telling.start()
    try:
        yield
    finally:
        done.set()
        telling.join()


@contextmanager
def locked(file: Path) -> Generator[None]:
    """Alone among all processes and threads with this file; let go by the kernel should this process be killed."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def removed(where: Path) -> Path:
    """`where`, which is not there any more."""
    shutil.rmtree(where, ignore_errors=True)
    return where
