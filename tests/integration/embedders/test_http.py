"""The embedder behind HTTP, alone, against a real server: what it asks, and what it makes of every kind of answer."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Iterator
from typing import Any

import pytest

from polystore.embedders import EmbedderConfig, make
from polystore.embedders.http import HttpEmbedder
from polystore.errors import (
    ConfigurationError,
    InvalidData,
    PermissionDenied,
    PolystoreError,
    RateLimited,
    StoreTimeout,
    Unavailable,
)
from tests.integration.embedders.server import DIMENSION, KEY, Embeddings, error, hang_up, raw, stall, vector

TEXTS = ["바다에 가고 싶다", "the sea", "파도"]


@pytest.fixture
def server() -> Iterator[Embeddings]:
    one = Embeddings()
    yield one
    one.stop()


def embedder(server: Embeddings, **more: Any) -> HttpEmbedder:
    made = make(EmbedderConfig(**server.config(**more)))
    assert isinstance(made, HttpEmbedder)
    return made


def embedded(one: HttpEmbedder, texts: list[str] = TEXTS, purpose: Any = "document") -> list[list[float]]:
    async def main() -> list[list[float]]:
        try:
            return [list(v) for v in await one.embed(texts, purpose=purpose)]
        finally:
            await one.aclose()

    return asyncio.run(main())


def test_it_asks_for_all_texts_at_once_and_puts_the_answers_in_order(server: Embeddings) -> None:
    assert embedded(embedder(server)) == [vector("m-1", text) for text in TEXTS]  # the server answers backwards
    assert server.requests == [{"model": "m-1", "input": TEXTS}]
    assert server.keys == {f"Bearer {KEY}"}


def test_without_a_key_none_is_sent(server: Embeddings) -> None:
    embedded(embedder(server, api_key=""))
    assert server.keys == {None}


def test_documents_and_questions_have_the_prefixes_of_the_model(server: Embeddings) -> None:
    one = embedder(server, query_prefix="query: ", document_prefix="passage: ")
    embedded(one, ["바다"])
    embedded(one, ["바다"], "query")
    assert [request["input"] for request in server.requests] == [["passage: 바다"], ["query: 바다"]]


def test_a_prefix_of_documents_is_part_of_what_vectors_are_known_by_and_a_url_is_not() -> None:
    base: dict[str, Any] = {"url": "http://a/v1", "model": "m", "dimension": 3}
    elsewhere: dict[str, Any] = {**base, "url": "http://b"}
    assert make(EmbedderConfig(**base)).name == make(EmbedderConfig(**elsewhere)).name == "m"
    assert make(EmbedderConfig(**base, query_prefix="q: ")).name == "m"
    assert make(EmbedderConfig(**base, document_prefix="d: ")).name == "m 'd: '"


def test_a_shortened_model_is_asked_for_its_dimension(server: Embeddings) -> None:
    found = embedded(embedder(server, dimension=3, shorten=True))
    assert [len(one) for one in found] == [3, 3, 3]
    assert server.requests[0]["dimensions"] == 3


def test_one_embedder_may_be_used_in_one_event_loop_after_another(server: Embeddings) -> None:
    one = embedder(server)

    async def once() -> None:
        await one.embed(["a"], purpose="query")
        await one.aclose()

    asyncio.run(once())
    assert len(embedded(one)) == 3


REFUSALS: dict[int, type[PolystoreError]] = {
    400: InvalidData,
    401: PermissionDenied,
    402: PermissionDenied,
    403: PermissionDenied,
    404: ConfigurationError,
    413: InvalidData,
    422: InvalidData,
    429: RateLimited,
    500: Unavailable,
    502: Unavailable,
    503: Unavailable,
    301: Unavailable,
}


@pytest.mark.parametrize("status", REFUSALS)
def test_every_refusal_is_an_error_of_its_kind_that_shows_neither_key_nor_text(server: Embeddings, status: int) -> None:
    server.trouble = error(status, "some_code")
    with pytest.raises(REFUSALS[status]) as caught:
        embedded(embedder(server))
    assert type(caught.value) is REFUSALS[status]
    message = str(caught.value)
    assert f"HTTP {status}, some_code" in message
    assert KEY not in message
    assert "바다" not in message


def test_an_error_code_that_is_prose_is_not_shown(server: Embeddings) -> None:
    server.trouble = error(500, f"the key {KEY}")
    with pytest.raises(Unavailable) as caught:
        embedded(embedder(server))
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("7", 7.0), ("0.5", 0.5), ("-3", 0.0), ("999999", 3600.0), ("soon", None), ("nan", None)],
)
def test_retry_after_is_taken_as_said(server: Embeddings, value: str, seconds: float | None) -> None:
    server.trouble = error(429, retry_after=value)
    with pytest.raises(RateLimited) as caught:
        embedded(embedder(server))
    assert caught.value.retry_after_s == seconds


def test_retry_after_may_be_a_date(server: Embeddings) -> None:
    server.trouble = error(503, retry_after="Wed, 21 Oct 2065 07:28:00 GMT")
    with pytest.raises(Unavailable) as caught:
        embedded(embedder(server))
    assert caught.value.retry_after_s == 3600.0
    server.trouble = error(503, retry_after="Wed, 21 Oct 2015 07:28:00 GMT")
    with pytest.raises(Unavailable) as caught:
        embedded(embedder(server))
    assert caught.value.retry_after_s == 0.0


def answer(*items: object) -> bytes:
    return json.dumps({"data": items}).encode()


GARBAGE = {
    "no json": b"<html>Bad gateway</html>",
    "no utf-8": b'{"data": "\xff"}',
    "nothing": b"",
    "another object": b'{"ok": true}',
    "texts for numbers": answer(*[{"index": i, "embedding": ["a"]} for i in range(3)]),
    "too few": answer({"index": 0, "embedding": [1.0]}),
    "too many": answer(*[{"index": i, "embedding": [1.0]} for i in range(4)]),
    "one twice": answer(*[{"index": i, "embedding": [1.0]} for i in (0, 1, 1)]),
    "beyond the end": answer(*[{"index": i, "embedding": [1.0]} for i in (0, 1, 3)]),
}


@pytest.mark.parametrize("kind", GARBAGE)
def test_an_answer_that_is_none_is_an_outage(server: Embeddings, kind: str) -> None:
    server.trouble = raw(GARBAGE[kind])
    with pytest.raises(Unavailable):
        embedded(embedder(server))


def test_an_answer_without_indexes_is_in_the_order_asked(server: Embeddings) -> None:
    server.trouble = raw(answer(*[{"embedding": [float(i)] * DIMENSION} for i in range(3)]))
    assert [one[0] for one in embedded(embedder(server))] == [0.0, 1.0, 2.0]


def test_nan_in_a_vector_is_no_garbage_but_found_by_who_checks_the_numbers(server: Embeddings) -> None:
    bad = [
        {"index": 0, "embedding": [math.nan] * DIMENSION},
        *[{"embedding": [1.0] * DIMENSION, "index": i} for i in (1, 2)],
    ]
    server.trouble = raw(answer(*bad))
    found = embedded(embedder(server))
    assert math.isnan(found[0][0])
    assert found[1:] == [[1.0] * DIMENSION] * 2


def test_a_connection_that_breaks_is_an_outage(server: Embeddings) -> None:
    server.trouble = hang_up
    with pytest.raises(Unavailable, match="cannot be reached"):
        embedded(embedder(server))


def test_a_server_that_is_not_there_is_an_outage(server: Embeddings) -> None:
    server.kill()
    with pytest.raises(Unavailable, match="ConnectError"):
        embedded(embedder(server))


def test_a_server_that_stalls_times_out(server: Embeddings) -> None:
    server.trouble = stall
    with pytest.raises(StoreTimeout, match=r"no answer within 0\.05 s"):
        embedded(embedder(server, timeout_s=0.05))
    server.go_on.set()
