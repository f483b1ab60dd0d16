"""The kit against the Neo4j adapter: copies whose relations are walked; a label for each test."""

from collections.abc import Generator

import pytest
from polystore_adapters.neo4j.repository import Neo4jRepository

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
    TraversalConformance,
    layered,
)
from tests.neo4j import connecting, own_label
from tests.sockets import forgotten_connections
from tests.stack import server

neo4j = server("neo4j")
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")


@pytest.fixture(autouse=True)
def forgotten() -> Generator[None]:
    with forgotten_connections():
        yield


class Bare:
    @pytest.fixture
    def connect(self, neo4j: str) -> Generator[Connect]:
        with own_label(neo4j) as label:
            yield connecting(neo4j, label)


class BareAndLayered(Bare):
    @pytest.fixture(params=["bare", "under all layers"])
    def connect(self, request: pytest.FixtureRequest, neo4j: str) -> Generator[Connect]:
        with own_label(neo4j) as label:
            bare = connecting(neo4j, label)
            yield bare if request.param == "bare" else layered(bare)


class TestRebuild(Bare, RebuildConformance):
    pass


class TestRepository(Bare, RepositoryConformance):
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


class TestTraversal(BareAndLayered, TraversalConformance):
    pass


class TestDurability(Bare, DurabilityConformance):
    pass


def test_the_adapter_claims_what_is_tested_here() -> None:
    assert {one.__name__ for one in Neo4jRepository.capabilities} == {
        "SupportsRebuild",
        "SupportsSchema",
        "SupportsTraversal",
    }
