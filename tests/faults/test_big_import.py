"""An import needs no more memory for more records, and one that was killed goes on where it was.

With a million: `python -m tests.faults.big_import`.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.faults.big_import import LIMIT_MB, compared, gone_on_with, killed_half_way

COUNT = 100_000


def test_a_large_import_killed_half_way_and_gone_on_with_holds_its_source_in_flat_memory(tmp_path: Path) -> None:
    killed = killed_half_way(tmp_path, COUNT)
    found = gone_on_with(tmp_path, COUNT)
    assert killed["above_mb"] <= LIMIT_MB, killed
    assert found["peak_mb"] <= LIMIT_MB, found
    assert killed["done"] <= found["skipped"] < COUNT, "what was committed is not read again, the rest is"
    assert asyncio.run(compared(tmp_path, COUNT)) == {"records": COUNT, "other": 0, "differences": 0}
