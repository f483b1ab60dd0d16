"""Row 13: files of 10 KB, in a directory and in MinIO, against obstore by hand. Needs the MinIO of `make up`.

By hand means: a PUT that creates and never replaces under a fresh key, and a GET; no digest. Ours has the sha256 of
the content and checks it at every read. In a directory obstore does not wait for the disk, which ours does before it
says that the content is kept; so the hand that it is compared with syncs the file and its directory after the PUT.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import obstore
from obstore.store import LocalStore
from polystore_adapters.s3.options import read_options

from benchmarks.measure import Ratio, at_least, at_once, interleaved, per_operation
from benchmarks.servers import url_of
from polystore import FileRef, HybridDataArchitecture, entity
from polystore.testing.places.s3 import own_objects

TARGET = 0.85
TASKS = 32
CONTENT = os.urandom(10 << 10)


@entity()
@dataclass(kw_only=True)
class Picture:
    id: str
    content: FileRef


class ByHand:
    """`root`: of a directory, whose files are synced."""

    def __init__(self, store: Any, prefix: str, root: Path | None) -> None:
        self._store = store
        self._prefix = prefix
        self._root = root
        self.keys: list[str] = []

    async def put(self, i: int) -> None:
        key = f"{self._prefix}raw/{uuid.uuid4().hex}"
        await obstore.put_async(self._store, key, CONTENT, mode="create", use_multipart=False)
        if self._root is not None:
            await asyncio.to_thread(_sync, self._root / key)
        self.keys.append(key)

    async def get(self, i: int) -> None:
        answer = await obstore.get_async(self._store, self.keys[i % len(self.keys)])
        assert len(bytes(await answer.bytes_async())) == len(CONTENT)


def _sync(path: Path) -> None:
    for one, flags in ((path, os.O_RDONLY), (path.parent, os.O_RDONLY | os.O_DIRECTORY)):
        file = os.open(one, flags)
        try:
            os.fsync(file)
        finally:
            os.close(file)


async def put_and_get(directory: Path) -> list[Ratio]:
    root = directory / "raw"
    root.mkdir()
    local: Callable[..., Any] = LocalStore
    found = await _measured("directory", f"file:{directory}/files", ByHand(local(str(root)), "", root), directory)
    with contextlib.ExitStack() as own:
        url = own.enter_context(own_objects(url_of("minio")))
        place = read_options(url, {})
        raw = ByHand(place.store(), place.prefix, None)
        found += await _measured("MinIO", url, raw, directory)
    return found


async def _measured(name: str, url: str, raw: ByHand, directory: Path) -> list[Ratio]:
    stores = {
        "home": {"url": f"sqlite:{directory}/{name}.db", "roles": ["home", "journal"]},
        "files": {"url": url, "roles": ["file"]},
    }
    refs: list[FileRef] = []
    async with HybridDataArchitecture.open({"stores": stores}, entities=[Picture]) as hda:

        async def save(i: int) -> None:
            refs.append(await hda.files.save(CONTENT))

        async def read(i: int) -> None:
            assert len(await hda.files.read(refs[i % len(refs)])) == len(CONTENT)

        puts = await interleaved({"ours": lambda: per_operation(save, 100), "raw": lambda: per_operation(raw.put, 100)})
        gets = await interleaved({"ours": lambda: per_operation(read, 200), "raw": lambda: per_operation(raw.get, 200)})
        many_puts = await interleaved(
            {"ours": lambda: at_once(save, TASKS, 10), "raw": lambda: at_once(raw.put, TASKS, 10)}
        )
        many_gets = await interleaved(
            {"ours": lambda: at_once(read, TASKS, 20), "raw": lambda: at_once(raw.get, TASKS, 20)}
        )
    together = [
        at_least(13, f"put 10 KB, {name}, {TASKS} tasks", "obstore", 0, many_puts["ours"], many_puts["raw"]),
        at_least(13, f"get 10 KB, {name}, {TASKS} tasks", "obstore", 0, many_gets["ours"], many_gets["raw"]),
    ]
    return [
        at_least(13, f"put 10 KB, {name}", "obstore", TARGET, puts["ours"], puts["raw"]),
        at_least(13, f"get 10 KB, {name}", "obstore", TARGET, gets["ours"], gets["raw"]),
        *(msgspec.structs.replace(one, target="-", met=None) for one in together),
    ]
