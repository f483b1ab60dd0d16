"""The kit against the InfluxDB adapter: points of measures, and nothing else."""

from collections.abc import Iterator

import pytest
from polystore_adapters.influxdb import InfluxRepository, connect

from polystore.env import Env
from polystore.errors import InvalidData
from polystore.protocols import Repository
from polystore.testing.conformance import Connect, TimeRangeConformance, layered
from polystore.testing.conformance.facts import FAR, MOOD, rows
from tests.influxdb import own_bucket
from tests.stack import server

influxdb = server("influxdb")


class TestTimeRange(TimeRangeConformance):
    types = ()  # it holds no records

    @pytest.fixture(params=["bare", "under all layers"])
    def connect(self, request: pytest.FixtureRequest, influxdb: str) -> Iterator[Connect]:
        with own_bucket(influxdb) as url:

            async def connected(env: Env) -> Repository:
                return await connect(url, {}, env)

            yield connected if request.param == "bare" else layered(connected)

    async def test_times_from_the_first_to_the_last_year(self) -> None:
        """Nanoseconds in 64 bits: 1677 to 2262. Others are refused before anything is sent."""
        store = await self.open()
        for far in FAR:
            with pytest.raises(InvalidData, match="1678 to 2261"):
                await store.append_points(rows(MOOD, [1.0], start=far))
        assert await self.all(store) == []
        near = [-9_214_646_400_000_000, -1, 0, 9_151_488_000_000_000]
        for i, at in enumerate(near):
            await store.append_points(rows(MOOD, [float(i)], start=at))
        assert [at for at, _ in await self.all(store)] == near


def test_the_adapter_claims_what_is_tested_here() -> None:
    assert {one.__name__ for one in InfluxRepository.capabilities} == {"SupportsTimeRange", "SupportsSchema"}
