"""Ranking by nori. The servers of the tests have no plugins: what would be sent to those that have it is looked at, and
what becomes of an index when the plugin comes is tried with an analyzer that every server has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from polystore_adapters.elasticsearch import connect, nori
from polystore_adapters.elasticsearch.repository import ElasticsearchRepository

from polystore.env import Env
from polystore.errors import SchemaMismatch
from polystore.model import Change, Key, key_hash
from polystore.protocols import Layout
from polystore.testing.conformance.entities import ARTICLE, Article
from polystore.text import query
from tests.elasticsearch import own_prefix
from tests.loops import in_a_loop
from tests.stack import server

elasticsearch = server("elasticsearch")
LAYOUT = Layout(ARTICLE, False, frozenset({"full_text"}))
WITH, WITHOUT = [{"name": "analysis-icu"}, {"name": nori.PLUGIN}], [{"name": "analysis-icu"}]


@pytest.fixture
def prefix(elasticsearch: str) -> Iterator[str]:
    with own_prefix(elasticsearch) as own:
        yield own


class Recorder:
    """Answers like a server whose nodes have these plugins and that has no index yet."""

    def __init__(self, *plugins: Any) -> None:
        self._plugins = plugins
        self.sent: list[tuple[str, str, Any]] = []

    async def ask(self, method: str, path: str, body: object = None, **params: Any) -> Any:
        self.sent.append((method, path, body))
        if path == "/_nodes/plugins":
            nodes = {f"n{i}": {"name": f"n{i}", "plugins": some} for i, some in enumerate(self._plugins)}
            return {"nodes": nodes}
        if method == "GET" and path.endswith(f"/ps-{ARTICLE.name}.1"):
            raise SchemaMismatch("no such index")
        return {"hits": {"hits": []}} if path.endswith("_search") else {}


async def recorded(monkeypatch: pytest.MonkeyPatch, *plugins: Any) -> tuple[Any, Any]:
    """The mapping that is made, and the query of a search."""
    recorder = Recorder(*plugins)
    store = await connect("elasticsearch://nowhere:1", {}, Env())
    monkeypatch.setattr(store._server, "ask", recorder.ask)  # pyright: ignore[reportPrivateUsage]
    await store.prepare([LAYOUT], create=True)
    await store.search(ARTICLE.name, "", query("떡볶이를 sea"), None, 10, None)
    await store.aclose()
    (made,) = [body for method, _, body in recorder.sent if method == "PUT"]
    return made["mappings"]["properties"], recorder.sent[-1][2]["query"]["bool"]


@in_a_loop
async def test_texts_are_mapped_and_ranked_by_nori_where_all_nodes_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    mapped, asked = await recorded(monkeypatch, WITH, WITH)
    assert mapped["title"]["type"] == "keyword"
    for field in ("title", "body"):
        assert mapped[field]["fields"] == {"nori": {"type": "text", "analyzer": "nori"}}
    assert "fields" not in mapped["topic"]
    (ranked,) = asked["should"]
    assert ranked["multi_match"]["query"] == "떡볶이를 sea"
    assert sorted(ranked["multi_match"]["fields"]) == ["body.nori", "title.nori"]
    assert [next(iter(one)) for one in asked["must"]] == ["match_phrase", "bool"], "found by our own terms"


@in_a_loop
async def test_nothing_is_mapped_by_nori_where_a_node_lacks_it(monkeypatch: pytest.MonkeyPatch) -> None:
    mapped, asked = await recorded(monkeypatch, WITH, WITHOUT)
    assert not any("fields" in one for one in mapped.values())
    assert "should" not in asked


async def titles(store: ElasticsearchRepository, text: str) -> list[str]:
    return [match.id for match in await store.search(ARTICLE.name, "", query(text), None, 10, None)]


@in_a_loop
async def test_an_index_made_before_the_plugin_came_is_carried_along_and_found_in_the_same(
    elasticsearch: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nori, "ANALYZER", "standard")
    store = await connect(elasticsearch, {"prefix": prefix}, Env())
    try:
        await store.prepare([LAYOUT], create=True)
        texts = {"a": "바다가 좋다 산도 들도 강도", "b": "깊은바다가 좋다"}
        for version, (id, title) in enumerate(texts.items(), 1):
            body = ARTICLE.encode(Article(id=id, title=title))
            hash = ARTICLE.content_hash(body)
            h = key_hash("", ARTICLE.name, id)
            await store.apply([Change(Key("", ARTICLE.name, id), version, h, body, hash, 0)])
        assert await titles(store, "바다가") == ["b", "a"], "the shorter text"

        async def yes(_: object) -> bool:
            return True

        monkeypatch.setattr(nori, "installed", yes)
        await store.prepare([LAYOUT], create=False)
        assert await titles(store, "바다가") == ["b", "a"], "an index without it is no other than declared"
        await store.prepare([LAYOUT], create=True)
        assert await titles(store, "바다가") == ["a", "b"], "a word of its own"
        later = await connect(elasticsearch, {"prefix": prefix}, Env())
        await later.prepare([LAYOUT], create=False)
        assert await titles(later, "바다가") == ["a", "b"]
        await later.aclose()
    finally:
        await store.aclose()
