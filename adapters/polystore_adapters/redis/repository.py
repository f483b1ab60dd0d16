"""A server as a repository: live state, caches, and records as a home with a journal has them."""

from __future__ import annotations

from collections.abc import Sequence

from polystore.env import Env
from polystore.errors import UnsupportedOperation
from polystore.filters import Checked, Sort
from polystore.model import Change, HashSpan, Instance, Key, Limits, Outcome, Page, Record
from polystore.protocols import Layout, SupportsCache, SupportsFilter, SupportsSchema, SupportsState
from polystore_adapters.redis import finding
from polystore_adapters.redis.cache import CacheCalls
from polystore_adapters.redis.channels import ChannelCalls
from polystore_adapters.redis.limits import LimitCalls
from polystore_adapters.redis.options import Options
from polystore_adapters.redis.prepare import prepare
from polystore_adapters.redis.records import Records
from polystore_adapters.redis.server import Server
from polystore_adapters.redis.state import StateCalls
from polystore_adapters.redis.urls import Client


class RedisRepository(CacheCalls, StateCalls, LimitCalls, ChannelCalls):
    """Any number of processes may share a server. `client` is the driver's own object."""

    capabilities: frozenset[type] = frozenset({SupportsSchema, SupportsState, SupportsCache, SupportsFilter})
    limits: Limits = Limits(ack_durable=False)

    def __init__(self, server: Server, env: Env, options: Options) -> None:
        self._server = server
        self._env = env
        self._records = Records(server, env, options.tombstone_ttl_s)
        self._find_max = options.find_max
        self._begin_channels()

    @property
    def client(self) -> Client:
        return self._server.client

    async def prepare(self, layouts: Sequence[Layout], *, create: bool) -> None:
        facts = [layout.entity.name for layout in layouts if layout.kind == "fact"]
        if facts:
            raise UnsupportedOperation(
                f"a redis: store holds records, state and caches, no facts of {', '.join(facts)}"
            )
        await prepare(self._records, [layout for layout in layouts if layout.kind == "record"], create=create)

    async def ping(self) -> Instance:
        said = await self._server.info("server")
        data_id = await self._server.one(("GET", self._server.keys.data), writes=False)
        name = said[0].get("server_name", "redis")
        version = said[0].get(f"{name}_version", said[0]["redis_version"])
        run = " ".join(one["run_id"] for one in said)
        return Instance(name, version, run, "" if data_id is None else data_id.decode())

    async def aclose(self) -> None:
        await self._end_channels()
        await self._server.aclose()

    # -- records ----------------------------------------------------------------------------------------------

    async def get(self, keys: Sequence[Key]) -> list[Record | None]:
        return await self._records.get(keys)

    async def apply(self, changes: Sequence[Change]) -> list[Outcome]:
        return await self._records.apply(changes)

    async def scan(self, etype: str, tenant: str, span: HashSpan, cursor: str | None, limit: int) -> Page:
        return await self._records.scan(etype, tenant, span, cursor, limit)

    async def tenants(self, etype: str) -> list[str]:
        return await self._records.tenants(etype)

    async def newest(self, etype: str) -> int:
        return await self._records.newest(etype)

    async def find(
        self, etype: str, tenant: str, where: Checked | None, order: Sequence[Sort], limit: int
    ) -> list[Record]:
        return await finding.find(self._records, etype, tenant, where, order, limit, self._find_max)

    async def count(self, etype: str, tenant: str, where: Checked | None) -> int:
        return await finding.count(self._records, etype, tenant, where, self._find_max)
