"""A small version of `python -m tests.faults.repaired`: copies corrupted by their own drivers, while writes go on."""

import asyncio
from pathlib import Path

import pytest

from tests.faults.repaired import corrupting, run
from tests.stack import server

elasticsearch = server("elasticsearch")
chromadb = server("chromadb")


@pytest.mark.parametrize("store", ["sqlite", "elasticsearch", "chromadb"])
def test_what_a_driver_corrupted_is_repaired_and_nothing_else_is(
    store: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if store != "sqlite":
        request.getfixturevalue(store)
    with corrupting(store, tmp_path) as corruptor:
        seen = asyncio.run(run(tmp_path, corruptor, 60, 7, 20))
    assert sum(seen["mended"].values()) + seen["owed"] == 7
