"""A stream needs no more memory than its parts, and what a killed one leaves is swept.

With 2 GiB: `python -m tests.faults.big_file`.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.faults.big_file import LIMIT_MB, killed_half_way, measured, swept

HOME_ID = "0123456789abcdef" * 2
"""The one object that stays says whose files they are: this long."""
MIB = 96
"""More than may be in memory, and little enough for every run of the tests."""


@pytest.mark.parametrize("kind", ["file", "sqlite"])
def test_a_file_larger_than_the_memory_it_may_take_goes_in_and_out(kind: str, tmp_path: Path) -> None:
    found = measured(kind, tmp_path, MIB)
    assert found["in_mb"] <= LIMIT_MB, found
    assert found["out_mb"] <= LIMIT_MB, found


@pytest.mark.parametrize("kind", ["file", "sqlite"])
def test_what_a_save_left_that_was_killed_half_way_is_swept(kind: str, tmp_path: Path) -> None:
    killed_half_way(kind, tmp_path, 32)
    found = asyncio.run(swept(kind, tmp_path))
    assert found["before"] > 8 << 20, found
    assert (found["films"], found["after"]) == (0, len(HOME_ID)), found
