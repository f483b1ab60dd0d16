"""The kit against the Redis adapter: Redis and Valkey, bare and under all layers; Sentinel and Cluster."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from polystore_adapters.redis.repository import RedisRepository

from polystore.env import Env
from polystore.protocols import Repository
from polystore.testing.conformance import (
    CacheConformance,
    CancellationConformance,
    ChannelConformance,
    Connect,
    CopyExpiryConformance,
    DurabilityConformance,
    FilterConformance,
    HistoriesConformance,
    LimitConformance,
    RecordsConformance,
    RepositoryConformance,
    SchemaConformance,
    StateConformance,
    layered,
)
from polystore.testing.conformance.entities import KIT
from polystore.testing.conformance.facade import Config, FacadeConformance
from polystore.testing.conformance.facade_state import StateFacadeConformance
from tests.redis_servers import SERVERS, Place
from tests.stack import url_of


class OnServers:
    """Time goes by at once: what is stored grows older."""

    place: Place

    @pytest.fixture(params=[*SERVERS, "redis under all layers"])
    def connect(self, request: pytest.FixtureRequest) -> Iterator[Connect]:
        yield from self.on(request.param)

    def on(self, way: str) -> Iterator[Connect]:
        self.place = Place(url_of(way.split()[0]))
        self.place.keys()  # connected before the test, whose time it would take

        async def connected(env: Env) -> Repository:
            return await self.place.connect(env)

        yield connected if way in SERVERS else layered(connected)
        self.place.clear()


class WithRecords(OnServers):
    """What is particular to the others is in few tests, see `test_records_on`."""

    @pytest.fixture(params=["redis"])
    def connect(self, request: pytest.FixtureRequest) -> Iterator[Connect]:
        yield from self.on(request.param)


class WithRecordsUnderLayers(OnServers):
    def in_use(self, one: Any) -> int:
        """Connections of the driver's pool, which has no public word for it."""
        return len(getattr(one, "under", one).client.connection_pool._in_use_connections)

    @pytest.fixture(params=["redis", "redis under all layers"])
    def connect(self, request: pytest.FixtureRequest) -> Iterator[Connect]:
        yield from self.on(request.param)


class TestRepository(WithRecordsUnderLayers, RepositoryConformance):
    pass


class TestRecords(WithRecordsUnderLayers, RecordsConformance):
    pass


class TestCancellation(WithRecordsUnderLayers, CancellationConformance):
    pass


class TestHistories(WithRecordsUnderLayers, HistoriesConformance):
    pass


class TestExpiryAtCopies(WithRecords, CopyExpiryConformance):
    pass


class TestSchema(WithRecords, SchemaConformance):
    pass


class TestFilter(WithRecords, FilterConformance):
    pass


class TestDurability(WithRecords, DurabilityConformance):
    pass


@pytest.mark.parametrize("server", ["valkey", "redis-sentinel", "redis-cluster"])
@pytest.mark.parametrize(
    ("kit", "test", "given"),
    [
        (HistoriesConformance, "test_many_appliers_end_at_the_newest_version_and_no_version_drops", {"seed": 1}),
        (HistoriesConformance, "test_four_versions_of_a_fresh_key_at_once_end_at_the_fourth", {"removed": 2}),
        (RecordsConformance, "test_scan_lists_live_records_by_hash_and_id_over_any_page_size", {}),
        (RecordsConformance, "test_tenants_do_not_see_each_other", {}),
        (RepositoryConformance, "test_says_who_it_is", {}),
        (RepositoryConformance, "test_tells_the_highest_version_it_ever_held", {}),
        (SchemaConformance, "test_a_field_that_was_removed_comes_back_with_its_values", {}),
        (FilterConformance, "test_sorted_by_several_fields_under_a_condition", {}),
    ],
)
def test_records_on(server: str, kit: Any, test: str, given: dict[str, Any]) -> None:
    place = Place(url_of(server))
    case = kit()
    case.use(place.connect)
    try:
        getattr(case, test)(**given)
    finally:
        place.clear()


class TestFacade(FacadeConformance):
    """Records live here, a SQLite file is their journal and serves what Redis has not."""

    @pytest.fixture(name="config", params=["redis", "valkey"])
    def given_config(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Config]:
        place = Place(url_of(request.param))
        journal = {"url": f"sqlite:{tmp_path}/journal.db"}
        records = {"url": place.url, "roles": ["document"], "options": {"prefix": place.prefix}}
        yield {
            "stores": {"journal": journal, "documents": records},
            "pins": {name: {"home": "documents"} for name in KIT},
        }
        place.clear()


class TestState(OnServers, StateConformance):
    async def time_passes(self, units: float) -> None:
        self.place.age(units * self.unit_s)


class TestLimit(OnServers, LimitConformance):
    async def time_passes(self, units: float) -> None:
        self.env.forward(units * self.unit_s)
        self.place.age(units * self.unit_s)


class TestChannel(OnServers, ChannelConformance):
    pass


class TestCache(OnServers, CacheConformance):
    async def later(self, seconds: float) -> None:
        self.place.age(seconds)


class TestStateThroughTheFacade(StateFacadeConformance):
    @pytest.fixture(name="config", params=SERVERS)
    def given_config(self, request: pytest.FixtureRequest) -> Iterator[Config]:
        place = Place(url_of(request.param))
        live = {"url": place.url, "roles": ["live_state"], "options": {"prefix": place.prefix}}
        yield {"stores": {"main": {"url": "memory:"}, "live": live}}
        place.clear()


def test_the_adapter_claims_what_is_tested_here() -> None:
    assert {one.__name__ for one in RedisRepository.capabilities} == {
        "SupportsSchema",
        "SupportsState",
        "SupportsCache",
        "SupportsFilter",
    }
