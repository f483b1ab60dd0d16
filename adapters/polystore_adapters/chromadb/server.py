"""The HTTP API (version 2), its errors by status, and the one lane of each collection.

No driver: the API is a dozen requests with JSON. The driver's clients in a process share their connections, with the
headers and certificates of the first of them; its requests have no time limit; and it sends some before it is asked.
"""

from __future__ import annotations

import asyncio
import importlib
import ssl
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import msgspec

from polystore.env import Env
from polystore.errors import (
    ConfigurationError,
    InvalidData,
    PermissionDenied,
    PolystoreError,
    RateLimited,
    SchemaMismatch,
    Unavailable,
    ValueTooLarge,
)
from polystore_adapters.chromadb.options import Place

_httpx: Any = importlib.import_module("httpx")
HTTPError: type[Exception] = _httpx.HTTPError
T = TypeVar("T")
Document = dict[str, Any]
_LANES: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, asyncio.Lock]] = WeakKeyDictionary()


class Server:
    """The collections of one database. Nothing is tried twice."""

    def __init__(self, place: Place, env: Env) -> None:
        known = place.options
        if known.client is not None and not isinstance(known.client, _httpx.AsyncClient):
            raise ConfigurationError("the option client is an httpx.AsyncClient")
        self._owned, self._closed = known.client is None, False
        self.client: Any = _made(place) if known.client is None else known.client
        self.options = known
        self.env = env
        self.database = f"/api/v2/tenants/{known.tenant}/databases/{place.database}"
        self._running: set[asyncio.Task[Any]] = set()

    async def ask(self, method: str, path: str, body: object = None) -> Any:
        """One request. Raises polystore's errors."""
        if self._closed:
            raise Unavailable("closed; connect again")
        content = None if body is None else msgspec.json.encode(body)
        headers = {} if body is None else {"content-type": "application/json"}
        try:
            answer = await self.client.request(method, path, content=content, headers=headers)
        except (HTTPError, OSError) as error:
            raise Unavailable(f"the server does not answer ({type(error).__name__})") from error
        except Exception as error:
            if self._closed:
                raise Unavailable("closed under way; connect again") from error
            raise
        if answer.status_code >= 300:
            raise _by_status(answer.status_code, _type_of(answer.content))
        return msgspec.json.decode(answer.content) if answer.content else None

    def lane(self, name: str) -> asyncio.Lock:
        """One write at a time to a collection, of all that this event loop has connected: the server cannot compare and
        write in one step. The consistency manager sees to it that one process does."""
        lanes = _LANES.setdefault(asyncio.get_running_loop(), {})
        return lanes.setdefault(f"{self.client.base_url}{self.database}/{name}", asyncio.Lock())

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
        """Calls under way end with an error. Idempotent; a program's own client stays open."""
        if not self._closed:
            self._closed = True
            if self._owned:
                await self.client.aclose()
        await asyncio.gather(*self._running, return_exceptions=True)

    # -- collections ------------------------------------------------------------------------------------------

    async def collection(self, name: str) -> Document | None:
        """Its id and metadata; None when there is none."""
        try:
            found: Document = await self.ask("GET", f"{self.database}/collections/{name}")
        except SchemaMismatch:
            return None
        return found

    async def create(self, name: str, space: str) -> str:
        """The id of the collection, which may be there."""
        known = self.options
        index = {
            "space": space,
            "ef_search": known.ef_search,
            "ef_construction": known.ef_construction,
            "max_neighbors": known.max_neighbors,
        }
        body = {"name": name, "get_or_create": True, "configuration": {"hnsw": index}}
        made: Document = await self.ask("POST", f"{self.database}/collections", body)
        return str(made["id"])

    async def drop(self, name: str) -> None:
        try:
            await self.ask("DELETE", f"{self.database}/collections/{name}")
        except SchemaMismatch:  # it is gone
            return

    async def note(self, id: str, about: Mapping[str, str | int]) -> None:
        """Replace a collection's metadata."""
        await self.ask("PUT", f"{self.database}/collections/{id}", {"new_metadata": about})

    # -- items ------------------------------------------------------------------------------------------------

    async def items(self, id: str, *include: str, **asked: Any) -> list[Document]:
        """The items with these `ids`, or for which `where` holds, in no order: each with its id and what is included
        of `metadatas`, `uris`, `embeddings`."""
        answer = await self.ask("POST", f"{self.database}/collections/{id}/get", {"include": include, **asked})
        return _rows(answer["ids"], {name: answer[name] for name in include})

    async def nearest(self, id: str, vector: Sequence[float], count: int, where: Document) -> list[Document]:
        """About the nearest, with their metadata."""
        body = {"query_embeddings": [vector], "n_results": count, "where": where, "include": ["metadatas"]}
        answer = await self.ask("POST", f"{self.database}/collections/{id}/query", body)
        return _rows(answer["ids"][0], {"metadatas": answer["metadatas"][0]})

    async def write(self, id: str, verb: str, **items: Any) -> None:
        """`upsert`, which keeps metadata that are not named; `update`, of those that are there; `delete`."""
        await self.ask("POST", f"{self.database}/collections/{id}/{verb}", items)

    async def count(self, id: str) -> int:
        return int(await self.ask("GET", f"{self.database}/collections/{id}/count"))


def _rows(ids: Sequence[str], columns: Mapping[str, Sequence[Any]]) -> list[Document]:
    return [{"id": id, **{name: one[i] for name, one in columns.items()}} for i, id in enumerate(ids)]


def _by_status(status: int, kind: str) -> PolystoreError:
    match status:
        case 400 | 422:
            return InvalidData(f"the server refuses the request ({kind})")
        case 401 | 403:
            return PermissionDenied("the server refuses these credentials; give them rights on the database")
        case 404:
            return SchemaMismatch("the database or a collection does not exist; make it, or run `polystore init`")
        case 413:
            return ValueTooLarge("the server takes no request as large; raise its max_payload_size_bytes")
        case 429:
            return RateLimited("the server asks for fewer requests")
        case _:
            return Unavailable(f"the server does not answer as it should ({kind or status})")


def _type_of(content: bytes) -> str:
    """What kind of error it is, where the server says so in the usual form."""
    try:
        return str(msgspec.json.decode(content)["error"])
    except (KeyError, TypeError, msgspec.DecodeError):
        return ""


def _made(place: Place) -> Any:
    known = place.options
    try:
        verify = ssl.create_default_context(cafile=known.ca_file or None) if place.tls else False
        return _httpx.AsyncClient(
            base_url=place.url,
            auth=place.auth,
            headers={"x-chroma-token": known.token} if known.token else {},
            timeout=known.timeout_s,
            verify=verify,
            limits=_httpx.Limits(max_connections=known.pool_size),
        )
    except (OSError, ValueError, _httpx.InvalidURL) as e:
        raise ConfigurationError(
            f"a ChromaDB server cannot be reached as its options say: {type(e).__name__}"
        ) from None
