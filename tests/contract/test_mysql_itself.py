"""The kit against MySQL itself, of which MariaDB is another flavour: what has SQL of its own, without the layers, which
`test_mysql.py` has."""

from collections.abc import Generator

import pytest

from polystore.testing.conformance import (
    CancellationConformance,
    CommitConformance,
    Connect,
    DurabilityConformance,
    EpochConformance,
    FilterConformance,
    HistoriesConformance,
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
)
from polystore.testing.conformance.facade import Config, FacadeConformance
from tests.mysql import Databases, connecting, fresh_database
from tests.rooms import Room, kept


@pytest.fixture(scope="class")
def room() -> Generator[Room]:
    with kept(Databases("mysql")) as made:
        yield made


class OnMySQL:
    @pytest.fixture
    def connect(self, room: Room) -> Generator[Connect]:
        with room.taken() as url:
            yield connecting(url)


class TestRebuild(OnMySQL, RebuildConformance):
    pass


class TestRepository(OnMySQL, RepositoryConformance):
    pass


class TestRecords(OnMySQL, RecordsConformance):
    pass


class TestCancellation(OnMySQL, CancellationConformance):
    pass


class TestCancellationAtHome(OnMySQL, CancellationConformance):
    home = True


class TestHistories(OnMySQL, HistoriesConformance):
    pass


class TestCommit(OnMySQL, CommitConformance):
    pass


class TestJournal(OnMySQL, JournalConformance):
    pass


class TestEpoch(OnMySQL, EpochConformance):
    pass


class TestSchemaOfAHome(SchemaConformance):
    home = True

    @pytest.fixture
    def connect(self) -> Generator[Connect]:
        with fresh_database("mysql") as url:
            yield connecting(url)


class TestFilter(OnMySQL, FilterConformance):
    pass


class TestText(OnMySQL, TextConformance):
    pass


class TestTextAtHome(OnMySQL, TextConformance):
    home = True


class TestVector(OnMySQL, VectorConformance):
    pass


class TestTraversalAtHome(OnMySQL, TraversalConformance):
    home = True


class TestDurability(OnMySQL, DurabilityConformance):
    pass


class TestTimeRange(OnMySQL, TimeRangeConformance):
    pass


class TestLog(OnMySQL, LogConformance):
    pass


class TestKeptBodies(OnMySQL, KeptBodiesConformance):
    pass


class TestSpill(OnMySQL, SpillConformance):
    pass


class TestFacade(FacadeConformance):
    @pytest.fixture(name="config")
    def given_config(self) -> Generator[Config]:
        with fresh_database("mysql") as url:
            yield {"stores": {"main": {"url": url}}}
