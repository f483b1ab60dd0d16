"""Another process sweeps without a pause and without mercy for the young, while this one saves and writes."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from polystore import HybridDataArchitecture, InvalidData, NotFound
from tests.faults.big_file import Film, config_of

ROOT = Path(__file__).parents[2]
TRIES = 60


async def sweeping(kind: str, folder: Path) -> None:
    """In the child: sweep until the parent says no more."""
    async with HybridDataArchitecture.open(config_of(kind, folder), entities=[Film]) as hda:
        print("ready", flush=True)
        while not (folder / "enough").exists():
            await hda.sweep_files(older_than_s=0)


async def writing(config: Mapping[str, Any]) -> tuple[int, int]:
    """Files whose records were written, and those that the sweep was quicker to have. The former are all there."""
    kept: list[Film] = []
    lost = 0
    async with HybridDataArchitecture.open(config, entities=[Film]) as hda:
        for i in range(TRIES):
            film = Film(f"{i}")
            try:
                film.content = await hda.files.save(f"film {i}".encode() * (i * 40))
                for _ in range(i % 5):
                    await hda.collection(Film).exists("nothing")
                await hda.collection(Film).put(film)
                kept.append(film)
            except (InvalidData, NotFound):
                lost += 1
                assert not await hda.collection(Film).exists(film.id)
        for film in kept:
            assert film.content is not None
            assert await hda.files.read(film.content) == f"film {film.id}".encode() * (int(film.id) * 40)
    return len(kept), lost


@pytest.mark.parametrize("kind", ["file", "sqlite"])
def test_no_record_names_what_another_process_swept(kind: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.faults.test_sweep_processes", kind, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        try:
            kept, lost = asyncio.run(writing(config_of(kind, tmp_path)))
        finally:
            (tmp_path / "enough").touch()
    assert child.returncode == 0
    assert kept + lost == TRIES
    assert kept


if __name__ == "__main__":
    asyncio.run(sweeping(sys.argv[1], Path(sys.argv[2])))
