"""A database over the HTTP API (version 2), and its errors by status.

No driver: the API is a dozen requests with JSON. The driver's clients in a process share their connections, with the
headers and certificates of the first of them; its requests have no time limit; and it sends some before it is asked.
"""

from __future__ import annotations

import importlib
import ssl
from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any

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
from polystore.model import Instance
from polystore_adapters.chromadb.options import Place
from polystore_adapters.chromadb.server import COLUMNS, Document, Server, rows

_httpx: Any = importlib.import_module("httpx")
HTTPError: type[Exception] = _httpx.HTTPError


class Remote(Server):
    """`client` is the `httpx.AsyncClient`."""

    def __init__(self, place: Place, env: Env) -> None:
        known = place.options
        if known.client is not None and not isinstance(known.client, _httpx.AsyncClient):
            raise ConfigurationError("the option client is an httpx.AsyncClient")
        self._owned, self._closed = known.client is None, False
        client: Any = _made(place) if known.client is None else known.client
        self.database = f"/api/v2/tenants/{known.tenant}/databases/{place.database}"
        super().__init__(f"{client.base_url}{self.database}", known, env, client)

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

    async def aclose(self) -> None:
        """Calls under way end with an error. Idempotent; a program's own client stays open."""
        if not self._closed:
            self._closed = True
            if self._owned:
                await self.client.aclose()
        await super().aclose()

    async def instance(self, data_id: str) -> Instance:
        """The server tells nothing of its run: that of the database stands for it."""
        version = await self.ask("GET", "/api/v2/version")
        database = await self.ask("GET", self.database)
        return Instance("chromadb", str(version), str(database["id"]), data_id)

    # -- collections ------------------------------------------------------------------------------------------

    async def collection(self, name: str) -> Document | None:
        try:
            found: Document = await self.ask("GET", f"{self.database}/collections/{name}")
        except SchemaMismatch:
            return None
        return found

    async def create(self, name: str, space: str) -> str:
        body = {"name": name, "get_or_create": True, "configuration": {"hnsw": self.index(space)}}
        made: Document = await self.ask("POST", f"{self.database}/collections", body)
        return str(made["id"])

    async def drop(self, name: str) -> None:
        try:
            await self.ask("DELETE", f"{self.database}/collections/{name}")
        except SchemaMismatch:  # it is gone
            return

    async def note(self, id: str, about: Mapping[str, str | int]) -> None:
        await self.ask("PUT", f"{self.database}/collections/{id}", {"new_metadata": about})

    # -- items ------------------------------------------------------------------------------------------------

    async def items(self, id: str, *include: str, **asked: Any) -> list[Document]:
        answer = await self.ask("POST", f"{self.database}/collections/{id}/get", {"include": include, **asked})
        return rows(answer["ids"], {name: answer[name] for name in include})

    async def nearest(self, id: str, vector: Sequence[float], count: int, where: Document | None) -> list[Document]:
        body = {"query_embeddings": [vector], "n_results": count, "include": COLUMNS}
        body |= {} if where is None else {"where": where}
        answer = await self.ask("POST", f"{self.database}/collections/{id}/query", body)
        return rows(answer["ids"][0], {name: answer[name][0] for name in COLUMNS})

    async def write(self, id: str, verb: str, **items: Any) -> None:
        if "embeddings" in items:  # as numbers they are four times as long, and take the server longer to read
            items["embeddings"] = [b64encode(one).decode() for one in items["embeddings"]]
        await self.ask("POST", f"{self.database}/collections/{id}/{verb}", items)

    async def count(self, id: str) -> int:
        return int(await self.ask("GET", f"{self.database}/collections/{id}/count"))


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
