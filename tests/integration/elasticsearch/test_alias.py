"""The plain name of an entity, for who asks Elasticsearch past polystore: it stands for the place that serves."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from polystore_adapters.elasticsearch import connect

from polystore.env import Env
from polystore.errors import SchemaMismatch
from polystore.model import Change, Key, key_hash
from polystore.protocols import Layout
from polystore.testing.conformance.entities import ARTICLE, Article
from polystore.text import query
from tests.children import run
from tests.elasticsearch import own_prefix
from tests.growing import Tree
from tests.integration.elasticsearch.renaming import application
from tests.loops import in_a_loop
from tests.stack import server

elasticsearch = server("elasticsearch")
LAYOUT = Layout(ARTICLE, False, frozenset({"full_text"}))
TREES = [Tree(id=f"t{i}", text=f"나무 {i}") for i in range(40)]


@pytest.fixture
def prefix(elasticsearch: str) -> Iterator[str]:
    with own_prefix(elasticsearch) as own:
        yield own


class Outside:
    """Knows the server and a name, and nothing of polystore."""

    def __init__(self, url: str, name: str) -> None:
        self.name = name
        self.http = httpx.Client(base_url=f"http{url.removeprefix('elasticsearch')}", timeout=30)

    def indexes(self) -> list[str]:
        answer = self.http.get(f"/_alias/{self.name}")
        return [] if answer.status_code == 404 else sorted(answer.raise_for_status().json())

    def count(self) -> int:
        """-1: it was not found."""
        answer = self.http.get(f"/{self.name}/_count")
        return -1 if answer.status_code == 404 else int(answer.raise_for_status().json()["count"])

    def point(self, *actions: dict[str, Any]) -> None:
        self.http.post("/_aliases", json={"actions": list(actions)}).raise_for_status()

    @contextlib.contextmanager
    def counting(self) -> Generator[set[int]]:
        """All that it counts meanwhile."""
        counted, ended = {self.count()}, threading.Event()

        def look() -> None:
            while not ended.wait(0.02):
                counted.add(self.count())

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield counted
        finally:
            ended.set()
            thread.join()


@pytest.fixture
def outside(elasticsearch: str, prefix: str) -> Iterator[Outside]:
    one = Outside(elasticsearch, f"{prefix}tree")
    with one.http:
        yield one


class Looking(Env):
    """Looks at the name at every step of a move."""

    def __init__(self, outside: Outside) -> None:
        super().__init__()
        self.outside = outside
        self.seen: list[tuple[str, list[str]]] = []

    def crashpoint(self, name: str) -> None:
        if name.startswith(("move.", "rebuild.")):
            self.seen.append((name, self.outside.indexes()))


@in_a_loop
async def test_the_name_changes_over_in_one_step_with_a_rebuild_and_back_with_a_rollback(
    tmp_path: Path, elasticsearch: str, prefix: str, outside: Outside
) -> None:
    first, second = [f"{prefix}tree.1"], [f"{prefix}2-tree.1"]
    assert outside.indexes() == []
    env = Looking(outside)
    async with application(str(tmp_path), elasticsearch, prefix, env) as hda:
        assert outside.indexes() == first
        trees = hda.collection(Tree)
        written = (await trees.put_many(TREES))[-1]
        assert len(await trees.search("나무", limit=99, after=written.token)) == 40
        with outside.counting() as counted:
            assert await hda.rebuild_copies("search") == {"tree": "search~2"}
        assert counted == {40}, "whoever asks finds all of it, before, meanwhile and after"
        assert outside.indexes() == second
        switched = env.seen.index(("move.compared", first)) + 3
        assert {str(at) for _, at in env.seen[:switched]} == {str(first)}
        assert {str(at) for _, at in env.seen[switched:]} == {str(second)}
        assert env.seen[switched - 1][0] == "move.remembered", "first the journal says it"
        later = await trees.put(Tree(id="later", text="나중에 온 나무"))
        assert len(await trees.search("나무", limit=99, after=later.token)) == 41
        with outside.counting() as counted:
            assert await hda.rebuild_copies("search", rollback=True) == {"tree": "search"}
        assert counted == {41}, "the place of before serves when it is up to date"
        assert outside.indexes() == first


@in_a_loop
async def test_a_name_left_behind_by_a_killed_process_is_set_right_at_the_next_open(
    tmp_path: Path, elasticsearch: str, prefix: str, outside: Outside
) -> None:
    first, second = [f"{prefix}tree.1"], [f"{prefix}2-tree.1"]
    async with application(str(tmp_path), elasticsearch, prefix) as hda:
        await hda.collection(Tree).put_many(TREES)
        await hda.settle(30)
    ended = run(
        "tests.integration.elasticsearch.renaming", str(tmp_path), elasticsearch, prefix, "move.remembered", "2"
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert outside.indexes() == first
    async with application(str(tmp_path), elasticsearch, prefix) as hda:
        assert hda.manager.placements["tree"].facets["full_text"] == "search~2"
        assert outside.indexes() == second
        assert len(await hda.collection(Tree).search("나무", limit=99)) == 40


@in_a_loop
async def test_what_else_has_the_name_is_told_and_gives_it_up_where_it_can(
    elasticsearch: str, prefix: str, outside: Outside
) -> None:
    outside.name = f"{prefix}{ARTICLE.name}"
    mine, foreign = f"{outside.name}.1", f"{prefix}foreign"
    store = await connect(elasticsearch, {"prefix": prefix}, Env())
    try:
        outside.http.put(f"/{outside.name}").raise_for_status()
        await store.prepare([LAYOUT], create=True)
        with pytest.raises(SchemaMismatch, match="an index has the name"):
            await store.take_alias([ARTICLE.name], True)
        outside.http.delete(f"/{outside.name}").raise_for_status()
        outside.http.put(f"/{foreign}", json={"aliases": {outside.name: {}}}).raise_for_status()
        with pytest.raises(SchemaMismatch, match="polystore init"):
            await store.take_alias([ARTICLE.name], False)
        assert outside.indexes() == [foreign]
        outside.point({"add": {"index": mine, "alias": outside.name}})
        await store.take_alias([ARTICLE.name], True)
        assert outside.indexes() == [mine]
    finally:
        await store.aclose()


@in_a_loop
async def test_an_index_that_came_without_the_alias_that_is_written_to_is_told_and_gets_it(
    elasticsearch: str, prefix: str, outside: Outside
) -> None:
    store = await connect(elasticsearch, {"prefix": prefix}, Env())
    try:
        await store.prepare([LAYOUT], create=True)
        index = f"{prefix}{ARTICLE.name}"
        outside.point({"remove": {"index": f"{index}.1", "alias": f"{index}.own"}})
        with pytest.raises(SchemaMismatch, match=r"no alias .*\.own"):
            await store.prepare([LAYOUT], create=False)
        await store.prepare([LAYOUT], create=True)
        body = ARTICLE.encode(Article(id="a", title="바다"))
        key = Key("", ARTICLE.name, "a")
        await store.apply([Change(key, 1, key_hash("", ARTICLE.name, "a"), body, ARTICLE.content_hash(body), 0)])
        assert [one.id for one in await store.search(ARTICLE.name, "", query("바다"), None, 9, None)] == ["a"]
    finally:
        await store.aclose()
