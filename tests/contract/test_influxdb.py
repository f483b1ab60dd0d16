"""The kit against the InfluxDB adapter: points of measures, and nothing else."""

from collections.abc import Iterator

import pytest
from polystore_adapters.influxdb import InfluxRepository, connect

from polystore.env import Env
from polystore.protocols import Repository
from polystore.testing.conformance import Connect, TimeRangeConformance, layered
from polystore.testing.places.influxdb import own_bucket
from tests.stack import server

influxdb = server("influxdb")


class TestTimeRange(TimeRangeConformance):
    @pytest.fixture(params=["bare", "under all layers"])
    def connect(self, request: pytest.FixtureRequest, influxdb: str) -> Iterator[Connect]:
        with own_bucket(influxdb) as url:

            async def connected(env: Env) -> Repository:
                return await connect(url, {}, env)

            yield connected if request.param == "bare" else layered(connected)


def test_the_adapter_claims_what_is_tested_here() -> None:
    assert {one.__name__ for one in InfluxRepository.capabilities} == {"SupportsTimeRange", "SupportsSchema"}
