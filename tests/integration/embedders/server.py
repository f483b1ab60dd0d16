"""A small real HTTP server that speaks /v1/embeddings and can be told to fail, to stall and to limit."""

from __future__ import annotations

import json
import socket
import threading
from collections import deque
from collections.abc import Callable, Mapping
from hashlib import blake2b
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "sk-geheim-1234"
DIMENSION = 8

Reply = tuple[int, Mapping[str, str], bytes]
Trouble = Callable[["Handler", dict[str, Any]], Reply | None]
"""What happens instead of an answer; None: as if nothing had happened."""


def vector(model: str, text: str, dimension: int = DIMENSION) -> list[float]:
    """Equal texts have equal vectors, other texts others, and so have other models."""
    digest = blake2b(f"{model} {text}".encode(), digest_size=64).digest()
    return [byte / 128 - 1 for byte in digest[:dimension]]


class Embeddings:
    """The server. `requests` are all that it was asked, in order; `texts` what it made vectors of."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.texts: list[str] = []
        self.keys: set[str | None] = set()
        self.troubles: deque[Trouble] = deque()
        """Each for one request."""
        self.trouble: Trouble | None = None
        """For every request."""
        self.dimensions = {"m-2": DIMENSION + 4}
        """Of models with another than `DIMENSION`."""
        self.go_on = threading.Event()
        self._server: _Server | None = None
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def config(self, model: str = "m-1", **more: Any) -> dict[str, Any]:
        """A table `[embedders.default]`."""
        dimension = self.dimensions.get(model, DIMENSION)
        return {"url": self.url, "model": model, "dimension": dimension, "api_key": KEY, **more}

    def start(self) -> None:
        """Listen, at the port of before."""
        self._server = _Server(self)
        self.connections: set[socket.socket] = set()
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def kill(self) -> None:
        """End at once: open connections break."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
            for one in list(self.connections):
                abort(one)

    def stop(self) -> None:
        self.go_on.set()
        self.kill()

    def answer(self, request: dict[str, Any]) -> Reply:
        model, texts = request["model"], request["input"]
        dimension = request.get("dimensions", self.dimensions.get(model, DIMENSION))
        self.texts += texts
        data = [{"index": i, "embedding": vector(model, text, dimension)} for i, text in enumerate(texts)]
        return 200, {}, json.dumps({"object": "list", "data": data[::-1], "model": model}).encode()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        self.embeddings.connections.add(self.connection)

    def finish(self) -> None:
        self.embeddings.connections.discard(self.connection)
        super().finish()

    @property
    def embeddings(self) -> Embeddings:
        assert isinstance(self.server, _Server)
        return self.server.embeddings

    def do_POST(self) -> None:
        here = self.embeddings
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        here.requests.append(request)
        here.keys.add(self.headers.get("authorization"))
        trouble = here.troubles.popleft() if here.troubles else here.trouble
        reply = None if trouble is None else trouble(self, request)
        if self.close_connection:
            return
        status, headers, body = reply or here.answer(request)
        self.send_response(status)
        for name, value in {"content-length": str(len(body)), "content-type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Quiet."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, embeddings: Embeddings) -> None:
        super().__init__(("127.0.0.1", embeddings.port), Handler)
        self.embeddings = embeddings

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients leave when they have waited long enough."""


def abort(one: socket.socket) -> None:
    try:
        one.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # the other side was quicker


# -- troubles -----------------------------------------------------------------------------------------------------


def error(status: int, code: str = "", **headers: str) -> Trouble:
    """An error answer; its prose repeats what no message of ours may show."""

    def reply(_: Handler, request: dict[str, Any]) -> Reply:
        prose = f"Incorrect API key {KEY}: {request['input']}"
        body = json.dumps({"error": {"message": prose, "code": code or None}})
        return status, {name.replace("_", "-"): value for name, value in headers.items()}, body.encode()

    return reply


def raw(body: bytes) -> Trouble:
    return lambda _, request: (200, {}, body)


def hang_up(handler: Handler, request: dict[str, Any]) -> None:
    handler.close_connection = True
    abort(handler.connection)


def stall(handler: Handler, request: dict[str, Any]) -> None:
    handler.embeddings.go_on.wait(60)


def refuse(*words: str, status: int = 400) -> Trouble:
    """A model that takes no text with one of these words."""

    def reply(handler: Handler, request: dict[str, Any]) -> Reply | None:
        bad = any(word in text for text in request["input"] for word in words)
        return error(status, "bad_text")(handler, request) if bad else None

    return reply
