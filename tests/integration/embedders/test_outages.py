"""An application whose embedder is a real HTTP server that fails, stalls, limits and refuses: nothing is lost, nothing
is parked but the one text that cannot be embedded."""

from __future__ import annotations

import asyncio
import json
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest

from polystore import (
    Embedding,
    FullText,
    HybridDataArchitecture,
    PermissionDenied,
    RateLimited,
    Unavailable,
    entity,
)
from polystore.consistency import Settings
from polystore.consistency.verify import Verifier
from polystore.errors import InvalidData
from polystore.protocols import SupportsJournal
from tests.integration.embedders.server import KEY, Embeddings, Trouble, error, hang_up, raw, refuse, stall


@entity()
@dataclass(kw_only=True)
class Note:
    id: str
    text: Annotated[str, FullText(), Embedding()]


PROFILES = ["embedded:{}/data", "sqlite:{}/one.db"]


@pytest.fixture
def server() -> Iterator[Embeddings]:
    one = Embeddings()
    yield one
    one.stop()


class World:
    def __init__(self, server: Embeddings, url: str) -> None:
        self.server = server
        self.url = url

    async def opened(self, **embedder: Any) -> HybridDataArchitecture:
        given: dict[str, Any] = {"timeout_s": 0.3, "batch_max": 8, **embedder}
        config = {"url": self.url, "embedders": {"default": self.server.config(**given)}}
        return await HybridDataArchitecture.open(
            config, entities=[Note], settings=Settings(poll_s=0.02, retry_max_s=0.5)
        )


@pytest.fixture(params=PROFILES)
def world(request: pytest.FixtureRequest, server: Embeddings, tmp_path: Path) -> World:
    return World(server, request.param.format(tmp_path))


def notes(count: int, first: int = 0) -> list[Note]:
    return [Note(id=f"n{i}", text=f"{i}번째 쪽지: 바다와 하늘") for i in range(first, first + count)]


async def complete(hda: HybridDataArchitecture, count: int) -> None:
    """Everything is there, every text has its vector, and nothing is parked."""
    await hda.settle(60)
    verifier = Verifier(hda.stores, hda.manager.placements, hda.manager.embedders)
    assert [one async for one in verifier.differences("note")] == []
    assert len(await hda.collection(Note).similar("하늘", limit=1000)) == count
    assert await parked(hda) == {}


async def parked(hda: HybridDataArchitecture) -> Mapping[str, int]:
    home = hda.stores[hda.manager.placements["note"].home]
    return (await home.call(SupportsJournal.backlog)).parked


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await test()

    asyncio.run(main())


def test_texts_are_embedded_once_and_found_by_their_vector(world: World) -> None:
    async def test() -> None:
        hda = await world.opened()
        pages = hda.collection(Note)
        await pages.put_many(notes(20))
        await complete(hda, 20)
        assert Counter(text for text in world.server.texts if text != "하늘") == {one.text: 1 for one in notes(20)}
        hits = await pages.similar(notes(20)[7].text, limit=3)
        assert hits[0].value == notes(20)[7]
        assert hits[0].score == pytest.approx(1.0, abs=1e-6)
        await pages.put_many(notes(20))  # the same texts
        await complete(hda, 20)
        await hda.close()
        assert world.server.texts.count(notes(20)[0].text) == 1

    run(test)


TROUBLES: dict[str, Trouble] = {
    "fails": error(500),
    "limits": error(429, retry_after="0.05"),
    "stalls": stall,
    "hangs up": hang_up,
    "answers garbage": raw(b"<html>"),
    "answers another dimension": raw(b'{"data": [{"index": 0, "embedding": [1.0]}]}'),
    "knows another key": error(401),
    "has lost the model": error(404),
    "refuses everything": error(400),
}


@pytest.mark.parametrize("kind", TROUBLES)
def test_whatever_a_server_does_to_all_texts_is_an_outage(server: Embeddings, tmp_path: Path, kind: str) -> None:
    world = World(server, f"embedded:{tmp_path}/data")

    async def test() -> None:
        hda = await world.opened()
        pages = hda.collection(Note)
        await pages.put_many(notes(10))
        await complete(hda, 10)
        server.trouble = TROUBLES[kind]
        last = await pages.put_many(notes(30, first=10))
        before = len(server.requests)
        await until(lambda: len(server.requests) >= before + 6)
        assert len(await pages.search("쪽지", limit=100, after=last[-1].token)) == 40  # other copies go on
        assert await parked(hda) == {}
        server.trouble = None
        server.go_on.set()
        await complete(hda, 40)
        await hda.close()

    run(test)


def test_a_server_that_is_killed_in_the_middle_of_an_import_loses_nothing(world: World) -> None:
    async def test() -> None:
        hda = await world.opened()
        pages = hda.collection(Note)
        importing = asyncio.create_task(pages.import_many(notes(400)))
        await until(lambda: len(world.server.texts) >= 60)
        world.server.kill()
        assert (await importing).written == 400  # an import does not wait for embedders
        with pytest.raises(Unavailable):
            await pages.similar("하늘")
        assert await parked(hda) == {}
        world.server.start()
        await complete(hda, 400)
        seen = Counter(world.server.texts)
        assert all(seen[one.text] >= 1 for one in notes(400))
        await hda.close()

    run(test)


def test_one_text_that_is_refused_is_found_and_holds_up_nothing_else(world: World) -> None:
    async def test() -> None:
        world.server.trouble = refuse("독")
        hda = await world.opened()
        pages = hda.collection(Note)
        bad = Note(id="bad", text="독이 든 쪽지")
        await pages.put_many([*notes(10), bad, *notes(10, first=10)])
        await hda.settle(60)
        assert await parked(hda) == {"embed:m-1:8": 1}
        hits = await pages.similar("하늘", limit=100)
        assert sorted(hit.value.id for hit in hits) == sorted(one.id for one in notes(20))
        assert [hit.value for hit in await pages.search("독이")] == [bad]  # its words are found
        with pytest.raises(InvalidData, match="refuses the text"):
            await pages.similar("독")
        await pages.put(Note(id="bad", text="나은 쪽지"))
        await complete(hda, 21)
        await hda.close()

    run(test)


def test_a_text_whose_vector_is_no_number_is_one_bad_text(world: World) -> None:
    def nan(handler: Any, request: dict[str, Any]) -> Any:
        status, headers, body = handler.embeddings.answer(request)
        answer = json.loads(body)
        for item in answer["data"]:
            if "독" in request["input"][item["index"]]:
                item["embedding"][0] = math.nan
        return status, headers, json.dumps(answer).encode()

    async def test() -> None:
        world.server.trouble = nan
        hda = await world.opened()
        pages = hda.collection(Note)
        await pages.put_many([*notes(10), Note(id="bad", text="독이 든 쪽지")])
        await hda.settle(60)
        assert await parked(hda) == {"embed:m-1:8": 1}
        assert len(await pages.similar("하늘", limit=100)) == 10
        await hda.close()

    run(test)


def test_a_refused_key_says_what_to_do_and_is_never_shown(world: World) -> None:
    async def test() -> None:
        world.server.trouble = error(401, "invalid_api_key")
        hda = await world.opened()
        await hda.collection(Note).put_many(notes(3))
        with pytest.raises(PermissionDenied, match="give a valid one") as caught:
            await hda.collection(Note).similar("하늘")
        assert KEY not in str(caught.value)
        await until(lambda: any("invalid_api_key" in problem for problem in hda.manager.problems))
        assert KEY not in repr(hda.manager.problems)
        assert await parked(hda) == {}
        await hda.close()
        world.server.trouble = None
        hda = await world.opened()
        await complete(hda, 3)
        await hda.close()

    run(test)


def test_a_limit_is_kept_by_questions_too(server: Embeddings, tmp_path: Path) -> None:
    async def test() -> None:
        hda = await World(server, f"embedded:{tmp_path}/data").opened()
        await hda.collection(Note).put(notes(1)[0], ack="visible")
        server.trouble = error(429, retry_after="600")
        with pytest.raises(RateLimited):
            await hda.collection(Note).similar("하늘")
        asked = len(server.requests)
        with pytest.raises(Unavailable, match="asked again in") as caught:
            await hda.collection(Note).similar("하늘")
        assert caught.value.retry_after_s is not None
        assert caught.value.retry_after_s > 500
        assert len(server.requests) == asked
        await hda.close()

    run(test)


def test_the_key_is_nowhere_in_the_stores(world: World, tmp_path: Path) -> None:
    async def test() -> None:
        hda = await world.opened()
        await hda.collection(Note).put_many(notes(3))
        await hda.settle(30)
        await hda.close()

    run(test)
    files = [one for one in tmp_path.rglob("*") if one.is_file()]
    assert files
    for one in files:
        assert KEY.encode() not in one.read_bytes()


def test_the_old_model_of_a_server_is_asked_again_by_what_is_remembered(world: World) -> None:
    """Its public configuration is stored; the key is that of the configured model at the same URL."""

    async def test() -> None:
        hda = await world.opened()
        await hda.collection(Note).put_many(notes(12))
        await hda.settle(30)
        await hda.close()
        world.server.requests.clear()
        hda = await world.opened(model="m-2")
        pages = hda.collection(Note)
        await pages.put(Note(id="new", text="새 쪽지"))
        await complete(hda, 13)
        assert {request["model"] for request in world.server.requests} == {"m-1"}
        assert world.server.keys == {f"Bearer {KEY}"}
        await hda.rebuild()
        world.server.requests.clear()
        await complete(hda, 13)
        assert {request["model"] for request in world.server.requests} == {"m-2"}
        await hda.close()

    run(test)


def test_a_rebuild_with_a_model_that_does_not_answer_begins_nothing(world: World) -> None:
    async def test() -> None:
        hda = await world.opened()
        await hda.collection(Note).put_many(notes(3))
        await hda.settle(30)
        await hda.close()
        hda = await world.opened(model="m-2")
        world.server.trouble = error(401)
        with pytest.raises(PermissionDenied):
            await hda.rebuild()
        world.server.trouble = None
        await complete(hda, 3)
        assert hda.manager.embedders.serving("note")["text"].model == "m-1:8"
        await hda.close()

    run(test)
