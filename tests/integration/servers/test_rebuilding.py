"""Each copy that there is, built anew in its other place on a real server, and back again."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from polystore import HybridDataArchitecture
from polystore.config import Role
from polystore.consistency import Settings
from polystore.consistency.verify import Verifier
from polystore.testing.places import places
from tests.growing import until
from tests.integration.servers.declared import declared
from tests.integration.servers.test_pairs import COPIES
from tests.stack import url_of

PROMPT = Settings(poll_s=0.05, call_timeout_s=1.0, batch_deadline_s=1.5, worker_dead_s=2.0)


@pytest.mark.parametrize("copy", [one for one in COPIES if one != "mysql"])  # as MariaDB
def test_a_copy_on_its_own_server_is_rebuilt_and_goes_back(copy: str, tmp_path: Path) -> None:
    facets: tuple[Role, ...] = COPIES[copy]
    cls: Any = declared("leaf", facets)
    url = f"sqlite:{tmp_path}/{{}}.db" if copy == "sqlite" else url_of(copy)

    async def found(hda: HybridDataArchitecture) -> int:
        leaves = hda.collection(cls)
        if "full_text" in facets:
            return len(await leaves.search("잎", limit=500))
        if "vector" in facets:
            return len(await leaves.similar("잎", limit=500))
        return 1 + len(await leaves.related("l0", "NEXT_leaf", depth=10, limit=500))

    async def equal(hda: HybridDataArchitecture) -> None:
        await hda.settle(30)
        verifier = Verifier(hda.stores, hda.manager.placements, hda.manager.embedders)
        assert [one async for one in verifier.differences("leaf")] == []

    async def main(stores: dict[str, Any]) -> None:
        config = {"stores": stores, "pins": {"leaf": {"home": "main", **dict.fromkeys(facets, "copy")}}}

        def opening() -> Any:
            return HybridDataArchitecture.open(config, entities=[cls], settings=PROMPT)

        async with opening() as one, opening() as two:
            leaves = one.collection(cls)
            await leaves.put_many([cls(id=f"l{i}", text=f"잎 {i}", follows=[f"l{i + 1}"]) for i in range(60)])
            await one.settle(30)
            assert await one.rebuild_copies("copy") == {"leaf": "copy~2"}
            await until(lambda: "copy~2" in two.manager.placements["leaf"].facets.values())
            await two.collection(cls).put(cls(id="l60", text="잎 60", follows=[]))
            await two.collection(cls).delete("l30")
            await equal(two)
            assert await found(two) == await found(one) == (60 if facets != ("graph",) else 11)
            assert await two.rebuild_copies("copy", rollback=True) == {"leaf": "copy"}
            await until(lambda: "copy" in one.manager.placements["leaf"].facets.values())
            await equal(one)
            assert await found(one) == (60 if facets != ("graph",) else 11)
            assert await one.discard_copies("copy") == ["copy~2"]

    with ExitStack() as exits:
        at = exits.enter_context(places(url)())
        asyncio.run(
            main({"main": {"url": f"sqlite:{tmp_path}/main.db"}, "copy": {"url": at.url, "options": {**at.options}}})
        )
