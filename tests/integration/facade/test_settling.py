"""`settle` waits for what other processes have begun, too."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from polystore import FullText, HybridDataArchitecture, entity
from polystore.consistency.settings import Settings
from polystore.protocols import SupportsEpoch, SupportsJournal
from tests.loops import in_a_loop


@entity(name="memo")
@dataclass
class Memo:
    id: str
    text: Annotated[str, FullText()] = ""


@in_a_loop
async def test_a_filling_that_another_process_has_just_begun_is_waited_for(tmp_path: Path) -> None:
    stores = {
        "main": {"url": f"sqlite:{tmp_path}/main.db", "roles": ["home", "journal"]},
        "search": {"url": f"sqlite:{tmp_path}/search.db", "roles": ["full_text"]},
    }
    never = Settings(poll_s=30)  # a look only when it is asked to
    async with (
        HybridDataArchitecture.open({"stores": stores}, entities=[Memo], settings=never) as one,
        HybridDataArchitecture.open({"stores": stores}, entities=[Memo], settings=never) as two,
    ):
        await one.collection(Memo).put_many([Memo(f"m{i}", "anfang") for i in range(30)])
        await one.settle()
        await two.manager.stores["main"].call(SupportsEpoch.bump_epoch)
        await one.settle()
        statuses = {row.name: row.status for row in await one.manager.stores["main"].call(SupportsJournal.targets)}
        assert statuses == {"search": "active"}
