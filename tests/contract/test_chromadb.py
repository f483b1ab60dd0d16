"""The kit against the ChromaDB adapter: copies found by their vectors; a prefix for each test."""

from collections.abc import Generator

import pytest
from polystore_adapters.chromadb.repository import ChromadbRepository

from polystore.testing.conformance import (
    CancellationConformance,
    Connect,
    CopyExpiryConformance,
    DurabilityConformance,
    HistoriesConformance,
    RebuildConformance,
    RecordsConformance,
    RepositoryConformance,
    SchemaConformance,
    VectorConformance,
    layered,
)
from tests.chromadb import connecting, own_prefix
from tests.stack import server

chromadb = server("chromadb")


class Bare:
    @pytest.fixture
    def connect(self, chromadb: str) -> Generator[Connect]:
        with own_prefix(chromadb) as prefix:
            yield connecting(chromadb, prefix)


class BareAndLayered(Bare):
    @pytest.fixture(params=["bare", "under all layers"])
    def connect(self, request: pytest.FixtureRequest, chromadb: str) -> Generator[Connect]:
        with own_prefix(chromadb) as prefix:
            bare = connecting(chromadb, prefix)
            yield bare if request.param == "bare" else layered(bare)


class TestRebuild(Bare, RebuildConformance):
    pass


class TestRepository(BareAndLayered, RepositoryConformance):
    pass


class TestRecords(Bare, RecordsConformance):
    pass


class TestCancellation(Bare, CancellationConformance):
    pass


class TestHistories(Bare, HistoriesConformance):
    pass


class TestExpiryAtCopies(Bare, CopyExpiryConformance):
    pass


class TestSchema(Bare, SchemaConformance):
    pass


class TestVectors(Bare, VectorConformance):
    pass


class TestVectorsByTheIndex(Bare, VectorConformance):
    """No collection is small enough to compare all."""

    @pytest.fixture
    def connect(self, chromadb: str) -> Generator[Connect]:
        with own_prefix(chromadb) as prefix:
            yield connecting(chromadb, prefix, exact_max=0)


class TestDurability(Bare, DurabilityConformance):
    pass


def test_the_adapter_claims_what_is_tested_here() -> None:
    assert {one.__name__ for one in ChromadbRepository.capabilities} == {
        "SupportsRebuild",
        "SupportsSchema",
        "SupportsVectorSearch",
    }
