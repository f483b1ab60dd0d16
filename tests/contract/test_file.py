"""The kit against the file adapter: blobs, and nothing else."""

from pathlib import Path

import pytest
from polystore_adapters.file import connect
from polystore_adapters.file.repository import FileRepository

from polystore.env import Env
from polystore.protocols import Repository
from polystore.testing.conformance import Connect, ObjectsConformance, layered


class TestObjects(ObjectsConformance):
    @pytest.fixture(params=["bare", "under all layers"])
    def connect(self, request: pytest.FixtureRequest, tmp_path: Path) -> Connect:
        async def connected(env: Env) -> Repository:
            return await connect(f"file:{tmp_path}/kit", {}, env)

        return connected if request.param == "bare" else layered(connected)


def test_the_adapter_claims_what_is_tested_here() -> None:
    assert {one.__name__ for one in FileRepository.capabilities} == {"SupportsObjects", "SupportsSchema"}
