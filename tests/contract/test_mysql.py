"""The kit against the MySQL adapter: a real MariaDB server, in it a database for each class, emptied for each test."""

from collections.abc import Generator

import pytest

from polystore.testing.conformance import (
    CancellationConformance,
    CommitConformance,
    Connect,
    CopyExpiryConformance,
    DurabilityConformance,
    EpochConformance,
    ExpiryConformance,
    FileClaimsConformance,
    FilterConformance,
    HistoriesConformance,
    HomeDurabilityConformance,
    HomeTextConformance,
    HomeTraversalConformance,
    HomeVectorConformance,
    JournalConformance,
    KeptBodiesConformance,
    LogConformance,
    RebuildConformance,
    RecordsConformance,
    RepositoryConformance,
    SchemaConformance,
    SpillConformance,
    TextConformance,
    TimeRangeConformance,
    TraversalConformance,
    VectorConformance,
    layered,
)
from polystore.testing.conformance.facade import Config, FacadeConformance
from tests.mysql import Databases, connecting, fresh_database
from tests.rooms import Room, kept


class Fresh:
    @pytest.fixture
    def connect(self) -> Generator[Connect]:
        with fresh_database() as url:
            yield connecting(url)


@pytest.fixture(scope="class")
def room() -> Generator[Room]:
    with kept(Databases("mariadb")) as made:
        yield made


class Bare:
    @pytest.fixture
    def connect(self, room: Room) -> Generator[Connect]:
        with room.taken() as url:
            yield connecting(url)


class BareAndLayered(Bare):
    @pytest.fixture(params=["bare", "under all layers"])
    def connect(self, room: Room, request: pytest.FixtureRequest) -> Generator[Connect]:
        with room.taken() as url:
            yield connecting(url) if request.param == "bare" else layered(connecting(url))


class TestRebuild(Bare, RebuildConformance):
    pass


class TestRepository(BareAndLayered, RepositoryConformance):
    pass


class TestRecords(BareAndLayered, RecordsConformance):
    pass


class TestRecordsOfAHome(Bare, RecordsConformance):
    home = True


class TestCancellation(BareAndLayered, CancellationConformance):
    pass


class TestCancellationAtHome(Bare, CancellationConformance):
    home = True


class TestHistories(BareAndLayered, HistoriesConformance):
    pass


class TestCommit(BareAndLayered, CommitConformance):
    pass


class TestExpiry(BareAndLayered, ExpiryConformance):
    pass


class TestExpiryAtCopies(BareAndLayered, CopyExpiryConformance):
    pass


class TestJournal(BareAndLayered, JournalConformance):
    pass


class TestEpoch(BareAndLayered, EpochConformance):
    pass


class TestSchema(Fresh, SchemaConformance):
    pass


class TestSchemaOfAHome(Fresh, SchemaConformance):
    home = True


class TestFilter(BareAndLayered, FilterConformance):
    pass


class TestFilterAtHome(Bare, FilterConformance):
    home = True


class TestText(BareAndLayered, TextConformance):
    pass


class TestTextAtHome(Bare, TextConformance):
    home = True


class TestVector(BareAndLayered, VectorConformance):
    pass


class TestVectorAtHome(Bare, VectorConformance):
    home = True


class TestTraversal(BareAndLayered, TraversalConformance):
    pass


class TestTraversalAtHome(Bare, TraversalConformance):
    home = True


class TestHomeText(Bare, HomeTextConformance):
    pass


class TestHomeVector(Bare, HomeVectorConformance):
    pass


class TestHomeTraversal(Bare, HomeTraversalConformance):
    pass


class TestDurability(Bare, DurabilityConformance):
    pass


class TestDurabilityOfAHome(Bare, DurabilityConformance):
    home = True


class TestHomeDurability(Bare, HomeDurabilityConformance):
    pass


class TestFileClaims(BareAndLayered, FileClaimsConformance):
    pass


class TestTimeRange(BareAndLayered, TimeRangeConformance):
    pass


class TestLog(BareAndLayered, LogConformance):
    pass


class TestKeptBodies(BareAndLayered, KeptBodiesConformance):
    pass


class TestSpill(BareAndLayered, SpillConformance):
    pass


class TestFacade(FacadeConformance):
    @pytest.fixture(name="config")
    def given_config(self) -> Generator[Config]:
        with fresh_database() as url:
            yield {"stores": {"main": {"url": url}}}


class TestFacadeWithACopy(FacadeConformance):
    """Home in one database, words, vectors and relations in another."""

    @pytest.fixture(name="config")
    def given_config(self) -> Generator[Config]:
        with fresh_database() as home, fresh_database() as copy:
            stores = {"main": {"url": home, "roles": ["home", "journal"]}}
            facets = {"url": copy, "roles": ["full_text", "vector", "graph"]}
            yield {"stores": {**stores, "facets": facets}}
