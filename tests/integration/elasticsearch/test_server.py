"""Copies in Elasticsearch behind the facade: what others find there, what a restart and a refusal do."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest
from polystore_adapters.elasticsearch import connect
from polystore_adapters.elasticsearch import purge as purging
from polystore_adapters.elasticsearch.purge import purge
from polystore_adapters.elasticsearch.repository import ElasticsearchRepository

from compose.native.own import OwnServer
from polystore import (
    ConfigurationError,
    F,
    FullText,
    HybridDataArchitecture,
    InvalidData,
    StoreFull,
    Unavailable,
    entity,
)
from polystore.consistency import Settings
from polystore.consistency.verify import Verifier
from polystore.entity import entity_type
from polystore.env import Env
from polystore.model import Change, Key, key_hash
from polystore.protocols import Layout
from polystore.purging import PURGE_S
from polystore.testing.conformance import MovableEnv
from polystore.testing.conformance.entities import ARTICLE, Article
from polystore.text import query
from tests.elasticsearch import own_prefix
from tests.loops import in_a_loop, settled
from tests.stack import own_server, server

elasticsearch = server("elasticsearch")
TEXTS = {"a": "오늘 학교에서 친구를 만났어요", "b": "학교 앞 분식집에서 떡볶이를 먹었다", "c": "비가 와서 우산을 샀다"}

PROMPT = Settings(poll_s=0.05, retry_base_s=0.05, retry_max_s=0.5)


@entity()
@dataclass
class Memory:
    id: str
    text: Annotated[str, FullText()]
    stars: int = 0


@pytest.fixture
def prefix(elasticsearch: str) -> Iterator[str]:
    with own_prefix(elasticsearch) as own:
        yield own


def application(folder: Path, url: str, prefix: str) -> Any:
    stores = {
        "home": {"url": f"sqlite:{folder}/home.db", "roles": ["home", "journal"]},
        "search": {"url": url, "roles": ["full_text"], "options": {"prefix": prefix}},
    }
    return HybridDataArchitecture.open({"stores": stores}, entities=[Memory], settings=PROMPT)


async def ids(memories: Any, words: str, **more: Any) -> list[str]:
    return sorted(hit.value.id for hit in await memories.search(words, **more))


@in_a_loop
async def test_what_is_written_is_found_there_by_words_and_by_others(
    tmp_path: Path, elasticsearch: str, prefix: str
) -> None:
    async with application(tmp_path, elasticsearch, prefix) as hda:
        memories = hda.collection(Memory)
        for stars, (id, text) in enumerate(TEXTS.items()):
            await memories.put(Memory(id, text, stars))
        written = await memories.put(Memory("d", "바다"))
        assert await ids(memories, "학교", after=written.token) == ["a", "b"]
        assert await ids(memories, "교에") == ["a"]
        assert await ids(memories, "학교", where=F.stars > 0) == ["b"]
        deleted = await memories.delete("a")
        assert await ids(memories, "학교", after=deleted.token) == ["b"]
        async with httpx.AsyncClient(base_url=elasticsearch.replace("elasticsearch://", "http://")) as client:
            body = {"query": {"match_phrase": {"ps_terms": "분식 식집"}}}
            (hit,) = (await client.post(f"/{prefix}memory/_search", json=body)).json()["hits"]["hits"]
            assert (hit["_source"]["text"], hit["_source"]["stars"]) == (TEXTS["b"], 1)
            tombstone = (await client.get(f"/{prefix}memory/_doc/%2Fa")).json()
            assert tombstone["_source"]["ps_deleted"]
            assert tombstone["_version"] == deleted.version
        answer = await hda.client("search").cat.indices(index=f"{prefix}*", format="json")
        assert {one["index"] for one in answer} == {f"{prefix}memory.1"}


@pytest.fixture(scope="module")
def mine() -> Iterator[OwnServer]:
    """A server that tests may kill, and fill; it serves when it is given."""
    with own_server("elasticsearch") as own:
        yield own


@in_a_loop
async def test_a_server_that_is_killed_in_the_middle_of_writes_catches_up(tmp_path: Path, mine: OwnServer) -> None:
    async with application(tmp_path, mine.url, "killed-") as hda:
        memories = hda.collection(Memory)
        await memories.put_many([Memory(str(i), f"학교에서 {i}") for i in range(50)])
        mine.kill()
        await memories.put_many([Memory(str(i), f"바다에서 {i}") for i in range(25, 75)])
        with pytest.raises(Unavailable):
            await ids(memories, "바다")
        mine.start()
        await settled(hda)
        await searched_as_at_home(hda, {"바다": 50, "학교": 25})


async def searched_as_at_home(hda: HybridDataArchitecture, wanted: dict[str, int]) -> None:
    found = {words: len(await hda.collection(Memory).search(words, limit=100)) for words in wanted}
    assert found == wanted
    verifier = Verifier(hda.stores, hda.manager.placements, hda.manager.embedders)
    assert [one async for one in verifier.differences("memory")] == []


FLOOD = "cluster.routing.allocation.disk.watermark"
"""https://www.elastic.co/docs/reference/elasticsearch/configuration-reference/cluster-level-shard-allocation-routing-settings"""


@in_a_loop
async def test_writes_wait_while_the_disk_is_full_and_are_caught_up(tmp_path: Path, mine: OwnServer) -> None:
    async with application(tmp_path, mine.url, "full-") as hda:
        memories, driver = hda.collection(Memory), hda.client("search")
        await memories.put_many([Memory(str(i), f"학교에서 {i}") for i in range(30)])
        await settled(hda)
        await disk(driver, "900pb", blocked=True)
        (written, *_) = await memories.put_many([Memory(str(i), f"바다에서 {i}") for i in range(20, 50)])
        assert written.stores["search"] == "pending"
        assert await ids(memories, "바다") == [], "what is there is still found"
        direct = await connect(mine.url, {"prefix": "full-"}, Env())
        await direct.prepare([Layout(entity_type(Memory), False, frozenset({"full_text"}))], create=False)
        with pytest.raises(StoreFull):
            await direct.apply([Change(Key("", "memory", "0"), 1 << 50, key_hash("", "memory", "0"), None, b"", 1)])
        await direct.aclose()
        await disk(driver, "1b", blocked=False)
        await settled(hda)
        await searched_as_at_home(hda, {"바다": 30, "학교": 20})


async def disk(driver: Any, free: str, *, blocked: bool) -> None:
    """Returns when the server has seen that its disk has less than `free`, or more."""
    names = {"low": free, "high": free, "flood_stage": free}
    marks = {f"{FLOOD}.{name}": value for name, value in names.items()}
    about = {"cluster.routing.allocation.disk.threshold_enabled": True, "cluster.info.update.interval": "10s"}
    await driver.cluster.put_settings(persistent=marks | about)
    async with asyncio.timeout(60):
        while True:
            found = await driver.indices.get_settings(index="full-*", filter_path="*.settings.index.blocks")
            if bool(found.body) == blocked:
                return
            await asyncio.sleep(0.05)


async def prepared(url: str, prefix: str, **options: Any) -> ElasticsearchRepository:
    store = await connect(url, {"prefix": prefix, **options}, Env())
    await store.prepare([Layout(ARTICLE, False, frozenset({"full_text"}))], create=True)
    return store


def change(version: int, article: Article | None, id: str = "a") -> Change:
    body = None if article is None else ARTICLE.encode(article)
    h = key_hash("", ARTICLE.name, id)
    return Change(Key("", ARTICLE.name, id), version, h, body, b"" if body is None else ARTICLE.content_hash(body), 1)


@in_a_loop
async def test_a_deleted_record_stays_deleted_until_its_tombstone_is_purged(elasticsearch: str, prefix: str) -> None:
    store = await prepared(elasticsearch, prefix, tombstone_ttl_s=0.001)
    article = Article(id="a", title="학교")
    await store.apply([change(5, article)])
    await store.apply([change(6, None)])
    assert [one.status for one in await store.apply([change(4, article)])] == ["stale"]
    held = store._types[ARTICLE.name]  # pyright: ignore[reportPrivateUsage]
    speaking = store._server  # pyright: ignore[reportPrivateUsage]
    await asyncio.sleep(0.01)
    await speaking.refresh(held.index)
    assert not await purge(speaking, held), "there are no more"
    assert await store.get([Key("", ARTICLE.name, "a")]) == [None]
    assert await store.newest(ARTICLE.name) == 6, "what it was is kept"
    await store.apply([change(7, article)])
    assert [match.id for match in await store.search(ARTICLE.name, "", query("학교"), None, 9, None)] == ["a"]
    await store.aclose()


@in_a_loop
async def test_all_tombstones_are_purged_by_who_writes_and_the_newest_is_never_forgotten(
    elasticsearch: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(purging, "PAGE", 3)
    env = MovableEnv()
    options = {"prefix": prefix, "tombstone_ttl_s": 60}
    store = await connect(elasticsearch, options, env)
    await store.prepare([Layout(ARTICLE, False, frozenset({"full_text"}))], create=True)
    article = Article(id="a", title="학교")
    await store.apply([change(i, None, f"gone {i}") for i in range(1, 9)])
    env.forward(30)
    await store.apply([change(20, None, "young")])
    env.forward(PURGE_S - 10)
    for version in (10, 11, 12):
        assert await store.newest(ARTICLE.name) == 20
        await store.apply([change(version, article)])
    await store.refresh(ARTICLE.name)
    left = await store.client.count(index=f"{prefix}{ARTICLE.name}.1", query={"exists": {"field": "ps_purge_us"}})
    assert left["count"] == 0
    assert await store.newest(ARTICLE.name) == 20, "also that of a tombstone that is gone"
    held, speaking = store._types[ARTICLE.name], store._server  # pyright: ignore[reportPrivateUsage]
    await store.apply([change(15, None, "later")])
    env.forward(61)
    assert not await purge(speaking, held)
    assert await store.newest(ARTICLE.name) == 20, "and no older one takes its place"
    await store.aclose()


@in_a_loop
async def test_a_search_refreshes_only_what_was_written_here_or_is_asked_for(elasticsearch: str, prefix: str) -> None:
    store, other = await prepared(elasticsearch, prefix), await prepared(elasticsearch, prefix)
    index = f"/{prefix}{ARTICLE.name}.1"
    await store._server.ask(  # pyright: ignore[reportPrivateUsage]
        "PUT", f"{index}/_settings", {"index.refresh_interval": -1}
    )

    async def refreshes() -> int:
        answer = await store.client.indices.stats(index=f"{prefix}{ARTICLE.name}.1", metric="refresh")
        return int(answer["_all"]["primaries"]["refresh"]["external_total"])

    async def found(of: ElasticsearchRepository) -> list[str]:
        return [match.id for match in await of.search(ARTICLE.name, "", query("학교"), None, 9, None)]

    await store.apply([change(1, Article(id="a", title="학교"))])
    assert await found(store) == ["a"], "its own write"
    before = await refreshes()
    for _ in range(3):
        assert await found(store) == ["a"]
    assert await refreshes() == before
    await store.apply([change(2, Article(id="b", title="학교"), "b")])
    assert await found(other) == ["a"], "the server was not asked to refresh"
    await other.refresh(ARTICLE.name)
    assert await found(other) == ["a", "b"]
    await store.aclose()
    await other.aclose()


@in_a_loop
async def test_one_bad_document_of_a_batch_is_refused_by_itself(
    elasticsearch: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await prepared(elasticsearch, prefix)
    await store._server.ask(  # pyright: ignore[reportPrivateUsage]
        "PUT", f"/{prefix}{ARTICLE.name}.1/_mapping", {"properties": {"added": {"type": "date"}}}
    )
    good, bad = change(1, Article(id="a", title="good")), change(1, Article(id="b", title="bad"), "b")
    held = store._types[ARTICLE.name]  # pyright: ignore[reportPrivateUsage]
    encoded = held.codec.encoded

    def spoiled(one: Change, purge_us: int) -> bytes:
        document = encoded(one, purge_us)
        return document if one.key.id == "a" else document.replace(b"{", b'{"added":"no date",', 1)

    monkeypatch.setattr(held.codec, "encoded", spoiled)
    outcomes = await store.apply([bad, good])
    assert [one.status for one in outcomes] == ["rejected", "applied"]
    assert isinstance(outcomes[0].error, InvalidData)
    await store.aclose()


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("elasticsearch:host", {}),
        ("elasticsearch://host:1/index", {}),
        ("elasticsearch://host:1", {"prefix": "Upper-"}),
        ("elasticsearch://host:1", {"shards": 0}),
        ("elasticsearch://host:1", {"shard": 1}),
        ("elasticsearch://host:1", {"client": object()}),
    ],
)
@in_a_loop
async def test_what_makes_no_sense_is_refused_before_anything_is_asked(url: str, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        await connect(url, options, Env())
