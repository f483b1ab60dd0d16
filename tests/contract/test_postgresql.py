"""The kit against the PostgreSQL adapter: a real server, and in it a schema for each class, emptied for each test."""

from collections.abc import Awaitable, Generator

import pytest

from polystore.env import Env
from polystore.protocols import Repository
from polystore.testing.conformance import (
    ApplicationTablesConformance,
    CancellationConformance,
    ChannelConformance,
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
    LimitConformance,
    LogConformance,
    ObjectsConformance,
    RebuildConformance,
    RecordsConformance,
    RepositoryConformance,
    SchemaConformance,
    SpillConformance,
    StateConformance,
    TextConformance,
    TimeRangeConformance,
    TraversalConformance,
    VectorConformance,
    layered,
)
from polystore.testing.conformance.facade import Config, FacadeConformance
from polystore.testing.conformance.facade_state import StateFacadeConformance
from tests.applications import sqlalchemy_url
from tests.postgresql import Schemas, configured, connected, fresh_schema
from tests.rooms import Room, kept


class Fresh:
    @pytest.fixture
    def connect(self) -> Generator[Connect]:
        with fresh_schema() as path:
            yield lambda env: connected(env, path)


@pytest.fixture(scope="class")
def room() -> Generator[Room]:
    with kept(Schemas()) as made:
        yield made


class Bare:
    @pytest.fixture
    def connect(self, room: Room) -> Generator[Connect]:
        with room.taken() as path:
            yield lambda env: connected(env, path)


class BareAndLayered(Bare):
    @pytest.fixture(params=["bare", "under all layers"])
    def connect(self, room: Room, request: pytest.FixtureRequest) -> Generator[Connect]:
        with room.taken() as path:

            def connecting(env: Env) -> Awaitable[Repository]:
                return connected(env, path)

            yield connecting if request.param == "bare" else layered(connecting)


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


class TestEpoch(BareAndLayered, EpochConformance):
    pass


class TestExpiry(BareAndLayered, ExpiryConformance):
    pass


class TestExpiryAtCopies(BareAndLayered, CopyExpiryConformance):
    pass


class TestJournal(BareAndLayered, JournalConformance):
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


class TestVectorInPlainColumns(VectorConformance):
    @pytest.fixture
    def connect(self) -> Generator[Connect]:
        with fresh_schema() as path:
            yield lambda env: connected(env, path, vectors="bytes")


class TestVectorByIndex(VectorConformance):
    """Of so few vectors the index looks at each."""

    home = True

    @pytest.fixture(params=["hnsw", "hnsw_half"])
    def connect(self, request: pytest.FixtureRequest) -> Generator[Connect]:
        with fresh_schema() as path:
            yield lambda env: connected(env, path, vectors="pgvector", vector_index=request.param, approximate_min=0)

    async def test_equals_are_ordered_by_id(self) -> None:
        """Of more equals than were asked for an index finds any."""
        ids = [f"{(i * 7) % 30:02}" for i in range(30)]
        store = await self.ready({id: (1, 2, 3, 4) if id < "20" else (-1, 0, 0, 1) for id in ids})
        assert await self.every(store, (1, 2, 3, 4)) == sorted(ids)
        found = await self.nearest(store, "by_cosine", (1, 2, 3, 4), limit=5)
        assert found == sorted(found)
        assert len(set(found)) == 5
        assert set(found) < set(sorted(ids)[:20])


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


class TestChannel(BareAndLayered, ChannelConformance):
    pass


class TestFileClaims(BareAndLayered, FileClaimsConformance):
    pass


class TestLimit(BareAndLayered, LimitConformance):
    pass


class TestLog(BareAndLayered, LogConformance):
    pass


class TestObjects(BareAndLayered, ObjectsConformance):
    pass


class TestKeptBodies(BareAndLayered, KeptBodiesConformance):
    pass


class TestSpill(BareAndLayered, SpillConformance):
    pass


class TestState(BareAndLayered, StateConformance):
    pass


class TestTimeRange(BareAndLayered, TimeRangeConformance):
    pass


class TestApplicationTables(ApplicationTablesConformance):
    @pytest.fixture
    def path(self) -> Generator[str]:
        with fresh_schema() as path:
            yield path

    @pytest.fixture(params=["bare", "under all layers"])
    def connect(self, request: pytest.FixtureRequest, path: str) -> Connect:
        def connecting(env: Env) -> Awaitable[Repository]:
            return connected(env, path)

        return connecting if request.param == "bare" else layered(connecting)

    @pytest.fixture
    def database(self, path: str) -> str:
        return sqlalchemy_url(path)


class ThroughTheFacade:
    @pytest.fixture(name="config")
    def given_config(self) -> Generator[Config]:
        with fresh_schema() as path:
            yield {"stores": {"main": configured(path)}}


class TestFacade(ThroughTheFacade, FacadeConformance):
    pass


class TestStateFacade(ThroughTheFacade, StateFacadeConformance):
    pass
