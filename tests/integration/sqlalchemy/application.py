"""The publishing desk of `blog.py`, as its authors wrote it and with five lines more, in a directory of its own."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import uuid4

from polystore import HybridDataArchitecture
from polystore.consistency.verify import Difference, Verifier

HERE = Path(__file__).parent
SOURCE = (HERE / "blog.py").read_text(encoding="utf-8")
DIFF = (HERE / "five_lines.diff").read_text(encoding="utf-8")


def with_five_lines() -> str:
    """The source after the diff, which only adds lines."""
    lines, done, at = SOURCE.splitlines(keepends=True), list[str](), 0
    for line in DIFF.splitlines(keepends=True)[2:]:
        if line.startswith("@@"):
            start = int(line.split()[1].partition(",")[0][1:]) - 1
            done += lines[at:start]
            at = start
        elif line.startswith("+"):
            done.append(line[1:])
        else:
            assert line[1:] == lines[at], "the diff does not fit the source"
            done.append(lines[at])
            at += 1
    return "".join([*done, *lines[at:]])


def write_application(directory: Path) -> Path:
    """The application with the five lines, as `blog.py` there."""
    path = directory / "blog.py"
    path.write_text(with_five_lines(), encoding="utf-8")
    return path


def load(path: Path) -> ModuleType:
    """A module of its own each time: its classes, its sessions and what listens to them."""
    spec = importlib.util.spec_from_file_location(f"blog_{uuid4().hex}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def placed(directory: Path, kind: str) -> str | Mapping[str, Any]:
    """Where polystore keeps things: all in the application's file, or copies in files of their own."""
    home = f"sqlite:{directory}/blog.db"
    if kind == "facets at the home":
        return home
    copies = {role: {"url": f"sqlite:{directory}/{role}.db", "roles": [role]} for role in ("full_text", "vector")}
    return {"stores": {"app": {"url": home, "roles": ["home", "journal"]}, **copies}}


KINDS = ["facets at the home", "copies in other files"]


async def differences(hda: HybridDataArchitecture) -> list[Difference]:
    """Everything that any store holds otherwise than the application's tables."""
    await hda.settle(60)
    manager = hda.manager
    verifier = Verifier(manager.stores, manager.placements, manager.embedders)
    return [one for etype in hda.types for one in [found async for found in verifier.differences(etype)]]


def child(directory: Path, *arguments: str) -> subprocess.Popen[str]:
    """A process of the application, as its users start it."""
    return subprocess.Popen(
        [sys.executable, "blog.py", "--db", "blog.db", *arguments],
        cwd=directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
