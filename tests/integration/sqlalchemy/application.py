"""The publishing desk of `blog.py`, as its authors wrote it and with five lines more, in a directory of its own."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple
from uuid import uuid4

from polystore import HybridDataArchitecture
from polystore.consistency.verify import Difference, Verifier
from tests.applications import sqlalchemy_url
from tests.postgresql import configured, fresh_schema

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


class Place(NamedTuple):
    """Where a test's application has its database, a file or a server's schema, and where polystore keeps things: all
    there, or copies in files of their own."""

    directory: Path
    schema: str | None
    copies: bool

    @property
    def database(self) -> str:
        """As the application takes it."""
        return f"{self.directory}/blog.db" if self.schema is None else sqlalchemy_url(self.schema)

    @property
    def config(self) -> Mapping[str, Any]:
        home = {"url": f"sqlite:{self.directory}/blog.db"} if self.schema is None else configured(self.schema)
        if not self.copies:
            return {"stores": {"main": home}}
        roles = ("full_text", "vector")
        copies = {role: {"url": f"sqlite:{self.directory}/{role}.db", "roles": [role]} for role in roles}
        return {"stores": {"main": {**home, "roles": ["home", "journal"]}, **copies}}


PLACES = ["SQLite", "SQLite, copies in other files", "PostgreSQL", "PostgreSQL, copies in other files"]


@contextmanager
def placed(directory: Path, name: str) -> Generator[Place]:
    """One of PLACES."""
    copies = name.endswith("files")
    if name.startswith("SQLite"):
        yield Place(directory, None, copies)
    else:
        with fresh_schema() as schema:
            yield Place(directory, schema, copies)


async def differences(hda: HybridDataArchitecture) -> list[Difference]:
    """Everything that any store holds otherwise than the application's tables."""
    await hda.settle(60)
    manager = hda.manager
    verifier = Verifier(manager.stores, manager.placements, manager.embedders)
    return [one for etype in hda.types for one in [found async for found in verifier.differences(etype)]]


def child(place: Place, *arguments: str) -> subprocess.Popen[str]:
    """A process of the application, as its users start it."""
    return subprocess.Popen(
        [sys.executable, "blog.py", "--db", place.database, *arguments],
        cwd=place.directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
