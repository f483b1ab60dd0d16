"""An embedder is given another model under the same name: old vectors and new ones are never compared."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest

from polystore import Collection, Embedder, Embedding, HashedEmbedder, HybridDataArchitecture, Unavailable, entity
from polystore.consistency import Settings
from polystore.consistency.verify import Verifier


@entity()
@dataclass(kw_only=True)
class Page:
    id: str
    text: Annotated[str, Embedding()]


class Model:
    """An embedder outside the process. Its vectors say which model made them."""

    batch_max, chars_max = 8, 1000

    def __init__(self, name: str, dimension: int, mark: float) -> None:
        self.name = name
        self.dimension = dimension
        self.mark = mark
        self.texts: list[str] = []

    async def embed(self, texts: Sequence[str], *, purpose: str) -> list[list[float]]:
        self.texts += texts if purpose == "document" else []
        return [[self.mark, 1.0, *[float(len(text))] * (self.dimension - 2)] for text in texts]


MODELS: dict[str, tuple[Embedder, Embedder]] = {
    "another model of the same dimension": (Model("m-1", 4, 1.0), Model("m-2", 4, -1.0)),
    "another dimension": (Model("m-1", 4, 1.0), Model("m-1", 6, 1.0)),
    "a model in the place of the hashed embedder": (HashedEmbedder(), Model("m-1", 4, 1.0)),
    "the hashed embedder of another dimension": (HashedEmbedder(64), HashedEmbedder(96)),
}
COUNT = 12


@pytest.mark.parametrize("profile", ["embedded:{}/data", "sqlite:{}/one.db"])
@pytest.mark.parametrize("change", MODELS)
def test_a_changed_model_embeds_everything_anew(change: str, profile: str, tmp_path: Path) -> None:
    url = profile.format(tmp_path)
    old, new = MODELS[change]

    async def opened(embedder: Embedder) -> HybridDataArchitecture:
        return await HybridDataArchitecture.open(
            url, entities=[Page], embedders={"default": embedder}, settings=Settings(poll_s=0.02)
        )

    async def main() -> None:
        hda = await opened(old)
        await hda.collection(Page).put_many([Page(id=f"p{i}", text=f"쪽 {i}") for i in range(COUNT)])
        await hda.settle(30)
        assert len(await near(hda.collection(Page))) == COUNT
        await hda.close()

        hda = await opened(new)
        await hda.settle(30)
        await hda.collection(Page).put(Page(id="new", text="새 쪽"))
        await hda.settle(30)
        assert sorted(await near(hda.collection(Page))) == sorted([f"p{i}" for i in range(COUNT)] + ["new"])
        verifier = Verifier(hda.stores, hda.manager.placements, hda.manager.embedders)
        assert [one async for one in verifier.differences("page")] == []
        if isinstance(new, Model):
            assert len(set(new.texts)) == COUNT + 1
        await hda.close()

    asyncio.run(main())


async def near(pages: Collection[Page]) -> list[str]:
    """The pages in the order of `similar`, once the copy is asked again; all scores are those of one model."""
    async with asyncio.timeout(30):
        while True:
            try:
                hits = await pages.similar("쪽 1", limit=100)
            except Unavailable:
                await asyncio.sleep(0.02)
                continue
            assert all(hit.score > 0 for hit in hits)  # the marks of two models point away from one another
            return [hit.value.id for hit in hits]
