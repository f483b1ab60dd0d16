"""A small real HTTP server with OpenAI's chat API, which can be told to fail."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = tuple[int, bytes]


class ChatServer:
    """`replies` are given first, one for each request for an answer. `requests` are those, `keys` what came with all,
    `listed` the models that it says it has."""

    def __init__(self) -> None:
        self.replies: deque[Reply] = deque()
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.listed = ["first", "second"]
        self.url = ""
        self.go_on = threading.Event()
        """Not set: it answers nothing."""
        self.go_on.set()

    def answer(self, request: dict[str, Any]) -> Reply:
        self.requests.append(request)
        self.go_on.wait()
        if self.replies:
            return self.replies.popleft()
        text = f"You said: {request['messages'][-1]['content']}"
        return 200, json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode()

    def models(self) -> Reply:
        return 200, json.dumps({"object": "list", "data": [{"id": name} for name in self.listed]}).encode()


@contextmanager
def chat_server() -> Generator[ChatServer]:
    """The server listens inside the block."""
    chat = ChatServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._send(chat.models() if self.path == "/v1/models" else (404, b""))

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["content-length"])))
            self._send(chat.answer(request) if self.path == "/v1/chat/completions" else (404, b""))

        def _send(self, reply: Reply) -> None:
            chat.keys.append(self.headers.get("authorization"))
            status, body = reply
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    chat.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield chat
    finally:
        chat.go_on.set()
        server.shutdown()
        server.server_close()
