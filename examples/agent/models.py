"""A language model behind any server that speaks OpenAI's chat API: OpenAI, vLLM, Ollama, llama.cpp and others.

https://platform.openai.com/docs/api-reference/chat/create
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    import httpx

TIMEOUT_S, CONNECT_S = 60.0, 5.0


class Said(msgspec.Struct):
    role: Literal["system", "user", "assistant"]
    content: str


class ModelFailed(Exception):
    """There is no answer. The message says why, and shows neither the key nor what was asked."""


class _Content(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    message: _Content


class _Answer(msgspec.Struct):
    choices: list[_Choice]


class _Listed(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[_Listed]


class Model:
    """`name` None: the first that the server lists."""

    def __init__(self, url: str, name: str | None, key: str | None) -> None:
        self._url = url.rstrip("/")
        self.name = name
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}

    async def reply(self, said: Sequence[Said]) -> str:
        """What the model says next, on one line, without what would steer a terminal. Raises ModelFailed, whatever goes
        wrong between here and there."""
        import httpx  # takes a tenth of a second, for nothing where there is no model

        try:
            timeout = httpx.Timeout(TIMEOUT_S, connect=CONNECT_S)
            async with httpx.AsyncClient(headers=self._headers, timeout=timeout) as client:
                if self.name is None:
                    listed = msgspec.json.decode(_content(await client.get(f"{self._url}/models")), type=_Models)
                    if not listed.data:
                        raise ModelFailed("its server has no model; name one with --model")
                    self.name = listed.data[0].id
                request = {"model": self.name, "messages": msgspec.to_builtins(said)}
                response = await client.post(f"{self._url}/chat/completions", json=request)
            answer = msgspec.json.decode(_content(response), type=_Answer)
        except httpx.TimeoutException as e:
            raise ModelFailed("no answer in time") from e
        except (msgspec.DecodeError, UnicodeDecodeError) as e:
            raise ModelFailed("what it answered is no chat completion; is the url that of its API?") from e
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as e:
            raise ModelFailed(f"it cannot be reached ({type(e).__name__})") from e
        text = (answer.choices[0].message.content if answer.choices else None) or ""
        shown = "".join(letter if letter.isprintable() else " " for letter in text).strip()
        if not shown:
            raise ModelFailed("it said nothing")
        return shown


def _content(response: httpx.Response) -> bytes:
    if response.status_code != 200:
        raise ModelFailed(f"it answered HTTP {response.status_code}")
    return response.content
