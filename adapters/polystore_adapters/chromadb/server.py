"""A ChromaDB database, as the rest of the adapter speaks to it: over HTTP (`remote.py`) or in this process
(`local.py`); and the one lane of each collection."""

from __future__ import annotations

import abc
import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from polystore.env import Env
from polystore.model import Instance
from polystore_adapters.chromadb.options import Options

T = TypeVar("T")
Document = dict[str, Any]
COLUMNS = ("metadatas", "uris", "embeddings")
"""All that an item has."""
_LANES: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, asyncio.Lock]] = WeakKeyDictionary()


class Server(abc.ABC):
    """The collections of one database. Nothing is tried twice; errors are polystore's. `client` is the driver's own
    object, `place` where the database is."""

    def __init__(self, place: str, options: Options, env: Env, client: Any) -> None:
        self.place = place
        self.options = options
        self.env = env
        self.client = client
        self._running: set[asyncio.Task[Any]] = set()

    def lane(self, name: str) -> asyncio.Lock:
        """One write at a time to a collection, of all that this event loop has connected: the server cannot compare and
        write in one step. The consistency manager sees to it that one process does."""
        lanes = _LANES.setdefault(asyncio.get_running_loop(), {})
        return lanes.setdefault(f"{self.place}/{name}", asyncio.Lock())

    async def alone(self, name: str, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Write to a collection when it is this one's turn, and then to the end, also where the caller is cancelled: a
        request that was sent may still be carried out, and nobody else may write before it was answered. Who is
        cancelled before has sent nothing."""
        lane = self.lane(name)
        await lane.acquire()
        task = asyncio.create_task(work())
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        task.add_done_callback(lambda done: None if done.cancelled() else done.exception())
        task.add_done_callback(lambda _: lane.release())
        return await asyncio.shield(task)

    async def aclose(self) -> None:
        """Returns when what was begun has ended."""
        await asyncio.gather(*self._running, return_exceptions=True)

    @abc.abstractmethod
    async def instance(self, data_id: str) -> Instance:
        """What answers, where the data is of this id."""

    # -- collections ------------------------------------------------------------------------------------------

    @abc.abstractmethod
    async def collection(self, name: str) -> Document | None:
        """Its id and metadata; None when there is none."""

    @abc.abstractmethod
    async def create(self, name: str, space: str) -> str:
        """The id of the collection, which may be there."""

    @abc.abstractmethod
    async def drop(self, name: str) -> None:
        """Remove it, if it is there."""

    @abc.abstractmethod
    async def note(self, id: str, about: Mapping[str, str | int]) -> None:
        """Replace a collection's metadata."""

    def index(self, space: str) -> dict[str, Any]:
        """How the index of a new collection is made."""
        known = self.options
        return {
            "space": space,
            "ef_search": known.ef_search,
            "ef_construction": known.ef_construction,
            "max_neighbors": known.max_neighbors,
        }

    # -- items ------------------------------------------------------------------------------------------------

    @abc.abstractmethod
    async def items(self, id: str, *include: str, **asked: Any) -> list[Document]:
        """The items with these `ids`, or for which `where` holds, `limit` of them after `offset`: each with its id and
        what is included of `COLUMNS`."""

    @abc.abstractmethod
    async def nearest(self, id: str, vector: Sequence[float], count: int, where: Document | None) -> list[Document]:
        """About the nearest, with all that can be included."""

    @abc.abstractmethod
    async def write(self, id: str, verb: str, **items: Any) -> None:
        """`upsert`, which keeps metadata that are not named; `delete`. `embeddings` are packed vectors."""

    @abc.abstractmethod
    async def count(self, id: str) -> int: ...


def rows(ids: Sequence[str], columns: Mapping[str, Sequence[Any]]) -> list[Document]:
    return [{"id": id, **{name: one[i] for name, one in columns.items()}} for i, id in enumerate(ids)]
