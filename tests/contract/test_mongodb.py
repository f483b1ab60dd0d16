"""The kit against the MongoDB adapter: FerretDB, a real server behind MongoDB's protocol, a database for each test."""

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from polystore.testing.conformance import (
    CancellationConformance,
    Connect,
    CopyExpiryConformance,
    DurabilityConformance,
    FilterConformance,
    HistoriesConformance,
    RebuildConformance,
    RecordsConformance,
    RepositoryConformance,
    SchemaConformance,
    TextConformance,
    layered,
)
from polystore.testing.conformance.entities import KIT
from polystore.testing.conformance.facade import Config, FacadeConformance
from tests.mongodb import connecting, fresh_database
from tests.sockets import forgotten_connections

pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")


@pytest.fixture(autouse=True)
def forgotten() -> Generator[None]:
    with forgotten_connections():
        yield


class Bare:
    def in_use(self, one: Any) -> int:
        """Connections of the driver's pools, which have no public word for it."""
        servers = getattr(one, "under", one).client._topology._servers
        return sum(server.pool.active_sockets for server in servers.values())

    @pytest.fixture
    def connect(self) -> Generator[Connect]:
        with fresh_database() as url:
            yield connecting(url)


class BareAndLayered(Bare):
    @pytest.fixture(params=["bare", "under all layers"])
    def connect(self, request: pytest.FixtureRequest) -> Generator[Connect]:
        with fresh_database() as url:
            yield connecting(url) if request.param == "bare" else layered(connecting(url))


class TestRebuild(Bare, RebuildConformance):
    pass


class TestRepository(BareAndLayered, RepositoryConformance):
    pass


class TestRecords(BareAndLayered, RecordsConformance):
    pass


class TestCancellation(Bare, CancellationConformance):
    pass


class TestHistories(BareAndLayered, HistoriesConformance):
    pass


class TestExpiryAtCopies(BareAndLayered, CopyExpiryConformance):
    pass


class TestSchema(Bare, SchemaConformance):
    pass


class TestFilter(Bare, FilterConformance):
    pass


class TestText(Bare, TextConformance):
    pass


class TestDurability(Bare, DurabilityConformance):
    pass


class TestFacade(FacadeConformance):
    """Records live here, a SQLite file is their journal and serves what MongoDB has not."""

    @pytest.fixture(name="config")
    def given_config(self, tmp_path: Path) -> Generator[Config]:
        with fresh_database() as url:
            stores = {"journal": {"url": f"sqlite:{tmp_path}/journal.db"}, "documents": {"url": url}}
            yield {"stores": stores, "pins": {name: {"home": "documents"} for name in KIT}}


class TestFacadeWithACopy(FacadeConformance):
    """Records live in a SQLite file; words are found here."""

    @pytest.fixture(name="config")
    def given_config(self, tmp_path: Path) -> Generator[Config]:
        with fresh_database() as url:
            home = {"url": f"sqlite:{tmp_path}/main.db", "roles": ["home", "journal", "vector", "graph"]}
            yield {"stores": {"main": home, "words": {"url": url, "roles": ["full_text"]}}}
