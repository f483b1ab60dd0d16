"""ChromaDB in the process of the application: the library is that which the server is made of."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from polystore_adapters.chromadb import connect, local
from polystore_adapters.chromadb.options import parse

from compose.native import cache
from compose.native.recipes.chromadb import CHROMADB
from polystore import ConfigurationError, StoreCorrupt
from polystore.env import Env
from tests.loops import in_a_loop
from tests.stack import absent

SCRIPT = Path(__file__).with_name("in_process.py")


@pytest.fixture(scope="module")
def library() -> dict[str, str]:
    """The environment of a process that has it."""
    packages = cache.folder(CHROMADB) / "packages"
    if not packages.is_dir():
        absent("chromadb", "its packages were never downloaded here")
    return {**os.environ, "PYTHONPATH": str(packages)}


def started(library: dict[str, str], what: str, folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, str(SCRIPT), what, str(folder)]
    return subprocess.Popen(command, env=library, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def told(library: dict[str, str], what: str, folder: Path) -> Any:
    out, _ = started(library, what, folder).communicate(timeout=120)
    return json.loads(out)


def test_what_one_process_wrote_another_one_finds_after_its_end_and_not_before(
    library: dict[str, str], tmp_path: Path
) -> None:
    assert told(library, "write", tmp_path) == {"near": ["p1", "p2", "p3"], "differences": []}
    with started(library, "hold", tmp_path) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == '"held"\n'
        assert "another process has opened this folder" in told(library, "read", tmp_path)["unavailable"]
        child.kill()
    assert told(library, "read", tmp_path) == {"near": ["p9", "p1", "p2", "p3"], "differences": []}


def test_the_kit_passes_in_process(library: dict[str, str], tmp_path: Path) -> None:
    """The part of it that tells vectors and the guard; `polystore conformance chromadb:FOLDER` is the whole."""
    command = [sys.executable, "-m", "polystore.testing.kit", f"chromadb:{tmp_path}/kit", "--json"]
    parts = ["--kit=VectorConformance", "--kit=CopyExpiryConformance", "--kit=DurabilityConformance"]
    done = subprocess.run([*command, *parts], check=False, env=library, stdout=subprocess.PIPE, text=True, timeout=300)
    report = json.loads(done.stdout)
    assert (done.returncode, report["failures"]) == (0, [])
    assert sum(row["passed"] for row in report["rows"]) > 10


@pytest.mark.parametrize(
    ("url", "options"), [("chromadb:", {}), ("chromadb:near", {"token": "t"}), ("chromadb:near", {"client": object()})]
)
def test_what_makes_no_sense_in_process_is_refused(url: str, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        parse(url, options)


def test_without_the_library_it_is_said_what_to_install(tmp_path: Path) -> None:
    code = f"""
import asyncio, sys
sys.modules["chromadb"] = None
from polystore_adapters.chromadb import connect
from polystore.env import Env
from polystore.errors import ConfigurationError
try:
    asyncio.run(connect("chromadb:{tmp_path}/near", {{}}, Env()))
except ConfigurationError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install chromadb" in done.stdout


@in_a_loop
async def test_a_folder_that_nobody_waited_for_is_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on, closed = threading.Event(), threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    class Folder:
        """As the library takes its time to open one."""

        def __init__(self, path: str) -> None:
            self.path, self.users = path, 0
            begun.set()
            assert go_on.wait(30)

        def close(self) -> None:
            loop.call_soon_threadsafe(closed.set)

    monkeypatch.setattr(local, "_Folder", Folder)
    connecting = asyncio.create_task(connect(f"chromadb:{tmp_path}", {}, Env()))
    await asyncio.to_thread(begun.wait, 30)
    connecting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await connecting
    go_on.set()
    await asyncio.wait_for(closed.wait(), 30)


@in_a_loop
async def test_a_folder_that_the_library_cannot_read_is_an_error_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(path: str) -> None:
        raise RuntimeError(path)

    monkeypatch.setattr(local, "_Folder", damaged)
    with pytest.raises(StoreCorrupt, match="RuntimeError"):
        await connect(f"chromadb:{tmp_path}", {}, Env())
