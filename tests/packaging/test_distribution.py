"""The distribution as a user gets it: built, installed and imported away from the checkout."""

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.docs.pages import blocks

ROOT = Path(__file__).parents[2]


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        command, cwd=cwd, env=os.environ | environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the sdist and the wheel; the wheel is built from the sdist, so that the sdist is complete."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT, cwd=out)
    return out


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the wheel installed; dependencies come from the running environment."""
    target = tmp_path_factory.mktemp("installed")
    (wheel,) = built.glob("*.whl")
    run(sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", target, wheel, cwd=target)
    return target


def outside(installed: Path, script: str) -> list[str]:
    """Run `script` where only the installed wheel is importable: without `site`, no .pth file leads to the checkout."""
    path = os.pathsep.join([str(installed), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])
    return run(sys.executable, "-S", "-c", script, cwd=installed, PYTHONPATH=path).split()


def test_wheel_holds_both_packages_typed_and_the_licence_and_nothing_else(built: Path) -> None:
    (wheel,) = built.glob("polystore_hybrid-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    info = wheel.name.removesuffix("-py3-none-any.whl") + ".dist-info"
    assert {name.split("/")[0] for name in names} == {"polystore", "polystore_adapters", info}
    assert {f"{info}/licenses/LICENSE", "polystore/py.typed", "polystore_adapters/py.typed"} <= names
    for package, folder in [("polystore", ROOT), ("polystore_adapters", ROOT / "adapters")]:
        modules = {path.relative_to(folder).as_posix() for path in (folder / package).rglob("*.py")}
        assert modules
        assert modules <= names


def test_sdist_holds_sources_tests_and_licence(built: Path) -> None:
    (sdist,) = built.glob("polystore_hybrid-*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames()}
    assert {"LICENSE", "Makefile", "pyproject.toml", "polystore/__init__.py", "tests/conftest.py"} <= names
    assert "adapters/polystore_adapters/__init__.py" in names
    assert not [name for name in names if name.startswith((".venv", ".git/", "dist/"))]


def test_installed_packages_import_outside_the_checkout(installed: Path) -> None:
    script = "import polystore, polystore_adapters as a; print(polystore.__file__, a.__file__, polystore.__version__)"
    core, adapters, version = outside(installed, script)
    assert Path(core) == installed / "polystore" / "__init__.py"
    assert Path(adapters) == installed / "polystore_adapters" / "__init__.py"
    assert f'version = "{version}"' in (ROOT / "pyproject.toml").read_text()


def test_every_entry_point_of_the_installed_wheel_leads_to_code(installed: Path) -> None:
    script = (
        "from importlib.metadata import entry_points\n"
        "for e in entry_points(group='polystore.adapters'): print(e.name, callable(e.load()))\n"
        "for e in entry_points(group='polystore.profiles'): print(e.name, callable(e.load()))\n"
        "for e in entry_points(group='console_scripts', name='polystore'): print(e.name, callable(e.load()))\n"
        "for e in entry_points(group='pytest11', name='polystore'): print('plugin', hasattr(e.load(), 'fail_store'))\n"
    )
    answer = outside(installed, script)
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["entry-points"]
    names = [*declared["polystore.adapters"], *declared["polystore.profiles"], "polystore", "plugin"]
    assert dict(zip(answer[::2], answer[1::2], strict=True)) == dict.fromkeys(names, "True")


def test_importing_polystore_loads_no_database_and_no_extra(installed: Path) -> None:
    heavy = {"sqlalchemy", "sqlite3", "numpy", "pydantic", "typer", "rich", "polystore_adapters"}
    loaded = outside(installed, "import sys, polystore; print(*sys.modules)")
    assert "polystore" in loaded
    assert not heavy & set(loaded)


def test_an_adapter_of_somebody_else_passes_the_kit_of_the_installed_wheel(installed: Path, tmp_path: Path) -> None:
    """One file and one test file, those that the documents show, where there is no checkout."""
    for block in blocks(ROOT / "docs/how-to/write-an-adapter.md"):
        name = re.match(r"# (\w+\.py)\n", block.text)
        if name is not None:
            (tmp_path / name[1]).write_text(block.text, encoding="utf-8")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shelf.py", "test_shelf.py"]
    path = os.pathsep.join(
        [str(tmp_path), str(installed), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    )
    options = ("-q", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", tmp_path, "test_shelf.py")
    shown = run(sys.executable, "-S", "-m", "pytest", *options, cwd=tmp_path, PYTHONPATH=path)
    assert " passed" in shown
    where = run(
        sys.executable, "-S", "-c", "import polystore; print(polystore.__file__)", cwd=tmp_path, PYTHONPATH=path
    )
    assert Path(where.strip()) == installed / "polystore" / "__init__.py"
