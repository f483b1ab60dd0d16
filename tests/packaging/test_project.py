"""The promises of the project's own files: what `make` explains, what the pins cover."""

import os
import re
import subprocess
import tomllib
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]


def pins() -> dict[NormalizedName, Version]:
    lines = [
        *(ROOT / "requirements.txt").read_text().splitlines(),
        *(ROOT / "requirements-dev.txt").read_text().splitlines(),
    ]
    wanted = [line for line in lines if line and not line.startswith(("#", "-r"))]
    exact = [re.fullmatch(r"([\w.-]+)==([\w.]+)", line) for line in wanted]
    assert all(exact), f"not an exact pin: {[w for w, e in zip(wanted, exact, strict=True) if not e]}"
    return {canonicalize_name(match[1]): Version(match[2]) for match in exact if match}


def test_make_alone_explains_every_target_in_a_line() -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    quiet = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    answer = subprocess.run(["make"], cwd=ROOT, env=quiet, capture_output=True, text=True, check=True).stdout
    explained = [re.fullmatch(r"make ([a-z-]+) +\S.{10,}", line) for line in answer.splitlines()]
    assert [match and match[1] for match in explained] == targets
    known = {"setup", "test", "check", "up", "down", "stack-status", "demo", "simulate", "bench", "clean"}
    assert known <= set(targets)


def test_what_the_pinned_packages_need_is_pinned_too_and_in_their_range() -> None:
    pinned = pins()
    for name in pinned:
        for need in map(Requirement, requires(name) or []):
            if need.marker is None or need.marker.evaluate({"extra": ""}):
                version = pinned.get(canonicalize_name(need.name))
                assert version is not None, f"{name} needs {need}, which is not pinned"
                assert need.specifier.contains(version), f"{name} needs {need}, pinned is {version}"


def test_pins_lie_in_the_ranges_that_applications_get() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    pinned = pins()
    for need in map(Requirement, [*project["dependencies"], *(line for name in extras for line in extras[name])]):
        if need.name == project["name"]:
            assert need.extras == extras.keys() - {"all"}
        else:
            assert need.specifier.contains(pinned[canonicalize_name(need.name)]), f"{need} is pinned outside"
