"""A directory of files as a store: rights, damage, races of processes, kills, a full disk."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from polystore_adapters.file import connect
from polystore_adapters.file.repository import FileRepository

from polystore import ConfigurationError, SchemaMismatch, StoreCorrupt, Unavailable, UnsupportedOperation
from polystore.env import Env
from polystore.model import EVERYTHING, Key, StoredObject, Upload
from polystore.registry import connect as connect_any

ROOT = Path(__file__).parents[3]


async def opened(folder: Path, **options: object) -> FileRepository:
    repository = await connect(f"file:{folder}", options, Env())
    await repository.prepare([], create=True)
    return repository


def made(key: str, data: bytes) -> StoredObject:
    return StoredObject(key, len(data), hashlib.sha256(data).hexdigest(), "text/plain")


async def save(repository: FileRepository, key: str, data: bytes, id: str = "upload") -> None:
    upload = Upload(key, id)
    await repository.put_part(upload, 0, data)
    await repository.finish_object(upload, made(key, data))


def child(body: str, *arguments: object) -> subprocess.Popen[str]:
    """A process that runs this code with `save`, `opened` and the arguments at hand."""
    text = (
        "import asyncio, json, os, sys\nfrom pathlib import Path\nfrom tests.integration.file.test_directory import *\n"
    )
    code = text + textwrap.dedent(body)
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)


def files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_others_may_read_only_what_the_umask_leaves_them(tmp_path: Path) -> None:
    async def main(folder: Path, **options: object) -> None:
        repository = await opened(folder, **options)
        await save(repository, "a/b", b"x")
        await repository.aclose()

    asyncio.run(main(tmp_path / "own"))
    asyncio.run(main(tmp_path / "group", umask=0o027))
    for folder, directory, file in (("own", 0o700, 0o600), ("group", 0o750, 0o640)):
        for path in [tmp_path / folder, *(tmp_path / folder).rglob("*")]:
            expected = directory if path.is_dir() else file
            assert stat.S_IMODE(path.stat().st_mode) == expected, path


def test_an_object_is_a_file_that_other_programs_can_read(tmp_path: Path) -> None:
    async def main() -> None:
        repository = await opened(tmp_path / "f")
        await save(repository, "~/2a/x", b"content")
        await repository.aclose()

    asyncio.run(main())
    assert files_in(tmp_path / "f") == ["objects/~/2a/x@/content", "objects/~/2a/x@/meta.json"]
    place = tmp_path / "f/objects/~/2a/x@"
    assert (place / "content").read_bytes() == b"content"
    meta = json.loads((place / "meta.json").read_text())
    assert (meta["key"], meta["size"], meta["content_type"]) == ("~/2a/x", 7, "text/plain")


def test_what_somebody_damaged_is_corrupt_and_never_missing(tmp_path: Path) -> None:
    async def main() -> None:
        repository = await opened(tmp_path)
        for key in ("a", "b", "c"):
            await save(repository, key, b"content", f"upload-{key}")
        (tmp_path / "objects/a@/content").unlink()
        (tmp_path / "objects/b@/meta.json").unlink()
        (tmp_path / "objects/c@/meta.json").write_text("{")
        with pytest.raises(StoreCorrupt, match="content is missing"):
            await repository.read_object("a", 0, 7)
        for key, what in (("b", "missing"), ("c", "damaged")):
            with pytest.raises(StoreCorrupt, match=f"key '{key}'.*meta.json is {what}"):
                await repository.stat_objects([key])
        await repository.aclose()

    asyncio.run(main())


def test_of_several_processes_one_makes_an_object(tmp_path: Path) -> None:
    asyncio.run(_opened_and_closed(tmp_path / "f"))
    race = """
        from polystore import AlreadyExists

        folder, name, start = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])

        async def main():
            repository = await opened(folder)
            for turn in range(20):
                data = f"{turn} of {name}".encode() * 50
                upload = Upload(f"race/{turn}", f"{name}-{turn}")
                await repository.put_part(upload, 0, data)
            print("ready", flush=True)
            while not start.exists():
                os.sched_yield()
            won = []
            for turn in range(20):
                data, upload = f"{turn} of {name}".encode() * 50, Upload(f"race/{turn}", f"{name}-{turn}")
                try:
                    await repository.finish_object(upload, made(f"race/{turn}", data))
                    won.append(turn)
                except AlreadyExists:
                    await repository.abandon_object(upload)
            print(json.dumps(won))
            await repository.aclose()

        asyncio.run(main())
    """
    children = [child(race, tmp_path / "f", name, tmp_path / "go") for name in ("one", "two", "three")]
    for process in children:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    (tmp_path / "go").touch()
    wins: dict[int, list[int]] = {turn: [] for turn in range(20)}
    for i, process in enumerate(children):
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        for turn in json.loads(out):
            wins[turn].append(i)
    assert all(len(winners) == 1 for winners in wins.values()), wins
    for turn, (winner,) in wins.items():
        place = tmp_path / f"f/objects/race/{turn}@"
        content = (place / "content").read_bytes()
        assert content == f"{turn} of {('one', 'two', 'three')[winner]}".encode() * 50
        assert json.loads((place / "meta.json").read_text())["sha256"] == hashlib.sha256(content).hexdigest()
    assert os.listdir(tmp_path / "f/uploads") == []


async def _opened_and_closed(folder: Path) -> None:
    await (await opened(folder)).aclose()


def test_what_was_saved_survives_a_kill_and_nothing_else_is_seen(tmp_path: Path) -> None:
    saver = """
        async def main():
            repository = await opened(Path(sys.argv[1]))
            for i in range(100_000):
                data = f"{sys.argv[2]} {i}".encode() * 3000
                await save(repository, f"kill/{sys.argv[2]}/{i}", data, f"{sys.argv[2]}-{i}")
                print(i, flush=True)

        asyncio.run(main())
    """
    draw = random.Random(11)
    acknowledged: dict[str, int] = {}
    for turn in range(4):
        process = child(saver, tmp_path, turn)
        assert process.stdout is not None
        for _ in range(draw.randrange(5, 40)):
            process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
        out, _ = process.communicate()
        said = [line for line in out.splitlines() if line.isdigit()]
        acknowledged[str(turn)] = int(said[-1]) if said else 4

    async def main() -> None:
        repository = await opened(tmp_path)
        found = (await repository.list_objects("", "", 100_000)).objects
        keys = {one.key for one in found}
        for turn, last in acknowledged.items():
            assert {f"kill/{turn}/{i}" for i in range(last + 1)} <= keys
        for one in found:
            data = await repository.read_object(one.key, 0, 1 << 20)
            assert (len(data), hashlib.sha256(data).hexdigest()) == (one.size, one.sha256), one.key
        while await repository.discard_parts(0):
            pass
        assert os.listdir(tmp_path / "uploads") == []
        await repository.aclose()

    asyncio.run(main())


def test_a_disk_without_room_is_said_so_and_nothing_is_left(tmp_path: Path) -> None:
    """The system's own limit of a file's size stands in for a disk's: the same call fails in the same place."""
    full = """
        import resource, signal
        from dataclasses import dataclass
        from polystore import FileRef, HybridDataArchitecture, entity

        @entity()
        @dataclass
        class Film:
            id: str
            content: FileRef | None = None

        async def main():
            home = {"url": "memory:", "roles": ["home"]}
            files = {"url": f"file:{sys.argv[1]}"}
            async with HybridDataArchitecture.open({"stores": {"home": home, "files": files}}, entities=[Film]) as hda:
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (3 << 20, 3 << 20))
                await hda.files.save(bytes(3 << 20))
                try:
                    await hda.files.save(bytes(5 << 20))
                except Exception as e:
                    print(type(e).__name__, e)

        asyncio.run(main())
    """
    process = child(full, tmp_path / "f")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert out.startswith("StoreFull files put_part key '~/"), out
    assert os.listdir(tmp_path / "f/uploads") == []
    assert len([name for name in files_in(tmp_path / "f") if name.startswith("objects/~/")]) == 2


def test_a_removed_object_is_gone_before_its_files_are(tmp_path: Path) -> None:
    """Killed in between, a removal leaves what the next sweep frees."""

    async def main() -> None:
        repository = await opened(tmp_path)
        await save(repository, "a", b"x")
        shutil.move(tmp_path / "objects/a@", tmp_path / "uploads/removed-1")
        assert await repository.stat_objects(["a"]) == [None]
        await repository.discard_parts(10**15)
        assert os.listdir(tmp_path / "uploads") == []
        await repository.aclose()

    asyncio.run(main())


def test_without_the_right_to_create_the_directory_must_be_there(tmp_path: Path) -> None:
    async def main() -> None:
        repository = await connect(f"file:{tmp_path}/none", {}, Env())
        with pytest.raises(SchemaMismatch, match="polystore init"):
            await repository.prepare([], create=False)
        await repository.prepare([], create=True)
        await repository.prepare([], create=False)
        await repository.aclose()
        await repository.aclose()
        with pytest.raises(Unavailable, match="closed"):
            await repository.stat_objects(["a"])

    asyncio.run(main())


def test_a_file_in_the_way_and_a_vanished_directory_are_told(tmp_path: Path) -> None:
    async def main() -> None:
        repository = await opened(tmp_path / "f")
        shutil.rmtree(tmp_path / "f")
        with pytest.raises(Unavailable, match="ENOENT"):
            await repository.discard_parts(0)
        (tmp_path / "file").touch()
        other = await connect(f"file:{tmp_path}/file", {}, Env())
        with pytest.raises(Unavailable):
            await other.prepare([], create=True)
        await repository.aclose()
        await other.aclose()

    asyncio.run(main())


def test_bad_urls_and_options_are_refused() -> None:
    for url in ("file:", "file:///etc", "file://host/x", "file:a\0b"):
        with pytest.raises(ConfigurationError, match="file:data/files"):
            asyncio.run(connect_any(url, {}, Env()))
    with pytest.raises(ConfigurationError, match="known: umask, threads"):
        asyncio.run(connect_any("file:data", {"mask": 1}, Env()))


def test_there_are_no_records(tmp_path: Path) -> None:
    async def main() -> None:
        repository = await opened(tmp_path)
        for call in (
            repository.get([Key("", "a", "b")]),
            repository.apply([]),
            repository.scan("a", "", EVERYTHING, None, 1),
            repository.tenants("a"),
            repository.newest("a"),
        ):
            with pytest.raises(UnsupportedOperation, match="no records"):
                await call
        await repository.aclose()

    asyncio.run(main())
