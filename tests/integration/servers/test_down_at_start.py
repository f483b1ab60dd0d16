"""An application that is opened while some of its servers are down: it says so, does without, and they catch up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest

from compose.native.own import OwnServer
from polystore import ConfigurationError, FullText, HybridDataArchitecture, Unavailable, entity
from polystore.consistency.verify import Verifier
from tests.stack import own_server


@entity()
@dataclass
class Page:
    id: str
    text: Annotated[str, FullText()]


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(60):
        while not await true():  # noqa: ASYNC110
            await asyncio.sleep(0.05)


def test_a_copy_and_a_cache_that_were_down_at_the_start_catch_up_once_they_answer(tmp_path: Path) -> None:
    async def main(words: OwnServer, cache: OwnServer) -> None:
        config = {
            "stores": {
                "home": {"url": f"sqlite:{tmp_path}/home.db", "roles": ["home", "journal"]},
                "words": {"url": words.url, "roles": ["full_text"], "required": False},
                "cache": {"url": cache.url, "roles": ["cache"], "required": False},
            },
            "pins": {"page": {"cache": "cache"}},
        }
        async with HybridDataArchitecture.open(config, entities=[Page]) as hda:
            await hda.collection(Page).put(Page("a", "첫째 판"), ack="applied")
            await hda.collection(Page).get("a")
        for server in (words, cache):
            await asyncio.to_thread(server.stop)
        async with HybridDataArchitecture.open(config, entities=[Page]) as hda:
            pages = hda.collection(Page)
            result = await pages.put(Page("a", "둘째 판"))
            assert result.stores == {"home": "committed", "words": "pending", "cache": "pending"}
            assert await pages.get("a") == Page("a", "둘째 판")
            with pytest.raises(Unavailable, match="words"):
                await pages.search("둘째")
            await pages.put(Page("b", "새 글"))
            assert hda.caches == {}
            for server in (words, cache):
                await asyncio.to_thread(server.start)
            await until(lambda: finds(hda, "둘째", ["a"]))
            await until(lambda: cached(hda))
            assert [hit.value.id for hit in await pages.search("첫째")] == []
            await hda.settle(30)
            verifier = Verifier(hda.stores, hda.manager.placements, hda.manager.embedders)
            assert [one async for one in verifier.differences("page")] == []
            newest = await pages.put(Page("a", "셋째 판"), ack="applied")
            assert newest.stores == {"home": "committed", "words": "applied", "cache": "applied"}
            for _ in range(2):
                assert await hda.collection(Page).get("a") == Page("a", "셋째 판")
            assert {"words", "cache"} <= {problem.split()[0] for problem in hda.manager.problems}

    with own_server("postgresql") as words, own_server("redis") as cache:
        asyncio.run(main(words, cache))


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://nobody@127.0.0.1:9/none",
        "mysql://nobody@127.0.0.1:9/none",
        "mongodb://127.0.0.1:9/none?serverSelectionTimeoutMS=200",
        "redis://127.0.0.1:9",
    ],
)
@pytest.mark.parametrize("required", [True, False])
def test_a_home_that_is_down_at_the_start_is_refused_by_name(url: str, required: bool, tmp_path: Path) -> None:
    """Also where it was said to be optional."""

    async def main() -> None:
        journal = {"url": f"sqlite:{tmp_path}/journal.db", "roles": ["journal"]}
        config = {
            "stores": {"journal": journal, "main": {"url": url, "required": required, "timeout_s": 1}},
            "pins": {"page": {"home": "main"}},
        }
        refusal: type[Exception] = Unavailable if required else ConfigurationError
        with pytest.raises(refusal, match="main"):
            async with HybridDataArchitecture.open(config, entities=[Page]):
                pass

    asyncio.run(main())


async def finds(hda: HybridDataArchitecture, text: str, ids: list[str]) -> bool:
    try:
        return [hit.value.id for hit in await hda.collection(Page).search(text)] == ids
    except Unavailable:
        return False


async def cached(hda: HybridDataArchitecture) -> bool:
    return "page" in hda.caches
