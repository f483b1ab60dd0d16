"""What Elasticsearch says when it cannot look, and searches that many terms answer."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from polystore_adapters.elasticsearch import connect
from polystore_adapters.elasticsearch.records import outcome

from polystore import InvalidData, PolystoreError, RateLimited, SchemaMismatch, StoreFull, Unavailable
from polystore.env import Env
from polystore.model import Change, Key, key_hash
from polystore.protocols import Layout
from polystore.testing.conformance.entities import ARTICLE, Article
from polystore.text import query
from tests.elasticsearch import own_prefix
from tests.loops import in_a_loop
from tests.stack import server

elasticsearch = server("elasticsearch")
TERMS_MAX = 512
"""Terms of one prefix that the server scores."""


@pytest.fixture
def prefix(elasticsearch: str) -> Iterator[str]:
    with own_prefix(elasticsearch) as own:
        yield own


def changed(id: str, title: str) -> Change:
    key = Key("", ARTICLE.name, id)
    body = ARTICLE.encode(Article(id=id, title=title))
    return Change(key, 1, key_hash(key.tenant, key.etype, key.id), body, ARTICLE.content_hash(body), 0)


@in_a_loop
async def test_a_document_that_cannot_be_looked_at_is_not_missing(elasticsearch: str, prefix: str) -> None:
    store = await connect(elasticsearch, {"prefix": prefix}, Env())
    try:
        await store.prepare([Layout(ARTICLE, False, frozenset({"full_text"}))], create=True)
        await store.apply([changed("a", "바다")])
        await store._server.ask("POST", f"/{prefix}{ARTICLE.name}.1/_close")  # pyright: ignore[reportPrivateUsage]
        with pytest.raises(Unavailable):
            await store.get([Key("", ARTICLE.name, "a")])
    finally:
        await store.aclose()


@pytest.mark.parametrize(
    ("status", "kind", "raised"),
    [
        (429, "es_rejected_execution_exception", RateLimited),
        (429, "cluster_block_exception", StoreFull),  # of the flood-stage watermark
        (403, "cluster_block_exception", StoreFull),
        (503, "unavailable_shards_exception", Unavailable),
        (409, "some_other_exception", Unavailable),
        (404, "index_not_found_exception", SchemaMismatch),
    ],
)
def test_what_is_no_fault_of_an_item_is_raised(status: int, kind: str, raised: type[PolystoreError]) -> None:
    with pytest.raises(raised):
        outcome({"status": status, "error": {"type": kind}})


def test_what_an_item_met_is_its_own_outcome() -> None:
    assert outcome({"status": 201}).status == "applied"
    assert outcome({"status": 409, "error": {"type": "version_conflict_engine_exception"}}).status == "stale"
    refused = outcome({"status": 400, "error": {"type": "document_parsing_exception"}})
    assert (refused.status, type(refused.error)) == ("rejected", InvalidData)


@in_a_loop
async def test_one_letter_is_found_in_more_terms_than_the_server_scores(elasticsearch: str, prefix: str) -> None:
    store = await connect(elasticsearch, {"prefix": prefix}, Env())
    try:
        await store.prepare([Layout(ARTICLE, False, frozenset({"full_text"}))], create=True)
        written = [changed(f"{i:03}", f"가{chr(0xAC00 + i)}") for i in range(TERMS_MAX + 60)]
        await store.apply(written)
        found = await store.search(ARTICLE.name, "", query("가"), None, 1000, None)
        assert sorted(one.id for one in found) == [one.key.id for one in written]
    finally:
        await store.aclose()


@in_a_loop
async def test_documents_that_could_not_be_carried_along_are_told_and_carried_along_next_time(
    elasticsearch: str, prefix: str
) -> None:
    store = await connect(elasticsearch, {"prefix": prefix}, Env())
    try:
        await store.prepare([Layout(ARTICLE, False, frozenset())], create=True)
        await store.apply([changed("a", "바다")])
        settings = f"/{prefix}{ARTICLE.name}.1/_settings"
        searched = [Layout(ARTICLE, False, frozenset({"full_text"}))]
        await store._server.ask("PUT", settings, {"index.blocks.write": True})  # pyright: ignore[reportPrivateUsage]
        with pytest.raises(StoreFull):
            await store.prepare(searched, create=True)
        await store._server.ask("PUT", settings, {"index.blocks.write": False})  # pyright: ignore[reportPrivateUsage]
        await store.prepare(searched, create=True)
        assert [one.id for one in await store.search(ARTICLE.name, "", query("바다"), None, 10, None)] == ["a"]
    finally:
        await store.aclose()
