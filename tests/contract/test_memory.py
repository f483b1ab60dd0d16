"""The kit against the memory adapter."""

from collections.abc import Awaitable, Iterator

import pytest
from polystore_adapters.memory import connect as connect_memory
from polystore_adapters.memory import forget_servers

from polystore.env import Env
from polystore.protocols import Repository
from polystore.testing.conformance import (
    CacheConformance,
    CancellationConformance,
    ChannelConformance,
    CommitConformance,
    Connect,
    CopyExpiryConformance,
    CountsConformance,
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
    InlineCacheConformance,
    InlineGetConformance,
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


class Bare:
    @pytest.fixture
    def connect(self) -> Iterator[Connect]:
        yield memory
        forget_servers()


class BareAndLayered:
    @pytest.fixture(params=["bare", "under all layers"])
    def connect(self, request: pytest.FixtureRequest) -> Iterator[Connect]:
        yield memory if request.param == "bare" else layered(memory)
        forget_servers()


def memory(env: Env) -> Awaitable[Repository]:
    return connect_memory("memory:kit", {}, env)


class TestRebuild(Bare, RebuildConformance):
    pass


class TestRepository(BareAndLayered, RepositoryConformance):
    pass


class TestRecords(BareAndLayered, RecordsConformance):
    pass


class TestRecordsOfAHome(Bare, RecordsConformance):
    home = True


class TestInlineGet(BareAndLayered, InlineGetConformance):
    pass


class TestCounts(BareAndLayered, CountsConformance):
    pass


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


class TestSchema(Bare, SchemaConformance):
    pass


class TestSchemaOfAHome(Bare, SchemaConformance):
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


class TestObjects(BareAndLayered, ObjectsConformance):
    pass


class TestFileClaims(BareAndLayered, FileClaimsConformance):
    pass


class TestState(BareAndLayered, StateConformance):
    pass


class TestLimit(BareAndLayered, LimitConformance):
    pass


class TestChannel(BareAndLayered, ChannelConformance):
    pass


class TestTimeRange(BareAndLayered, TimeRangeConformance):
    pass


class TestLog(BareAndLayered, LogConformance):
    pass


class TestKeptBodies(BareAndLayered, KeptBodiesConformance):
    pass


class TestSpill(BareAndLayered, SpillConformance):
    pass


class TestCache(BareAndLayered, CacheConformance):
    pass


class TestInlineCache(BareAndLayered, InlineCacheConformance):
    pass
