"""The driver's client, its errors by type and status, and what was not refreshed yet."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

from polystore.env import Env
from polystore.errors import (
    ConfigurationError,
    InvalidData,
    PermissionDenied,
    PolystoreError,
    RateLimited,
    SchemaMismatch,
    StoreFull,
    Unavailable,
    ValueTooLarge,
)
from polystore_adapters.elasticsearch.options import Options

_module: Any = importlib.import_module("elasticsearch")
ApiError: type[Exception] = _module.ApiError
"""The server answered with an error, or with less than was asked for."""
TransportError: type[Exception] = _module.TransportError
"""There was no answer."""
Document = dict[str, Any]
SCHEMES = {"elasticsearch": "http", "elasticsearchs": "https"}
_SAID = "elasticsearch://user:password@host:port, or elasticsearchs:// with TLS"


class Server:
    """The indexes under one prefix. Nothing is tried twice."""

    def __init__(self, url: str, known: Options, theirs: Mapping[str, Any], env: Env) -> None:
        if known.client is not None and (not isinstance(known.client, _module.AsyncElasticsearch) or theirs):
            raise ConfigurationError("the option client is an AsyncElasticsearch, and no other option of the driver is")
        self._owned, self._closed = known.client is None, False
        self.client: Any = _made(url, known, theirs) if known.client is None else known.client
        self.options = known
        self.env = env
        self._refreshes: dict[str, asyncio.Task[None]] = {}
        self._written: set[str] = set()

    def index(self, etype: str) -> str:
        """What holds an entity type in this place."""
        return f"{self.options.prefix}{etype}.1"

    def name(self, etype: str) -> str:
        """By which polystore asks for it: an alias, since writing to one never makes an index."""
        return f"{self.options.prefix}{etype}.own"

    def alias(self, etype: str) -> str:
        """By which others ask for it: of the place that serves."""
        return f"{self.options.alias_prefix}{etype}"

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable("closed; connect again")

    async def ask(self, method: str, path: str, body: object = None, **params: Any) -> Any:
        """One request. Raises polystore's errors."""
        self._check_open()
        headers = {"accept": "application/json"}
        if body is not None:
            headers["content-type"] = "application/x-ndjson" if isinstance(body, bytes) else "application/json"
        try:
            answer = await self.client.perform_request(method, path, params=params, headers=headers, body=body)
        except ApiError as error:
            raise by_status(getattr(error, "status_code", 0), _type_of(getattr(error, "body", None))) from error
        except TransportError as error:
            raise Unavailable(f"the server does not answer ({type(error).__name__})") from error
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._closed and task is not None and not task.cancelling():  # by the driver, which was closed under way
                raise Unavailable("closed under way; connect again") from None
            raise
        return answer.body

    async def mget(self, index: str, ids: Sequence[str], **params: Any) -> list[Document]:
        """Documents by id, in the order asked; `found` False: there is none. One that the server cannot look at has an
        error of its own in an answer that is none."""
        answer = await self.ask("POST", f"/{index}/_mget", {"ids": list(ids)}, **params)
        found: list[Document] = answer["docs"]
        for one in found:
            if "error" in one:
                kind = str(one["error"].get("type", ""))
                raise by_status(404 if kind == "index_not_found_exception" else 503, kind)
        return found

    async def bulk(self, lines: Sequence[bytes], *written: str) -> Document:
        """Lines of a bulk request, documents and what is done with them, and the indexes that are written; each item of
        the answer stands by itself."""
        try:
            answer: Document = await self.ask("POST", "/_bulk", b"\n".join(lines) + b"\n")
        finally:
            self._written.update(written)  # also where the answer was lost
        return answer

    async def seen(self, index: str) -> None:
        """What was written to the index by this connection before this call is found after it. What others wrote is
        found after the server's refresh interval."""
        running = self._refreshes.get(index)
        if running is not None and not running.done():
            await asyncio.wait([running])  # which counts as written no more what it does not show yet
        if index in self._written:
            await self.refresh(index)

    async def refresh(self, index: str) -> None:
        """What was written to the index before this call, by whoever, is found after it. Calls at the same time share
        one request that begins after all of them."""
        running = self._refreshes.get(index)
        if running is not None and not running.done():
            await asyncio.wait([running])  # it may have begun before what the caller wants to see
            running = self._refreshes.get(index)
        if running is None or running.done():
            running = self._refreshes[index] = asyncio.create_task(self._refresh(index))
        await asyncio.shield(running)

    async def _refresh(self, index: str) -> None:
        self._written.discard(index)
        try:
            await self.ask("POST", f"/{index}/_refresh")
        except BaseException:
            self._written.add(index)
            raise

    async def aclose(self) -> None:
        """Calls under way end with an error. Idempotent; a program's own client stays open."""
        if not self._closed:
            self._closed = True
            if self._owned:
                await self.client.close()
            await asyncio.gather(*self._refreshes.values(), return_exceptions=True)


def by_status(status: int, kind: str) -> PolystoreError:
    """The error of a request, or of one item of a bulk request, by its status and type."""
    if kind == "cluster_block_exception":
        return StoreFull("its disk is full, or the index is read-only; make room, the server then writes again")
    match status:
        case 400:
            return InvalidData(f"the server refuses the document ({kind})")
        case 401 | 403:
            return PermissionDenied("the server refuses these credentials; give them rights on the prefix's indexes")
        case 404:
            return SchemaMismatch("the index does not exist; run `polystore init`")
        case 413:
            return ValueTooLarge("the server takes no request as large; raise its http.max_content_length")
        case 429:
            return RateLimited("the server asks for fewer requests")
        case _:
            return Unavailable(f"the server does not answer as it should ({kind or status})")


def _type_of(body: Any) -> str:
    """What kind of error it is, where the server says so in the usual form."""
    try:
        return str(body["error"]["type"])
    except (KeyError, TypeError):
        return ""


def _made(url: str, known: Options, theirs: Mapping[str, Any]) -> Any:
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES or not parts.hostname or parts.path.strip("/") or parts.query or parts.fragment:
        raise ConfigurationError(f"not a URL of an Elasticsearch server: {_SAID}")
    hosts = parts.netloc.rpartition("@")[2].split(",")
    given: dict[str, Any] = {"request_timeout": known.timeout_s, "max_retries": 0, "retry_on_timeout": False, **theirs}
    if parts.username and parts.password:
        given.setdefault("basic_auth", (unquote(parts.username), unquote(parts.password)))
    try:
        return _module.AsyncElasticsearch([f"{SCHEMES[parts.scheme]}://{host}" for host in hosts], **given)
    except (ValueError, TypeError, OSError) as e:
        raise ConfigurationError(f"an option that the driver refuses ({type(e).__name__}): {_SAID}") from None
