"""Processes of Python that start in milliseconds: each is forked from one that has imported what all of them need.

ended = run("tests.faults.worker", "work", str(directory))
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    ["polystore.architecture", "polystore_adapters.sqlite.repository", "polystore_adapters.file.repository"]
)


class Ended(NamedTuple):
    returncode: int
    """Negative: the signal that ended it."""
    stdout: str
    stderr: str


def run(module: str, *arguments: str, timeout_s: float = 120.0) -> Ended:
    """What `python -m module` does with these arguments, in the working directory of the first call."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        process = SERVER.Process(target=_main, args=(module, arguments, (out, err)))
        process.start()
        process.join(timeout_s)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise AssertionError(f"{module} {' '.join(arguments)} did not end in {timeout_s:g} s")
        return Ended(process.exitcode, out.read_text(encoding="utf-8"), err.read_text(encoding="utf-8"))


def _main(module: str, arguments: Sequence[str], streams: Sequence[Path]) -> None:
    for number, path in enumerate(streams, 1):
        with path.open("wb") as file:
            os.dup2(file.fileno(), number)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
