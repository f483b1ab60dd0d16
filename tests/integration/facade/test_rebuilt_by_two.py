"""Two processes, one second place: what the one fills the other does not empty, whatever it has missed."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Collection
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from polystore import PolystoreError, Unavailable
from polystore.model import Placement
from tests.growing import Tree, differences, opening, over, stores, until


def test_who_cannot_follow_what_another_process_has_begun_does_not_empty_what_that_fills(tmp_path: Path) -> None:
    config = stores(tmp_path, main=["home"], words=["full_text", "vector"])

    def filled() -> int:
        with closing(sqlite3.connect(tmp_path / "words.db~2")) as db:
            return int(db.execute("SELECT count(*) FROM tree").fetchone()[0])

    async def refusing(placement: Placement, names: Collection[str]) -> None:
        raise Unavailable("it does not answer", store="words~2")

    async def main() -> None:
        async with opening(config) as one, opening(config) as two:
            await one.collection(Tree).put_many([Tree(id=f"t{i}", text=f"나무 {i}") for i in range(100)])
            await one.settle(30)
            relay: Any = two.manager.lines["main"]
            relay._task.cancel()
            two.manager.mover.prepare = refusing
            rebuilding = asyncio.create_task(one.rebuild_copies("words", rate_per_s=1.0))
            await until(lambda: (tmp_path / "words.db~2").exists() and one.manager.placements["tree"].upcoming != {})
            await until(lambda: filled() > 0)
            with pytest.raises(PolystoreError) as refused:
                await two.rebuild_copies("words")
            assert filled() > 0
            assert isinstance(refused.value, Unavailable)
            assert await one.rebuild_copies("words", rollback=True) == {"tree": "words"}  # what has not served ends
            assert await rebuilding == {"tree": "words"}
            await over(one)
            assert await differences(one) == []

    asyncio.run(main())
