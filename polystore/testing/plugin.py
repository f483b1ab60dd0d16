"""The pytest plugin for applications: the fixtures `polystore` and `fail_store`.

    def test_what_is_written_is_found_after_an_outage(polystore, fail_store):
        async def main():
            async with polystore([Note]) as hda:
                with fail_store("full_text"):
                    await hda.collection(Note).put(Note(id="a", text="written"))
                await hda.settle()
                assert await hda.collection(Note).search("written")

        asyncio.run(main())

The same body runs in an `async def` test of pytest-asyncio or anyio: everything of an architecture happens in the loop
that opened it. pytest loads this module at each start; what opens stores is imported by the first test that asks.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from polystore.testing.application import Applications, FailStore


@pytest.fixture
def polystore(tmp_path: Path) -> Applications:
    """Opens architectures on data of this test: `async with polystore([Note]) as hda`. See `Applications.__call__`."""
    from polystore.testing.application import Applications

    return Applications(tmp_path / "polystore")


@pytest.fixture
def fail_store(polystore: Applications) -> FailStore:
    """Lets a store fail: `with fail_store("full_text")`, or `fail_store(...)` and later `.release()`. See
    `Applications.fail_store`."""
    return polystore.fail_store
