"""A server that speaks OpenAI's /embeddings: OpenAI itself, vLLM, Text Embeddings Inference, Ollama and others.

The request and the answer: https://platform.openai.com/docs/api-reference/embeddings/create
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import msgspec

from polystore.embedders.configured import EmbedderConfig
from polystore.embedding import Purpose
from polystore.errors import (
    ConfigurationError,
    InvalidData,
    PermissionDenied,
    PolystoreError,
    RateLimited,
    StoreTimeout,
    Unavailable,
)

CONNECTIONS_MAX = 8
CONNECT_S = 5.0
RETRY_AFTER_S_MAX = 3600.0
_CODE = re.compile(r"[A-Za-z0-9_.-]{1,60}")


class _Item(msgspec.Struct):
    embedding: list[float]
    index: int | None = None


class _Answer(msgspec.Struct):
    data: list[_Item]


class HttpEmbedder:
    """An embedder behind HTTP. It connects when it is first asked; `aclose` ends the connections, and whoever asks
    again makes new ones."""

    def __init__(self, config: EmbedderConfig) -> None:
        assert config.dimension is not None
        self.config = config
        self.name = config.name
        self.dimension = config.dimension
        self.batch_max = config.batch_max
        self.chars_max = config.chars_max
        self.calls_per_minute = config.calls_per_minute
        self._client: httpx.AsyncClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def embed(self, texts: Sequence[str], *, purpose: Purpose) -> Sequence[Sequence[float]]:
        """One vector for each text, in the order asked.

        Raises RateLimited (429), Unavailable (5xx, no connection, an answer that is none), StoreTimeout, InvalidData
        when the server refuses a text (400, 413, 422), PermissionDenied (401, 402, 403), ConfigurationError (404). No
        message shows a text, the key, or what the server wrote beside its error code.
        """
        prefix = self.config.query_prefix if purpose == "query" else self.config.document_prefix
        request: dict[str, Any] = {"model": self.config.model, "input": [prefix + text for text in texts]}
        if self.config.shorten:
            request["dimensions"] = self.dimension
        try:
            response = await self._connected().post(f"{self.config.url.rstrip('/')}/embeddings", json=request)
        except httpx.TimeoutException as e:
            raise StoreTimeout(f"no answer within {self.config.timeout_s:g} s ({type(e).__name__})") from e
        except (httpx.HTTPError, RuntimeError) as e:  # httpx raises RuntimeError for a client that was closed meanwhile
            raise Unavailable(f"it cannot be reached ({type(e).__name__})") from e
        if response.status_code != 200:
            raise _refusal(response, self.config)
        return _vectors(response.content, len(texts))

    def _connected(self) -> httpx.AsyncClient:
        """The client of this event loop: sockets of another loop cannot be used."""
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            key = self.config.api_key
            self._client = httpx.AsyncClient(
                headers={"Authorization": f"Bearer {key}"} if key else {},
                timeout=httpx.Timeout(self.config.timeout_s, connect=min(CONNECT_S, self.config.timeout_s)),
                limits=httpx.Limits(max_connections=CONNECTIONS_MAX, max_keepalive_connections=CONNECTIONS_MAX),
            )
            self._loop = loop
        return self._client

    async def aclose(self) -> None:
        """End the connections. Idempotent."""
        client, self._client = self._client, None
        if client is not None and self._loop is asyncio.get_running_loop():
            await client.aclose()


def _vectors(content: bytes, count: int) -> list[list[float]]:
    """The vectors in the order of the texts. Raises Unavailable for an answer of another shape: what stands between us
    and the server answers so too, and it passes."""
    try:
        answer = msgspec.json.decode(content, type=_Answer)
    except (msgspec.DecodeError, UnicodeDecodeError):
        answer = _tolerant(content)
    items = answer.data
    order = [i if item.index is None else item.index for i, item in enumerate(items)]
    if sorted(order) != list(range(count)):
        raise Unavailable(f"it answered with {len(items)} vectors for {count} texts, or numbered them otherwise")
    return [items[at].embedding for at in sorted(range(count), key=order.__getitem__)]


def _tolerant(content: bytes) -> _Answer:
    """An answer with NaN or Infinity, which is no JSON: whose vector holds it is found by who checks the numbers."""
    try:
        return msgspec.convert(json.loads(content), _Answer)
    except (ValueError, msgspec.ValidationError):
        raise Unavailable("it answered with something else than embeddings; is the url that of its API?") from None


def _refusal(response: httpx.Response, config: EmbedderConfig) -> PolystoreError:
    status = response.status_code
    said = f"HTTP {status}{_code(response.content)}"
    if status == 429:
        return RateLimited(f"it asks to slow down ({said})", retry_after_s=_retry_after_s(response))
    if status in (400, 413, 422):
        return InvalidData(f"the server of {config.model!r} refuses the text ({said})")
    if status in (401, 402, 403):
        return PermissionDenied(f"it refuses the api_key of model {config.model!r} ({said}); give a valid one")
    if status == 404:
        return ConfigurationError(
            f"the server knows no model {config.model!r}, or its API is not at the configured url ({said})"
        )
    return Unavailable(f"it answers {said}", retry_after_s=_retry_after_s(response))


def _code(content: bytes) -> str:
    """What an error is called by the server; its prose may repeat the text or the key."""
    try:
        error = json.loads(content)["error"]
        code = error.get("code") or error.get("type")
    except (ValueError, TypeError, KeyError, AttributeError):
        return ""
    return f", {code}" if isinstance(code, str) and _CODE.fullmatch(code) else ""


def _retry_after_s(response: httpx.Response) -> float | None:
    """Seconds, of a number or a date (RFC 9110, section 10.2.3)."""
    text = response.headers.get("retry-after")
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        try:
            date = parsedate_to_datetime(text)
        except ValueError:
            return None
        seconds = (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return min(max(seconds, 0.0), RETRY_AFTER_S_MAX) if seconds == seconds else None
