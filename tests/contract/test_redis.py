"""The kit against the Redis adapter: Redis and Valkey, bare and under all layers; Sentinel and Cluster."""

from collections.abc import Iterator

import pytest
from polystore_adapters.redis.repository import RedisRepository

from polystore.env import Env
from polystore.protocols import Repository
from polystore.testing.conformance import (
    CacheConformance,
    ChannelConformance,
    Connect,
    LimitConformance,
    StateConformance,
    layered,
)
from polystore.testing.conformance.facade import Config
from polystore.testing.conformance.facade_state import StateFacadeConformance
from tests.redis_servers import SERVERS, Place
from tests.stack import url_of


class OnServers:
    """Time goes by at once: what is stored grows older."""

    place: Place

    @pytest.fixture(params=[*SERVERS, "redis under all layers"])
    def connect(self, request: pytest.FixtureRequest) -> Iterator[Connect]:
        self.place = Place(url_of(request.param.split()[0]))
        self.place.keys()  # connected before the test, whose time it would take

        async def connected(env: Env) -> Repository:
            return await self.place.connect(env)

        yield connected if request.param in SERVERS else layered(connected)
        self.place.clear()


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
    }
