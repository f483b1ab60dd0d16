"""The kit against the Elasticsearch adapter: copies found by words; a prefix for each test."""

from collections.abc import Generator

import pytest
from polystore_adapters.elasticsearch.repository import ElasticsearchRepository

from polystore.testing.conformance import (
    AliasConformance,
    CancellationConformance,
    Connect,
    CopyExpiryConformance,
    CountsConformance,
    DurabilityConformance,
    HistoriesConformance,
    LogConformance,
    RebuildConformance,
    RecordsConformance,
    RefreshConformance,
    RepositoryConformance,
    SchemaConformance,
    TextConformance,
    layered,
)
from tests.elasticsearch import connecting, own_prefix
from tests.stack import server

elasticsearch = server("elasticsearch")
pytestmark = pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")  # one record of 2 MB


class Bare:
    @pytest.fixture
    def connect(self, elasticsearch: str) -> Generator[Connect]:
        with own_prefix(elasticsearch) as prefix:
            yield connecting(elasticsearch, prefix)


class BareAndLayered(Bare):
    @pytest.fixture(params=["bare", "under all layers"])
    def connect(self, request: pytest.FixtureRequest, elasticsearch: str) -> Generator[Connect]:
        with own_prefix(elasticsearch) as prefix:
            bare = connecting(elasticsearch, prefix)
            yield bare if request.param == "bare" else layered(bare)


class TestAlias(BareAndLayered, AliasConformance):
    pass


class TestRebuild(Bare, RebuildConformance):
    pass


class TestRepository(Bare, RepositoryConformance):
    pass


class TestRecords(Bare, RecordsConformance):
    pass


class TestCounts(Bare, CountsConformance):
    pass


class TestCancellation(Bare, CancellationConformance):
    pass


class TestHistories(Bare, HistoriesConformance):
    pass


class TestExpiryAtCopies(Bare, CopyExpiryConformance):
    pass


class TestSchema(Bare, SchemaConformance):
    pass


class TestText(BareAndLayered, TextConformance):
    pass


class TestDurability(Bare, DurabilityConformance):
    pass


class TestRefresh(BareAndLayered, RefreshConformance):
    pass


class TestLog(Bare, LogConformance):
    pass


def test_the_adapter_claims_what_is_tested_here() -> None:
    claimed = {one.__name__.removeprefix("Supports") for one in ElasticsearchRepository.capabilities}
    assert claimed == {"Alias", "Counts", "Log", "Rebuild", "Refresh", "Schema", "TextSearch"}
