"""The kit against the S3 adapter, on MinIO: blobs, and nothing else."""

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import obstore
import pytest
from polystore_adapters.s3 import S3Repository, connect
from polystore_adapters.s3.options import read_options

from polystore.env import Env
from polystore.protocols import Repository
from polystore.testing.conformance import Connect, ObjectsConformance, layered
from tests.stack import server

minio = server("minio")


class TestObjects(ObjectsConformance):
    @pytest.fixture
    def place(self, minio: str) -> Iterator[str]:
        """A prefix of the test's own."""
        url = f"{minio}/kit-{uuid4()}"
        yield url
        place = read_options(url, {})
        data = place.store()
        found: Any = obstore.list(data, place.prefix)  # pyright: ignore[reportUnknownMemberType]
        obstore.delete(data, [one["path"] for one in found.collect()])

    @pytest.fixture(params=["bare", "under all layers"])
    def connect(self, request: pytest.FixtureRequest, place: str) -> Connect:
        async def connected(env: Env) -> Repository:
            return await connect(place, {"part_mb": 5}, env)

        return connected if request.param == "bare" else layered(connected)


def test_the_adapter_claims_what_is_tested_here() -> None:
    assert {one.__name__ for one in S3Repository.capabilities} == {"SupportsObjects", "SupportsSchema"}
