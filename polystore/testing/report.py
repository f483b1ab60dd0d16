"""The kit run on the store behind a URL, and what came of it. `polystore conformance` prints it."""

from __future__ import annotations

import linecache
import math
import os
import tempfile
import time
from collections.abc import Callable, Collection, Generator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from polystore import registry
from polystore.env import SYSTEM_ENV
from polystore.protocols import SupportsCommit, SupportsState
from polystore.testing.conformance import FacadeConformance, StateFacadeConformance, layered
from polystore.testing.conformance.chosen import Chosen, chosen
from polystore.testing.conformance.facade import Config
from polystore.testing.places import Place, Places

FACADE: Sequence[tuple[type[Any], type]] = (
    (FacadeConformance, SupportsCommit),
    (StateFacadeConformance, SupportsState),
)
"""What runs through the facade, and what the store must claim for it."""
FILE = "from polystore.testing import report\n\nglobals().update(report.given)\n"
given: dict[str, type[Any]] = {}
"""Test classes by name, for the file that pytest collects."""


class Row(msgspec.Struct):
    """A class of the kit: on what it ran, and how many of its tests passed and failed. A test that is skipped, because
    the store need not do what it asks, counts for neither."""

    name: str
    way: str
    passed: int = 0
    failed: int = 0


class Failure(msgspec.Struct):
    test: str
    why: str


class Report(msgspec.Struct):
    """What a store is, what it claims, and how it did."""

    adapter: str
    server: str
    version: str
    claims: list[str]
    rows: list[Row] = []
    failures: list[Failure] = []
    took_s: float = 0.0

    @property
    def passed(self) -> bool:
        return bool(self.rows) and not self.failures


async def introduced(place: Place) -> tuple[Report, frozenset[type]]:
    """Who the store says it is, and its claims. Raises what the adapter raises."""
    repository = await place.connect(SYSTEM_ENV)
    try:
        instance = await repository.ping()
        claims = repository.capabilities
    finally:
        await repository.aclose()
    names = sorted(one.__name__ for one in claims)
    return Report(registry.scheme_of(place.url) or "", instance.server, instance.version, names), claims


# -- the tests ----------------------------------------------------------------------------------------------------


def classes(claims: Collection[type], made: Places, *, layers: bool, kit: Collection[str] = ()) -> dict[str, type[Any]]:
    """Those that the claims ask for, each test on a place of its own. `layers`: what a store does as a copy, under all
    layers too. `kit`: of these classes of the kit only."""
    out: list[type[Any]] = []
    for one in chosen(claims):
        ways = ("as a home",) if one.home else ("bare", "under all layers") if layers else ("bare",)
        out += [_of_the_store(one, made, way) for way in ways]
    out += [_through_the_facade(cls, made) for cls, needed in FACADE if needed in claims]
    return {f"Test{i:02}{cls.__name__}": cls for i, cls in enumerate(out) if not kit or cls.__name__ in kit}


def count(cls: type[Any]) -> int:
    """How many tests pytest makes of a class of the kit."""
    tests = [getattr(cls, name) for name in dir(cls) if name.startswith("test_")]
    return sum(math.prod(len(mark.args[1]) for mark in getattr(test, "pytestmark", ())) for test in tests)


def _of_the_store(one: Chosen, made: Places, way: str) -> type[Any]:
    @pytest.fixture
    def place(self: Any) -> Generator[Place]:
        with made() as found:
            for name, hook in found.hooks(one.cls).items():
                setattr(self, name, hook.__get__(self))
            yield found

    @pytest.fixture
    def connect(self: Any, place: Place) -> Any:
        return layered(place.connect) if way == "under all layers" else place.connect

    @pytest.fixture
    def database(self: Any, place: Place) -> str | None:
        return place.database

    fixtures = {"place": place, "connect": connect, "database": database}
    return type(one.cls.__name__, (one.cls,), {**fixtures, "home": one.home, "way": way})


def _through_the_facade(cls: type[Any], made: Places) -> type[Any]:
    @pytest.fixture(name="config")
    def given_config(self: Any) -> Generator[Config]:
        with made() as place:
            store: dict[str, Any] = {"url": place.url, "options": dict(place.options)}
            if cls is FacadeConformance:
                yield {"stores": {"main": store}}
            else:
                yield {"stores": {"main": {"url": "memory:"}, "live": {**store, "roles": ["live_state"]}}}

    return type(cls.__name__, (cls,), {"given_config": given_config, "way": "through the facade"})


# -- the run ------------------------------------------------------------------------------------------------------


class Runner:
    """A plugin of pytest that counts into a report and says when a test is done."""

    def __init__(self, report: Report, only: Sequence[str], counted: Callable[[int, int], None]) -> None:
        self._report = report
        self._only = only
        self._counted = counted
        self._rows: dict[str, Row] = {}
        self._done = 0

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if not self._only or any(part in item.name for part in self._only)]
        for item in items:
            cls: Any = item.getparent(pytest.Class)
            if cls is not None and cls.name not in self._rows:
                self._rows[cls.name] = Row(cls.obj.__name__, cls.obj.way)
        self._report.rows = list(self._rows.values())
        self._total = len(items)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        row = self._rows[report.nodeid.split("::")[1]]
        if report.failed:
            row.failed += 1
            name = report.nodeid.rpartition("::")[2]
            self._report.failures.append(Failure(f"{row.name}.{name}, {row.way}", _why(report)))
        elif report.passed and report.when == "call":
            row.passed += 1
        if report.when == "teardown":
            self._done += 1
            self._counted(self._done, self._total)


def _why(report: pytest.TestReport) -> str:
    """The error that a test ended with, and the line of the kit or the adapter that raised it: an assertion often says
    nothing by itself."""
    crash = getattr(report.longrepr, "reprcrash", None)
    if crash is None:
        return str(report.longreprtext).strip()
    line = linecache.getline(crash.path, crash.lineno).strip()
    return f"{crash.message.strip()}\n  {Path(crash.path).name}:{crash.lineno}: {line}"


def run(
    report: Report,
    classes: dict[str, type[Any]],
    *,
    only: Sequence[str] = (),
    forgotten: Sequence[str] = (),
    counted: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Run the tests in this process, one after the other, and fill the report; `only`: those whose names hold one of
    these texts; `forgotten`: warnings that fail no test. `counted` is told how many of how many are done."""
    given.clear()
    given.update(classes)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "test_kit.py")
        file.write_text(FILE)
        alone = ["--disable-plugin-autoload", "-p", "no:terminal", "-p", "no:cacheprovider", "-c", os.devnull]
        here = ["--rootdir", folder, "--import-mode=importlib", "-W", "error", str(file)]
        here += [part for one in forgotten for part in ("-W", one)]
        pytest.main(alone + here, plugins=[Runner(report, only, counted)])
    report.took_s = round(time.monotonic() - began, 1)
