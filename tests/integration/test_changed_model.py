"""An embedder is given another model under the same name: the old one serves until a rebuild, and their vectors are
never compared with one another."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest

from polystore import (
    Collection,
    ConfigurationError,
    Embedder,
    Embedding,
    FullText,
    HashedEmbedder,
    HybridDataArchitecture,
    entity,
)
from polystore.consistency import Settings
from polystore.consistency.rebuild import RebuildProgress
from polystore.consistency.verify import Verifier
from polystore.embedders import model_of
from polystore.embedding import pack, unpack
from polystore.model import Key
from polystore.protocols import SupportsJournal


@entity()
@dataclass(kw_only=True)
class Page:
    id: str
    text: Annotated[str, FullText(), Embedding()]


@entity(name="page")
@dataclass(kw_only=True)
class PageByDistance:
    id: str
    text: Annotated[str, FullText(), Embedding(metric="l2")]


class Model:
    """An embedder outside the process. Its vectors say which model made them: those of two models point away from one
    another, or have another dimension."""

    batch_max, chars_max = 8, 1000

    def __init__(self, name: str, dimension: int, mark: float) -> None:
        self.name = name
        self.dimension = dimension
        self.mark = mark
        self.texts: list[str] = []
        self.slow = asyncio.Event()
        self.slow.set()

    async def embed(self, texts: Sequence[str], *, purpose: str) -> list[list[float]]:
        await self.slow.wait()
        self.texts += [text for text in texts if len(text) > 1] if purpose == "document" else []
        return [[self.mark, 1.0, *[float(len(text))] * (self.dimension - 2)] for text in texts]


MODELS: dict[str, tuple[Embedder, Embedder]] = {
    "another model of the same dimension": (Model("m-1", 4, 100.0), Model("m-2", 4, -100.0)),
    "another dimension": (Model("m-1", 4, 1.0), Model("m-1", 6, 1.0)),
    "a model in the place of the hashed embedder": (HashedEmbedder(), Model("m-1", 4, 1.0)),
    "the hashed embedder in the place of a model": (Model("m-1", 256, 1.0), HashedEmbedder()),
    "the hashed embedder of another dimension": (HashedEmbedder(64), HashedEmbedder(96)),
}
COUNT = 30
SHORT: dict[str, Any] = {"call_timeout_s": 0.5, "batch_deadline_s": 0.7, "worker_dead_s": 0.8}
"""What has served is delivered to for `worker_dead_s` more; every rebuild takes as long."""
PROFILES = ["embedded:{}/data", "sqlite:{}/one.db"]


class Opened:
    """Architectures on one URL; `old` is there under another name where it is an object that cannot be made again."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def __call__(self, embedder: Embedder, old: Embedder | None = None, **more: Any) -> HybridDataArchitecture:
        embedders = {"default": embedder, **({} if old is None else {"old": old})}
        settings = Settings(poll_s=0.02, backfill_chunk=7, **SHORT)
        given: dict[str, Any] = {"entities": [Page], "embedders": embedders, "settings": settings, **more}
        return await HybridDataArchitecture.open(self.url, **given)


async def near(pages: Collection[Any], limit: int = 100) -> list[str]:
    """The pages in the order of `similar`, which always has an answer."""
    hits = await pages.similar("쪽 1", limit=limit)
    return [hit.value.id for hit in hits if hit.score > -0.9]  # two models point away from one another


async def stored_models(hda: HybridDataArchitecture, *ids: str) -> set[str]:
    """What made the vectors that are kept beside the home."""
    home = hda.stores[hda.manager.placements["page"].home]
    return {one.embedder for one in await home.call(SupportsJournal.vectors, [Key("", "page", id) for id in ids])}


def serving(hda: HybridDataArchitecture) -> str:
    return hda.manager.embedders.serving("page")["text"].model


async def differences(hda: HybridDataArchitecture) -> list[Any]:
    verifier = Verifier(hda.stores, hda.manager.placements, hda.manager.embedders)
    return [one async for one in verifier.differences("page")]


IDS = [f"p{i}" for i in range(COUNT)]


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("change", MODELS)
def test_the_old_model_serves_until_a_rebuild(
    change: str, profile: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    opened = Opened(profile.format(tmp_path))
    old, new = MODELS[change]

    async def main() -> None:
        hda = await opened(old)
        await hda.collection(Page).put_many([Page(id=id, text=f"쪽 {id}") for id in IDS])
        await hda.settle(30)
        assert len(await near(hda.collection(Page))) == COUNT
        await hda.close()

        made = len(new.texts) if isinstance(new, Model) else 0
        hda = await opened(new, old)
        assert "polystore rebuild page" in caplog.text
        assert "polystore rebuild page" in " ".join(hda.remembered["page"].advice)
        pages = hda.collection(Page)
        assert len(await pages.similar("쪽 1", limit=100)) == COUNT  # at once
        await pages.put(Page(id="meanwhile", text="그 사이의 쪽"))
        await hda.settle(30)
        assert sorted(await near(pages)) == sorted([*IDS, "meanwhile"])
        assert serving(hda) == model_of(old)
        assert await differences(hda) == []
        if isinstance(new, Model):
            assert len(new.texts) == made  # nothing was asked of it

        steps: list[RebuildProgress] = []
        texts = await hda.rebuild(Page, progress=steps.append)
        assert texts == {"page": COUNT + 1}
        assert steps[-1] == RebuildProgress("page", "done", COUNT + 1, COUNT + 1)
        await pages.put(Page(id="after", text="나중의 쪽"))
        await hda.settle(30)
        assert sorted(await near(pages)) == sorted([*IDS, "meanwhile", "after"])
        assert await differences(hda) == []
        await hda.close()

        hda = await opened(new)  # without the old one
        assert hda.remembered["page"].advice == ()
        assert sorted(await near(hda.collection(Page))) == sorted([*IDS, "meanwhile", "after"])
        assert serving(hda) == model_of(new)
        assert await stored_models(hda, *IDS, "meanwhile", "after") <= {model_of(new)}
        assert await differences(hda) == []
        assert await hda.rebuild() == {"page": 0}
        if isinstance(new, Model):
            assert len(new.texts) == len(set(new.texts)) == made + COUNT + 2  # each once
        await hda.close()

    MODELS[change] = old, new
    for one in (old, new):
        if isinstance(one, Model):
            one.texts.clear()
    caplog.set_level(logging.WARNING)
    asyncio.run(main())


@pytest.mark.parametrize("profile", PROFILES)
def test_another_metric_is_a_change_that_embeds_nothing(profile: str, tmp_path: Path) -> None:
    opened, model = Opened(profile.format(tmp_path)), Model("m-1", 4, 1.0)

    async def main() -> None:
        hda = await opened(model)
        await hda.collection(Page).put_many([Page(id=id, text="쪽" * (i + 1)) for i, id in enumerate(IDS)])
        await hda.settle(30)
        await hda.close()
        made = len(model.texts)
        hda = await opened(model, entities=[PageByDistance])
        pages = hda.collection(PageByDistance)
        assert all(hit.score > 0 for hit in await pages.similar("쪽쪽"))  # the cosine still
        await hda.rebuild()
        assert await near(pages, 1) == ["p2"]  # of the same length as the question
        assert (await pages.similar("쪽쪽", limit=1))[0].score == 0  # a distance
        assert len(model.texts) == made
        assert await differences(hda) == []
        await hda.close()

    asyncio.run(main())


@pytest.mark.parametrize("profile", PROFILES)
def test_without_the_old_model_only_similarity_waits_for_the_rebuild(profile: str, tmp_path: Path) -> None:
    opened, new = Opened(profile.format(tmp_path)), Model("m-2", 4, -1.0)

    async def main() -> None:
        hda = await opened(Model("m-1", 4, 1.0))
        await hda.collection(Page).put_many([Page(id=id, text="바다 이야기") for id in IDS])
        await hda.settle(30)
        await hda.close()
        hda = await opened(new)
        pages = hda.collection(Page)
        last = await pages.put(Page(id="new", text="바다로"))
        await hda.settle(30)
        assert len(await pages.search("바다", limit=100, after=last.token)) == COUNT + 1
        for question in (pages.similar("바다"), pages.hybrid("바다"), pages.similar([1.0] * 4)):
            with pytest.raises(ConfigurationError, match=r"made with 'm-1:4'.*`polystore rebuild page`"):
                await question
        assert await hda.rebuild("page") == {"page": COUNT + 1}
        assert len(await near(pages)) == COUNT + 1
        assert await differences(hda) == []
        await hda.close()

    asyncio.run(main())


def test_an_application_without_records_takes_the_new_model_at_once(tmp_path: Path) -> None:
    opened = Opened(f"embedded:{tmp_path}/data")

    async def main() -> None:
        await (await opened(Model("m-1", 4, 1.0))).close()
        hda = await opened(new := Model("m-2", 6, 1.0))
        await hda.collection(Page).put(Page(id="a", text="첫 쪽"), ack="visible")
        assert await near(hda.collection(Page)) == ["a"]
        assert new.texts == ["첫 쪽"]
        await hda.close()

    asyncio.run(main())


def test_going_back_to_the_old_model_needs_nothing(tmp_path: Path) -> None:
    opened, old, new = Opened(f"embedded:{tmp_path}/data"), Model("m-1", 4, 1.0), Model("m-2", 4, -1.0)

    async def main() -> None:
        hda = await opened(old)
        await hda.collection(Page).put_many([Page(id=id, text=f"쪽 {id}") for id in IDS])
        await hda.settle(30)
        await hda.close()
        hda = await opened(new, old)
        new.slow.clear()
        rebuild = asyncio.create_task(hda.rebuild(), name="cut off")
        await asyncio.sleep(0.05)
        rebuild.cancel()
        await asyncio.gather(rebuild, return_exceptions=True)
        new.slow.set()
        await hda.close()
        made = len(old.texts)
        hda = await opened(old)
        await hda.settle(30)
        assert hda.remembered["page"].advice == ()
        assert len(await near(hda.collection(Page))) == COUNT
        assert len(old.texts) == made
        await hda.close()

    asyncio.run(main())


@pytest.mark.parametrize("profile", PROFILES)
def test_writes_go_on_while_vectors_are_made_anew_and_while_they_change_over(profile: str, tmp_path: Path) -> None:
    opened, old, new = Opened(profile.format(tmp_path)), HashedEmbedder(64), HashedEmbedder(96)

    async def main() -> None:
        hda = await opened(old)
        pages = hda.collection(Page)
        await pages.put_many([Page(id=id, text=f"쪽 {id}") for id in IDS])
        await hda.close()
        hda = await opened(new)
        pages = hda.collection(Page)
        stop, written = asyncio.Event(), 0

        async def write() -> None:
            nonlocal written
            while not stop.is_set():
                await pages.put(Page(id=IDS[written % COUNT], text=f"다시 쓴 쪽 {written}"))
                await pages.put(Page(id=f"new{written}", text=f"새 쪽 {written}"))
                written += 1

        async def ask() -> None:
            while not stop.is_set():
                await near(pages, 3)

        asking = [asyncio.create_task(write()), asyncio.create_task(ask())]
        await hda.rebuild()
        stop.set()
        await asyncio.gather(*asking)
        await hda.settle(30)
        assert written > 0
        assert await differences(hda) == []
        assert len(await near(pages, 10_000)) == COUNT + written
        await hda.close()

    asyncio.run(main())


@pytest.mark.parametrize("profile", PROFILES)
def test_another_process_goes_over_with_the_one_that_rebuilt(profile: str, tmp_path: Path) -> None:
    """Two architectures on the same files stand for two processes: they share nothing else."""
    opened = Opened(profile.format(tmp_path))
    old, new = Model("m-1", 4, 100.0), Model("m-2", 4, -100.0)

    async def main() -> None:
        first = await opened(old)
        await first.collection(Page).put_many([Page(id=id, text=f"쪽 {id}") for id in IDS])
        await first.settle(30)
        knows_both, knows_old = await opened(new, old), first
        rebuilding = await opened(new, old)
        await rebuilding.rebuild()
        async with asyncio.timeout(30):
            while {serving(one) for one in (knows_both, knows_old)} != {"m-2:4"}:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert len(await near(knows_both.collection(Page))) == COUNT
        with pytest.raises(ConfigurationError, match="made with 'm-2:4'"):
            await knows_old.collection(Page).similar("쪽")
        await knows_old.collection(Page).put(Page(id="old", text="옛 설정의 쪽"))
        await knows_both.collection(Page).put(Page(id="both", text="새 설정의 쪽"))
        for one in (knows_old, knows_both, rebuilding):
            await one.settle(30)
        assert sorted(await near(rebuilding.collection(Page))) == sorted([*IDS, "old", "both"])
        assert await differences(rebuilding) == []
        for one in (rebuilding, knows_both, knows_old):
            await one.close()

    asyncio.run(main())


@pytest.mark.parametrize("profile", PROFILES)
def test_a_process_that_has_not_heard_of_the_rebuild_yet_mixes_no_vectors(profile: str, tmp_path: Path) -> None:
    """It looks at the journal once in an hour, so what it does next is what finds out."""
    opened = Opened(profile.format(tmp_path))
    old, new = Model("m-1", 4, 100.0), Model("m-2", 4, -100.0)
    deaf = Settings(poll_s=3600.0, **SHORT)

    async def main() -> None:
        first = await opened(old)
        await first.collection(Page).put_many([Page(id=id, text=f"쪽 {id}") for id in IDS])
        await first.settle(30)
        await first.close()
        asks, writes = await opened(new, old, settings=deaf), await opened(new, old, settings=deaf)
        gives = await opened(new, old, settings=deaf)
        rebuilding = await opened(new, old)
        await rebuilding.rebuild()
        assert sorted(await near(asks.collection(Page))) == sorted(IDS)
        assert serving(asks) == "m-2:4"
        await writes.collection(Page).put(Page(id="new", text="새 쪽"))
        await gives.collection(Page).put(Page(id="given", text="준 쪽"), vectors={"text": new_vector(new)})
        for one in (writes, gives, rebuilding):
            await one.settle(30)
        assert sorted(await near(rebuilding.collection(Page))) == sorted([*IDS, "new", "given"])
        assert await differences(rebuilding) == []
        for one in (rebuilding, asks, writes, gives):
            await one.close()

    asyncio.run(main())


class Inline(HashedEmbedder):
    """The hashed embedder under another name, with every vector turned round."""

    name = "turned-1"

    def embed_now(self, texts: Sequence[str]) -> list[bytes]:
        return [pack([-one for one in unpack(vector)]) for vector in super().embed_now(texts)]


@pytest.mark.parametrize("profile", PROFILES)
def test_vectors_made_within_the_writes_of_such_a_process_are_not_mixed_either(profile: str, tmp_path: Path) -> None:
    opened, old, new = Opened(profile.format(tmp_path)), HashedEmbedder(64), Inline(64)

    async def main() -> None:
        first = await opened(old)
        await first.collection(Page).put_many([Page(id=id, text=f"쪽 {id}") for id in IDS])
        await first.close()
        deaf = await opened(new, old, settings=Settings(poll_s=3600.0, **SHORT))
        rebuilding = await opened(new, old)
        await rebuilding.rebuild()
        await deaf.collection(Page).put(Page(id="new", text="쪽 새것"))
        for one in (deaf, rebuilding):
            await one.settle(30)
        hits = await deaf.collection(Page).similar("쪽 새것", limit=1)
        assert (hits[0].value.id, round(hits[0].score, 3)) == ("new", 1.0)
        assert await differences(rebuilding) == []
        for one in (rebuilding, deaf):
            await one.close()

    asyncio.run(main())


def new_vector(model: Model) -> list[float]:
    return [model.mark, 1.0, *[3.0] * (model.dimension - 2)]


def test_a_rebuild_of_what_is_not_there_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        hda = await Opened(f"embedded:{tmp_path}/data")(HashedEmbedder())
        with pytest.raises(ConfigurationError, match="no entity and no store is named 'pag', did you mean 'page'"):
            await hda.rebuild("pag")
        assert hda.manager.rebuilder.named(["vector"]) == hda.manager.rebuilder.named([]) == ["page"]
        assert hda.manager.rebuilder.named(["graph"]) == []
        await hda.close()

    asyncio.run(main())
