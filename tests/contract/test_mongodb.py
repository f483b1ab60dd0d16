"""The kit against the MongoDB adapter: FerretDB, a real server behind MongoDB's protocol, a database for each test."""

from collections.abc import Generator

import pytest

from polystore.testing.conformance import (
    Connect,
    CopyExpiryConformance,
    DurabilityConformance,
    FilterConformance,
    HistoriesConformance,
    RecordsConformance,
    RepositoryConformance,
    SchemaConformance,
    TextConformance,
    layered,
)
from tests.mongodb import connecting, forgotten_connections, fresh_database

pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")


@pytest.fixture(autouse=True)
def forgotten() -> Generator[None]:
    with forgotten_connections():
        yield


class Bare:
    @pytest.fixture
    def connect(self) -> Generator[Connect]:
        with fresh_database() as url:
            yield connecting(url)


class BareAndLayered(Bare):
    @pytest.fixture(params=["bare", "under all layers"])
    def connect(self, request: pytest.FixtureRequest) -> Generator[Connect]:
        with fresh_database() as url:
            yield connecting(url) if request.param == "bare" else layered(connecting(url))


class TestRepository(BareAndLayered, RepositoryConformance):
    pass


class TestRecords(BareAndLayered, RecordsConformance):
    pass


class TestHistories(BareAndLayered, HistoriesConformance):
    pass


class TestExpiryAtCopies(BareAndLayered, CopyExpiryConformance):
    pass


class TestSchema(Bare, SchemaConformance):
    pass


class TestFilter(BareAndLayered, FilterConformance):
    pass


class TestText(BareAndLayered, TextConformance):
    pass


class TestDurability(Bare, DurabilityConformance):
    pass
