"""What `update` with a function takes for a change: the content as it is stored, not Python's idea of equal."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from polystore import HybridDataArchitecture, entity
from tests.integration.facade.world import config_of, profiles


@entity()
@dataclass(kw_only=True)
class Note:
    id: str
    count: int = 0
    price: Decimal = Decimal("1.0")
    extra: dict[str, Any] = field(default_factory=dict[str, Any])


@pytest.mark.parametrize("profile", profiles())
def test_an_update_keeps_a_value_that_python_takes_for_equal_to_the_old_one(profile: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with HybridDataArchitecture.open(config_of(profile, tmp_path), entities=[Note]) as hda:
            notes = hda.collection(Note)
            await notes.put(Note(id="n", extra={"done": 1, "sizes": [1.0]}))
            wanted = Note(id="n", count=1, price=Decimal("1.00"), extra={"done": True, "sizes": [1]})
            await notes.update("n", lambda _: wanted)
            assert repr(await notes.get("n")) == repr(wanted)

    asyncio.run(main())
