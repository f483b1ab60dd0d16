"""A database in this process, by the library `chromadb`: a folder that one process at a time has open."""

from __future__ import annotations

import asyncio
import importlib
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

from polystore.embedding import unpack
from polystore.env import Env
from polystore.errors import (
    ConfigurationError,
    InvalidData,
    PermissionDenied,
    PolystoreError,
    SchemaMismatch,
    StoreCorrupt,
    Unavailable,
)
from polystore.model import Instance
from polystore_adapters.chromadb.options import Place
from polystore_adapters.chromadb.server import COLUMNS, Document, Server, rows

T = TypeVar("T")
_LOCK = "polystore.lock"


class Local(Server):
    """`client` is the library's own object. Its calls hold up a thread, not the event loop."""

    def __init__(self, folder: _Folder, place: Place, env: Env) -> None:
        super().__init__(folder.path, place.options, env, folder.api)
        self._folder: _Folder | None = folder

    @classmethod
    async def opened(cls, place: Place, env: Env) -> Local:
        opening = asyncio.create_task(asyncio.to_thread(_taken, place.folder))
        try:
            return cls(await asyncio.shield(opening), place, env)
        except asyncio.CancelledError:
            opening.add_done_callback(_given_back)
            raise
        except Exception as error:
            raise _translated(error, place.folder) from error

    async def aclose(self) -> None:
        """When the last of this process closes it, others may open the folder. Idempotent."""
        await super().aclose()
        folder, self._folder = self._folder, None
        if folder is not None:
            await asyncio.to_thread(_left, folder)

    async def _call(self, call: Callable[[Any], T]) -> T:
        """The answer of the library. Raises polystore's errors."""
        folder = self._folder
        if folder is None:
            raise Unavailable("closed; connect again")
        try:
            return await asyncio.to_thread(call, folder.api)
        except Exception as error:
            raise _translated(error, folder.path) from error

    async def instance(self, data_id: str) -> Instance:
        version = await self._call(lambda api: api.get_version())
        return Instance("chromadb in process", str(version), data_id, data_id)

    # -- collections ------------------------------------------------------------------------------------------

    async def collection(self, name: str) -> Document | None:
        try:
            found = await self._call(lambda api: api.get_collection(name))
        except SchemaMismatch:
            return None
        return {"id": str(found.id), "metadata": found.metadata}

    async def create(self, name: str, space: str) -> str:
        index = {"hnsw": self.index(space)}
        made = await self._call(lambda api: api.create_collection(name, configuration=index, get_or_create=True))
        return str(made.id)

    async def drop(self, name: str) -> None:
        try:
            await self._call(lambda api: api.delete_collection(name))
        except SchemaMismatch:  # it is gone
            return

    async def note(self, id: str, about: Mapping[str, str | int]) -> None:
        await self._call(lambda api: api._modify(_uuid(id), new_metadata=dict(about)))

    # -- items ------------------------------------------------------------------------------------------------

    async def items(self, id: str, *include: str, **asked: Any) -> list[Document]:
        answer = await self._call(lambda api: api._get(_uuid(id), include=list(include), **asked))
        return rows(answer["ids"], {name: answer[name] for name in include})

    async def nearest(self, id: str, vector: Sequence[float], count: int, where: Document | None) -> list[Document]:
        found = await self._call(lambda api: api._query(_uuid(id), [vector], None, count, where, None, list(COLUMNS)))
        return rows(found["ids"][0], {name: found[name][0] for name in COLUMNS})

    async def write(self, id: str, verb: str, **items: Any) -> None:
        if "embeddings" in items:
            items["embeddings"] = [unpack(one).tolist() for one in items["embeddings"]]
        await self._call(lambda api: getattr(api, f"_{verb}")(_uuid(id), **items))

    async def count(self, id: str) -> int:
        return int(await self._call(lambda api: api._count(_uuid(id))))


class _Folder:
    """An open folder. Raises OSError where another process has it open, ImportError without the library."""

    def __init__(self, path: str) -> None:
        config: Any = importlib.import_module("chromadb.config")
        chroma: Any = importlib.import_module("chromadb.api")
        fcntl: Any = importlib.import_module("fcntl")
        self.path = path
        self.users = 0
        Path(path).mkdir(parents=True, exist_ok=True)
        self._lock = os.open(Path(path) / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            settings = config.Settings(is_persistent=True, persist_directory=path, anonymized_telemetry=False)
            self._system: Any = config.System(settings)
            self.api: Any = self._system.instance(chroma.ServerAPI)
            self._system.start()
        except BaseException:
            os.close(self._lock)
            raise

    def close(self) -> None:
        try:
            self._system.stop()
        finally:
            os.close(self._lock)


_folders: dict[str, _Folder] = {}
"""What this process has open: the library's indexes are in memory, so all share one."""
_turn = threading.Lock()


def _taken(name: str) -> _Folder:
    path = str(Path(name).resolve())
    with _turn:
        folder = _folders.get(path) or _folders.setdefault(path, _Folder(path))
        folder.users += 1
    return folder


def _left(folder: _Folder) -> None:
    with _turn:
        folder.users -= 1
        if not folder.users:
            del _folders[folder.path]
            folder.close()


def _given_back(opening: asyncio.Task[_Folder]) -> None:
    """What nobody waited for: its thread went on."""
    if not opening.cancelled() and opening.exception() is None:
        _left(opening.result())


def _uuid(id: str) -> UUID:
    return UUID(id)


def _translated(error: Exception, path: str) -> PolystoreError:
    if isinstance(error, ImportError):
        return ConfigurationError(f"chromadb:{path} needs the library, on a POSIX system: pip install chromadb")
    if isinstance(error, BlockingIOError):
        return Unavailable("another process has opened this folder; run a ChromaDB server for several processes")
    match getattr(error, "code", lambda: 0)():
        case 400:
            return InvalidData(f"the library refuses the request ({type(error).__name__})")
        case 404:
            return SchemaMismatch("a collection does not exist; run `polystore init`")
        case _ if isinstance(error, PermissionError):
            return PermissionDenied("the folder may not be written")
        case _ if isinstance(error, OSError):
            return Unavailable(f"the folder cannot be opened ({type(error).__name__})")
        case _:
            return StoreCorrupt(f"the library does not answer as it should ({type(error).__name__})")
