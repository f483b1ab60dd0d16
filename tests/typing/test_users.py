"""Code as users write it: it passes mypy and pyright strict outside the checkout, and runs."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest

from polystore import ImportReport
from tests.typing.users import agent, bulk, live, publishing, service

USERS = Path(__file__).parent / "users"
CACHE = Path(__file__).parents[2] / ".mypy_cache" / "users"
"""What mypy has found out of the packages, which it looks at again where they have changed."""


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """The users' files in a directory where no configuration of ours applies."""
    for file in USERS.glob("*.py"):
        shutil.copy(file, tmp_path)
    return tmp_path


def run(*command: str, cwd: Path) -> None:
    done = subprocess.run([sys.executable, "-m", *command], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_mypy_strict_finds_the_mistakes_and_nothing_else(outside: Path) -> None:
    run("mypy", "--strict", "--warn-unreachable", "--cache-dir", str(CACHE), ".", cwd=outside)


def test_pyright_strict_finds_the_mistakes_and_nothing_else(outside: Path) -> None:
    settings = {
        "typeCheckingMode": "strict",
        "reportUnnecessaryTypeIgnoreComment": "error",
    }
    (outside / "pyrightconfig.json").write_text(json.dumps(settings))
    run("pyright", "--pythonpath", sys.executable, cwd=outside)


def test_the_agent_runs(tmp_path: Path) -> None:
    said = asyncio.run(agent.main(f"embedded:{tmp_path}/agent"))
    story = "민지와 이별한 이야기"
    assert said == [story, story, "민지와 <mark>이별</mark>한 이야기", "민지", "find", "True", "1"]


def test_the_service_runs(tmp_path: Path) -> None:
    async def main() -> None:
        async with service.lifespan(f"embedded:{tmp_path}/service") as application:
            repo = application.profiles("acme")
            created = await repo.create(service.Profile(id="p", email="minji@example.com", bio="책을 읽는다"))
            status, seen = await service.read(repo, "p")
            assert (status, seen["email"]) == (200, "minji@example.com")
            assert await service.read(application.profiles("other"), "p") == (404, {})
            status, _ = await service.patch(repo, "p", "책을 쓴다", int(seen["etag"]), uuid4())
            assert status == 200
            assert (await service.patch(repo, "p", "x", int(seen["etag"]), uuid4()))[0] == 412
            page = await service.search(repo, "책을", None, None)
            assert page["items"][0][0] == "책을 쓴다"
            assert await service.merge(created, created, repo) is not None

    asyncio.run(main())


def test_the_import_runs(tmp_path: Path) -> None:
    written, report, seen = asyncio.run(bulk.main(f"sqlite:{tmp_path}/bulk.db"))
    assert (written, report, seen) == ([500, 700], ImportReport(read=700, written=700), 700)


def test_the_game_runs(tmp_path: Path) -> None:
    seen = asyncio.run(live.main(f"embedded:{tmp_path}/game"))
    assert seen == ((1, 1.5), "garden", [True, True, False], ["안녕", "여기야"])


def test_the_publishing_desk_runs(tmp_path: Path) -> None:
    results, found, titles = asyncio.run(publishing.main(f"{tmp_path}/desk.db"))
    assert [(one.key, one.stores["main"]) for one in results] == [("1", "committed")]
    assert (found, titles) == (["captured", "a stamp"], ["x", "captured"])
