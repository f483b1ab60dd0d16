"""The vectors of another model take the other place of a copy on a real server."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from polystore import Embedder, HybridDataArchitecture, SchemaMismatch
from polystore.consistency import Settings
from polystore.embedders import model_of
from polystore.protocols import Repository
from tests.growing import Tree, differences, over, until
from tests.integration.facade.test_model_moved import M1, OLD, WIDE, asking, serving
from tests.postgresql import configured, fresh_schema

SETTINGS = Settings(poll_s=0.05, call_timeout_s=2.0, batch_deadline_s=2.2, worker_dead_s=2.5)


def test_pgvector_takes_the_new_vectors_in_its_other_place_while_the_old_ones_serve(tmp_path: Path) -> None:
    async def main(schema: str) -> None:
        home = {"url": f"sqlite:{tmp_path}/main.db", "roles": ["home", "full_text"]}
        stores = {"main": home, "near": configured(schema, roles=["vector"])}

        def opened(configured: Embedder, other: Embedder) -> Any:
            embedders = {"default": configured, "other": other}
            return HybridDataArchitecture.open(
                {"stores": stores}, entities=[Tree], embedders=embedders, settings=SETTINGS
            )

        async with opened(WIDE, M1) as hda:
            await hda.collection(Tree).put_many([Tree(id=id, text=f"나무 {id}") for id in OLD])
            await hda.settle(30)
        async with opened(M1, WIDE) as one, opened(WIDE, M1) as two:
            async with asking(one, two) as answered:
                await one.rebuild(Tree)
                await until(lambda: serving(two) == model_of(M1))
                await over(two)
            assert answered == [{"near", "near~2"}] * 2
            assert await differences(two) == []
            with pytest.raises(SchemaMismatch, match="nothing is prepared for 'tree'"):  # it was emptied
                await one.stores["near"].call(Repository.tenants, "tree")

    with fresh_schema() as schema:
        asyncio.run(main(schema))
